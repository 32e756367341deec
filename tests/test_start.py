"""Training on from another captioner: old words keep ids and weights, new ones are added."""

import numpy as np
import pytest
from keras import ops

from sat_keras import Captioner, Config, Tokenizer
from sat_keras.training.start import make_tokenizer, take_weights

OLD, NEW = ["a red dog", "a cat"], ["a blue zeppelin", "a blue cat"]
PARTS = {
    "plain": {},
    "tied": {"tie_embeddings": True},
    "shallow": {"use_deep_output": False},
    # As wide as there are words, so that sizes alone do not tell which axis is theirs.
    "square": {"embedding_dim": 8, "hidden_dim": 8, "tie_embeddings": False},
}


@pytest.fixture(params=PARTS)
def config(request):
    return Config.tiny().replace(**PARTS[request.param])


@pytest.fixture
def start(config):
    captioner = Captioner(config, Tokenizer.from_captions(OLD))
    for variable in captioner.decoder.weights:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    return captioner


def logits(captioner, token_ids):
    annotations = np.random.default_rng(1).normal(size=(1, 4, 8)).astype("float32")
    inputs = {"annotations": annotations, "token_ids": np.array([[token_ids]])}
    return ops.convert_to_numpy(captioner(inputs)["logits"])[0, 0]


def test_an_extended_vocabulary_keeps_old_ids():
    old = Tokenizer.from_captions(OLD)
    extended = old.extended(NEW)
    assert extended.get_vocabulary() == [*old.get_vocabulary(), "blue", "zeppelin"]
    assert old.extended(OLD) == old
    assert old.extended(NEW, min_count=2).get_vocabulary() == [*old.get_vocabulary(), "blue"]


def test_old_words_keep_their_logits_and_new_ones_are_typical(config, start):
    extended = Captioner(config, make_tokenizer(config, NEW, start, "extend"))
    fresh = [w.copy() for w in extended.decoder.get_weights()]
    take_weights(extended, start)
    before, after = (logits(model, [2, 4, 5]) for model in (start, extended))
    known = start.tokenizer.vocabulary_size
    np.testing.assert_allclose(after[:, :known], before, atol=1e-5)
    old, new, first = (
        ops.convert_to_numpy(x)
        for x in (
            start.decoder.embedding.embeddings,
            extended.decoder.embedding.embeddings,
            fresh[0],
        )
    )
    np.testing.assert_allclose(new[known:], first[known:] + old.mean(axis=0), atol=1e-6)
    assert len(np.unique(new.round(6), axis=0)) == len(new)  # no two words alike


def test_a_kept_vocabulary_keeps_all_logits(config, start):
    kept = Captioner(config, make_tokenizer(config, NEW, start, "keep"))
    take_weights(kept, start)
    np.testing.assert_allclose(logits(kept, [2, 4]), logits(start, [2, 4]), atol=1e-6)
    assert kept.tokenizer == start.tokenizer


def test_words_of_the_captions_alone_must_be_the_same(config, start):
    other = Captioner(config, make_tokenizer(config, NEW, start))
    with pytest.raises(ValueError, match="extend or keep its `vocabulary`"):
        take_weights(other, start)


@pytest.mark.parametrize("vocabulary", ["extend", "keep", "extended"])
def test_a_vocabulary_needs_a_captioner_to_start_from(vocabulary):
    with pytest.raises(ValueError, match="`vocabulary` must be one of captions, extend, keep"):
        make_tokenizer(Config.tiny(), OLD, None, vocabulary)
