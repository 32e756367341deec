"""Occlusion on a decoder whose answer is known, and against one forward pass a word."""

import numpy as np
import pytest
from keras import ops

from sat_keras.analysis import hidden_regions, summary
from sat_keras.analysis.curves import SHARES, curve_statistics, word_curves
from sat_keras.analysis.occlusion import CHOICES, occlusion_statistics
from sat_keras.captioning.caption import Caption
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import START_ID, Tokenizer
from sat_keras.paper.captioner import Captioner

TOKENIZER = Tokenizer.from_captions(["a dog runs", "a red cat sits"])
REGIONS, WORDS = 6, TOKENIZER.vocabulary_size
ANNOTATIONS = np.random.default_rng(0).normal(size=(3, REGIONS, WORDS)).astype("float32")
TEXTS = ("a dog", "a red cat sits", "")


class OneRegion:
    """A decoder whose word rests on nothing but one region: its vector are the logits."""

    tokenizer = TOKENIZER

    def __init__(self, region):
        self.region = region

    def __call__(self, inputs):
        steps = inputs["token_ids"].shape[-1]
        logits = inputs["annotations"][:, None, None, self.region]
        return {"logits": ops.repeat(ops.convert_to_tensor(logits), steps, axis=2)}


def looking_at(region, texts=TEXTS, grid=(2, 3)):
    """Captions whose every word looks at one region, and evenly at the others."""
    captions = []
    for text in texts:
        words = text.split()
        maps = np.full((len(words), REGIONS), 0.1)
        maps[:, region] = 0.5
        captions.append(Caption(text, words, maps.reshape(-1, *grid), np.ones(len(words)), 0.0))
    return captions


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def known_drops(region):
    """Sums over the words of what the drop is if the decoder's region is hidden."""
    ids = {word: i for i, word in enumerate(TOKENIZER.get_vocabulary())}
    drops = log_softmax(ANNOTATIONS[:, region]) - log_softmax(ANNOTATIONS.mean(axis=1))
    return [sum(row[ids[w]] for w in t.split()) for row, t in zip(drops, TEXTS, strict=True)]


def test_attention_at_the_region_that_counts():
    found = occlusion_statistics(OneRegion(4), ANNOTATIONS, looking_at(4), share=1 / REGIONS)
    np.testing.assert_allclose(found["occlusion_attended"][:, 0], known_drops(4), rtol=1e-4)
    np.testing.assert_array_equal(found["occlusion_least"][:, 0], 0)
    for values in found.values():
        np.testing.assert_array_equal(values[:, 1], [2, 4, 0])
    difference = found["occlusion_attended"][:, 0] - found["occlusion_random"][:, 0]
    np.testing.assert_allclose(found["faithfulness"][:, 0], difference, atol=1e-5)


def test_attention_elsewhere_is_not_faithful():
    found = occlusion_statistics(OneRegion(4), ANNOTATIONS, looking_at(1), share=1 / REGIONS)
    np.testing.assert_array_equal(found["occlusion_attended"][:, 0], 0)
    # Of the five regions that are looked at least, one by chance for each word.
    assert set(np.unique(found["occlusion_least"][:, 0])) - {0.0}


def test_random_regions_hide_the_one_that_counts_by_their_share():
    texts = ("a " * 400,)
    found = occlusion_statistics(
        OneRegion(4), ANNOTATIONS[:1], looking_at(1, texts), share=2 / REGIONS
    )
    always = occlusion_statistics(OneRegion(4), ANNOTATIONS[:1], looking_at(4, texts), share=1)
    attended, random, least = (found[f"occlusion_{name}"][0, 0] for name in CHOICES)
    assert found["faithfulness"][0, 0] == pytest.approx(attended - random, rel=1e-4)
    assert random != pytest.approx(least, rel=1e-2)
    ratio = found["occlusion_random"][0, 0] / always["occlusion_attended"][0, 0]
    assert ratio == pytest.approx(2 / REGIONS, abs=0.07)


@pytest.mark.parametrize(
    "changes", [{}, {"attention": "hard"}, {"attention": "hard", "context": "argmax"}]
)
def test_batches_are_one_forward_pass_a_word(changes):
    config = Config.tiny().replace(grid_shape=(2, 3), feature_dim=WORDS, **changes)
    captioner = Captioner(config, TOKENIZER)
    ids = {word: i for i, word in enumerate(TOKENIZER.get_vocabulary())}
    captions = looking_at(2)
    found = occlusion_statistics(captioner, ANNOTATIONS, captions, share=1 / REGIONS)

    def log_probability(annotations, words, step):
        token_ids = [START_ID, *(ids[word] for word in words)]
        outputs = captioner({"annotations": annotations, "token_ids": np.array([[token_ids[:-1]]])})
        row = ops.convert_to_numpy(outputs["logits"])[0, 0, step]
        return log_softmax(row)[token_ids[step + 1]]

    for picture, caption in enumerate(captions):
        whole = ANNOTATIONS[picture : picture + 1]
        hidden = whole.copy()
        hidden[:, 2] = whole.mean(axis=1)
        steps = range(len(caption.words))
        before, after = (
            sum(log_probability(annotations, caption.words, step) for step in steps)
            for annotations in (whole, hidden)
        )
        assert found["occlusion_attended"][picture, 0] == pytest.approx(before - after, abs=1e-5)
    assert np.abs(found["occlusion_attended"][:2, 0]).min() > 1e-4


def test_hidden_vectors_are_the_mean_and_no_others_change():
    seen = []

    class Spy(OneRegion):
        def __call__(self, inputs):
            seen.append(inputs["annotations"])
            return super().__call__(inputs)

    before = ANNOTATIONS.copy()
    occlusion_statistics(Spy(0), ANNOTATIONS[:1], looking_at(0)[:1], share=0.5)
    np.testing.assert_array_equal(ANNOTATIONS, before)
    rows = np.concatenate([ops.convert_to_numpy(x) for x in seen])
    is_whole = (rows == ANNOTATIONS[0]).all(axis=(1, 2))
    mean = ANNOTATIONS[0].mean(axis=0)
    assert is_whole.sum() * 4 == len(rows)  # each word's picture whole and by 3 choices
    for row in rows[~is_whole]:
        is_mean = np.isclose(row, mean).all(axis=-1)
        is_whole = (row == ANNOTATIONS[0]).all(axis=-1)
        assert is_mean.sum() == 3
        assert (is_mean | is_whole).all()


def test_of_a_small_share_one_region_is_hidden():
    captions = looking_at(4)
    least = occlusion_statistics(OneRegion(4), ANNOTATIONS, captions, share=1e-6)
    one = occlusion_statistics(OneRegion(4), ANNOTATIONS, captions, share=1 / REGIONS)
    np.testing.assert_array_equal(least["occlusion_attended"], one["occlusion_attended"])
    assert np.abs(least["occlusion_attended"][:2, 0]).min() > 0.01


def test_hiding_all_regions_is_the_same_by_any_choice():
    found = occlusion_statistics(OneRegion(4), ANNOTATIONS, looking_at(1), share=1)
    for choice in CHOICES:
        np.testing.assert_allclose(found[f"occlusion_{choice}"][:, 0], known_drops(4), rtol=1e-4)
    np.testing.assert_array_equal(found["faithfulness"][:, 0], 0)


def test_nothing_to_hide_for():
    none = occlusion_statistics(OneRegion(4), ANNOTATIONS[:0], [])
    empty = occlusion_statistics(OneRegion(4), ANNOTATIONS[:2], looking_at(4, ("", "")))
    assert set(none) == {*(f"occlusion_{choice}" for choice in CHOICES), "faithfulness"}
    for pictures, found in ((0, none), (2, empty)):
        for values in found.values():
            np.testing.assert_array_equal(values, np.zeros((pictures, 2)))


def test_many_words_are_decoded_in_batches(monkeypatch):
    """Words in several batches drop as much as in one, however they are sorted."""
    rows = REGIONS * WORDS
    monkeypatch.setattr(hidden_regions, "_NUMBERS", 64 * rows)
    captions = looking_at(4, 40 * TEXTS)
    found = occlusion_statistics(
        OneRegion(4), np.tile(ANNOTATIONS, (40, 1, 1)), captions, share=1 / REGIONS
    )
    np.testing.assert_allclose(
        found["occlusion_attended"][:, 0], np.tile(known_drops(4), 40), rtol=1e-4
    )


def test_a_data_set_is_scored_a_few_pictures_at_a_time(monkeypatch):
    """Parts that hold two pictures each draw the same regions as one call over all pictures."""
    captions = dict(enumerate(looking_at(1, 3 * TEXTS)))
    annotations = np.tile(ANNOTATIONS, (3, 1, 1))
    held = []

    def annotate(captioner, source, image_ids):
        held.append(len(image_ids))
        return source[image_ids]

    monkeypatch.setattr(summary, "annotate_pictures", annotate)
    monkeypatch.setattr(summary, "PIXEL_BATCH", 2)
    monkeypatch.setattr(summary, "_CURVE_PICTURES", 3)
    found, curves = summary._occlusion(OneRegion(4), annotations, list(captions), captions)
    assert held == [2, 2, 2, 2, 1]
    expected = occlusion_statistics(OneRegion(4), annotations, list(captions.values()))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)
    # The first two parts, which begin before the third picture.
    orders, parts = np.random.default_rng(0), []
    for first in (0, 2):
        part = [captions[first], captions[first + 1]]
        at, words = word_curves(OneRegion(4), annotations[first : first + 2], part, seed=orders)
        areas = curve_statistics(at, words, 2)["deletion"]
        np.testing.assert_allclose(found["deletion"][first : first + 2], areas, rtol=1e-5)
        parts.append(words["deletion"])
    mean = np.concatenate(parts).mean(axis=0)
    np.testing.assert_allclose(curves["deletion"], mean, rtol=1e-5)
    assert curves["share"] == list(SHARES)
    assert len(found["rank_correlation"]) == 4


@pytest.mark.parametrize(("pictures", "share"), [(2, 0.1), (3, 0), (3, 1.1), (3, -0.1)])
def test_mistakes(pictures, share):
    with pytest.raises(ValueError, match="must be a caption .* Received: "):
        occlusion_statistics(OneRegion(0), ANNOTATIONS[:pictures], looking_at(0), share=share)
