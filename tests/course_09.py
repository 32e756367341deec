"""Answers to the exercises of notebook 9, right and wrong, for `test_course`."""

import numpy as np

from sat_keras.course import notebook_09


def predict(r, c, context, picture, b, order=1):
    r_hat = picture + sum(c[i] @ r[word] for i, word in enumerate(context[::order]))
    logits = r @ r_hat + b
    return np.exp(logits) / np.exp(logits).sum()


def interval(first, second, draws, tail=0.025):
    return np.quantile((second - first)[draws].mean(axis=1), [tail, 1 - tail])


def ends(scores, draws):
    return np.quantile(scores[draws].mean(axis=1), [0.025, 0.975])


# Check, its context, a right answer, and wrong answers with what their messages say.
CASES = {
    "09.1": (
        *(notebook_09.chance_of_region, (), 1 - 0.5 ** (1 / 64)),
        {
            0.5 ** (1 / 64): "subtract it from 1",
            0.5 / 64: "do not add up",
            1 / 64: "on average",
            0.5: "some region nearly always",
            0.02: "p_w is 0.726",
            2: "between 0 and 1",
            (1, 2): "Expected a probability",
        },
    ),
    "09.2": (
        *(notebook_09.log_bilinear_prediction, (), lambda *x: predict(*x).tolist()),
        {
            lambda r, c, w, v, b: np.einsum("nij,nj->i", c, r[w]) + v: "predicted embedding",
            lambda r, c, w, v, b: r @ (np.einsum("nij,nj->i", c, r[w]) + v) + b: "are scores",
            lambda r, c, w, v, b: np.exp(r @ (np.einsum("nij,nj->i", c, r[w]) + v) + b): "add up",
            lambda r, c, w, v, b: predict(r, c, w, 0, b): "picture is missing",
            lambda r, c, w, v, b: predict(r, c, w, v, 0): "bias b",
            lambda *x: predict(*x, order=-1): "order of the context",
            lambda r, c, w, v, b: predict(r, c.transpose(0, 2, 1), w, v, b): "transposed",
            lambda r, c, w, v, b: predict(r, c[-1:], w[-1:], v, b): "Only the last word",
            lambda r, c, w, v, b: 2 * predict(r, c, w, v, b): "sum is 2",
            lambda r, c, w, v, b: np.full(6, 1 / 6): "not softmax",
            lambda r, c, w, v, b: r: "must have shape",
            lambda r, c, w, v, b: r.nothing: "raises AttributeError",
        },
    ),
    "09.3": (
        *(notebook_09.paired_interval, (), lambda *x: tuple(interval(*x))),
        {
            lambda *x: interval(*x)[::-1]: "lower end",
            lambda a, b, draws: interval(b, a, draws): "second - first",
            lambda a, b, d: (
                ends(b, d)[0] - ends(a, d)[1],
                ends(b, d)[1] - ends(a, d)[0],
            ): "own interval",
            lambda a, b, d: ends(b, d) - ends(a, d): "in every draw",
            lambda *x: interval(*x, tail=0.05): "90 %",
            lambda a, b, d: np.quantile(b - a, [0.025, 0.975]): "spread of pictures",
            lambda a, b, d: ends(b, d): "second system's",
            lambda a, b, d: (0, 1): "Expected about",
            lambda a, b, d: 0.3: "must have shape",
        },
    ),
}
