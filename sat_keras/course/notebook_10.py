"""Checks of the exercises of `10_self_critical`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import array, exercise, is_close, number, require, result_of


@exercise(1)
def mean_of_all_samples(answer: Any) -> str:
    """Checks the factor that a baseline with the own sample costs, for 5 samples."""
    found = number(answer, "a factor")
    remarks = {
        "The own reward is part of that baseline, so the estimate is no longer unbiased.": 1.0,
        "That is the part that is lost: what is left?": 0.2,
        "That factor would make up for it: the expectation is smaller, not larger.": 1.25,
        "Its mean over the samples of one draw is 0, but each advantage has its own log p.": 0.0,
        "With 5 samples the own one is a fifth of the mean, not a fourth.": 0.75,
    }
    for message, wrong in remarks.items():
        require(not np.isclose(found, wrong, atol=1e-3), message)
    message = f"Write R_i - mean(R) as a multiple of R_i - mean of the others. Received: {found:g}"
    require(np.isclose(found, 0.8, atol=1e-3), message)
    return "With a learning rate larger by a fourth the two are the same."


@exercise(2)
def greedy_baseline(answer: Callable[..., Any]) -> str:
    """Checks a function of log p, rewards and the greedy captions' rewards that returns the loss.

    Args:
        answer: Function of `log_p` and `reward`, `(pictures, samples)`, and `greedy`,
            `(pictures,)`.
    """
    generator = np.random.default_rng(0)
    log_p, reward = -generator.gamma(4, size=(3, 4)), 4 + generator.normal(size=(3, 4))
    greedy = np.array([4.5, 2.0, 5.0])
    result = result_of(answer, log_p.copy(), reward.copy(), greedy.copy())
    require(
        np.shape(result) != (3, 4), "That is the loss of every sample: take the mean over them."
    )
    found = number(result, "one number, the mean over all samples")
    advantage = reward - greedy[:, None]
    others = (reward.sum(axis=1, keepdims=True) - reward) / 3
    true = -np.mean(advantage * log_p)
    remarks = {
        "Minimising this lowers the probability of the better samples: the sign is wrong.": -true,
        "Take the mean over all samples, not the sum.": -np.sum(advantage * log_p),
        "Take the mean over the samples too, not only over the pictures.": 4 * true,
        "The baseline is missing.": -np.mean(reward * log_p),
        "That is the mean of the other samples: use the reward of the greedy caption.": -np.mean(
            (reward - others) * log_p
        ),
        "That weighs p: the gradient of the expectation has log p.": -np.mean(
            advantage * np.exp(log_p)
        ),
        "That is minus the mean advantage: without log p it has no gradient.": -np.mean(advantage),
        "That baseline is the mean over all pictures: each picture has its own.": -np.mean(
            (reward - greedy.mean()) * log_p
        ),
    }
    for message, wrong in remarks.items():
        require(not is_close(found, wrong), message)
    require(is_close(found, true), f"Expected {true:.4f}. Received: {found:.4f}")
    return "It needs one search more a picture, and it works with a single sample."


@exercise(3)
def best_with_entropy(answer: Callable[..., Any]) -> str:
    """Checks a function of rewards and a weight that returns the best distribution."""
    reward, weight = np.array([0.0, 0.5, 4.5, 0.25, 5.75, 2.0]), 0.8
    found = array(result_of(answer, reward.copy(), weight), reward.shape, "The distribution")

    def softmax(logits: Any) -> Any:
        return np.exp(logits) / np.exp(logits).sum()

    remarks = {
        "The weight is missing: the larger it is, the more alike the probabilities.": softmax(
            reward
        ),
        "A larger weight must make it flatter: divide by the weight.": softmax(weight * reward),
        "That is best without the entropy term, or at weight 0.": np.eye(6)[reward.argmax()],
        "That is the entropy alone: the reward counts too.": np.full(6, 1 / 6),
        "They must add up to 1: divide by their sum.": np.exp(reward / weight),
        "Set the derivative to 0: log p is linear in the reward, p is not.": reward / reward.sum(),
        "That is log p up to a constant.": reward / weight,
        "The signs: the best reward gets the highest probability.": softmax(-reward / weight),
    }
    for message, wrong in remarks.items():
        require(not is_close(found, wrong), message)
    require(is_close(found.sum(), 1), f"Their sum is {found.sum():.3g}, not 1.")
    true = softmax(reward / weight)

    def objective(p: Any) -> float:
        return float(p @ reward - weight * np.sum(p * np.log(np.maximum(p, 1e-30))))

    message = (
        f"Yours has {objective(found):.3f}, another {objective(true):.3f} of reward and entropy."
    )
    require(is_close(found, true), message)
    return f"At weight {weight} the best caption has {true.max():.2f} of the probability, not 1."
