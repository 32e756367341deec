"""Checks of the exercises of `03_decoder_and_loss`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import array, exercise, is_close, number, require, result_of


@exercise(1)
def first_loss(answer: Any) -> str:
    """Checks the cross-entropy of an untrained model of 10,000 words."""
    found, true = number(answer, "a number of nats"), np.log(10_000)
    for name, base in (("bits", np.log(2)), ("powers of ten", np.log(10))):
        require(not np.isclose(found, true / base, rtol=1e-2), f"That is in {name}, not in nats.")
    require(not np.isclose(found, -true, rtol=1e-2), "A cost is positive: -log p.")
    require(np.isclose(found, true, rtol=1e-2), f"exp({found:.3g}) is not the number of words.")
    return ""


@exercise(2)
def other_target(answer: Any, attention_weights: Any, weight: Any) -> str:
    """Checks the penalty with `tau = C / L` of every caption."""
    weight = np.asarray(weight, "float64")
    attended = (np.asarray(attention_weights, "float64") * weight[..., None]).sum(axis=2)
    tau = weight.sum(axis=-1, keepdims=True) / attended.shape[-1]
    found, true = array(answer, attended.shape[:2]), ((tau - attended) ** 2).sum(axis=-1)
    ones = ((1 - attended) ** 2).sum(axis=-1)
    require(not is_close(found, ones, 1e-4), "That is the penalty with tau = 1.")
    require(not is_close(found, true / attended.shape[-1], 1e-3), "Sum over the regions, no mean.")
    atol = max(1e-3 * true.max(), 1e-6 * ones.max())  # float32
    require(np.allclose(found, true, rtol=0, atol=atol), "tau = C / L is one number a caption.")
    return "Nearly 0: untrained attention is nearly uniform."


@exercise(3)
def closed_gate(answer: Any, decoder: Any, token_ids: Any, annotations: Any) -> str:
    """Checks a bias of the gate by setting it for one step with and without annotations."""
    value = number(answer)
    bias, mean = decoder.gate.bias.numpy(), np.asarray(annotations)
    hidden, cell = decoder.initial_state(mean)
    decoder.gate.bias.assign([value])
    try:
        blind, seeing = (
            np.asarray(
                decoder.step(
                    token_ids[:, :1],
                    {"hidden": hidden, "cell": cell},
                    a,
                    decoder.attention.project(a),
                )[0]
            )
            for a in (0 * mean, mean)
        )
    finally:
        decoder.gate.bias.assign(bias)
    require(value < 0, f"sigmoid({value:g}) is {1 / (1 + np.exp(-value)):.2f}: the gate is open.")
    change = np.abs(blind - seeing).max()
    require(change < 1e-6, f"The logits still change by {change:.1e}: go further.")
    return ""


@exercise(4)
def perplexity(answer: Callable[..., Any], surprise: Any, weight: Any) -> str:
    """Checks a function of the costs and weights of all steps."""
    surprise, weight = np.asarray(surprise, "float64"), np.asarray(weight, "float64")
    padded = np.pad(surprise, ((0, 0), (0, 0), (0, 3))), np.pad(weight, ((0, 0), (0, 0), (0, 3)))
    true = np.exp(surprise.sum() / weight.sum())
    found = number(result_of(answer, *padded))
    require(not np.isclose(found, np.log(true), rtol=1e-4), "That is the cross-entropy: exp().")
    mean = np.exp(padded[0].mean())
    require(not np.isclose(found, mean, rtol=1e-4), "Padding counts in your mean: use the weight.")
    require(np.isclose(found, true, rtol=1e-4), f"{found:.3g} is not exp(sum of costs / words).")
    return f"{true:.0f}, close to the size of the vocabulary."
