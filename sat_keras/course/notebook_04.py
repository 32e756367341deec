"""Checks of the exercises of `04_training`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import exercise, number, require, result_of


@exercise(1)
def number_of_steps(answer: Any, captions: int, batch_size: int, epochs: int) -> str:
    """Checks the number of minibatches of a training."""
    found, an_epoch = number(answer, "an integer"), math.ceil(captions / batch_size)
    true = an_epoch * epochs
    require(found != an_epoch, "That is one epoch.")
    require(found != captions // batch_size * epochs, "The last, smaller minibatch counts too.")
    require(found != math.ceil(captions * epochs / batch_size), "Round up in every epoch.")
    require(found == true, f"{answer} is not captions / batch size, rounded up, times epochs.")
    return ""


@exercise(2)
def cosine_schedule(answer: Callable[..., Any]) -> str:
    """Checks a function of the initial rate, the step and the number of steps."""
    for share, rate in ((0, 1.0), (1 / 2, 0.5), (3 / 4, 0.1464466), (1, 0.0)):
        found = number(result_of(answer, 0.004, share * 400, 400), "a rate")
        message = f"At {share:.0%} of the steps the rate is {rate:.3f} of the initial one, not "
        require(np.isclose(found, 0.004 * rate, atol=1e-7), f"{message}{found / 0.004:.3f}.")
    return "Half the rate half-way, 15 % of it at three quarters."


@exercise(3)
def wrong_annotations(answer: Any, captioner: Any, batches: Any) -> str:
    """Checks the rise of the cross-entropy with the annotation vectors of other images."""
    found = number(answer, "a number of nats a word")
    other = batches.map(lambda x, y, w: ({**x, "annotations": x["annotations"][::-1]}, y, w))
    costs = [
        captioner.evaluate(data, return_dict=True, verbose=0)["cross_entropy"]
        for data in (other, batches)
    ]
    rise = costs[0] - costs[1]
    require(not np.isclose(found, -rise, rtol=0.2), "It rises: the difference is positive.")
    require(not np.isclose(found, costs[0], rtol=0.05), "Subtract that of the right images.")
    require(np.isclose(found, rise, rtol=0.2), f"{found:.2f} is not the difference of `evaluate`.")
    return f"The right image is worth {rise:.2f} nats a word."


@exercise(4)
def penalty_of_length(answer: Any, captioner: Any, batches: Any) -> str:
    """Checks a captioner trained with `penalty_target="length"` and lambda 1."""
    require(hasattr(answer, "config"), f"Expected a captioner. Received: {type(answer).__name__}")
    for name, value in (("penalty_target", "length"), ("penalty_weight", 1.0)):
        received = getattr(answer.config, name)
        require(received == value, f"Set {name}={value!r}. Received: {received!r}")
    costs = answer.evaluate(batches, return_dict=True, verbose=0)
    expected = np.log(answer.config.vocabulary_size or answer.tokenizer.vocabulary_size)
    require(costs["cross_entropy"] < expected / 2, "It is not trained yet: call `fit`.")
    other = captioner.evaluate(batches, return_dict=True, verbose=0)["penalty"]
    return f"Penalty {costs['penalty']:.1f} in place of {other:.1f}: tau = C / L allows one near 0."
