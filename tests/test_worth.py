"""What attention is worth, against decoders that attend as the replaced weights say."""

import itertools

import numpy as np
import pytest
from keras import ops

from sat_keras.analysis.worth import attention_worth
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner

pytestmark = pytest.mark.graph

TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "red", "circle"])
CAPTIONS = [["a", "red", "circle"], ["red"], ["a", "circle"]]
CONFIG = Config.tiny().replace(grid_shape=(2, 3), feature_dim=4)


@pytest.fixture(scope="module")
def captioner():
    captioner = Captioner(CONFIG, TOKENIZER)
    generator = np.random.default_rng(0)
    for weight in captioner.decoder.trainable_variables:
        weight.assign(generator.normal(size=weight.shape))
    return captioner


@pytest.fixture(scope="module")
def annotations():
    return np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")


def log_probability(captioner, picture, words, attention=None):
    """log p of every word and the end, step by step; `attention(alpha)` replaces the weights."""
    decoder = captioner.decoder
    annotations, keys = decoder.read_annotations(picture[None])
    hidden, cell = decoder.initial_state(annotations)
    states = {"hidden": hidden, "cell": cell}
    ids = [2, *(TOKENIZER.get_vocabulary().index(word) for word in words), 3]
    call, found = decoder.attention.call, []

    class Replaced:
        """Soft attention whose weights are replaced."""

        def __call__(self, h, annotations, **options):
            _, weights = call(h, annotations, **options)
            weights = ops.convert_to_tensor(attention(ops.convert_to_numpy(weights)))
            return ops.matmul(weights, annotations), weights

    for previous, token in itertools.pairwise(ids):
        word = decoder.embedding(np.array([[previous]]))
        attend = decoder.attention
        if attention is not None:
            object.__setattr__(decoder, "attention", Replaced())
        try:
            states, step = decoder.recurrent_step(word, states, annotations, keys)
        finally:
            object.__setattr__(decoder, "attention", attend)
        logits = ops.convert_to_numpy(
            decoder.predict_words(word, states["hidden"], step["context"])
        )[0, 0].astype("float64")
        found.append(logits[token] - np.log(np.exp(logits).sum()))
    return np.array(found)


def test_uniform_and_permuted_weights(captioner, annotations):
    found = attention_worth(captioner, annotations, CAPTIONS, seed=3)
    order = np.random.default_rng(3).permuted(np.tile(np.arange(6), (3, 1)), axis=1)
    for row, (picture, words) in enumerate(zip(annotations, CAPTIONS, strict=True)):
        own = log_probability(captioner, picture, words).sum()
        uniform = log_probability(captioner, picture, words, lambda a: np.full_like(a, 1 / 6))
        permuted = log_probability(captioner, picture, words, lambda a, r=row: a[..., order[r]])
        assert found["uniform_cost"][row] == pytest.approx(
            [own - uniform.sum(), len(words) + 1], abs=1e-4
        )
        assert found["permuted_cost"][row, 0] == pytest.approx(own - permuted.sum(), abs=1e-4)


def test_the_weights_of_the_next_picture(captioner, annotations):
    same = np.repeat(annotations[:1], 3, axis=0)
    found = attention_worth(captioner, same, CAPTIONS)
    np.testing.assert_allclose(found["other_cost"][:, 0], 0, atol=1e-5)
    found = attention_worth(captioner, annotations, CAPTIONS)
    assert np.abs(found["other_cost"][:, 0]).min() > 1e-3


def test_attention_that_ignores_the_picture_is_worth_nothing(annotations):
    captioner = Captioner(CONFIG, TOKENIZER)
    captioner.decoder.attention.score_vector.kernel.assign(np.zeros((CONFIG.attention_dim, 1)))
    for values in attention_worth(captioner, annotations, CAPTIONS).values():
        np.testing.assert_allclose(values[:, 0], 0, atol=1e-5)


def test_one_picture_is_refused(captioner, annotations):
    with pytest.raises(ValueError, match="two pictures.*Received"):
        attention_worth(captioner, annotations[:1], CAPTIONS[:1])
