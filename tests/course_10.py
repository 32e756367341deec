"""Answers to the exercises of notebook 10, right and wrong, for `test_course`."""

import numpy as np

from sat_keras.course import notebook_10


def loss(log_p, reward, greedy):
    return -np.mean((reward - greedy[:, None]) * log_p)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


# Check, its context, a right answer, and wrong answers with what their messages say.
CASES = {
    "10.1": (
        *(notebook_10.mean_of_all_samples, (), 4 / 5),
        {
            1: "no longer unbiased",
            0.2: "what is left",
            1.25: "smaller, not larger",
            0: "own log p",
            0.75: "a fifth of the mean",
            0.5: "as a multiple of",
            "less": "Expected a factor",
        },
    ),
    "10.2": (
        *(notebook_10.greedy_baseline, (), lambda *x: np.array([loss(*x)])),
        {
            lambda *x: -loss(*x): "sign is wrong",
            lambda *x: 12 * loss(*x): "not the sum",
            lambda *x: 4 * loss(*x): "over the samples too",
            lambda p, r, g: -(r - g[:, None]) * p: "of every sample",
            lambda p, r, g: loss(p, r, 0 * g): "baseline is missing",
            lambda p, r, g: (
                -np.mean((r - (r.sum(axis=1, keepdims=True) - r) / 3) * p)
            ): "mean of the other",
            lambda p, r, g: loss(np.exp(p), r, g): "weighs p",
            lambda p, r, g: loss(1, r, g): "minus the mean advantage",
            lambda p, r, g: loss(p, r, np.full(3, g.mean())): "each picture",
            lambda p, r, g: 0.1: "Expected -",
            lambda p, r, g: (r - g) * p: "raises ValueError",
        },
    ),
    "10.3": (
        *(notebook_10.best_with_entropy, (), lambda r, w: softmax(r / w).tolist()),
        {
            lambda r, w: softmax(r): "weight is missing",
            lambda r, w: softmax(r * w): "divide by the weight",
            lambda r, w: np.eye(6)[r.argmax()]: "without the entropy",
            lambda r, w: np.full(6, 1 / 6): "entropy alone",
            lambda r, w: np.exp(r / w): "add up to 1",
            lambda r, w: r / r.sum(): "p is not",
            lambda r, w: r / w: "up to a constant",
            lambda r, w: softmax(-r / w): "The signs",
            lambda r, w: 2 * softmax(r / w): "sum is 2",
            lambda r, w: softmax(r / w**2): "of reward and entropy",
            lambda r, w: 0.5: "must have shape",
        },
    ),
}
