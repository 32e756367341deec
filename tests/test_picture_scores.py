"""Scores of resampled pictures against scoring their captions, and encoded statistics."""

import base64

import numpy as np
import pytest

from sat_keras.evaluation.java import meteor_of_sums
from sat_keras.evaluation.metrics import corpus_bleu
from sat_keras.evaluation.scores import PYTHON_METRICS, score_captions, score_pictures
from sat_keras.evaluation.statistics import PictureScores

WORDS = np.array(["a", "b", "c", "d", "e"])


@pytest.fixture
def corpus():
    """Captions of eight pictures by image id, one of them empty, and two references of each."""
    generator = np.random.default_rng(3)

    def sentence():
        return " ".join(generator.choice(WORDS, generator.integers(3, 9)))

    candidates = {f"{i}": sentence() for i in range(8)} | {"5": ""}
    return candidates, {image_id: [sentence(), sentence()] for image_id in candidates}


def test_scores_are_those_of_the_one_call(corpus):
    pictures = score_pictures(*corpus)
    assert pictures.scores() == score_captions(*corpus)
    assert pictures.scores(["paper"]) == score_captions(*corpus, protocols=["paper"])
    assert pictures.pictures == 8
    names = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"]
    assert pictures.keys() == [(protocol, n) for protocol in ("coco", "paper") for n in names]


def test_a_drawn_corpus_has_the_scores_of_its_captions(corpus):
    candidates, references = corpus
    weights = np.array([[0, 3, 1, 0, 0, 2, 1, 1], [8, 0, 0, 0, 0, 0, 0, 0]])
    scores = score_pictures(candidates, references).array(weights)
    assert scores.shape == (2, 12)
    each = score_pictures(candidates, references).each()
    for draw, found in zip(weights, scores, strict=True):
        drawn = [i for i, n in zip(candidates, draw, strict=True) for _ in range(n)]
        tokens = [candidates[i].split() for i in drawn]
        truths = [[caption.split() for caption in references[i]] for i in drawn]
        np.testing.assert_allclose(found[:4], corpus_bleu(tokens, truths))
        np.testing.assert_allclose(found[6:10], corpus_bleu(tokens, truths, brevity_penalty=False))
        for name, value in zip(("rouge_l", "cider"), found[4:6], strict=True):
            assert value == pytest.approx(np.mean([each[name][int(i)] for i in drawn]))


def test_each_picture_is_scored_as_a_corpus_of_its_own(corpus):
    candidates, references = corpus
    each = score_pictures(candidates, references).each("paper")
    for i in candidates:
        alone = score_captions({i: candidates[i]}, {i: references[i]})["paper"]
        for name in ("bleu1", "bleu4", "rouge_l"):
            assert each[name][int(i)] == pytest.approx(alone[name])


def test_meteor_is_made_of_sums():
    statistics = np.random.default_rng(0).uniform(1, 2, size=(3, 6))
    pictures = PictureScores({"meteor": statistics})
    assert pictures.scores()["coco"]["meteor"] == pytest.approx(
        meteor_of_sums(statistics.sum(axis=0))
    )
    np.testing.assert_allclose(pictures.each()["meteor"], meteor_of_sums(statistics))


def test_intervals_are_around_the_scores(corpus):
    pictures = score_pictures(*corpus)
    scores, intervals = pictures.scores(), pictures.intervals(samples=2000)
    for protocol, named in scores.items():
        assert list(intervals[protocol]) == list(named)
        for name, score in named.items():
            low, high = intervals[protocol][name]
            assert low < score < high
    many = {metric: np.tile(values, (25, 1)) for metric, values in pictures.statistics.items()}
    narrow = PictureScores(many).intervals(samples=2000)["coco"]["rouge_l"]
    wide = intervals["coco"]["rouge_l"]
    assert (wide[1] - wide[0]) / (narrow[1] - narrow[0]) == pytest.approx(5, rel=0.1)
    assert pictures.intervals(samples=50) == pictures.intervals(samples=50)


def test_statistics_survive_as_text(corpus):
    pictures = score_pictures(*corpus)
    text = pictures.encode()
    assert text == pictures.encode()
    found = PictureScores.decode(text)
    assert list(found.statistics) == [*PYTHON_METRICS, "written_bleu"]
    np.testing.assert_allclose(found.array(), pictures.array(), rtol=1e-6)


def test_statistics_of_a_thousand_pictures_are_small():
    generator = np.random.default_rng(0)
    statistics = {
        "bleu": generator.integers(0, 15, size=(1000, 10)).astype("float64"),
        "meteor": generator.integers(0, 200, size=(1000, 6)) * 0.05,
        "rouge_l": generator.random((1000, 1)),
        "cider": generator.random((1000, 1)),
    }
    assert len(PictureScores(statistics).encode()) < 40_000


@pytest.mark.parametrize("text", ["", "no text of ours", base64.b64encode(b"PK no zip").decode()])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="must be what `sat-keras evaluate` wrote.* Received: "):
        PictureScores.decode(text)


def test_bad_statistics():
    with pytest.raises(ValueError, match="must have .* Received: {'rouge': 2}"):
        PictureScores({"rouge": np.ones((2, 1))})
    with pytest.raises(ValueError, match="must have .* Received: {'rouge_l': 2, 'cider': 3}"):
        PictureScores({"rouge_l": np.ones((2, 1)), "cider": np.ones((3, 1))})
