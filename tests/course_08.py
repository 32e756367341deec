"""Answers to the exercises of notebooks 8 and 8b, right and wrong, for `test_course`."""

import numpy as np

from sat_keras.course import notebook_08, notebook_08b

ALPHA, REWARD = np.array([0.1, 0.6, 0.2, 0.1]), np.array([-1.55, -2.41, -0.41, -1.55])
SQUARES = ((np.eye(4) - ALPHA) ** 2).sum(axis=1)


def gradient(alpha, reward):
    return alpha * (reward - alpha @ reward)


def draw(alpha, u):
    return (np.cumsum(alpha, axis=-1) <= u[:, None]).sum(axis=-1)


def others(reward):
    return (reward.sum(axis=1, keepdims=True) - reward) / (reward.shape[1] - 1)


def rest(log_y):
    return np.cumsum(log_y[:, ::-1], axis=1)[:, ::-1]


# Check, its context, a right answer, and wrong answers with what their messages say.
CASES = {
    "08.1": (
        *(notebook_08.too_many_sequences, (), 10 * np.log10(196)),
        {
            10 * np.log(196): "natural",
            np.log10(196): "one word",
            np.log10(1960): "multiply",
            196: "not 10\\^196",
            196**10: "power of ten",
            20: "is not 196\\^10",
            "many": "Expected",
        },
    ),
    "08.2": (
        *(notebook_08.gradient_of_scores, (), gradient),
        {
            lambda alpha, reward: reward: "gradient by alpha",
            lambda alpha, reward: alpha * reward: "Subtract the bound",
            lambda alpha, reward: alpha * (reward - reward.mean()): "weighted by alpha",
            lambda alpha, reward: reward - alpha @ reward: "Multiply by alpha",
            lambda alpha, reward: -gradient(alpha, reward): "sign",
            lambda alpha, reward: reward**2: "Row i",
            lambda alpha, reward: alpha @ reward: "must have shape",
            lambda alpha, reward: alpha.nothing: "raises AttributeError",
        },
    ),
    "08.3": (
        *(notebook_08.best_baseline, (ALPHA, REWARD)),
        ALPHA * SQUARES @ REWARD / (ALPHA @ SQUARES),
        {
            ALPHA @ REWARD: "mean reward",
            -ALPHA * SQUARES @ REWARD / (ALPHA @ SQUARES): "negative",
            SQUARES @ REWARD / SQUARES.sum(): "Weigh by the probabilities",
            -3.0: "go higher",
            -0.5: "go lower",
            (1, 2): "Expected",
        },
    ),
    "08.4": (
        *(notebook_08.draw_by_uniform, (), lambda alpha, u: draw(alpha, u).tolist()),
        {
            lambda alpha, u: draw(alpha, u) + 1: "too high",
            lambda alpha, u: draw(alpha, u) - 1: "too low",
            lambda alpha, u: alpha.argmax(axis=-1): "likeliest",
            lambda alpha, u: (alpha > u[:, None]).argmax(axis=-1): "own weight",
            lambda alpha, u: u: "an index",
            lambda alpha, u: (5 * u).astype(int): "too often or too rarely",
            lambda alpha, u: draw(alpha, u)[:, None]: "must have shape",
        },
    ),
    "08b.1": (
        *(notebook_08b.steps_of_the_average, (), 22),
        {
            21: "After 21 updates",
            10: "65.1 %",
            40: "Fewer suffice",
            21.9: "integer",
            "x": "Expected",
        },
    ),
    "08b.2": (
        *(notebook_08b.mean_of_the_others, (), lambda reward: others(reward).tolist()),
        {
            lambda r: np.broadcast_to(r.mean(axis=1, keepdims=True), r.shape): "own reward",
            lambda r: r.sum(axis=1, keepdims=True) - r: "divide by their number",
            lambda r: others(r) * (r.shape[1] - 1) / r.shape[1]: "one fewer",
            lambda r: r - others(r): "advantage",
            lambda r: others(r.T).T: "axis 1",
            lambda r: r: "Row by row",
            lambda r: r.mean(axis=1): "must have shape",
        },
    ),
    "08b.3": (
        *(notebook_08b.reward_of_the_rest, (), rest),
        {
            lambda y: np.broadcast_to(y.sum(axis=1, keepdims=True), y.shape): "whole caption",
            lambda y: np.cumsum(y, axis=1): "words before",
            lambda y: rest(y) - y: "word of step t belongs",
            lambda y: y: "alone",
            lambda y: np.cumsum(y[::-1], axis=0)[::-1]: "steps are axis 1",
            lambda y: -rest(y): "columns t to the last",
            lambda y: y.sum(axis=1): "must have shape",
        },
    ),
    "08b.4": (
        *(notebook_08b.largest_entropy, (), np.log(196)),
        {
            np.log2(196): "bits",
            np.log10(196): "base 10",
            -np.log(196): "not negative",
            np.log(14): "one side",
            196: "not the number of regions",
        },
    ),
}
