"""Checks of the exercises of `08b_training_hard_attention`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import array, exercise, is_close, number, require, result_of


@exercise(1)
def steps_of_the_average(answer: Any) -> str:
    """Checks the number of updates after which a moving average from 0 is within 10 %."""
    found = number(answer, "an integer, a number of updates")
    require(found == round(found), f"A number of updates is an integer. Received: {answer!r}")
    share = 1 - 0.9**found
    require(found >= 22, f"After {found:.0f} updates the average is {100 * share:.1f} % of R.")
    require(
        found == 22,
        f"Fewer suffice: after {found - 1:.0f} it is {100 - 10 * 0.9 ** (found - 2):.1f} %.",
    )
    return "Until then every draw still loses score, the right one too."


@exercise(2)
def mean_of_the_others(answer: Callable[..., Any]) -> str:
    """Checks a function of the rewards of all draws that returns the baseline of each."""
    reward = np.random.default_rng(0).normal(size=(4, 5)) - 12
    found = array(result_of(answer, reward.copy()), (4, 5), "The array of baselines")
    total = reward.sum(axis=1, keepdims=True)
    true = (total - reward) / 4
    remarks = {
        "A draw's own reward is part of its baseline, which must not depend on it.": (
            np.broadcast_to(total / 5, reward.shape)
        ),
        "That is the sum of the others: divide by their number.": total - reward,
        "The others are one fewer than all: divide by N - 1.": (total - reward) / 5,
        "That is the advantage; asked is the baseline.": reward - true,
        "The mean is over the draws of one caption, axis 1.": (
            (reward.sum(axis=0) - reward) / (len(reward) - 1)
        ),
    }
    for message, wrong in remarks.items():
        require(not is_close(found, wrong, 1e-6), message)
    require(is_close(found, true, 1e-6), "Row by row: (sum - own reward) / (N - 1).")
    return ""


@exercise(3)
def reward_of_the_rest(answer: Callable[..., Any]) -> str:
    """Checks a function of the words' log-probabilities that returns each step's reward."""
    log_y = -np.random.default_rng(0).uniform(0.1, 3, size=(3, 6))
    found = array(result_of(answer, log_y.copy()), (3, 6), "The array of rewards")
    true = np.cumsum(log_y[:, ::-1], axis=1)[:, ::-1]
    remarks = {
        "That is the reward of the whole caption at every step.": (
            np.broadcast_to(log_y.sum(axis=1, keepdims=True), log_y.shape)
        ),
        "That sums the words before; the region cannot influence them.": np.cumsum(log_y, axis=1),
        "The word of step t belongs to its reward, too.": true - log_y,
        "That is the word of step t alone; the region influences those after it, too.": log_y,
        "That runs over the captions: steps are axis 1.": (np.cumsum(log_y[::-1], axis=0)[::-1]),
    }
    for message, wrong in remarks.items():
        require(not is_close(found, wrong, 1e-6), message)
    require(is_close(found, true, 1e-6), "R_t is the sum of columns t to the last.")
    return 'The library calls it `reward="rest"`: the same mean, less noise.'


@exercise(4)
def largest_entropy(answer: Any) -> str:
    """Checks the largest entropy of attention over 14 x 14 regions."""
    found, true = number(answer, "a number of nats"), np.log(196)
    require(not np.isclose(found, np.log2(196), rtol=1e-2), "That is in bits: natural logarithm.")
    require(not np.isclose(found, np.log10(196), rtol=1e-2), "That is to the base 10.")
    require(not np.isclose(found, -true, rtol=1e-2), "An entropy is not negative.")
    require(not np.isclose(found, np.log(14), rtol=1e-2), "14 is one side of the grid.")
    require(np.isclose(found, true, rtol=1e-2), f"exp({found:.3g}) is not the number of regions.")
    return "With lambda_e = 0.002 it adds 0.01 to a word's term."
