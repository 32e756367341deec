"""Deletion, insertion, rank correlation and ranking, against decoders whose answer is known."""

import numpy as np
import pytest
from keras import ops
from test_faithfulness import (
    ANNOTATIONS,
    REGIONS,
    TEXTS,
    TOKENIZER,
    WORDS,
    OneRegion,
    log_softmax,
    looking_at,
)

from sat_keras.analysis.curves import (
    CURVES,
    curve_statistics,
    rank_correlation_statistics,
    word_curves,
)
from sat_keras.analysis.hidden_regions import HiddenRegions
from sat_keras.analysis.ranking import (
    caption_log_probabilities,
    ranking_statistics,
    ranks_of_pictures,
)
from sat_keras.captioning.caption import Caption
from sat_keras.config.config import Config
from sat_keras.paper.captioner import Captioner

SHARES = (0.0, 1 / 6, 0.5, 1.0)
IDS = {word: i for i, word in enumerate(TOKENIZER.get_vocabulary())}


def probabilities(vectors):
    """p of every word of the captions by a picture's logits, in the order of `word_curves`."""
    words = [(t, p, w) for p, text in enumerate(TEXTS) for t, w in enumerate(text.split())]
    log_p = log_softmax(vectors)
    return np.exp([log_p[p, IDS[word]] for _, p, word in sorted(words, key=lambda x: x[:1])])


def test_curves_of_attention_at_the_region_that_counts():
    pictures, curves = word_curves(OneRegion(4), ANNOTATIONS, looking_at(4), SHARES)
    seen, hidden = probabilities(ANNOTATIONS[:, 4]), probabilities(ANNOTATIONS.mean(axis=1))
    assert sorted(pictures) == [0, 0, 1, 1, 1, 1]
    columns = [seen, hidden, hidden, hidden]
    np.testing.assert_allclose(curves["deletion"], np.stack(columns, axis=1), rtol=1e-4)
    columns = [hidden, seen, seen, seen]
    np.testing.assert_allclose(curves["insertion"], np.stack(columns, axis=1), rtol=1e-4)
    for name in ("deletion_random", "insertion_random"):  # one or the other, more often with share
        is_seen, is_hidden = (np.isclose(curves[name], p[:, None]) for p in (seen, hidden))
        assert (is_seen | is_hidden).all()
        assert is_seen[:, 0].all() == (name == "deletion_random")


def test_a_random_order_hides_a_region_by_its_share():
    texts = ("a " * 300,)
    _, curves = word_curves(OneRegion(4), ANNOTATIONS[:1], looking_at(1, texts), SHARES)
    seen, hidden = (
        np.exp(log_softmax(x)[IDS["a"]]) for x in (ANNOTATIONS[0, 4], ANNOTATIONS[0].mean(0))
    )
    gone = (curves["deletion_random"].mean(axis=0) - seen) / (hidden - seen)
    np.testing.assert_allclose(gone, SHARES, atol=0.08)
    there = (curves["insertion_random"].mean(axis=0) - hidden) / (seen - hidden)
    np.testing.assert_allclose(there, SHARES, atol=0.08)


def test_areas_by_hand():
    curves = {"deletion": np.array([[1.0, 0.5, 0.0], [0.2, 0.2, 0.2], [0.0, 0.0, 1.0]])}
    found = curve_statistics(np.array([0, 0, 2]), curves, 3, shares=(0.0, 0.25, 1.0))
    # 0.25 * 0.75 + 0.75 * 0.25; 0.2; 0.75 * 0.5
    np.testing.assert_allclose(found["deletion"], [[0.575, 2], [0, 0], [0.375, 1]])


def test_curves_of_a_captioner_are_those_of_one_forward_pass_a_word():
    captioner = Captioner(Config.tiny().replace(grid_shape=(2, 3), feature_dim=WORDS), TOKENIZER)
    captions = looking_at(2)
    pictures, curves = word_curves(captioner, ANNOTATIONS, captions, SHARES)
    hidden = ANNOTATIONS[1].copy()
    hidden[2] = hidden.mean(axis=0)  # the region with the largest weight
    token_ids = np.array([[[2, *(IDS[word] for word in captions[1].words)]]])
    logits = ops.convert_to_numpy(
        captioner({"annotations": hidden[None], "token_ids": token_ids[..., :-1]})["logits"]
    )[0, 0]
    rows = np.exp(log_softmax(logits)[np.arange(4), token_ids[0, 0, 1:]])
    np.testing.assert_allclose(curves["deletion"][pictures == 1, 1], rows, rtol=1e-4)


def test_nothing_to_draw():
    pictures, curves = word_curves(OneRegion(4), ANNOTATIONS[:1], looking_at(4, ("",)), SHARES)
    assert set(curves) == set(CURVES)
    for values in curve_statistics(pictures, curves, 1, SHARES).values():
        np.testing.assert_array_equal(values, [[0, 0]])
    found = rank_correlation_statistics(OneRegion(4), ANNOTATIONS[:1], looking_at(4, ("",)))
    np.testing.assert_array_equal(found["rank_correlation"], [[0, 0]])


def test_ranks_agree_where_attention_marks_the_region_that_counts():
    found = rank_correlation_statistics(OneRegion(4), ANNOTATIONS, looking_at(4), block=1)
    seen, hidden = (log_softmax(x) for x in (ANNOTATIONS[:, 4], ANNOTATIONS.mean(axis=1)))
    for picture, text in enumerate(TEXTS):
        signs = [np.sign(seen[picture, IDS[w]] - hidden[picture, IDS[w]]) for w in text.split()]
        np.testing.assert_allclose(found["rank_correlation"][picture], [sum(signs), len(signs)])


class Sum:
    """A decoder whose logits are weighted sums of the regions."""

    tokenizer = TOKENIZER
    weights = np.array([0.1, -0.7, 0.4, 0.9, 0.2, 0.3], "float32")

    def __call__(self, inputs):
        logits = ops.einsum("r,brd->bd", self.weights, inputs["annotations"])
        steps = inputs["token_ids"].shape[-1]
        return {"logits": ops.tile(logits[:, None, None], (1, 1, steps, 1))}


@pytest.mark.parametrize(("block", "blocks"), [(1, 6), (2, 2)])
def test_ranks_are_scipys(block, blocks):
    stats = pytest.importorskip("scipy.stats")
    attention = np.array([0.1, 0.1, 0.3, 0.2, 0.25, 0.05])
    caption = Caption("a", ["a"], attention.reshape(1, 2, 3), np.ones(1), 0.0)
    found = rank_correlation_statistics(Sum(), ANNOTATIONS[:1], [caption], block)
    at = np.arange(6) if block == 1 else np.array([0, 0, 1, 0, 0, 1])
    drops = []
    for number in range(blocks):
        hidden = ANNOTATIONS[:1].copy()
        hidden[0, at == number] = ANNOTATIONS[0].mean(axis=0)
        whole, less = (
            log_softmax(np.einsum("r,brd->bd", Sum.weights, x))[0, IDS["a"]]
            for x in (ANNOTATIONS[:1], hidden)
        )
        drops.append(whole - less)
    expected = stats.spearmanr(np.bincount(at, attention), drops).statistic
    np.testing.assert_allclose(found["rank_correlation"], [[expected, 1]], rtol=1e-6)


@pytest.mark.graph
def test_every_word_of_a_caption_is_ranked_as_if_alone():
    """Captions of several lengths in one compiled model, shared by two calls."""
    stats = pytest.importorskip("scipy.stats")
    captioner = Captioner(Config.tiny().replace(grid_shape=(2, 3), feature_dim=WORDS), TOKENIZER)
    model = HiddenRegions(captioner)
    generator = np.random.default_rng(3)
    captions = [
        Caption(text, words, generator.random((len(words), 2, 3)), np.ones(len(words)), 0.0)
        for text in TEXTS
        for words in [text.split()]
    ]
    for at in ([0, 1, 2], [1, 2]):
        chosen = [captions[i] for i in at]
        found = rank_correlation_statistics(model, ANNOTATIONS[at], chosen, block=1)
        for i, caption, sums in zip(at, chosen, found["rank_correlation"], strict=True):
            ids = np.array([2, *(IDS[word] for word in caption.words)])
            correlations = []
            for t, weights in enumerate(caption.attention):
                hidden = np.stack([ANNOTATIONS[i]] * REGIONS)
                hidden[np.diag_indices(REGIONS)] = ANNOTATIONS[i].mean(axis=0)
                token_ids = np.stack([ids[None, : t + 1]] * REGIONS)
                logits = captioner({"annotations": hidden, "token_ids": token_ids})["logits"]
                log_p = log_softmax(ops.convert_to_numpy(logits)[:, 0, t])[:, ids[t + 1]]
                correlations.append(stats.spearmanr(weights.ravel(), np.negative(log_p)).statistic)
            np.testing.assert_allclose(sums, [sum(correlations), len(ids) - 1], rtol=1e-6)


@pytest.mark.parametrize("words", [1, 2])
def test_the_size_of_the_batches_changes_nothing(words, monkeypatch):
    """Attention is even at most regions, so that ties are drawn too."""

    def measure():
        curves = word_curves(OneRegion(4), ANNOTATIONS, looking_at(1), SHARES)[1]
        return {**curves, **rank_correlation_statistics(Sum(), ANNOTATIONS, looking_at(4), 1)}

    whole = measure()
    for variants in (len(CURVES) * len(SHARES), REGIONS):
        numbers = words * variants * REGIONS * WORDS
        monkeypatch.setattr("sat_keras.analysis.hidden_regions._NUMBERS", numbers)
        for name, values in measure().items():
            np.testing.assert_allclose(values, whole[name], rtol=1e-5, err_msg=name)


def test_even_attention_has_no_rank():
    caption = Caption("a", ["a"], np.full((1, 2, 3), 1 / 6), np.ones(1), 0.0)
    found = rank_correlation_statistics(Sum(), ANNOTATIONS[:1], [caption], block=1)
    np.testing.assert_array_equal(found["rank_correlation"], [[0, 0]])


def test_log_probabilities_of_captions_for_pictures(monkeypatch):
    monkeypatch.setattr("sat_keras.analysis.ranking._CAPTIONS", 2)
    monkeypatch.setattr("sat_keras.analysis.ranking._PICTURES", 2)
    captioner = Captioner(Config.tiny().replace(grid_shape=(2, 3), feature_dim=WORDS), TOKENIZER)
    rows = [[2, IDS["a"], IDS["dog"], 3, 0], [2, IDS["runs"], 3, 0, 0], [2, IDS["a"], 3, 0, 0]]
    found = caption_log_probabilities(captioner, ANNOTATIONS, np.array(rows))
    for c, row in enumerate(rows):
        ids = np.array(row)[np.array(row) > 0]
        for p, picture in enumerate(ANNOTATIONS):
            logits = captioner({"annotations": picture[None], "token_ids": ids[None, None, :-1]})
            log_p = log_softmax(ops.convert_to_numpy(logits["logits"])[0, 0])
            expected = log_p[np.arange(len(ids) - 1), ids[1:]].sum()
            assert found[c, p] == pytest.approx(expected, rel=1e-4)


def test_ranks_by_hand():
    log_p = np.array([[-3.0, -1.0, -2.0], [-1.0, -4.0, -1.0], [-2.0, -2.0, -1.0]])
    ranks = ranks_of_pictures(log_p, [2, 0, 2])
    np.testing.assert_array_equal(ranks, [2, 1.5, 1])
    found = ranking_statistics(ranks)
    np.testing.assert_array_equal(found["recall_1"], [[0, 1], [0, 1], [1, 1]])
    np.testing.assert_array_equal(found["recall_5"], [[1, 1]] * 3)
