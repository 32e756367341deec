"""Answers to the exercises of notebooks 6 and 7, right and wrong, for `test_course`."""

import numpy as np
import pandas as pd

from sat_keras.captioning.caption import Caption
from sat_keras.course import notebook_06, notebook_07
from sat_keras.evaluation.metrics import corpus_bleu

SIZE = (20, 20)
MAPS = np.eye(4).reshape(4, 2, 2)  # peaks at the four quarters
BOXES = [(1, 1, 9, 9), (11, 1, 19, 9), (1, 11, 9, 19), (1, 1, 9, 9)]
ORDER = [1, 2, 3, 0]  # only the third box's word keeps a map that hits

WORDS = {"on": (0.31, 5.7), "and": (0.28, 4.5), "of": (0.79, 0.03), "is": (0.24, 2.2)}
BY_WORD = pd.DataFrame(WORDS, ["gate", "loss"]).T

ASKED = ("rocket", "astronaut", "cat", "coffee")
VOCABULARY = ["", "<unk>", "dog", "cat", "coffee", "rocket"]

CAPTIONS = {(1, 10): "a dog", (10, 10): "two dogs run", (1, None): "a", (10, None): "two dogs"}


class Captioner:
    """Returns stored captions by beam size and longest length."""

    def caption(self, annotations, beam_size, max_length):
        return [Caption(CAPTIONS[beam_size, max_length], [], None, None, 0.0)]


def pointing(maps, boxes, size, x_is_row=False, corner=False, closed=False):
    hits = []
    for weights, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        place = np.unravel_index(weights.argmax(), weights.shape)
        y, x = (np.array(place) + (0 if corner else 0.5)) * size / np.array(weights.shape)
        x, y = (y, x) if x_is_row else (x, y)
        right = (x <= x1 and y <= y1) if closed else (x < x1 and y < y1)
        hits.append(x0 <= x and y0 <= y and right)
    return np.mean(hits)


def bleu1(candidates, references):
    return [corpus_bleu(candidates, references, penalty, 1)[0] for penalty in (False, True)]


def longest_references(candidates, references):
    lengths = [max(map(len, each)) for each in references]
    ratio = sum(lengths) / sum(map(len, candidates))
    precision, _ = bleu1(candidates, references)
    return precision, precision * np.exp(1 - ratio)


# Check, its context, right answers, and wrong answers with what their messages say.
CASES = {
    "06.1": (
        *(notebook_06.largest_entropy, (64,), [np.log(64), [np.log(64)]]),
        {
            6: "in bits",
            np.log10(64): "powers of ten",
            -np.log(64): "positive",
            64: "exp\\(H\\)",
            np.log(64) / 64: "no mean",
            5.0: "is not 64 regions",
            "x": "Expected a number of nats",
        },
    ),
    "06.2": (
        *(notebook_06.pointing_game, (), [pointing]),
        {
            lambda *x: 11 * pointing(*x): "number of hits",
            lambda *x: 100 * pointing(*x): "percentage",
            lambda *x: 1 - pointing(*x): "misses",
            lambda *x: pointing(*x, x_is_row=True): "Rows go down",
            lambda *x: pointing(*x, corner=True): "centre of the region",
            lambda *x: pointing(*x, closed=True): "right or lower edge",
            lambda maps, *x: pointing(-maps, *x): "not the lowest",
            lambda *x: 0.4: "the share is 0.545",
            lambda maps, *x: maps.nothing: "raises AttributeError",
            lambda *x: [True, False]: "Expected a share",
        },
    ),
    "06.3": (
        *(notebook_06.maps_of_other_words, (MAPS, BOXES, SIZE, ORDER), [1 / 4, np.float32(1 / 4)]),
        {3 / 4: "own map", 25: "percentage", 0.0: "the inverse", 1 / 2: "Pass \\[named_maps"},
    ),
    "06.4": (
        *(notebook_06.needed_behind_a_closed_gate, (BY_WORD,), ["on"]),
        {
            "is": "lowest gate",
            "of": "not below 0.35",
            "and": "another word loses more",
            "dog": "no word of",
            0.28: "Expected a word",
            ("on",): "Expected a word",
        },
    ),
    "07.1": (
        *(notebook_07.known_words, (ASKED, VOCABULARY)),
        [["rocket", "cat", "coffee"], ("rocket", "cat", "coffee"), {"cat", "coffee", "rocket"}],
        {
            ("rocket", "cat"): "'coffee' is missing",
            ASKED: "'astronaut' is not in the vocabulary",
            ("cat", "coffee", "rocket"): "in the order",
            ("rocket", "cat", "coffee", "coffee"): "once",
            ("rocket", "<unk>", "cat", "coffee"): "'<unk>' was not asked",
            (5, 3, 4): "Expected words",
            "rocket, cat, coffee": "Expected a list",
            3: "Expected a list",
        },
    ),
    "07.2": (
        *(notebook_07.megabytes, (7000, 196, 512), [7000 * 196 * 512 * 2 / 1e6, 1405]),
        {
            7000 * 196 * 512 * 4 / 1e6: "float32",
            7000 * 196 * 512 / 1e6: "2 bytes",
            7000 * 196 * 512 * 2 / 2**20: "2\\^20",
            7000 * 196 * 512 * 2 / 1e9: "gigabytes",
            7000 * 196 * 512 * 2: "in bytes",
            196 * 512 * 2 / 1e6: "single picture",
            99: "differ from 99",
        },
    ),
    "07.3": (
        *(notebook_07.bleu1, (), [bleu1, lambda *x: tuple(bleu1(*x))]),
        {
            lambda *x: np.divide(bleu1(*x), 100): "shares",
            lambda *x: bleu1(*x)[::-1]: "comes first",
            lambda *x: (100, bleu1(*x)[1]): "clip",
            lambda *x: (87.5, bleu1(*x)[1]): "whole corpus",
            lambda *x: (50, 50): "precision is 85.7",
            lambda *x: [bleu1(*x)[0]] * 2: "penalty is exp\\(1 - 10 / 7\\)",
            longest_references: "closest to",
            lambda *x: bleu1(*x)[0]: "Return two numbers",
        },
    ),
    "07.4": (
        *(notebook_07.two_beams, (Captioner(), None)),
        [["a dog", "two dogs run"], tuple(Captioner().caption(None, s, 10)[0] for s in (1, 10))],
        {
            ("two dogs run", "a dog"): "One beam comes first",
            ("a", "two dogs"): "at most ten words",
            ("a dog", "a dog"): "With ten beams",
            ("a cat", "two dogs run"): "With one beam",
            "a dog": "Expected two captions",
            ("a dog",): "Expected two captions",
        },
    ),
}
