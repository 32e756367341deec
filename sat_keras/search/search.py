"""Greedy search, beam search and sampling over a step function.

The searches know no model. All they get is a function that continues hypotheses by one token:

    step(token_ids, states) -> (log_probabilities, states, record)

| tensor | shape | what |
|---|---|---|
| `token_ids` | `(batch_size, beams)` int32 | the last token of every hypothesis |
| `log_probabilities` | `(batch_size, beams, vocabulary_size)` | `log p(next token)`, in nats |
| `states` | nest of `(batch_size, beams, ...)` | what belongs to a hypothesis: LSTM states |
| `record` | nest of `(batch_size, beams, ...)` | what to keep of every step: attention, gate |

What belongs to the picture, such as the annotation vectors, is no state: the step function closes
over it and shares it among the beams by broadcasting. The first step is taken with one beam, so the
initial states have the shape `(batch_size, 1, ...)`; the search repeats them. Shapes must be static
but for `batch_size`.

Everything is `keras.ops` around one `keras.ops.while_loop`: a search runs eagerly, in a
`tf.function` (also with an unknown batch size), in `jax.jit` and under XLA. `max_length` is fixed,
and the loop leaves as soon as every picture is done.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops, random, tree

#: `step(token_ids, states) -> (log_probabilities, states, record)`.
StepFunction = Callable[[Any, Any], tuple[Any, Any, Any]]

# log p of an END that is forced although the model rules it out: low, but still a number.
_FORCED_END = -1e4


class SearchResult(
    collections.namedtuple(
        "SearchResult", ["token_ids", "log_probability", "score", "lengths", "record"]
    )
):
    """What a search returns, best hypothesis first (samples: in the order drawn).

    Attributes:
        token_ids: `(batch_size, beams, max_length)` int32, END included, then padding.
        log_probability: `(batch_size, beams)`, `log p` of the whole hypothesis, END included.
        score: `(batch_size, beams)`, what the hypotheses are ranked by.
        lengths: `(batch_size, beams)` int32, number of tokens, END included.
        record: The step function's record, each tensor `(batch_size, beams, max_length, ...)`: at
            step `t` what the step that chose token `t` recorded, zeros after the end.
    """

    __slots__ = ()


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

    The same as `beam_search` with one beam, without its bookkeeping.

    Args:
        step: The step function, see the module's description.
        states: Nest of initial states `(batch_size, 1, ...)`.
        start_id: Id of the token fed to the first step. Never emitted.
        end_id: Id of the token that closes a caption.
        max_length: Most tokens of a caption, END included; a caption that gets there is closed.
        batch_size: Number of pictures. Only needed where `states` holds no tensor.
        pad_id: Id that fills `token_ids` after the end. Never emitted before it.
        forbidden_ids: Further ids that are never emitted, such as the one of `<unk>`.

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
        Notebook `05_decoding_and_evaluation`.
    """
    first = _first_step(step, states, start_id, batch_size, width=1)
    permit = _permit(first, start_id, end_id, max_length, pad_id, forbidden_ids)

    def choose(t, log_probabilities):
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

    The next token is drawn with a probability proportional to `p(token) ** (1 / temperature)`,
    among the `top_k` likeliest tokens if `top_k` is given, by the Gumbel trick:
    `argmax(log p / temperature + noise)`. The noise of all steps is drawn before the loop and takes
    `max_length * batch_size * num_samples * vocabulary_size * 4` bytes.

    Args:
        step: The step function, see the module's description.
        states: Nest of initial states `(batch_size, 1, ...)`.
        start_id: Id of the token fed to the first step. Never emitted.
        end_id: Id of the token that closes a caption.
        max_length: Most tokens of a caption, END included; a caption that gets there is closed.
        temperature: Above 0. 1 follows the model, below 1 is bolder, above 1 more varied.
        top_k: Number of likeliest tokens to draw from. None draws from all.
        num_samples: Number of independent captions of a picture.
        seed: Integer (the same draws at every call, though not the same ones under XLA as without)
            or a `keras.random.SeedGenerator`.
        batch_size: Number of pictures. Only needed where `states` holds no tensor.
        pad_id: Id that fills `token_ids` after the end. Never emitted before it.
        forbidden_ids: Further ids that are never emitted, such as the one of `<unk>`.

    Returns:
        A `SearchResult` whose beams are the samples, in the order drawn. Its `log_probability` and
        `score` are the model's own `log p`, without temperature and `top_k`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Notebook `05_decoding_and_evaluation`.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be above 0. Received: temperature={temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"`top_k` must be None or at least 1. Received: top_k={top_k}")
    if num_samples < 1:
        raise ValueError(f"`num_samples` must be at least 1. Received: num_samples={num_samples}")
    first = _first_step(step, states, start_id, batch_size, width=num_samples)
    permit = _permit(first, start_id, end_id, max_length, pad_id, forbidden_ids)
    log_probabilities, _, _ = first
    uniform = random.uniform((max_length, *ops.shape(log_probabilities)), 1e-20, 1.0, seed=seed)
    noise = -ops.log(-ops.log(uniform))  # Gumbel, (max_length, batch, samples, vocabulary)

    def choose(t, log_probabilities):
        if top_k is not None and top_k < log_probabilities.shape[-1]:
            least = ops.top_k(log_probabilities, top_k)[0][..., -1:]
            log_probabilities = ops.where(log_probabilities < least, -math.inf, log_probabilities)
        return ops.argmax(log_probabilities / temperature + ops.take(noise, t, axis=0), axis=-1)

    return _roll_out(step, first, permit, choose, end_id, max_length, pad_id)


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

    A caption `y` of `C` tokens, END counted, has the score

        score(y) = log p(y) / C ** length_penalty

    Each step

    1. continues every live hypothesis by every token and keeps the `beam_size` likeliest;
    2. moves those of them that ended to the finished ones, of which it keeps the `num_results` of
       the highest score. Live hypotheses thus compete by `log p` among equals in length, complete
       ones by score, and none is dropped for an incomplete one;
    3. drops the live ones that can't get among the finished ones any more: since `log p` only
       falls, `log p / max_length ** length_penalty` is the most that they can reach.

    A picture is done when no live hypothesis is left. The last step can only end, so that all
    captions are complete and their scores compare. With one beam this is greedy search, with as
    many beams as there are captions it is exhaustive search. The result of a picture doesn't depend
    on the other pictures of the batch. Nor does its best caption depend on `num_results`: what 3
    drops is less likely than all that it keeps, and so is whatever would continue it.

    Args:
        step: The step function, see the module's description.
        states: Nest of initial states `(batch_size, 1, ...)`.
        start_id: Id of the token fed to the first step. Never emitted.
        end_id: Id of the token that closes a caption.
        max_length: Most tokens of a caption, END included; a caption that gets there is closed.
        beam_size: Number of live hypotheses kept of a picture.
        length_penalty: Exponent of the length, in [0, 10]. 0 ranks by `log p`, which favours short
            captions; 1 ranks by the mean `log p` of a token.
        num_results: Number of captions to find of a picture, at most `beam_size`, which is the
            default. With fewer of them the search is over sooner.
        batch_size: Number of pictures. Only needed where `states` holds no tensor.
        pad_id: Id that fills `token_ids` after the end. Never emitted before it.
        forbidden_ids: Further ids that are never emitted, such as the one of `<unk>`.

    Returns:
        A `SearchResult` with `num_results` beams, best first. Where fewer captions are possible,
        the last ones have length 0 and score `-inf`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        [Wu et al., 2016](https://arxiv.org/abs/1609.08144), section 7, on length normalisation;
        the plain power replaces its `lp(y)`.
        Notebook `05_decoding_and_evaluation`.
    """
    if beam_size < 1:
        raise ValueError(f"`beam_size` must be at least 1. Received: beam_size={beam_size}")
    if not 0 <= length_penalty <= 10:
        raise ValueError(
            f"`length_penalty` must lie in [0, 10]. Received: length_penalty={length_penalty}"
        )
    num_results = beam_size if num_results is None else num_results
    if not 1 <= num_results <= beam_size:
        raise ValueError(
            f"`num_results` must lie in [1, {beam_size}], the number of beams. "
            f"Received: num_results={num_results}"
        )
    first = _first_step(step, states, start_id, batch_size, width=beam_size)
    propose = _propose(beam_size, first, start_id, end_id, max_length, pad_id, forbidden_ids)

    def score(log_probability, lengths):
        return log_probability / ops.cast(lengths, "float32") ** length_penalty

    def advance(t, log_probabilities, hypotheses):
        live, finished = hypotheses
        tokens, parents, live = _extend(t, *propose(t, log_probabilities), live)
        ended = ops.equal(tokens, end_id)
        finished, scores = _best(num_results, score, finished, _only(live, ended))
        in_reach = score(live["log_probability"], max_length) > scores[:, -1:]
        live = _only(live, ops.logical_and(in_reach, ops.logical_not(ended)))
        return tokens, parents, (live, finished)

    def alive(hypotheses):
        live, _ = hypotheses
        return ops.any(live["log_probability"] > -math.inf)

    start = _empty_hypotheses(first, max_length)
    # One hypothesis to start from: of the first step's equal beams only the first one counts.
    live = _only(start, ops.arange(beam_size) == 0)
    finished = tree.map_structure(lambda x: x[:, :num_results], start)
    finished = _only(finished, ops.zeros((num_results,), "bool"))
    (_, finished), records = _loop(step, first, advance, alive, (live, finished), max_length)
    scores = score(finished["log_probability"], finished["lengths"])
    return _result(finished, scores, records, pad_id)


def _roll_out(step, first, permit, choose, end_id, max_length, pad_id):
    """Continues every hypothesis by one token a step: `choose(t, log_probabilities)`."""

    def advance(t, log_probabilities, hypotheses):
        log_probabilities = permit(t, log_probabilities)
        tokens = ops.cast(choose(t, log_probabilities), "int32")  # (batch, beams)
        gain = ops.take_along_axis(log_probabilities, tokens[..., None], axis=-1)[..., 0]
        running = hypotheses["running"]
        now = ops.arange(max_length) == t
        hypotheses = {
            "log_probability": hypotheses["log_probability"] + ops.where(running, gain, 0.0),
            "lengths": hypotheses["lengths"] + ops.cast(running, "int32"),
            "tokens": ops.where(now, tokens[..., None], hypotheses["tokens"]),
            "slots": hypotheses["slots"],
            "running": ops.logical_and(running, ops.not_equal(tokens, end_id)),
        }
        return tokens, None, hypotheses

    def alive(hypotheses):
        return ops.any(hypotheses["running"])

    hypotheses = _empty_hypotheses(first, max_length)
    hypotheses["running"] = ops.ones_like(hypotheses["lengths"], "bool")
    hypotheses, records = _loop(step, first, advance, alive, hypotheses, max_length)
    return _result(hypotheses, hypotheses["log_probability"], records, pad_id)


def _first_step(step, states, start_id, batch_size, width):
    """Outputs of the first step, taken with one hypothesis a picture and repeated to `width`."""
    tensors = tree.flatten(states)
    for tensor in tensors:
        if len(tensor.shape) < 2 or tensor.shape[1] != 1:
            raise ValueError(
                "Initial states must have the shape `(batch_size, 1, ...)`; insert the axis of "
                f"the beams with `ops.expand_dims(state, 1)`. Received: shape {tensor.shape}"
            )
    if batch_size is None:
        if not tensors:
            raise ValueError(
                "`batch_size` must be given where `states` holds no tensor to read it from. "
                f"Received: states={states}, batch_size=None"
            )
        batch_size = ops.shape(tensors[0])[0]
    outputs = step(ops.full((batch_size, 1), start_id, "int32"), states)
    return tree.map_structure(lambda x: ops.repeat(x, width, axis=1), outputs)


def _allowed(first, start_id, end_id, max_length, pad_id, forbidden_ids):
    """Checks the ids, and says which tokens may be emitted: booleans `(vocabulary_size,)`."""
    vocabulary_size = first[0].shape[-1]
    never = {int(token_id) for token_id in (pad_id, start_id, *forbidden_ids)}
    if max_length < 1:
        raise ValueError(f"`max_length` must be at least 1. Received: max_length={max_length}")
    if end_id in never:
        raise ValueError(
            "`end_id` must differ from `start_id`, `pad_id` and `forbidden_ids`. "
            f"Received: end_id={end_id}, the others are {sorted(never)}"
        )
    if min(never | {end_id}) < 0 or max(never | {end_id}) >= vocabulary_size:
        raise ValueError(
            f"Ids must lie in [0, {vocabulary_size}), the vocabulary of the step function. "
            f"Received: {sorted(never | {end_id})}"
        )
    return ~np.isin(np.arange(vocabulary_size), sorted(never))


def _permit(first, start_id, end_id, max_length, pad_id, forbidden_ids):
    """Returns `permit(t, log_probabilities)`, which puts `-inf` at tokens not allowed at `t`."""
    allowed = _allowed(first, start_id, end_id, max_length, pad_id, forbidden_ids)
    is_end = np.arange(len(allowed)) == end_id

    def permit(t, log_probabilities):
        log_probabilities = ops.cast(log_probabilities, "float32")
        closing = ops.where(is_end, ops.maximum(log_probabilities, _FORCED_END), -math.inf)
        return ops.where(
            ops.equal(t, max_length - 1),
            closing,
            ops.where(allowed, log_probabilities, -math.inf),
        )

    return permit


def _propose(number, first, start_id, end_id, max_length, pad_id, forbidden_ids):
    """Returns `propose(t, log_probabilities)`: every hypothesis's `number` likeliest next tokens.

    They are `(log_probabilities, tokens)`, `(batch, beams, candidates)`. What is not allowed comes
    among them with `-inf`, for ruling it out beforehand would go through the whole vocabulary.
    """
    allowed = _allowed(first, start_id, end_id, max_length, pad_id, forbidden_ids)
    candidates = min(number + np.count_nonzero(~allowed), len(allowed))
    is_first = np.arange(candidates) == 0

    def propose(t, log_probabilities):
        log_probabilities = ops.cast(log_probabilities, "float32")
        likeliest, tokens = ops.top_k(log_probabilities, candidates)
        likeliest = ops.where(ops.take(allowed, tokens), likeliest, -math.inf)
        end = ops.maximum(log_probabilities[..., end_id : end_id + 1], _FORCED_END)
        is_last = ops.equal(t, max_length - 1)
        return (
            ops.where(is_last, ops.where(is_first, end, -math.inf), likeliest),
            ops.where(is_last, end_id, ops.cast(tokens, "int32")),
        )

    return propose


def _loop(step, first, advance, alive, hypotheses, max_length):
    """Alternates `step` and `advance` until `max_length` or until nothing is `alive`.

    `advance(t, log_probabilities, hypotheses)` gives `(tokens, parents, hypotheses)`, where
    `parents` `(batch, beams)` are the beams that the new hypotheses continue, or None if each
    continues its own. Returns the last hypotheses, and the records of all steps,
    `(max_length, batch, beams, ...)`.
    """

    def forward(t, outputs, hypotheses, records):
        log_probabilities, states, record = outputs
        records = tree.map_structure(
            lambda buffer, x: ops.scatter_update(buffer, ops.reshape(t, (1, 1)), x[None]),
            records,
            record,
        )
        tokens, parents, hypotheses = advance(t, log_probabilities, hypotheses)
        if parents is not None:
            states = _select(states, parents)
        return t + 1, tokens, states, hypotheses, records

    def body(t, tokens, states, hypotheses, records):
        return forward(t, step(tokens, states), hypotheses, records)

    def cond(t, tokens, states, hypotheses, records):
        return ops.logical_and(t < max_length, alive(hypotheses))

    records = tree.map_structure(
        lambda x: ops.zeros((max_length, *ops.shape(x)), x.dtype), first[2]
    )
    carry = forward(ops.convert_to_tensor(0, "int32"), first, hypotheses, records)
    *_, hypotheses, records = ops.while_loop(cond, body, carry)
    return hypotheses, records


def _empty_hypotheses(first, max_length):
    """Hypotheses without tokens and of `log p` 0, as many as the first step has.

    Their history is `(batch, beams, max_length)`: `tokens` and `slots`, where slot `t` is the beam
    in which the hypothesis entered step `t`, that is where its record of that step lies.
    """
    batch_size, beams = ops.shape(first[0])[:2]
    return {
        "log_probability": ops.zeros((batch_size, beams), "float32"),
        "lengths": ops.zeros((batch_size, beams), "int32"),
        "tokens": ops.zeros((batch_size, beams, max_length), "int32"),
        "slots": ops.zeros((batch_size, beams, max_length), "int32")
        + ops.arange(beams, dtype="int32")[:, None],
    }


def _extend(t, log_probabilities, tokens, live):
    """The likeliest continuations by one of the tokens: `(tokens, parents, hypotheses)`."""
    beams, candidates = tokens.shape[1:]
    total = live["log_probability"][..., None] + log_probabilities  # (batch, beams, candidates)
    total, flat = ops.top_k(ops.reshape(total, (-1, beams * candidates)), beams)
    parents = ops.cast(flat, "int32") // candidates  # (batch, beams)
    tokens = ops.take_along_axis(ops.reshape(tokens, (-1, beams * candidates)), flat, axis=1)
    live = _select(live, parents)
    now = ops.arange(live["tokens"].shape[-1]) == t
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


def _only(hypotheses, keep):
    """Gives the hypotheses that aren't in `keep` `log p = -inf`, so that nothing follows them."""
    log_probability = ops.where(keep, hypotheses["log_probability"], -math.inf)
    return {**hypotheses, "log_probability": log_probability}


def _best(number, score, *hypotheses):
    """The `number` hypotheses of the highest score out of several sets, and their scores."""
    pool = tree.map_structure(lambda *x: ops.concatenate(x, axis=1), *hypotheses)
    scores, best = ops.top_k(score(pool["log_probability"], pool["lengths"]), number)
    return _select(pool, best), scores


def _select(nest, indices):
    """Takes the beams `indices` `(batch, new_beams)` of every tensor `(batch, beams, ...)`."""

    def select(x):
        batch_size, beams = ops.shape(x)[:2]
        offsets = ops.arange(batch_size, dtype="int32")[:, None] * beams
        rows = ops.reshape(x, (-1, *x.shape[2:]))
        return ops.take(rows, offsets + ops.cast(indices, "int32"), axis=0)

    return tree.map_structure(select, nest)


def _result(hypotheses, scores, records, pad_id):
    """Collects the records of the hypotheses and cuts everything at their ends."""
    found = hypotheses["log_probability"] > -math.inf
    lengths = ops.where(found, hypotheses["lengths"], 0)
    slots = hypotheses["slots"]  # (batch, beams, max_length)
    batch_size, beams, max_length = ops.shape(slots)
    steps = ops.arange(max_length, dtype="int32")
    inside = steps < lengths[..., None]
    pictures = ops.arange(batch_size, dtype="int32")[:, None, None]
    rows = steps * batch_size + pictures

    def collect(record):  # (max_length, batch, beams, ...) -> (batch, results, max_length, ...)
        shape = record.shape[3:]
        record = ops.take(ops.reshape(record, (-1, *shape)), rows * record.shape[2] + slots, axis=0)
        mask = ops.reshape(inside, (-1, beams, max_length, *[1] * len(shape)))
        return ops.where(mask, record, ops.zeros_like(record))

    return SearchResult(
        token_ids=ops.where(inside, hypotheses["tokens"], pad_id),
        log_probability=hypotheses["log_probability"],
        score=scores,
        lengths=lengths,
        record=tree.map_structure(collect, records),
    )
