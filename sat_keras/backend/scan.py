"""A loop over steps that differentiates on every backend."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

Parts = dict[str, Any]


def scan(
    step: Callable[[Any, Parts], Parts],
    start: Parts,
    steps: Any,
    widths: Mapping[str, int],
    reverse: bool = False,
) -> Any:
    """Computes `parts = step(t, parts)` for every step and stacks the parts of all steps.

    `keras.ops.scan` on TensorFlow requires outputs of the carry's shape. Here both are the same
    tensor: the concatenation of all parts along their last axis.

    Args:
        step: Function of the step's number and of the previous step's parts named in `start`. It
            returns a dictionary with a part for each name in `widths`.
        start: Parts that the first step reads, tensors of shape `(batch_size, captions, width)`.
        steps: Integer or scalar tensor.
        widths: Size of the last axis of every part, by name.
        reverse: Boolean, whether to begin with the last step.

    Returns:
        Tensor of shape `(steps, batch_size, captions, sum of the widths)`; see `unpack`.
    """
    ends = dict(zip(widths, itertools.accumulate(widths.values()), strict=True))

    def body(row: Any, t: Any) -> tuple[Any, Any]:
        last = {name: row[..., ends[name] - widths[name] : ends[name]] for name in start}
        new = step(t, last)
        row = ops.concatenate([new[name] for name in widths], axis=-1)
        return row, row

    zero = ops.zeros_like(next(iter(start.values()))[..., :1])
    row = [
        start[name] if name in start else ops.repeat(zero, width, axis=-1)
        for name, width in widths.items()
    ]
    return ops.scan(body, ops.concatenate(row, axis=-1), ops.arange(steps), reverse=reverse)[1]


def unpack(rows: Any, widths: Mapping[str, int]) -> Parts:
    """Splits what `scan` returns into a dictionary of parts.

    Args:
        rows: Tensor of shape `(..., sum of the widths)`.
        widths: As of `scan`.

    Returns:
        Dictionary of tensors of shape `(..., width)`.
    """
    ends = list(itertools.accumulate(widths.values()))
    return dict(zip(widths, ops.split(rows, ends[:-1], axis=-1), strict=True))
