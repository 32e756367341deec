"""Checks of the exercises of `02_encoder_and_attention`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import (
    NotYetError,
    array,
    exercise,
    is_close,
    number,
    require,
    result_of,
)


@exercise(1)
def regions_of_96_pixels(answer: Any) -> str:
    """Checks the number of regions of a picture of 96 x 96 pixels, reduced by 8."""
    found = number(answer, "an integer")
    require(found != 12, "12 is one side of the grid; asked is the number of its squares.")
    require(found != 64, "64 is that of 64 x 64 pixels.")
    require(found == 144, f"{answer} is not the square of a side of 96 / 8 regions.")
    return "The grid is 12 x 12."


@exercise(2)
def coldest_region(answer: Any, scores: Any) -> str:
    """Checks the index of the highest score."""
    best = int(np.argmax(scores))
    found = number(answer, "one index, row times the grid's width plus column")
    require(found != best + 1, "Indices start at 0.")
    require(found != np.argmin(scores), "That region has the lowest score.")
    require(found == best, f"The score of region {answer} is not the highest.")
    return "Notebook 8 attends to one region at a time."


@exercise(3)
def temperature_of_half(answer: Any, scores: Any) -> str:
    """Checks a temperature at which the weights cover half of the regions."""
    temperature = number(answer, "a temperature")
    require(temperature > 0, f"A temperature is above 0. Received: {answer!r}")
    heated = np.asarray(scores) / temperature
    weights = np.exp(heated - heated.max())
    weights = weights / weights.sum()
    spread = np.exp(-np.sum(weights * np.log(np.maximum(weights, 1e-30))))
    half = len(weights) / 2
    direction = "lower" if spread > half else "higher"
    message = f"T = {temperature:.3g} covers {spread:.1f} of {half:.0f} regions: {direction}."
    require(abs(spread - half) < 1, message)
    return f"T = {temperature:.2f} covers {spread:.1f} regions."


@exercise(4)
def shuffled_regions(answer: Any, alpha: Any, order: Any) -> str:
    """Checks the weights of permuted annotation vectors."""
    alpha, order = np.asarray(alpha), np.asarray(order)
    found = array(answer, alpha.shape)
    require(not is_close(found, alpha, 1e-6), "The weights move with their regions.")
    inverse = alpha[:, :, np.argsort(order)]
    require(not is_close(found, inverse, 1e-6), "That is the inverse permutation.")
    require(is_close(found, alpha[:, :, order], 1e-4), "Index the last axis, that of the regions.")
    return "The context is a sum over regions and stays the same."


@exercise(5)
def dot_product_attention(answer: Callable[..., Any]) -> str:
    """Checks a function of hidden states, keys and annotation vectors."""
    generator = np.random.default_rng(0)
    hidden, keys = generator.normal(size=(2, 3, 16)), generator.normal(size=(2, 5, 16))
    annotations = generator.normal(size=(2, 5, 4))
    result = result_of(answer, hidden, keys, annotations)
    require(isinstance(result, (tuple, list)) and len(result) == 2, "Return context and weights.")
    context, alpha = array(result[0], (2, 3, 4), "The context"), result[1]
    alpha = array(alpha, (2, 3, 5), "The array of weights")
    scores = np.einsum("bqn,brn->bqr", hidden, keys)
    true = _softmax(scores / 4)
    if is_close(alpha, _softmax(scores), 1e-6):
        raise NotYetError("Divide the products by the square root of n.")
    require(np.allclose(alpha.sum(axis=-1), 1), "The weights of a query must sum to 1.")
    require(is_close(alpha, true, 1e-5), "The weights differ: softmax of h k / sqrt(n).")
    require(is_close(context, true @ annotations, 1e-5), "The context is the weighted mean.")
    return ""


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
