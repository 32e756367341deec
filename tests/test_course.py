"""The checks of the notebooks' exercises: right answers, open ones, and wrong ones by message."""

import re

import course_06_07
import course_08
import course_09
import course_10
import numpy as np
import pytest

from sat_keras import Config
from sat_keras.course import (
    NotYetError,
    camera_boxes,
    camera_caption,
    exercise,
    notebook_01,
    notebook_02,
    notebook_03,
    notebook_04,
    notebook_05,
    notebook_05b,
)
from sat_keras.data import teacher_forcing
from sat_keras.search.loop import SearchResult

CAPTIONS = ["a red ring", "a red star", "a blue ring", "the ring is red", "a", "a small red ring"]
STEPS = np.array([3, 9, 4, 4, 8, 5, 6, 7, 5, 3, 12])
ORDER = np.arange(len(STEPS))


def shares(size):
    batches = np.split(STEPS, range(size, len(STEPS), size))
    return STEPS.sum() / sum(len(batch) * batch.max() for batch in batches)


def shifted(padded):
    return tuple(x.numpy() for x in teacher_forcing(padded))


def dot_product(hidden, keys, annotations, scale=4):
    scores = hidden @ keys.transpose(0, 2, 1) / scale
    alpha = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    return [alpha @ annotations, alpha.tolist()]


SCORES = np.array([0.0, 1.0, 3.0, 2.0, -1.0, 0.5])
COSTS, WEIGHT = np.array([[[1.0, 2.0, 3.0]]]), np.ones((1, 1, 3))
FOUND, BEAMS = (((3, 4, 2),),), (((4, 2, 0), (3, 4, 2)),)  # token ids
ALPHA = np.linspace(0.1, 1, 12).reshape(2, 2, 3)


def heated(p, temperature):
    powers = p ** (1 / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def precision(caption, references):
    most = {word: max(text.count(word) for text in references) for word in caption}
    return sum(min(caption.count(word), most[word]) for word in most) / len(caption)


class Batches:
    """A data set on which `Trained` costs half a nat a word, and two after `map`."""

    cost = 0.5

    def map(self, function):
        batches = Batches()
        batches.cost = 2.0
        return batches


class Trained:
    """A captioner of 100 words that `evaluate` says to cost `cost`, or what its data says."""

    def __init__(self, target="one", weight=0.005, cost=None):
        self.config = Config(penalty_target=target, penalty_weight=weight, vocabulary_size=100)
        self.cost = cost

    def evaluate(self, batches, return_dict, verbose):
        return {"cross_entropy": self.cost or batches.cost, "penalty": 1.0}


# Check, its context, a right answer, and wrong answers with what their messages say.
CASES = {
    "01.1": (
        *(notebook_01.smaller_vocabulary, (CAPTIONS, 7), 2),
        {1: "more than 7: go up", 3: "which is enough", 0.5: "integer", "few": "Expected"},
    ),
    "01.2": (
        *(notebook_01.shift_and_mask, (), shifted),
        {
            lambda x: (x[:, :-1], x[:, 1:], x[:, 1:] > 0): "id of <end>",
            lambda x: (x, x[:, 1:], x[:, 1:] > 0): "must have shape",
            lambda x: shifted(x)[:2]: "three arrays",
            lambda x: (*shifted(x)[:2], 0 * x[:, 1:]): "weight of `padded`",
            lambda x: x.nothing: "raises AttributeError",
        },
    ),
    "01.3": (
        *(notebook_01.padding_of_small_batches, (STEPS, ORDER), 1 - shares(8)),
        {shares(8): "share of words", 40: "no percentage", 1 - shares(4): "every 8", "x": "share"},
    ),
    "01.4": (
        *(notebook_01.unknown_words, (["a b"] * 9, ["a b", "a c", "b a"]), 1 / 3),
        {1 / 6: "unknown \\*words\\*", 2 / 3: "without unknown", 33: "percentage", 0.9: "id 1"},
    ),
    "02.1": (
        *(notebook_02.regions_of_96_pixels, (), 144),
        {12: "one side", 64: "64 x 64", 96**2: "square of a side", (12, 12): "Expected"},
    ),
    "02.2": (
        *(notebook_02.coldest_region, (SCORES,), 2),
        {3: "start at 0", 4: "lowest", 1: "not the highest", (0, 2): "one index"},
    ),
    "02.3": (
        *(notebook_02.temperature_of_half, (SCORES,), 0.8),
        {0: "above 0", 0.1: "higher", 90: "lower"},
    ),
    "02.4": (
        *(notebook_02.shuffled_regions, (ALPHA, [1, 2, 0]), ALPHA[..., [1, 2, 0]].tolist()),
        {
            3: "must have shape",
            tuple(tuple(map(tuple, x)) for x in ALPHA.tolist()): "move with",
            str(ALPHA): "Expected an array",
        },
    ),
    "02.5": (
        *(notebook_02.dot_product_attention, (), dot_product),
        {
            lambda *x: dot_product(*x, scale=1): "square root",
            lambda *x: dot_product(*x)[0]: "context and weights",
            lambda *x: dot_product(*x)[::-1]: "must have shape",
            lambda *x: (dot_product(*x)[0], np.ones((2, 3, 5))): "sum to 1",
            lambda *x: (0 * dot_product(*x)[0], dot_product(*x)[1]): "weighted mean",
        },
    ),
    "03.1": (
        *(notebook_03.first_loss, (), np.log(10_000)),
        {4: "powers of ten", 13.29: "bits", -9.21: "positive", 1e4: "number of words"},
    ),
    "03.4": (
        *(notebook_03.perplexity, (COSTS, WEIGHT), lambda x, w: np.exp(x.sum() / w.sum())),
        {
            lambda x, w: x.sum() / w.sum(): "cross-entropy",
            lambda x, w: np.exp(x.mean()): "use the weight",
            lambda x, w: w.sum(): "is not exp",
        },
    ),
    "04.1": (
        *(notebook_04.number_of_steps, (100, 8, 3), 39),
        {13: "one epoch", 36: "smaller minibatch", 38: "every epoch", 7: "rounded up"},
    ),
    "04.2": (
        *(
            notebook_04.cosine_schedule,
            (),
            lambda rate, t, steps: rate / 2 * (1 + np.cos(np.pi * t / steps)),
        ),
        {
            lambda rate, t, steps: rate * np.cos(np.pi * t / steps): "rate is 0.500",
            lambda rate, t, steps: rate * (1 - t / steps): "rate is 0.146",
            lambda rate, t, steps: rate / 2 * (1 - np.cos(np.pi * t / steps)): "At 0%",
        },
    ),
    "04.3": (
        *(notebook_04.wrong_annotations, (Trained(), Batches()), 1.5),
        {-1.5: "difference is positive", 2: "right images", 0.5: "`evaluate`", "x": "Expected"},
    ),
    "04.4": (
        *(notebook_04.penalty_of_length, (Trained(), Batches()), Trained("length", 1.0)),
        {
            (Trained("length", 1.0), ()): "Expected a captioner. Received: tuple",
            Trained("one", 1.0): "Set penalty_target='length'",
            Trained("length", 0.005): "Set penalty_weight=1.0",
            Trained("length", 1.0, cost=4.6): "call `fit`",
        },
    ),
    "05.1": (
        *(notebook_05.probability_of_caption, (), 0.6 * 0.35 * 0.9),
        {
            0.6 * 0.35: "probability of <end>",
            0.35 * 0.9: "the first",
            np.log(0.6 * 0.35 * 0.9): "take exp",
            0.6 + 0.35 + 0.9: "do not add",
            0.5: "is not p",
            "a b": "Expected a probability",
        },
    ),
    "05.2": (
        *(notebook_05.beam_of_one, (FOUND, BEAMS), [[list(FOUND[0][0])]]),
        {
            SearchResult(FOUND, 0, 0, 0, 0): "`token_ids`",
            BEAMS: "one hypothesis an image",
            (BEAMS[0][:1],): "`beam_size=1`",
            FOUND[0]: "must have shape",
            (((4, 5, 3),),): "is greedy search's",
        },
    ),
    "05.3": (
        *(notebook_05.heated, (), heated),
        {
            lambda p, t: heated(p, 1 / t): "1 / T, not T",
            lambda p, t: p ** (1 / t): "sum over the words",
            lambda p, t: p ** (1 / t) / (p ** (1 / t)).sum(): "last axis",
            lambda p, t: heated(np.exp(p), t): "it needs log p",
            lambda p, t: p[0]: "must have shape",
            lambda p, t: p: "Not for T = 2",
        },
    ),
    "05.4": (
        *(notebook_05.rank_by_length, (), lambda p, c, gamma: np.argmax(p / c**gamma)),
        {
            lambda p, c, gamma: np.argmax(p * c**gamma): "Divide",
            lambda p, c, gamma: np.argmin(p / c**gamma): "highest",
            lambda p, c, gamma: 0: "For gamma = 0",
            lambda p, c, gamma: max(p): "position from 0 to 2",
        },
    ),
    "05b.1": (
        *(notebook_05b.too_short, (), np.exp(1 - 10 / 8)),
        {
            np.exp(1 - 8 / 10): "not c / r",
            0.8: "not yet BP",
            1 - np.exp(1 - 10 / 8): "give the factor",
            22: "between 0 and 1",
            0.5: "is not exp",
        },
    ),
    "05b.2": (
        *(notebook_05b.clipped_precision, (), precision),
        {
            lambda c, refs: sum(any(w in r for r in refs) for w in c) / len(c): "clip its count",
            lambda c, refs: precision(c, [refs[0] + refs[1]]): "not the sum",
            lambda c, refs: precision(c, refs[:1]): "word by word",
            lambda c, refs: precision(c, refs) * len(c): "Divide",
            lambda c, refs: precision(list(set(c)), refs): "not once",
            lambda c, refs: 0.1: "4 of 7",
        },
    ),
    "05b.3": (
        *(notebook_05b.one_caption_for_all, (dict(enumerate([CAPTIONS, CAPTIONS])),), "a red ring"),
        {5: "a string", " ": "at least one word", "zebra": "most frequent words"},
    ),
    "05b.4": (
        *(notebook_05b.half_the_interval, (100,), 400),
        {200: "square root", 4: "not the factor", 25: "wider", 300: "another factor", "x": "Exp"},
    ),
}


# Of each exercise the check, what it is called with, right answers, and wrong ones with a message.
ALL = {
    name: (check, context, [right], wrong)
    for name, (check, context, right, wrong) in {
        **CASES,
        **course_08.CASES,
        **course_09.CASES,
        **course_10.CASES,
    }.items()
} | course_06_07.CASES


@pytest.mark.parametrize("name", ALL)
def test_accepts_right_answers(name, capsys):
    check, context, answers, _ = ALL[name]
    for answer in answers:
        check(answer, *context)
        assert capsys.readouterr().out.startswith(f"Exercise {name[-1]}: right.")


@pytest.mark.parametrize("name", ALL)
def test_an_open_exercise_is_the_readers(name, capsys):
    check, context, answers, _ = ALL[name]
    check((lambda *_: None) if callable(answers[0]) else None, *context)
    assert capsys.readouterr().out == f"Exercise {name[-1]} is yours.\n"


@pytest.mark.parametrize("name", ALL)
def test_says_what_is_wrong(name):
    check, context, _, wrong = ALL[name]
    for answer, message in wrong.items():
        with pytest.raises(NotYetError, match=message) as error:
            check(answer, *context)
        assert str(error.value).startswith(f"Exercise {name[-1]}: not yet. ")
        assert error.value._render_traceback_() == [str(error.value)]


def test_a_check_may_have_no_remark(capsys):
    exercise(7)(lambda answer: "")(1)
    assert capsys.readouterr().out == "Exercise 7: right.\n"


def test_the_photos_caption_is_stored_whole():
    """Notebook 7 compares it with what the model computes."""
    caption = camera_caption()
    assert caption.text == " ".join(caption.words) == "a man in a black shirt is holding a camera"
    assert caption.attention.shape == (10, 14, 14)
    assert caption.gate.shape == (10,)
    np.testing.assert_allclose(caption.attention.sum(axis=(1, 2)), 1, rtol=1e-6)
    assert np.all((caption.gate > 0) & (caption.gate < 1))


def test_the_photos_boxes_are_of_its_words():
    boxes = camera_boxes()
    assert boxes.keys() <= set(camera_caption().words)
    for x0, y0, x1, y1 in boxes.values():
        assert 0 <= x0 < x1 <= 512
        assert 0 <= y0 < y1 <= 512
    boxes["man"] = None
    assert camera_boxes()["man"] is not None


def test_the_best_baseline_halves_the_variance_of_the_mean_reward(capsys):
    """The remark on the right answer must show a difference."""
    check, context, (right,), _ = ALL["08.3"]
    check(right, *context)
    best, mean = map(float, re.findall(r"\d\.\d+", capsys.readouterr().out))
    assert best < 0.6 * mean
