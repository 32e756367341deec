"""Scores of where attention looked, in NumPy.

Whether its peak and its mass lie in an object's box, how wide it is, how much it moves from word
to word, how much of the picture it covers, and whether it is the same everywhere. Each score has a
known value for attention that does not look at the picture: uniform over the regions, or always at
the centre, where photographers put things.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sat_keras.evaluation.bootstrap import SAMPLES, interval, resample

# Standard deviation of the centre-biased baseline, as a share of the picture's sides.
CENTRE_WIDTH = 0.25


class AttentionScore(NamedTuple):
    """A score of attention maps, beside those of attention that doesn't look at the picture.

    Attributes:
        value: The score, from 0 to 1.
        uniform: What uniform attention gets on the same boxes.
        centre: What attention at the centre, `centre_map`, gets on them.
    """

    value: float
    uniform: float
    centre: float


def centre_map(grid_shape: tuple[int, int], width: float = CENTRE_WIDTH) -> np.ndarray:
    """Attention that is always at the centre: a Gaussian.

    `alpha_i ~ exp(-(x_i^2 + y_i^2) / (2 width^2))`, with a cell's centre `x, y` counted from the
    middle of the picture in shares of its width and of its height.

    Args:
        grid_shape: `(grid_height, grid_width)`.
        width: Standard deviation, as a share of the picture's sides.

    Returns:
        Array of `grid_shape`, of sum 1. Its peak is the cell in the middle; on a grid with even
        sides it is the four cells there.
    """
    y, x = (np.linspace(-0.5, 0.5, 2 * cells + 1)[1::2] for cells in grid_shape)
    weights = np.exp(-(y[:, None] ** 2 + x**2) / (2 * width**2))
    return weights / weights.sum()


def pointing_accuracy(
    attention_maps: np.ndarray, boxes: Sequence, image_size: tuple[int, int]
) -> AttentionScore:
    """Share of the attention maps whose peak lies in their object's box.

    The peak is the centre of the cell with the largest weight. Of several equal ones each counts
    its part, so that a uniform map gets the share of the cells' centres that lie in the box: the
    chance of a random cell, which is `uniform`.

    Args:
        attention_maps: `(maps, grid_height, grid_width)`, one for every word that names an object.
        boxes: For each map the `x0, y0, x1, y1` of its object in pixels, x right, y down, `x1` and
            `y1` exclusive; or, where the word names several objects, `(objects, 4)`, any of which
            will do.
        image_size: `(height, width)` in pixels of the picture that the grid covers.

    Returns:
        An `AttentionScore`.

    Raises:
        ValueError: If there are no maps, shapes don't fit, or maps aren't weights.

    Example:

    >>> attention_map = np.zeros((1, 14, 14))
    >>> attention_map[0, 2, 3] = 1.0  # centre at x = 56, y = 40
    >>> pointing_accuracy(attention_map, [[50, 30, 70, 50]], (224, 224))
    AttentionScore(value=1.0, uniform=0.005..., centre=0.0)

    Reference:
        [Zhang et al., 2016](https://arxiv.org/abs/1608.00507), the pointing game.
        Notebook `06_attention_plots`.
    """
    hits = _pointing_hits(*_check_maps_and_boxes(attention_maps, boxes), image_size)
    return AttentionScore(*hits.mean(axis=1).tolist())


def attention_mass(
    attention_maps: np.ndarray, boxes: Sequence, image_size: tuple[int, int]
) -> AttentionScore:
    """Mean share of the attention that lies in the objects' boxes.

    A cell's weight is spread evenly over the cell, so that a cell that the box covers by half
    counts by half; uniform attention gets the box' share of the picture's area.

    Args:
        attention_maps: `(maps, grid_height, grid_width)`, one for every word that names an object.
            Maps are scaled to the sum 1.
        boxes: As in `pointing_accuracy`. Where several objects' boxes overlap, what lies there
            counts once.
        image_size: `(height, width)` in pixels of the picture that the grid covers.

    Returns:
        An `AttentionScore`.

    Raises:
        ValueError: If there are no maps, shapes don't fit, or maps aren't weights.

    Reference:
        Notebook `06_attention_plots`.
    """
    shares = _mass_inside(*_check_maps_and_boxes(attention_maps, boxes), image_size)
    return AttentionScore(*shares.mean(axis=1).tolist())


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

    Reference:
        Notebook `06_attention_plots`.
    """
    weights = _check_maps(attention_maps)
    weights = weights / weights.sum(axis=(-2, -1), keepdims=True)
    return np.abs(np.diff(weights, axis=-3)).sum(axis=(-2, -1)) / 2


def coverage(attention_maps: np.ndarray) -> np.ndarray:
    """How much of the picture a caption looks at: the effective share of the regions.

    `exp(H) / num_regions` with the entropy `H` of the caption's mean map. It is `k / num_regions`
    where the words together look at `k` regions alike, and 1 where they miss none.

    Args:
        attention_maps: `(..., steps, grid_height, grid_width)`. Maps are scaled to the sum 1.

    Returns:
        Float array `(...)`, from `1 / num_regions` to 1.

    Raises:
        ValueError: If maps aren't weights.
    """
    weights = _check_maps(attention_maps)
    weights = weights / weights.sum(axis=(-2, -1), keepdims=True)
    num_regions = weights.shape[-2] * weights.shape[-1]
    return np.exp(attention_entropy(weights.mean(axis=-3))) / num_regions


def sameness(attention_maps: np.ndarray) -> np.ndarray:
    """How alike maps are: the mean overlap of all pairs of them.

    Two maps overlap by `sum_i min(alpha_si, alpha_ti)`, from 0 (no region in common) to 1
    (identical). Of a caption's maps it tells whether the model looks at the same place whatever
    the word; of the mean maps of many pictures, whether it does whatever the picture. Sharp maps
    overlap little by chance and wide ones much: read it beside the entropy.

    Args:
        attention_maps: `(..., maps, grid_height, grid_width)`, two maps or more. Maps are scaled
            to the sum 1.

    Returns:
        Float array `(...)`, from 0 to 1.

    Raises:
        ValueError: If there are fewer than two maps, or maps aren't weights.
    """
    weights = _check_maps(attention_maps)
    if weights.ndim < 3 or weights.shape[-3] < 2:
        raise ValueError(
            "There must be at least two maps to liken, `(..., maps, grid_height, grid_width)`. "
            f"Received: shape {weights.shape}"
        )
    weights = weights / weights.sum(axis=(-2, -1), keepdims=True)
    count = weights.shape[-3]
    # A region's k-th smallest weight is the smaller one in its pairs with the count - 1 - k larger.
    larger = np.arange(count - 1, -1, -1)[:, None, None]
    pairs = count * (count - 1) / 2
    return (np.sort(weights, axis=-3) * larger).sum(axis=(-3, -2, -1)) / pairs


def attention_statistics(
    attention_maps: Sequence[np.ndarray],
    gates: Sequence[np.ndarray],
    boxes: Sequence[Sequence] | None = None,
    image_size: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """What the scores of a set of captions are made of, picture by picture.

    Args:
        attention_maps: For each picture the maps of its caption's words,
            `(steps, grid_height, grid_width)`. A caption without words counts nowhere.
        gates: For each picture the gate of each word, `(steps,)`, from 0 to 1.
        boxes: For each picture and word `None`, or the boxes of the object that the word names,
            as in `pointing_accuracy`. `None` where no boxes are known.
        image_size: `(height, width)` in pixels of the picture that the boxes are in.

    Returns:
        Dictionary from the score's name to an array `(pictures, 2)`: the sum of what it measures
        over the picture's words, and their number. The score is the sum of the one over the sum of
        the other: a mean over words for `entropy` (nats), `gate` (0 to 1) and, with boxes,
        `pointing_accuracy` and `attention_mass` (0 to 1; also `..._uniform` and `..._centre`); over
        pairs of neighbouring words for `total_variation`; over captions for `coverage` and
        `sameness` (0 to 1).

    Raises:
        ValueError: If numbers of pictures or words don't agree, or maps aren't weights.
    """
    rows = []
    boxes = [None] * len(attention_maps) if boxes is None else boxes
    for maps, gate, named in zip(attention_maps, gates, boxes, strict=True):
        row = {}
        if len(maps):
            row["entropy"] = attention_entropy(maps)
            row["total_variation"] = total_variation(maps)
            row["coverage"] = coverage(maps)
            row["gate"] = np.asarray(gate)
        if len(maps) > 1:
            row["sameness"] = sameness(maps)
        if named is not None:
            pairs = [(m, b) for m, b in zip(maps, named, strict=True) if b is not None]
            row |= _box_scores(pairs, image_size)
        rows.append({name: (np.sum(values), np.size(values)) for name, values in row.items()})
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, (0.0, 0)) for row in rows]) for name in names}


def attention_scores(
    statistics: Mapping[str, np.ndarray], samples: int = SAMPLES, seed: int = 0
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The scores of a set of captions, with 95 % intervals.

    Args:
        statistics: Of `attention_statistics`, and of
            `sat_keras.analysis.occlusion.occlusion_statistics`.
        samples: Draws of pictures for the intervals, see `sat_keras.evaluation.bootstrap`. A picture without
            a word that a score is about is not drawn for it.
        seed: Of the draws.

    Returns:
        Scores by name, and their intervals `[low, high]` by the same names. Shares of attention, of
        regions or of words are in percent; `entropy`, `occlusion_...` and `faithfulness` are in
        nats, `gate` is from 0 to 1. A score that is about no word at all is left out.
    """
    counted = {name: values[:, 1] > 0 for name, values in statistics.items()}
    scores, intervals = {}, {}
    # One set of draws for all scores that are about the same pictures.
    groups = {}
    for name, pictures in counted.items():
        if pictures.any():
            groups.setdefault(pictures.tobytes(), []).append(name)
    for names in groups.values():
        values = np.stack([statistics[name][counted[names[0]]] for name in names], axis=1)
        units = np.array([100.0 if unit_of(name) == "%" else 1.0 for name in names])

        def ratios(weights, values=values, units=units):
            sums = np.tensordot(weights, values, axes=1)  # (..., names, 2)
            return units * sums[..., 0] / sums[..., 1]

        ends = interval(resample(ratios, len(values), samples, seed)).T
        scores |= dict(zip(names, ratios(np.ones(len(values))).tolist(), strict=True))
        intervals |= dict(zip(names, ends.tolist(), strict=True))
    order = [name for name in statistics if name in scores]
    return {name: scores[name] for name in order}, {name: intervals[name] for name in order}


def unit_of(name: str) -> str:
    """The unit of a score of `attention_scores`.

    Args:
        name: The score's name.

    Returns:
        `"nats"`, `"%"`, or `""` for the gate, which is from 0 to 1.
    """
    if name.startswith(("entropy", "occlusion", "faithfulness")):
        return "nats"
    return "" if name == "gate" else "%"


def _box_scores(pairs, image_size):
    """The scores of the words that name objects, by name; none if there are no such words."""
    if not pairs:
        return {}
    maps, boxes = _check_maps_and_boxes(*zip(*pairs, strict=True))
    scores = {}
    for name, measure in (("pointing_accuracy", _pointing_hits), ("attention_mass", _mass_inside)):
        value, uniform, centre = measure(maps, boxes, image_size)
        scores |= {name: value, f"{name}_uniform": uniform, f"{name}_centre": centre}
    return scores


def _pointing_hits(maps, boxes, image_size):
    """`(3, maps)`: hits of the maps, of uniform attention and of attention at the centre."""
    inside = _inside(boxes, maps.shape[1:], image_size, of_centres=True)

    def hits(maps):
        peak = maps == maps.max(axis=(-2, -1), keepdims=True)
        return (inside * peak).sum(axis=(1, 2)) / peak.sum(axis=(-2, -1))

    return np.stack([hits(maps), inside.mean(axis=(1, 2)), hits(centre_map(maps.shape[1:]))])


def _mass_inside(maps, boxes, image_size):
    """`(3, maps)`: mass in the boxes, of uniform attention and of attention at the centre."""
    inside = _inside(boxes, maps.shape[1:], image_size, of_centres=False)
    mass = (inside * maps).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    centre = (inside * centre_map(maps.shape[1:])).sum(axis=(1, 2))
    return np.stack([mass, inside.mean(axis=(1, 2)), centre])


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
    maps, boxes = _check_maps(attention_maps), [np.asarray(b, dtype="float64") for b in boxes]
    if maps.ndim != 3 or not len(maps) or len(boxes) != len(maps):
        raise ValueError(
            "There must be at least one map, `(maps, grid_height, grid_width)`, and a box for each "
            f"of them. Received: maps {maps.shape}, {len(boxes)} boxes"
        )
    boxes = [box[None] if box.ndim == 1 else box for box in boxes]
    for box in boxes:
        if box.ndim != 2 or not len(box) or box.shape[1] != 4:
            raise ValueError(
                "A map's boxes must be `x0, y0, x1, y1`, one of them or `(objects, 4)`. "
                f"Received: shape {box.shape}"
            )
        if not ((box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])).all():
            raise ValueError(
                f"Boxes must be `x0, y0, x1, y1` with x0 < x1 and y0 < y1. Received: {box.tolist()}"
            )
    return maps, boxes


def _inside(boxes, grid, image_size, of_centres):
    """How much of every cell a map's boxes cover, `(maps, grid_height, grid_width)`, from 0 to 1.

    With `of_centres` it is 1 where the cell's centre lies in a box, and else 0.
    """
    edges = [
        np.linspace(0, pixels, cells + 1) for cells, pixels in zip(grid, image_size, strict=True)
    ]
    cover = _centres_covered if of_centres else _area_covered
    return np.stack([cover(box, *edges) for box in boxes])


def _centres_covered(boxes, rows, columns):
    """1 for the cells between `rows` and `columns` whose centre lies in one of the boxes."""
    return _covered(boxes, _middles(rows), _middles(columns)).astype("float64")


def _area_covered(boxes, rows, columns):
    """The share of each cell that the boxes cover together."""
    # Lines through all edges divide cells and boxes into rectangles that are inside or outside.
    y = np.unique(np.concatenate([rows, np.clip(boxes[:, 1::2].ravel(), rows[0], rows[-1])]))
    x = np.unique(np.concatenate([columns, np.clip(boxes[:, ::2].ravel(), *columns[[0, -1]])]))
    area = _covered(boxes, _middles(y), _middles(x)) * np.diff(y)[:, None] * np.diff(x)
    area = np.add.reduceat(area, np.searchsorted(y, rows[:-1]), axis=0)
    area = np.add.reduceat(area, np.searchsorted(x, columns[:-1]), axis=1)
    return area / (np.diff(rows)[:, None] * np.diff(columns))


def _covered(boxes, y, x):
    """Whether the points of a grid lie in one of the boxes, `(len(y), len(x))`."""
    in_rows = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
    in_columns = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
    return (in_rows[:, :, None] & in_columns[:, None, :]).any(axis=0)


def _middles(edges):
    return (edges[:-1] + edges[1:]) / 2
