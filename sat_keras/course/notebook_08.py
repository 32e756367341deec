"""Checks of the exercises of `08_hard_attention`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import array, exercise, is_close, number, require, result_of


@exercise(1)
def too_many_sequences(answer: Any) -> str:
    """Checks the power of ten of the number of sequences of ten locations in 196 regions."""
    found, true = number(answer, "a power of ten"), 10 * np.log10(196)
    require(not np.isclose(found, 10 * np.log(196), rtol=0.01), "That is the natural logarithm.")
    require(not np.isclose(found, np.log10(196), rtol=0.01), "That is one word; asked are ten.")
    require(not np.isclose(found, np.log10(1960), rtol=0.01), "The numbers multiply: 196^10.")
    require(not np.isclose(found, 196 * np.log10(10), rtol=0.01), "196^10, not 10^196.")
    require(found < 1000, "Give the power of ten, not the number.")
    require(np.isclose(found, true, rtol=0.01), f"10^{found:.3g} is not 196^10.")
    return f"10^{true:.0f} sequences."


@exercise(2)
def gradient_of_scores(answer: Callable[..., Any]) -> str:
    """Checks a function of weights and rewards that returns the bound's gradient."""
    generator = np.random.default_rng(0)
    alpha, reward = generator.dirichlet(np.ones(6)), generator.normal(size=6) - 2
    true = alpha * (reward - alpha @ reward)
    found = array(result_of(answer, alpha.copy(), reward.copy()), (6,), "The gradient")
    remarks = {
        "That is the gradient by alpha; the scores enter through a softmax.": reward,
        "Subtract the bound from the rewards: the softmax makes the others smaller.": alpha
        * reward,
        "The mean reward is weighted by alpha, too.": alpha * (reward - reward.mean()),
        "Multiply by alpha, the probability of the draw.": reward - alpha @ reward,
        "The sign is that of a loss; asked is the gradient of the bound.": -true,
    }
    for message, wrong in remarks.items():
        require(not is_close(found, wrong, 1e-4), message)
    require(is_close(found, true, 1e-4), "Row i of the gradient is alpha_i (R_i - L).")
    return ""


@exercise(3)
def best_baseline(answer: Any, alpha: Any, reward: Any) -> str:
    """Checks the baseline with the least variance of one draw's estimate."""
    found, alpha, reward = number(answer, "a number of nats"), np.asarray(alpha), np.asarray(reward)
    score = np.eye(len(alpha)) - alpha
    squares, bound = (score**2).sum(axis=1), alpha @ reward
    true = alpha * squares @ reward / (alpha @ squares)

    def variance(b: float) -> float:
        noise = (reward - b)[:, None] * score - alpha * (reward - bound)
        return float(alpha @ (noise**2).sum(axis=1))

    require(not np.isclose(found, bound, rtol=1e-2), "That is the mean reward; there is better.")
    require(not np.isclose(found, -true, rtol=1e-2), "Rewards are negative, and so is b.")
    unweighted = squares @ reward / squares.sum()
    require(not np.isclose(found, unweighted, rtol=1e-2), "Weigh by the probabilities as well.")
    direction = "higher" if found < true else "lower"
    message = f"At b = {found:.3g} the variance is {variance(found):.3f}: go {direction}."
    require(np.isclose(found, true, rtol=1e-2), message)
    return f"Variance {variance(true):.3f}; with the mean reward it is {variance(bound):.3f}."


@exercise(4)
def draw_by_uniform(answer: Callable[..., Any]) -> str:
    """Checks a function of weights and uniform numbers that returns one region a row."""
    generator = np.random.default_rng(0)
    rows = np.array([[0.4, 0.1, 0.05, 0.3, 0.15], [0.05, 0.6, 0.2, 0.05, 0.1]])
    alpha, u = np.repeat(rows, 1000, axis=0), generator.uniform(size=2000)
    found = array(result_of(answer, alpha.copy(), u.copy()), (2000,), "The array of regions")
    require(np.all(found == np.round(found)), "A region is an index, an integer.")
    true = (np.cumsum(alpha, axis=-1) <= u[:, None]).sum(axis=-1)
    remarks = {
        "Indices start at 0: yours are one too high.": true + 1,
        "Yours are one too low: take the region at which the sum exceeds u.": true - 1,
        "That is the likeliest region, whatever u is.": alpha.argmax(axis=-1),
        "That is the first region whose own weight exceeds u: add them up.": (
            alpha > u[:, None]
        ).argmax(axis=-1),
    }
    for message, wrong in remarks.items():
        require(not np.array_equal(found, wrong), message)
    drawn = found.reshape(2, 1000, 1) == np.arange(5)
    far = np.abs(drawn.mean(axis=1) - rows)  # (rows, regions)
    message = f"Region {far.max(axis=0).argmax()} is drawn too often or too rarely."
    require(far.max() < 0.06, message)
    return "With Gumbel noise the same choice is one argmax, in any backend."
