"""Checks of the exercises of `09_table1`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import array, exercise, is_close, number, require, result_of


@exercise(1)
def chance_of_region(answer: Any) -> str:
    """Checks the probability of a word in each of 64 regions that makes it 1/2 in the picture."""
    found, true = number(answer, "a probability"), 1 - 0.5 ** (1 / 64)
    require(0 < found < 1, f"A probability lies between 0 and 1. Received: {found:g}")
    remarks = {
        "That is the probability that a region does not have the word: subtract it from 1.": 1
        - true,
        "Probabilities of 64 regions do not add up: a picture may have the word twice.": 0.5 / 64,
        "That is one in 64 regions on average, and then p_w is 0.635.": 1 / 64,
        "That is p_w where every region has it: 64 of them have it in some region nearly always.": (
            0.5
        ),
    }
    for message, wrong in remarks.items():
        require(not np.isclose(found, wrong, rtol=5e-3, atol=0), message)
    p_w = 1 - (1 - found) ** 64
    require(np.isclose(found, true, rtol=0.02), f"With q = {found:.3g} p_w is {p_w:.3f}, not 0.5.")
    return f"In the paper's 196 regions it would be {1 - 0.5 ** (1 / 196):.4f}."


@exercise(2)
def log_bilinear_prediction(answer: Callable[..., Any]) -> str:
    """Checks a function of log-bilinear weights and a context that returns probabilities."""
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(6, 3))  # (words, features)
    matrices = generator.normal(size=(4, 3, 3))  # (n, features, features)
    context = np.array([2, 0, 5, 3])
    of_picture, bias = generator.normal(size=3), generator.normal(size=6)

    def scores(
        words: Any = embeddings[context], picture: Any = of_picture, matrix: Any = matrices
    ) -> Any:
        return embeddings @ (np.einsum("nij,nj->i", matrix, words) + picture)

    def softmax(logits: Any) -> Any:
        return np.exp(logits) / np.exp(logits).sum()

    copies = (x.copy() for x in (embeddings, matrices, context, of_picture, bias))
    result = result_of(answer, *copies)
    r_hat = np.einsum("nij,nj->i", matrices, embeddings[context]) + of_picture
    message = "That is the predicted embedding: compare it with all words by R, then the softmax."
    require(np.shape(result) != (3,) or not is_close(result, r_hat), message)
    found = array(result, (6,), "The array of probabilities")
    logits = scores() + bias
    remarks = {
        "These are scores: the softmax makes probabilities of them.": logits,
        "They must add up to 1: divide by their sum.": np.exp(logits),
        "The picture is missing: add M g to the predicted embedding.": softmax(
            scores(picture=0) + bias
        ),
        "The bias b of the words is missing.": softmax(scores()),
        "The order of the context is reversed: C_1 belongs to the first word of it.": softmax(
            scores(embeddings[context[::-1]]) + bias
        ),
        "C_i multiplies the embedding from the left: yours are transposed.": softmax(
            scores(matrix=matrices.transpose(0, 2, 1)) + bias
        ),
        "Only the last word of the context counts in yours: add up all n.": softmax(
            embeddings @ (matrices[-1] @ embeddings[context[-1]] + of_picture) + bias
        ),
    }
    for message, wrong in remarks.items():
        require(not is_close(found, wrong, 1e-4), message)
    require(is_close(found.sum(), 1, 1e-4), f"Their sum is {found.sum():.3g}, not 1.")
    require(is_close(found, softmax(logits), 1e-4), "These are not softmax(R r_hat + b).")
    return "No recurrence: the words before the last n cannot have an influence."


@exercise(3)
def paired_interval(answer: Callable[..., Any]) -> str:
    """Checks a function of two systems' scores and draws that returns the difference's interval."""
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=40)
    first = 3 + difficulty + 0.2 * generator.normal(size=40)
    second = 3.3 + difficulty + 0.2 * generator.normal(size=40)
    draws = generator.integers(40, size=(2000, 40))
    result = result_of(answer, first.copy(), second.copy(), draws.copy())
    found = array(result, (2,), "The interval")

    def ends(values: Any, tail: float = 0.025) -> Any:
        return np.quantile(values, [tail, 1 - tail])

    means = [x[draws].mean(axis=1) for x in (first, second)]
    true = ends(means[1] - means[0])
    apart = [ends(mean) for mean in means]
    remarks = {
        "The lower end comes first.": true[::-1],
        "The difference is second - first.": -true[::-1],
        "These ends are of each system's own interval: draw the same pictures for both.": np.array(
            [apart[1][0] - apart[0][1], apart[1][1] - apart[0][0]]
        ),
        "The differences of the ends are no interval: take the difference in every draw.": (
            apart[1] - apart[0]
        ),
        "That is a 90 % interval: 2.5 % are outside at each end.": ends(means[1] - means[0], 0.05),
        "That is the spread of pictures: take the mean over each draw's pictures.": ends(
            second - first
        ),
        "That is the second system's interval; asked is that of the difference.": apart[1],
    }
    for message, wrong in remarks.items():
        require(not is_close(found, wrong, 5e-3), message)
    message = f"Expected about ({true[0]:.3f}, {true[1]:.3f}). Received: {found.round(3).tolist()}"
    require(is_close(found, true, 5e-3), message)
    wide = apart[1][1] - apart[1][0]
    return f"It is {wide / (true[1] - true[0]):.0f} times narrower than one system's own interval."
