"""Checks of the exercises of `05b_evaluation`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sat_keras.course.checking import exercise, number, require, result_of
from sat_keras.evaluation import score_captions


@exercise(1)
def too_short(answer: Any) -> str:
    """Checks the brevity penalty of captions of 8 words beside references of 10."""
    found, true = number(answer, "a factor below 1"), np.exp(1 - 10 / 8)
    require(not np.isclose(found, np.exp(1 - 8 / 10), rtol=1e-3), "It is r / c, not c / r.")
    require(not np.isclose(found, 0.8, rtol=1e-3), "The ratio of the lengths is not yet BP.")
    require(not np.isclose(found, 1 - true, rtol=1e-3), "That is what is lost: give the factor.")
    require(0 < found < 1, f"A penalty is a factor between 0 and 1. Received: {found:g}")
    require(np.isclose(found, true, rtol=2e-3), f"{found:.3g} is not exp(1 - r / c).")
    return "BLEU falls by 22 %."


@exercise(2)
def clipped_precision(answer: Callable[..., Any]) -> str:
    """Checks a function that counts the matching words of a caption."""
    caption = ["a", "small", "red", "ring", "a", "a", "a"]
    references = [["a", "red", "ring"], ["there", "is", "a", "ring", "and", "a", "star"]]
    found = number(result_of(answer, caption, references), "a number")
    require(not np.isclose(found, 6 / 7), '"a" counts at most twice here: clip its count.')
    require(not np.isclose(found, 5 / 7), "Take the larger count of the references, not the sum.")
    require(not np.isclose(found, 3 / 7), "The larger count of the references, word by word.")
    require(not np.isclose(found, 4), "Divide by the number of words of the caption.")
    require(not np.isclose(found, 3 / 4), "Each word counts as often as it occurs, not once.")
    require(np.isclose(found, 4 / 7), f'"a" twice, "red" and "ring": 4 of 7. Received: {found:.3g}')
    return ""


@exercise(3)
def one_caption_for_all(answer: Any, references: Mapping[str, Sequence[str]]) -> str:
    """Checks that one caption for all images has a BLEU-1 above 60 in the protocol `paper`."""
    require(isinstance(answer, str), f"Expected one caption, a string. Received: {answer!r}")
    require(answer.strip(), "Expected at least one word. Received: an empty caption")
    scores = score_captions(dict.fromkeys(references, answer), references)["paper"]
    hint = "the most frequent words, as often as a reference has them"
    require(scores["bleu1"] > 60, f"BLEU-1 is {scores['bleu1']:.1f}: try {hint}.")
    return f"BLEU-1 {scores['bleu1']:.1f}, CIDEr-D {scores['cider']:.2f}."


@exercise(4)
def half_the_interval(answer: Any, pictures: int) -> str:
    """Checks the number of images for an interval half as wide."""
    found = number(answer, "an integer")
    require(found != 2 * pictures, "The width falls with the *square root* of the number.")
    require(found != 4, "The number of images, not the factor.")
    require(found > pictures, "Fewer images give a wider interval.")
    require(found == 4 * pictures, f"{found:g} images change the width by another factor.")
    return "Small test sets decide little."
