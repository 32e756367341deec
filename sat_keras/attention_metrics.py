"""Scores of where attention looked, in NumPy.

Whether its peak and its mass lie in an object's box, its entropy, and how much it moves from word
to word.
"""

from typing import NamedTuple

import numpy as np


class AttentionScore(NamedTuple):
    """A score of attention maps, beside the one of attention that doesn't look at the picture.

    Attributes:
        value: The score, from 0 to 1.
        uniform: What uniform attention gets on the same boxes.
    """

    value: float
    uniform: float


def pointing_accuracy(
    attention_maps: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int]
) -> AttentionScore:
    """Share of the attention maps whose peak lies in their object's box.

    The peak is the centre of the cell with the largest weight. Of several equal ones each counts
    its part, so that a uniform map gets the share of the cells' centres that lie in the box: the
    chance of a random cell, which is `uniform`.

    Args:
        attention_maps: `(maps, grid_height, grid_width)`, one for every word that names an object.
        boxes: `(maps, 4)`, the objects' `x0, y0, x1, y1` in pixels, x right, y down, `x1` and
            `y1` exclusive.
        image_size: `(height, width)` in pixels of the picture that the grid covers.

    Returns:
        An `AttentionScore`.

    Raises:
        ValueError: If there are no maps, shapes don't fit, or maps aren't weights.

    Example:

    >>> attention_map = np.zeros((1, 14, 14))
    >>> attention_map[0, 2, 3] = 1.0  # centre at x = 56, y = 40
    >>> pointing_accuracy(attention_map, [[50, 30, 70, 50]], (224, 224))
    AttentionScore(value=1.0, uniform=0.005...)

    Reference:
        [Zhang et al., 2016](https://arxiv.org/abs/1608.00507), the pointing game.
    """
    maps, boxes = _check_maps_and_boxes(attention_maps, boxes)
    inside = _cover(boxes, maps.shape[1:], image_size, of_centres=True)
    peak = maps == maps.max(axis=(1, 2), keepdims=True)
    hits = (inside * peak).sum(axis=(1, 2)) / peak.sum(axis=(1, 2))
    return AttentionScore(float(hits.mean()), float(inside.mean()))


def attention_mass(
    attention_maps: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int]
) -> AttentionScore:
    """Mean share of the attention that lies in the objects' boxes.

    A cell's weight is spread evenly over the cell, so that a cell that the box covers by half
    counts by half; uniform attention gets the box' share of the picture's area.

    Args:
        attention_maps: `(maps, grid_height, grid_width)`, one for every word that names an object.
            Maps are scaled to the sum 1.
        boxes: `(maps, 4)`, the objects' `x0, y0, x1, y1` in pixels, x right, y down, `x1` and
            `y1` exclusive.
        image_size: `(height, width)` in pixels of the picture that the grid covers.

    Returns:
        An `AttentionScore`.

    Raises:
        ValueError: If there are no maps, shapes don't fit, or maps aren't weights.
    """
    maps, boxes = _check_maps_and_boxes(attention_maps, boxes)
    inside = _cover(boxes, maps.shape[1:], image_size, of_centres=False)
    mass = (inside * maps).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    return AttentionScore(float(mass.mean()), float(inside.mean()))


def attention_entropy(attention_maps: np.ndarray) -> np.ndarray:
    """Entropy of attention maps, `-sum_i alpha_i log alpha_i`, in nats.

    0 looks at one region, `log(num_regions)` is uniform.

    Args:
        attention_maps: `(..., grid_height, grid_width)`. Maps are scaled to the sum 1.

    Returns:
        Float array `(...)`.

    Raises:
        ValueError: If maps aren't weights.
    """
    weights = _check_maps(attention_maps)
    weights = weights / weights.sum(axis=(-2, -1), keepdims=True)
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    return -(weights * logs).sum(axis=(-2, -1)) + 0.0  # no -0.0


def total_variation(attention_maps: np.ndarray) -> np.ndarray:
    """Share of the attention that moves from each word to the next.

    `1/2 sum_i |alpha_ti - alpha_{t-1,i}|`: 0 where maps are identical (the fault to look for), 1
    where they have no region in common.

    Args:
        attention_maps: `(..., steps, grid_height, grid_width)`. Maps are scaled to the sum 1.

    Returns:
        Float array `(..., steps - 1)`.

    Raises:
        ValueError: If maps aren't weights.
    """
    weights = _check_maps(attention_maps)
    weights = weights / weights.sum(axis=(-2, -1), keepdims=True)
    return np.abs(np.diff(weights, axis=-3)).sum(axis=(-2, -1)) / 2


def _check_maps(attention_maps):
    maps = np.asarray(attention_maps, dtype="float64")
    if maps.ndim < 2:
        raise ValueError(
            "Attention maps must have the shape `(..., grid_height, grid_width)`; reshape the "
            f"regions to the grid. Received: shape {maps.shape}"
        )
    # A comparison with NaN is False.
    if not ((maps >= 0).all() and np.isfinite(maps).all() and (maps.sum(axis=(-2, -1)) > 0).all()):
        raise ValueError(
            "Attention maps must be finite, not negative and not all 0; leave out the steps after "
            f"a caption's end. Received: maps from {maps.min()} to {maps.max()}, sums from "
            f"{maps.sum(axis=(-2, -1)).min()}"
        )
    return maps


def _check_maps_and_boxes(attention_maps, boxes):
    maps, boxes = _check_maps(attention_maps), np.asarray(boxes, dtype="float64")
    if maps.ndim != 3 or not len(maps) or boxes.shape != (len(maps), 4):
        raise ValueError(
            "There must be at least one map, `(maps, grid_height, grid_width)`, and a box for each "
            f"of them, `(maps, 4)`. Received: maps {maps.shape}, boxes {boxes.shape}"
        )
    if not ((boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])).all():
        raise ValueError(
            "Boxes must be `x0, y0, x1, y1` with x0 < x1 and y0 < y1. "
            f"Received: {boxes[(boxes[:, 0] >= boxes[:, 2]) | (boxes[:, 1] >= boxes[:, 3])]}"
        )
    return maps, boxes


def _cover(boxes, grid, image_size, of_centres):
    """How much of every cell a box covers, `(boxes, grid_height, grid_width)`, from 0 to 1.

    With `of_centres` it is 1 where the cell's centre lies in the box, and else 0.
    """

    def along(low, high, cells, pixels):
        edges = np.linspace(0, pixels, cells + 1)
        low, high = low[:, None], high[:, None]
        if of_centres:
            centres = (edges[:-1] + edges[1:]) / 2
            return ((low <= centres) & (centres < high)).astype("float64")
        overlap = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
        return np.maximum(overlap, 0) / (pixels / cells)

    rows = along(boxes[:, 1], boxes[:, 3], grid[0], image_size[0])
    columns = along(boxes[:, 0], boxes[:, 2], grid[1], image_size[1])
    return rows[:, :, None] * columns[:, None, :]
