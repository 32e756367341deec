"""Beam search: keeps the likeliest hypotheses and ranks the captions by a normalised score."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops, tree

from sat_keras.search.loop import (
    FORCED_END,
    PictureStep,
    SearchResult,
    StepFunction,
    allowed_tokens,
    empty_hypotheses,
    first_step,
    run_loop,
    select,
    to_result,
)

# How often the unfinished half of a batch goes on alone, and the smallest batch for which it pays.
_HALVINGS = 2
_SMALLEST_HALVED = 8


def beam_search(
    step: StepFunction,
    states: Any,
    *,
    start_id: int,
    end_id: int,
    max_length: int,
    beam_size: int = 5,
    length_penalty: float = 0.0,
    num_results: int | None = None,
    batch_size: int | None = None,
    pad_id: int = 0,
    forbidden_ids: Sequence[int] = (),
) -> SearchResult:
    """Searches the captions of the highest score with a beam of hypotheses.

    A caption `y` of `C` tokens, the end token included, has the score

        score(y) = log p(y) / C ** length_penalty

    Each step

    1. continues every live hypothesis by every token and keeps the `beam_size` likeliest;
    2. moves those that ended to the finished captions and keeps the `num_results` finished ones of
       the highest score. Live hypotheses of equal length thus compete by `log p`, complete captions
       by score, and an incomplete one never displaces a complete one;
    3. drops live hypotheses that cannot reach the finished ones any more: since `log p` only falls,
       their score is at most `log p / max_length ** length_penalty`.

    A picture is done when it has no live hypothesis. The last step can only end, so that all
    captions are complete and their scores compare. If `step` is a `PictureStep`, finished pictures
    leave the batch as soon as they are half of it. With one beam this is greedy search, with as
    many beams as there are captions it is exhaustive search. A picture's result does not depend on
    the other pictures of the batch. Its best caption does not depend on `num_results`: all that
    step 3 drops is less likely than what it keeps, and so are its continuations.

    Args:
        step, states, start_id, end_id, max_length, batch_size, pad_id, forbidden_ids: As of
            `greedy_search`.
        beam_size: Integer, number of live hypotheses of a picture.
        length_penalty: Float in [0, 10], exponent of the length. 0 ranks by `log p`, which favours
            short captions; 1 ranks by the mean `log p` of a token.
        num_results: Integer, number of captions of a picture, at most `beam_size`, the default.
            Fewer end the search sooner.

    Returns:
        A `SearchResult` with `num_results` beams, best first. Where fewer captions are possible,
        the last ones have length 0 and score `-inf`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        [Wu et al., 2016](https://arxiv.org/abs/1609.08144), section 7, on length normalisation;
        the plain power replaces its `lp(y)`. Notebook `05_decoding`.
    """
    num_results = beam_size if num_results is None else num_results
    _check_options(beam_size, length_penalty, num_results)
    first = first_step(step, states, start_id, batch_size, width=beam_size)
    propose = _propose(beam_size, first, start_id, end_id, max_length, pad_id, forbidden_ids)

    def score(log_probability: Any, lengths: Any) -> Any:
        return log_probability / ops.cast(lengths, "float32") ** length_penalty

    def advance(t: Any, log_probabilities: Any, hypotheses: Any) -> Any:
        live, finished = hypotheses
        tokens, parents, live = _extend(t, *propose(t, log_probabilities), live)
        ended = ops.equal(tokens, end_id)
        finished, scores = _best(num_results, score, finished, _only(live, ended))
        in_reach = score(live["log_probability"], max_length) > scores[:, -1:]
        live = _only(live, ops.logical_and(in_reach, ops.logical_not(ended)))
        return tokens, parents, (live, finished)

    def alive(hypotheses: Any) -> Any:
        live, _ = hypotheses
        return ops.any(live["log_probability"] > -math.inf, axis=-1)

    start = empty_hypotheses(first, max_length)
    # The beams of the first step are equal: only one of them may be continued.
    live = _only(start, ops.arange(beam_size) == 0)
    finished = tree.map_structure(lambda x: x[:, :num_results], start)
    finished = _only(finished, ops.zeros((num_results,), "bool"))
    batch_size = first[0].shape[0]  # None where a data set's minibatches may differ
    is_small = batch_size is not None and batch_size < _SMALLEST_HALVED
    halvings = _HALVINGS if isinstance(step, PictureStep) and not is_small else 0
    (_, finished), records = run_loop(
        step, first, advance, alive, (live, finished), max_length, halvings
    )
    scores = score(finished["log_probability"], finished["lengths"])
    return to_result(finished, scores, records, pad_id)


def _check_options(beam_size: int, length_penalty: float, num_results: int) -> None:
    if beam_size < 1:
        raise ValueError(f"`beam_size` must be at least 1. Received: beam_size={beam_size}")
    if not 0 <= length_penalty <= 10:
        raise ValueError(
            f"`length_penalty` must lie in [0, 10]. Received: length_penalty={length_penalty}"
        )
    if not 1 <= num_results <= beam_size:
        raise ValueError(
            f"`num_results` must lie in [1, {beam_size}], the number of beams. "
            f"Received: num_results={num_results}"
        )


def _propose(
    number: int,
    first: Any,
    start_id: int,
    end_id: int,
    max_length: int,
    pad_id: int,
    forbidden_ids: Sequence[int],
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns a function that proposes the `number` likeliest next tokens of every hypothesis.

    It returns `(log_probabilities, tokens)` of shape `(batch, beams, candidates)`. Tokens that are
    not allowed stay among the candidates with `-inf`: masking them before the selection would read
    the whole vocabulary once more.
    """
    vocabulary_size = first[0].shape[-1]
    allowed = allowed_tokens(vocabulary_size, start_id, end_id, max_length, pad_id, forbidden_ids)
    candidates = min(number + np.count_nonzero(~allowed), vocabulary_size)
    is_first = np.arange(candidates) == 0

    def propose(t: Any, log_probabilities: Any) -> tuple[Any, Any]:
        log_probabilities = ops.cast(log_probabilities, "float32")
        likeliest, tokens = ops.top_k(log_probabilities, candidates)
        likeliest = ops.where(ops.take(allowed, tokens), likeliest, -math.inf)
        end = ops.maximum(log_probabilities[..., end_id : end_id + 1], FORCED_END)
        is_last = ops.equal(t, max_length - 1)
        return (
            ops.where(is_last, ops.where(is_first, end, -math.inf), likeliest),
            ops.where(is_last, end_id, ops.cast(tokens, "int32")),
        )

    return propose


def _extend(t: Any, log_probabilities: Any, tokens: Any, live: Any) -> tuple[Any, Any, Any]:
    """Continues live hypotheses by the likeliest candidates: `(tokens, parents, hypotheses)`."""
    beams, candidates = tokens.shape[1:]
    total = live["log_probability"][..., None] + log_probabilities  # (batch, beams, candidates)
    total, flat = ops.top_k(ops.reshape(total, (-1, beams * candidates)), beams)
    parents = ops.cast(flat, "int32") // candidates  # (batch, beams)
    tokens = ops.take_along_axis(ops.reshape(tokens, (-1, beams * candidates)), flat, axis=1)
    live = select(live, parents)
    now = ops.arange(live["tokens"].shape[-1], dtype="int32") == t
    return (
        tokens,
        parents,
        {
            "log_probability": total,
            "lengths": live["lengths"] + 1,
            "tokens": ops.where(now, tokens[..., None], live["tokens"]),
            "slots": ops.where(now, parents[..., None], live["slots"]),
        },
    )


def _only(hypotheses: Any, keep: Any) -> Any:
    """Sets `log p = -inf` for hypotheses that are not in `keep`, which removes them."""
    log_probability = ops.where(keep, hypotheses["log_probability"], -math.inf)
    return {**hypotheses, "log_probability": log_probability}


def _best(number: int, score: Callable[[Any, Any], Any], *hypotheses: Any) -> tuple[Any, Any]:
    """Returns the `number` hypotheses of the highest score among several sets, and the scores."""
    pool = tree.map_structure(lambda *x: ops.concatenate(x, axis=1), *hypotheses)
    scores, best = ops.top_k(score(pool["log_probability"], pool["lengths"]), number)
    return select(pool, best), scores
