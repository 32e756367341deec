"""The loop that all searches share: the step function's contract, and one step after another.

A search knows no model. It gets a function that continues hypotheses by one token:

    step(token_ids, states) -> (log_probabilities, states, record)

| tensor | shape | meaning |
|---|---|---|
| `token_ids` | `(batch_size, beams)` int32 | the last token of every hypothesis |
| `log_probabilities` | `(batch_size, beams, vocabulary_size)` | `log p(next token)`, in nats |
| `states` | nest of `(batch_size, beams, ...)` | what a hypothesis carries along: LSTM states |
| `record` | nest of `(batch_size, beams, ...)` | what to keep of a step: attention, gate |

Tensors of a picture, such as its annotation vectors, are not states: the step function closes over
them and broadcasts them to all beams. If it is a `PictureStep`, which holds them, finished pictures
leave the batch. Initial states have the shape `(batch_size, 1, ...)`, because all beams share the
first step. Shapes must be static except for `batch_size`.

The searches are `keras.ops` around one `keras.ops.while_loop`. They run eagerly, in a `tf.function`
(also with an unknown batch size), in `jax.jit` and under XLA. The loop runs for at most
`max_length` steps and stops as soon as every picture is done.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops, tree

#: `step(token_ids, states) -> (log_probabilities, states, record)`.
StepFunction = Callable[[Any, Any], tuple[Any, Any, Any]]

Hypotheses = Any

# log p of a forced end token to which the model gives probability 0: low, but finite.
FORCED_END = -1e4


class PictureStep:
    """A step function that takes the tensors of the pictures as an argument.

    Args:
        function: Function of `(token_ids, states, pictures)` that returns what a step function
            does.
        pictures: Nest of tensors of shape `(batch_size, ...)`.
    """

    def __init__(self, function: Callable[[Any, Any, Any], Any], pictures: Any) -> None:
        self.function = function
        self.pictures = pictures

    def __call__(self, token_ids: Any, states: Any) -> tuple[Any, Any, Any]:
        return self.function(token_ids, states, self.pictures)

    def take(self, indices: Any) -> "PictureStep":
        """Returns the step function of some of the pictures.

        Args:
            indices: Integer tensor of shape `(pictures,)`.
        """
        return PictureStep(self.function, _take_pictures(self.pictures, indices))


class SearchResult(
    collections.namedtuple(
        "SearchResult", ["token_ids", "log_probability", "score", "lengths", "record"]
    )
):
    """The captions that a search found, best first (samples: in the order drawn).

    Attributes:
        token_ids: Int32 tensor of shape `(batch_size, beams, max_length)`, the end token included,
            then padding.
        log_probability: Tensor of shape `(batch_size, beams)`, `log p` of the whole caption in
            nats, the end token included.
        score: Tensor of shape `(batch_size, beams)`, by which the captions are ranked.
        lengths: Int32 tensor of shape `(batch_size, beams)`, number of tokens, the end token
            included.
        record: The step function's record, each tensor of shape
            `(batch_size, beams, max_length, ...)`. Index `t` is the record of the step that chose
            token `t`; records after the end are 0.
    """

    __slots__ = ()


def first_step(
    step: StepFunction, states: Any, start_id: int, batch_size: int | None, width: int
) -> tuple[Any, Any, Any]:
    """Computes the first step with one hypothesis a picture and repeats its outputs `width` times.

    Args:
        step: The step function.
        states: Nest of initial states of shape `(batch_size, 1, ...)`.
        start_id: Integer, the token before the first one.
        batch_size: Integer, or `None` to read it from `states`.
        width: Integer, number of hypotheses of a picture.

    Returns:
        The step function's outputs, of `width` beams.

    Raises:
        ValueError: If the states have another shape, or the batch size is not known.
    """
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


def allowed_tokens(
    vocabulary_size: int,
    start_id: int,
    end_id: int,
    max_length: int,
    pad_id: int,
    forbidden_ids: Sequence[int],
) -> np.ndarray:
    """Checks the ids and returns which tokens a search may emit.

    Args:
        vocabulary_size: Integer, number of token ids.
        start_id, end_id, max_length, pad_id, forbidden_ids: As of `greedy_search`.

    Returns:
        Boolean array of shape `(vocabulary_size,)`.

    Raises:
        ValueError: If an id or `max_length` is out of its range.
    """
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


def run_loop(
    step: StepFunction,
    first: tuple[Any, Any, Any],
    advance: Callable[[Any, Any, Hypotheses], tuple[Any, Any, Hypotheses]],
    alive: Callable[[Hypotheses], Any],
    hypotheses: Hypotheses,
    max_length: int,
    halvings: int = 0,
) -> tuple[Hypotheses, Any]:
    """Alternates `step` and `advance` for `max_length` steps or while a picture is `alive`.

    Args:
        step: The step function.
        first: The outputs of `first_step`.
        advance: Function of the step's number, its log-probabilities and the hypotheses. It returns
            the tokens chosen, the beams that the new hypotheses continue (shape
            `(batch_size, beams)`, `None` if each continues its own) and the new hypotheses.
        alive: Function of the hypotheses that returns which pictures are unfinished, bool
            `(batch_size,)`.
        hypotheses: The initial hypotheses.
        max_length: Integer, largest number of steps.
        halvings: Integer, how often the unfinished pictures go on alone as soon as they are half of
            the batch. Needs a `PictureStep`, and no other function may hold tensors of pictures.
            Each time adds a loop to the graph.

    Returns:
        Tuple of the last hypotheses and the records of all steps, tensors of shape
        `(max_length, batch_size, beams, ...)`.
    """

    def forward(t: Any, outputs: Any, hypotheses: Any, records: Any) -> Any:
        log_probabilities, states, record = outputs
        records = tree.map_structure(
            lambda buffer, x: ops.scatter_update(buffer, ops.reshape(t, (1, 1)), x[None]),
            records,
            record,
        )
        tokens, parents, hypotheses = advance(t, log_probabilities, hypotheses)
        if parents is not None:
            states = select(states, parents)
        return t + 1, tokens, states, hypotheses, records

    def loop(step: StepFunction, carry: Any, halvings: int) -> Any:
        tokens = carry[1]
        number = ops.shape(tokens)[0]
        few = _half(number) if halvings else 0

        def body(t: Any, tokens: Any, states: Any, hypotheses: Any, records: Any) -> Any:
            return forward(t, step(tokens, states), hypotheses, records)

        def cond(t: Any, tokens: Any, states: Any, hypotheses: Any, records: Any) -> Any:
            unfinished = ops.sum(ops.cast(alive(hypotheses), "int32"))
            return ops.logical_and(t < max_length, unfinished > few)

        t, *whole, records = ops.while_loop(cond, body, carry)
        if not (halvings and isinstance(step, PictureStep)):
            return t, *whole, records
        is_finished = ops.logical_not(alive(whole[-1]))
        order = ops.argsort(ops.cast(is_finished, "int32"))
        left = order[:few]
        part = (t, *_take_pictures(whole, left), _take_pictures(records, left, axis=1))
        t, *part, part_records = loop(step.take(left), part, halvings - 1)
        places = ops.argsort(order)
        return (
            t,
            *_put_pictures(whole, part, places),
            _put_pictures(records, part_records, places, axis=1),
        )

    records = tree.map_structure(
        lambda x: ops.zeros((max_length, *ops.shape(x)), x.dtype), first[2]
    )
    carry = forward(ops.convert_to_tensor(0, "int32"), first, hypotheses, records)
    *_, hypotheses, records = loop(step, carry, halvings)
    return hypotheses, records


def _half(number: Any) -> Any:
    """Returns half of a number of pictures, at least 1; the number may be a tensor."""
    return max(1, number // 2) if isinstance(number, int) else ops.maximum(1, number // 2)


def _take_pictures(nest: Any, indices: Any, axis: int = 0) -> Any:
    """Takes pictures of every tensor, along the axis of the pictures."""
    return tree.map_structure(lambda x: ops.take(x, indices, axis=axis), nest)


def _put_pictures(nest: Any, part: Any, places: Any, axis: int = 0) -> Any:
    """Replaces the pictures that were taken.

    Args:
        nest: Nest of tensors of all pictures.
        part: The same of the pictures that were taken.
        places: Integer tensor of shape `(batch_size,)`, where each picture is in `part`; numbers
            from the size of `part` on stand for pictures that were not taken.
        axis: Integer, axis of the pictures.
    """

    def put(x: Any, of_part: Any) -> Any:
        number = ops.shape(of_part)[axis]
        place = ops.minimum(places, number - 1)
        shape = [-1 if i == axis else 1 for i in range(len(x.shape))]
        return ops.where(
            ops.reshape(places < number, shape), ops.take(of_part, place, axis=axis), x
        )

    return tree.map_structure(put, nest, part)


def empty_hypotheses(first: tuple[Any, Any, Any], max_length: int) -> dict[str, Any]:
    """Returns hypotheses without tokens and with `log p = 0`.

    Args:
        first: The outputs of `first_step`.
        max_length: Integer, most tokens of a hypothesis.

    Returns:
        Dictionary of `log_probability` and `lengths`, shape `(batch_size, beams)`, and of the
        histories `tokens` and `slots`, shape `(batch_size, beams, max_length)`. Slot `t` is the
        beam of the hypothesis at step `t`, which locates its record of that step.
    """
    batch_size, beams = ops.shape(first[0])[:2]
    return {
        "log_probability": ops.zeros((batch_size, beams), "float32"),
        "lengths": ops.zeros((batch_size, beams), "int32"),
        "tokens": ops.zeros((batch_size, beams, max_length), "int32"),
        "slots": ops.zeros((batch_size, beams, max_length), "int32")
        + ops.arange(beams, dtype="int32")[:, None],
    }


def select(nest: Any, indices: Any) -> Any:
    """Takes beams of every tensor.

    Args:
        nest: Nest of tensors of shape `(batch_size, beams, ...)`.
        indices: Integer tensor of shape `(batch_size, new_beams)`.

    Returns:
        Nest of tensors of shape `(batch_size, new_beams, ...)`.
    """
    tensors = tree.flatten(nest)
    if not tensors:
        return nest
    batch_size, beams = ops.shape(tensors[0])[:2]
    offsets = ops.arange(batch_size, dtype="int32")[:, None] * beams
    rows = offsets + ops.cast(indices, "int32")
    # (batch, beams, ...) -> (batch * beams, ...)
    return tree.map_structure(
        lambda x: ops.take(ops.reshape(x, (-1, *x.shape[2:])), rows, axis=0), nest
    )


def to_result(hypotheses: dict[str, Any], scores: Any, records: Any, pad_id: int) -> SearchResult:
    """Collects the records of the hypotheses and pads everything after their ends.

    Args:
        hypotheses: Dictionary as of `empty_hypotheses`.
        scores: Tensor of shape `(batch_size, results)`.
        records: The records of `run_loop`.
        pad_id: Integer, id that fills `token_ids` after the end.

    Returns:
        A `SearchResult`.
    """
    found = hypotheses["log_probability"] > -math.inf
    lengths = ops.where(found, hypotheses["lengths"], 0)
    slots = hypotheses["slots"]  # (batch, beams, max_length)
    batch_size, beams, max_length = ops.shape(slots)
    steps = ops.arange(max_length, dtype="int32")
    inside = steps < lengths[..., None]
    pictures = ops.arange(batch_size, dtype="int32")[:, None, None]
    rows = steps * batch_size + pictures

    def collect(record: Any) -> Any:
        # (max_length, batch, beams, ...) -> (batch, results, max_length, ...)
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
