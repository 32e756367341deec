"""Whether attention lies in the box of the object that a word names.

Both measures come with their value for two kinds of attention that ignore the picture: uniform
over the regions, and always at the centre, where photographers place their subject.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sat_keras.analysis.measures import check_maps

# Standard deviation of the centred baseline, as a share of the picture's sides.
CENTRE_WIDTH = 0.25
# Sizes of boxes and the share of the picture that a word's boxes cover together at most. COCO's
# limits are areas in pixels, which mean nothing in resized copies of the pictures.
BOX_SIZES = {"small": 0.05, "medium": 0.2, "large": 1.0}


class AttentionScore(NamedTuple):
    """A measure of attention maps, beside its value for attention that ignores the picture.

    Attributes:
        value: The measure, from 0 to 1.
        uniform: Its value for uniform attention and the same boxes.
        centre: Its value for attention at the centre, `centre_map`, and the same boxes.
    """

    value: float
    uniform: float
    centre: float


def centre_map(grid_shape: tuple[int, ...], width: float = CENTRE_WIDTH) -> np.ndarray:
    """Returns attention that is always at the centre: a Gaussian.

    `alpha_i ~ exp(-(x_i^2 + y_i^2) / (2 width^2))`, where `(x, y)` is the offset of a cell's
    centre from the middle of the picture, as a share of its width and height.

    Args:
        grid_shape: Tuple `(grid_height, grid_width)`.
        width: Float, standard deviation as a share of the picture's sides.

    Returns:
        Array of shape `grid_shape` that sums to 1. Its peak is the cell in the middle; on a grid
        with even sides the four cells there.
    """
    y, x = (np.linspace(-0.5, 0.5, 2 * cells + 1)[1::2] for cells in grid_shape)
    weights = np.exp(-(y[:, None] ** 2 + x**2) / (2 * width**2))
    return weights / weights.sum()


def box_sizes(shares: npt.ArrayLike) -> np.ndarray:
    """Returns the names of the sizes of boxes: under 5 % of the picture, to 20 %, and above.

    Args:
        shares: Array of the shares of the picture, 0 to 1, that each word's boxes cover together:
            the attention mass of uniform attention.

    Returns:
        Array of the same shape of `"small"`, `"medium"` and `"large"`.
    """
    small, medium = BOX_SIZES["small"], BOX_SIZES["medium"]
    number = (np.asarray(shares) >= small).astype("int") + (np.asarray(shares) > medium)
    return np.array(list(BOX_SIZES))[number]


def pointing_accuracy(
    attention_maps: npt.ArrayLike, boxes: Sequence, image_size: tuple[int, int]
) -> AttentionScore:
    """Computes the share of attention maps whose peak lies in their object's box.

    The peak is the centre of the cell with the largest weight. Several equal peaks count by the
    share of them that lies in the box, so a uniform map gets the share of cell centres in the
    box, the accuracy of a random cell.

    Args:
        attention_maps: Array of shape `(maps, grid_height, grid_width)`, one map for each word
            that names an object.
        boxes: For each map the box `(x0, y0, x1, y1)` of its object in pixels, x right, y down,
            `x1` and `y1` exclusive; or, where a word names several objects, `(objects, 4)`, any
            of which counts.
        image_size: Tuple `(height, width)` in pixels of the picture that the grid covers.

    Returns:
        An `AttentionScore`.

    Raises:
        ValueError: If there are no maps, shapes do not match, or maps are not attention weights.

    Example:

    >>> attention_map = np.zeros((1, 14, 14))
    >>> attention_map[0, 2, 3] = 1.0  # centre at x = 56, y = 40
    >>> pointing_accuracy(attention_map, [[50, 30, 70, 50]], (224, 224))
    AttentionScore(value=1.0, uniform=0.005..., centre=0.0)

    Reference:
        [Zhang et al., 2016](https://arxiv.org/abs/1608.00507), the pointing game.
        Notebook `06_attention_plots`.
    """
    hits = pointing_hits(attention_maps, boxes, image_size)
    return AttentionScore(*hits.mean(axis=1).tolist())


def attention_mass(
    attention_maps: npt.ArrayLike, boxes: Sequence, image_size: tuple[int, int]
) -> AttentionScore:
    """Computes the mean share of the attention that lies in the objects' boxes.

    The weight of a cell is spread evenly over the cell: a cell that is half inside the box counts
    by half. Uniform attention gets the box's share of the picture's area.

    Args:
        attention_maps: Array of shape `(maps, grid_height, grid_width)`, one map for each word
            that names an object. Maps are scaled to sum to 1.
        boxes: As in `pointing_accuracy`. Where the boxes of several objects overlap, the overlap
            counts once.
        image_size: Tuple `(height, width)` in pixels of the picture that the grid covers.

    Returns:
        An `AttentionScore`.

    Raises:
        ValueError: If there are no maps, shapes do not match, or maps are not attention weights.

    Reference:
        Notebook `06_attention_plots`.
    """
    mass = mass_in_boxes(attention_maps, boxes, image_size)
    return AttentionScore(*mass.mean(axis=1).tolist())


def pointing_hits(
    attention_maps: npt.ArrayLike, boxes: Sequence, image_size: tuple[int, int]
) -> np.ndarray:
    """Computes `pointing_accuracy` of every single map.

    Args:
        attention_maps: As in `pointing_accuracy`.
        boxes: As in `pointing_accuracy`.
        image_size: As in `pointing_accuracy`.

    Returns:
        Array of shape `(3, maps)`: of the maps, of uniform attention, of attention at the centre.
    """
    maps, boxes = _check_maps_and_boxes(attention_maps, boxes)
    cells = [
        _covered(box, *map(_middles, _cell_edges(maps.shape[1:], image_size))) for box in boxes
    ]
    inside = np.stack(cells).astype("float64")  # 1 where a cell's centre lies in a box

    def hits(maps: np.ndarray) -> np.ndarray:
        peak = maps == maps.max(axis=(-2, -1), keepdims=True)
        return (inside * peak).sum(axis=(1, 2)) / peak.sum(axis=(-2, -1))

    return np.stack([hits(maps), inside.mean(axis=(1, 2)), hits(centre_map(maps.shape[1:]))])


def mass_in_boxes(
    attention_maps: npt.ArrayLike, boxes: Sequence, image_size: tuple[int, int]
) -> np.ndarray:
    """Computes `attention_mass` of every single map.

    Args:
        attention_maps: As in `attention_mass`.
        boxes: As in `attention_mass`.
        image_size: As in `attention_mass`.

    Returns:
        Array of shape `(3, maps)`: of the maps, of uniform attention, of attention at the centre.
    """
    maps, boxes = _check_maps_and_boxes(attention_maps, boxes)
    edges = _cell_edges(maps.shape[1:], image_size)
    # The words of a phrase have the same boxes, so each set of boxes is measured once.
    distinct = {box.tobytes(): box for box in boxes}
    shares = {key: _covered_shares(box, *edges) for key, box in distinct.items()}
    inside = np.stack([shares[box.tobytes()] for box in boxes])
    mass = (inside * maps).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    centre = (inside * centre_map(maps.shape[1:])).sum(axis=(1, 2))
    return np.stack([mass, inside.mean(axis=(1, 2)), centre])


def _check_maps_and_boxes(
    attention_maps: npt.ArrayLike, boxes: Sequence
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the maps, and for each one its boxes as an array `(objects, 4)`."""
    maps, arrays = check_maps(attention_maps), [np.asarray(b, dtype="float64") for b in boxes]
    if maps.ndim != 3 or not len(maps) or len(arrays) != len(maps):
        raise ValueError(
            "There must be at least one map, `(maps, grid_height, grid_width)`, and a box for each "
            f"of them. Received: maps {maps.shape}, {len(arrays)} boxes"
        )
    arrays = [box[None] if box.ndim == 1 else box for box in arrays]
    for box in arrays:
        if box.ndim != 2 or not len(box) or box.shape[1] != 4:
            raise ValueError(
                "The boxes of a map must have the shape `(4,)` or `(objects, 4)`. "
                f"Received: shape {box.shape}"
            )
        if not ((box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])).all():
            raise ValueError(
                f"Boxes must be `x0, y0, x1, y1` with x0 < x1 and y0 < y1. Received: {box.tolist()}"
            )
    return maps, arrays


def _cell_edges(grid: tuple[int, ...], image_size: tuple[int, int]) -> list[np.ndarray]:
    """Returns the edges in pixels between the rows and between the columns of a grid."""
    return [
        np.linspace(0, pixels, cells + 1) for cells, pixels in zip(grid, image_size, strict=True)
    ]


def _covered_shares(boxes: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the share of each cell that the boxes cover together, `(grid_height, grid_width)`."""
    # The edges of all cells and boxes divide the picture into rectangles that are entirely inside
    # or outside. Their areas are summed for each cell.
    y = np.unique(np.concatenate([rows, np.clip(boxes[:, 1::2].ravel(), rows[0], rows[-1])]))
    x = np.unique(np.concatenate([columns, np.clip(boxes[:, ::2].ravel(), *columns[[0, -1]])]))
    area = _covered(boxes, _middles(y), _middles(x)) * np.diff(y)[:, None] * np.diff(x)
    area = np.add.reduceat(area, np.searchsorted(y, rows[:-1]), axis=0)
    area = np.add.reduceat(area, np.searchsorted(x, columns[:-1]), axis=1)
    return area / (np.diff(rows)[:, None] * np.diff(columns))


def _covered(boxes: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns whether the points of a grid lie in one of the boxes, `(len(y), len(x))`."""
    in_rows = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
    in_columns = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
    return np.any(in_rows[:, :, None] & in_columns[:, None, :], axis=0)


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[:-1] + edges[1:]) / 2
