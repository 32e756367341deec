"""Greedy search and sampling: every hypothesis is continued by one token a step."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops, random

from sat_keras.backend.gumbel import gumbel_noise
from sat_keras.search.loop import (
    FORCED_END,
    SearchResult,
    StepFunction,
    allowed_tokens,
    empty_hypotheses,
    first_step,
    run_loop,
    to_result,
)


def greedy_search(
    step: StepFunction,
    states: Any,
    *,
    start_id: int,
    end_id: int,
    max_length: int,
    batch_size: int | None = None,
    pad_id: int = 0,
    forbidden_ids: Sequence[int] = (),
) -> SearchResult:
    """Takes the likeliest token at every step.

    Equals `beam_search` with one beam and does less bookkeeping.

    Args:
        step: The step function, see `sat_keras.search.loop`.
        states: Nest of initial states of shape `(batch_size, 1, ...)`.
        start_id: Integer, the token before the first one. Never emitted.
        end_id: Integer, the token that ends a caption.
        max_length: Integer, most tokens of a caption, the end token included. The last step can
            only end.
        batch_size: Integer, number of pictures. Required where `states` holds no tensor.
        pad_id: Integer that fills `token_ids` after the end. Never emitted before it.
        forbidden_ids: Integers that are never emitted either, such as the id of `<unk>`.

    Returns:
        A `SearchResult` with one beam; its `score` is `log_probability`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> table = ops.log(ops.array([0.0, 0.1, 0.3, 0.6]))  # of padding, start, end and one word
    >>> def step(token_ids, states):
    ...     return ops.broadcast_to(table, (*token_ids.shape, 4)), states, {}
    >>> result = greedy_search(step, {}, start_id=1, end_id=2, max_length=4, batch_size=1)
    >>> ops.convert_to_numpy(result.token_ids).tolist()
    [[[3, 3, 3, 2]]]

    Reference:
        Notebook `05_decoding`.
    """
    first = first_step(step, states, start_id, batch_size, width=1)
    permit = _permit(first, start_id, end_id, max_length, pad_id, forbidden_ids)

    def choose(t: Any, log_probabilities: Any) -> Any:
        return ops.argmax(log_probabilities, axis=-1)

    return _roll_out(step, first, permit, choose, end_id, max_length, pad_id)


def sample_search(
    step: StepFunction,
    states: Any,
    *,
    start_id: int,
    end_id: int,
    max_length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    num_samples: int = 1,
    seed: int | random.SeedGenerator | None = None,
    batch_size: int | None = None,
    pad_id: int = 0,
    forbidden_ids: Sequence[int] = (),
) -> SearchResult:
    """Draws every token from the model's distribution.

    The probability of a token is proportional to `p(token) ** (1 / temperature)`, among the `top_k`
    likeliest tokens if `top_k` is given. Tokens are drawn by the Gumbel-max trick,
    `argmax(log p / temperature + noise)`. The noise of all steps is drawn before the loop and takes
    `max_length * batch_size * num_samples * vocabulary_size * 4` bytes.

    Args:
        step, states, start_id, end_id, max_length, batch_size, pad_id, forbidden_ids: As of
            `greedy_search`.
        temperature: Float above 0. Values below 1 favour likely tokens, values above 1 vary more.
        top_k: Integer, number of likeliest tokens to draw from, or `None` for all.
        num_samples: Integer, number of independent captions of a picture.
        seed: Integer for the same draws at every call (XLA draws other ones than the backend
            without XLA), or a `keras.random.SeedGenerator`.

    Returns:
        A `SearchResult` whose beams are the samples in the order drawn. Its `log_probability` and
        `score` are the model's own `log p`, without temperature and `top_k`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Notebook `05_decoding`.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be above 0. Received: temperature={temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"`top_k` must be None or at least 1. Received: top_k={top_k}")
    if num_samples < 1:
        raise ValueError(f"`num_samples` must be at least 1. Received: num_samples={num_samples}")
    first = first_step(step, states, start_id, batch_size, width=num_samples)
    permit = _permit(first, start_id, end_id, max_length, pad_id, forbidden_ids)
    # (max_length, batch, samples, vocabulary)
    noise = gumbel_noise((max_length, *ops.shape(first[0])), seed)

    def choose(t: Any, log_probabilities: Any) -> Any:
        if top_k is not None and top_k < log_probabilities.shape[-1]:
            least = ops.top_k(log_probabilities, top_k)[0][..., -1:]
            log_probabilities = ops.where(log_probabilities < least, -math.inf, log_probabilities)
        return ops.argmax(log_probabilities / temperature + ops.take(noise, t, axis=0), axis=-1)

    return _roll_out(step, first, permit, choose, end_id, max_length, pad_id)


def _permit(
    first: Any,
    start_id: int,
    end_id: int,
    max_length: int,
    pad_id: int,
    forbidden_ids: Sequence[int],
) -> Callable[[Any, Any], Any]:
    """Returns `permit(t, log_probabilities)`, which puts `-inf` at tokens not allowed at `t`."""
    vocabulary_size = first[0].shape[-1]
    allowed = allowed_tokens(vocabulary_size, start_id, end_id, max_length, pad_id, forbidden_ids)
    is_end = np.arange(vocabulary_size) == end_id

    def permit(t: Any, log_probabilities: Any) -> Any:
        log_probabilities = ops.cast(log_probabilities, "float32")
        closing = ops.where(is_end, ops.maximum(log_probabilities, FORCED_END), -math.inf)
        return ops.where(
            ops.equal(t, max_length - 1),
            closing,
            ops.where(allowed, log_probabilities, -math.inf),
        )

    return permit


def _roll_out(
    step: StepFunction,
    first: Any,
    permit: Callable[[Any, Any], Any],
    choose: Callable[[Any, Any], Any],
    end_id: int,
    max_length: int,
    pad_id: int,
) -> SearchResult:
    """Continues every hypothesis by the token `choose(t, log_probabilities)` at every step."""

    def advance(t: Any, log_probabilities: Any, hypotheses: Any) -> Any:
        log_probabilities = permit(t, log_probabilities)
        tokens = ops.cast(choose(t, log_probabilities), "int32")  # (batch, beams)
        gain = ops.take_along_axis(log_probabilities, tokens[..., None], axis=-1)[..., 0]
        running = hypotheses["running"]
        now = ops.arange(max_length, dtype="int32") == t
        hypotheses = {
            "log_probability": hypotheses["log_probability"] + ops.where(running, gain, 0.0),
            "lengths": hypotheses["lengths"] + ops.cast(running, "int32"),
            "tokens": ops.where(now, tokens[..., None], hypotheses["tokens"]),
            "slots": hypotheses["slots"],
            "running": ops.logical_and(running, ops.not_equal(tokens, end_id)),
        }
        return tokens, None, hypotheses

    def alive(hypotheses: Any) -> Any:
        return ops.any(hypotheses["running"], axis=-1)

    hypotheses = empty_hypotheses(first, max_length)
    hypotheses["running"] = ops.ones_like(hypotheses["lengths"], "bool")
    hypotheses, records = run_loop(step, first, advance, alive, hypotheses, max_length)
    return to_result(hypotheses, hypotheses["log_probability"], records, pad_id)
