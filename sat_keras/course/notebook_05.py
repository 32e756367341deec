"""Checks of the exercises of `05_decoding`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import array, exercise, is_close, number, require, result_of


@exercise(1)
def probability_of_caption(answer: Any) -> str:
    """Checks the probability of "a b" under the model with two words."""
    found = number(answer, "a probability")
    true = 0.6 * 0.35 * 0.9
    require(not np.isclose(found, true / 0.9, rtol=1e-3), "Include the probability of <end>.")
    require(not np.isclose(found, true / 0.6, rtol=1e-3), 'Include that of the first "a".')
    require(not np.isclose(found, np.log(true), rtol=1e-3), "That is log p: take exp().")
    require(not np.isclose(found, 0.6 + 0.35 + 0.9), "Multiply the probabilities, do not add them.")
    require(np.isclose(found, true, rtol=1e-3), f"{found:.4g} is not p(a) p(b | a) p(<end> | b).")
    return ""


@exercise(2)
def beam_of_one(answer: Any, greedy: Any, wider: Any) -> str:
    """Checks the token ids of a beam search with one beam."""
    greedy, wider = np.asarray(greedy), np.asarray(wider)
    require(not hasattr(answer, "token_ids"), "Give the result's `token_ids`.")
    found = np.asarray(answer)
    require(
        found.ndim != 3 or found.shape[1] in (0, 1),
        f"Expected one hypothesis an image. Received: shape {found.shape}",
    )
    if found.shape == wider[:, :1].shape:
        same = np.array_equal(found, wider[:, :1]) and not np.array_equal(found, greedy)
        require(not same, "That is the best of several beams: set `beam_size=1`.")
    array(answer, greedy.shape)
    require(np.array_equal(found, greedy), "With one beam the result is greedy search's.")
    return "It is greedy search."


@exercise(3)
def heated(answer: Callable[..., Any]) -> str:
    """Checks a function that changes the temperature of a distribution."""
    p = np.array([[0.8, 0.2], [0.5, 0.5], [0.9, 0.1]])
    for temperature in (2.0, 0.5, 1.0):
        powers = p ** (1 / temperature)
        true = powers / powers.sum(axis=-1, keepdims=True)
        found = array(result_of(answer, p, temperature), p.shape, "The result")
        inverse = p**temperature / (p**temperature).sum(axis=-1, keepdims=True)
        softmax = np.exp(p / temperature) / np.exp(p / temperature).sum(axis=-1, keepdims=True)
        if temperature != 1:
            require(not is_close(found, inverse, 1e-4), "The exponent is 1 / T, not T.")
            require(not is_close(found, powers, 1e-4), "Divide by the sum over the words.")
        require(not is_close(found, powers / powers.sum(), 1e-4), "Sum over the last axis only.")
        require(not is_close(found, softmax, 1e-4), "A softmax of p: it needs log p.")
        require(is_close(found, true, 1e-4), f"Not for T = {temperature:g}.")
    return "For T = 1 it changes nothing."


@exercise(4)
def rank_by_length(answer: Callable[..., Any]) -> str:
    """Checks a function that finds the best caption under the length penalty."""
    log_p, tokens = np.array([-2.7, -2.0, -6.0]), np.array([9, 5, 14])
    for gamma, best in ((0.0, 1), (1.0, 0)):
        found = number(result_of(answer, log_p, tokens, gamma), "an integer")
        require(found in (0, 1, 2), f"Give a position from 0 to 2. Received: {found:g}")
        times = int(np.argmax(log_p * tokens**gamma))
        least = int(np.argmin(log_p / tokens**gamma))
        if gamma:
            require(found != times, "Divide log p by C ** gamma.")
        require(found != least, "The best caption has the *highest* score.")
        require(found == best, f"For gamma = {gamma:g} the best is at {best}. Received: {found:g}")
    return "A larger gamma chose the longer caption."
