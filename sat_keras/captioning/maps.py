"""Attention maps over pictures: enlarged to a picture's size, and described in words."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

# Standard deviation of the Gaussian that enlarges maps, in regions.
_SMOOTH_REGIONS = 0.75
# Attention spread over more than this share of the regions has no place worth a name.
_EVEN_SHARE = 0.75
# Sides in pixels between which pictures are drawn: smaller ones would show a map in steps, larger
# ones take time and memory that no panel shows.
_SMALLEST_SIDE, _LARGEST_SIDE = 160, 480

Box = tuple[float, float, float, float]


def upsample_attention(weights: Any, height: int, width: int) -> np.ndarray:
    """Enlarges an attention map smoothly to a picture's size and scales its maximum to 1.

    The value at a pixel is the mean of all weights under a Gaussian around that pixel,
    `K_y alpha K_x^T`, where the rows of each `K` sum to 1. It stays between the smallest and the
    largest weight, and uniform attention stays uniform. Of several nearly equal weights another
    one may become the largest; an isolated peak stays in its region.

    Args:
        weights: Array of shape `(grid_height, grid_width)`, weights of at least 0.
        height: Integer, height of the result in pixels.
        width: Integer, width of the result in pixels.

    Returns:
        Float32 array of shape `(height, width)`, values from 0 to 1; all 0 if every weight is 0.

    Example:

    >>> upsample_attention(np.eye(2), 4, 4).shape
    (4, 4)

    Reference:
        Xu et al. 2015, section 5.4, which upsamples by 16 with a Gaussian filter.
        Notebook `06_attention_plots`.
    """
    weights = np.asarray(weights, dtype="float32")
    rows = _gaussian_weights(height, weights.shape[0])
    columns = _gaussian_weights(width, weights.shape[1])
    enlarged = rows @ weights @ columns.T
    highest = enlarged.max()
    return enlarged / highest if highest > 0 else enlarged


def describe_attention(words: Sequence[str], attention: Any) -> str:
    """Describes where the attention of each word lies, as alternative text of `plot_attention`.

    Args:
        words: The caption's words, one for each step.
        attention: Array of shape `(steps, grid_height, grid_width)`, the attention weights.

    Returns:
        One sentence, with the `place_name` of every word.

    Raises:
        ValueError: If the shapes do not match.

    Example:

    >>> describe_attention(["two", "dogs"], np.stack([np.full((3, 3), 1 / 9), np.eye(3) / 3]))
    'Attention while writing "two dogs": two (the whole picture), dogs (upper left).'
    """
    attention = as_maps(attention, words)
    if len(words) == 0:
        return "A caption without words."
    places = ", ".join(
        f"{word} ({place_name(weights)})" for word, weights in zip(words, attention, strict=True)
    )
    return f'Attention while writing "{" ".join(words)}": {places}.'


def place_name(weights: Any) -> str:
    """Names the place of an attention map's largest weight in a grid of nine.

    Args:
        weights: Array of shape `(grid_height, grid_width)`, the attention weights.

    Returns:
        A place such as "upper left" or "centre". "the whole picture" if the attention is spread
        over more than three quarters of the regions (the exponential of its entropy), "nowhere"
        if every weight is 0.
    """
    weights = np.asarray(weights, dtype="float32")
    if not weights.any():
        return "nowhere"
    shares = weights[weights > 0].astype("float64")
    shares /= shares.sum()
    if np.exp(-(shares * np.log(shares)).sum()) > _EVEN_SHARE * weights.size:
        return "the whole picture"
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    vertical = ("upper", "", "lower")[int(3 * (row + 0.5) / weights.shape[0])]
    horizontal = ("left", "", "right")[int(3 * (column + 0.5) / weights.shape[1])]
    return " ".join(filter(None, (vertical, horizontal))) or "centre"


def seen_box(resize: Any, height: int, width: int) -> Box:
    """Returns the part of a photo that the CNN sees after the photo was resized.

    Args:
        resize: `PictureResize` of the encoder. `"squash"` keeps the whole photo, `"crop"` its
            centre.
        height: Integer, the photo's height in pixels.
        width: Integer, the photo's width in pixels.

    Returns:
        `(x0, y0, x1, y1)` in pixels of the photo, x right, y down; `seen` of `plot_attention`.

    Example:

    >>> seen_box(PictureResize(224, "crop"), height=256, width=512)
    (144.0, 16.0, 368.0, 240.0)
    """
    # Resizing scales and shifts, and `resize_boxes` clips what lies outside. The photo's central
    # pixel is always inside, so its box gives the scale and the shift.
    pixel = np.array([width / 2 - 0.5, height / 2 - 0.5, width / 2 + 0.5, height / 2 + 0.5])
    (resized,) = resize.resize_boxes(pixel[None], height, width)
    side = 1 / (resized[2:] - resized[:2])  # pixels of the photo for one of the resized picture
    low = pixel[:2] - resized[:2] * side
    x0, y0, x1, y1 = np.round([*low, *(low + resize.image_size * side)], 6).tolist()
    return x0, y0, x1, y1


def as_picture(image: Any) -> np.ndarray:
    """Converts a picture to floats from 0 to 1.

    Args:
        image: Array of shape `(height, width, 3)`, integers from 0 to 255, or floats from 0 to 1
            or from 0 to 255.

    Returns:
        Float32 array of shape `(height, width, 3)`.

    Raises:
        ValueError: If the shape is another one.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            "`image` must be an RGB picture of shape (height, width, 3). "
            f"Received: shape {image.shape}"
        )
    is_0_to_255 = np.issubdtype(image.dtype, np.integer) or image.max() > 1
    return np.clip(image.astype("float32") / (255.0 if is_0_to_255 else 1.0), 0.0, 1.0)


def as_maps(attention: Any, words: Sequence[str]) -> np.ndarray:
    """Converts attention maps to floats and checks that there is one for each word.

    Args:
        attention: Array of shape `(steps, grid_height, grid_width)`, weights of at least 0.
        words: The caption's words, one for each step.

    Returns:
        Float32 array of the same shape.

    Raises:
        ValueError: If there is not one map for each word, or a weight is negative or not finite.
    """
    attention = np.asarray(attention, dtype="float32")
    if attention.ndim != 3 or len(attention) != len(words):
        raise ValueError(
            "`attention` must have the shape (steps, grid_height, grid_width), one map for each "
            f"of the {len(words)} words. Received: shape {attention.shape}"
        )
    if not np.isfinite(attention).all() or (attention < 0).any():
        raise ValueError(
            "`attention` must hold weights of at least 0. Received: values from "
            f"{attention.min()} to {attention.max()}"
        )
    return attention


def as_boxes(boxes: Any, words: Sequence[str]) -> list[np.ndarray]:
    """Returns the boxes of each word as an array, empty for a word without one.

    Args:
        boxes: For each word `None`, a box `(x0, y0, x1, y1)` or several; or `None` for none at all.
        words: The caption's words.

    Returns:
        List of arrays of shape `(boxes, 4)`.

    Raises:
        ValueError: If there is not one entry for each word, or an entry is no box.
    """
    try:
        entries = [None] * len(words) if boxes is None else list(boxes)
        if len(entries) != len(words):
            raise ValueError
        return [np.reshape([] if x is None else x, (-1, 4)).astype("float64") for x in entries]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`boxes` must have None, a box (x0, y0, x1, y1) or several for each of the "
            f"{len(words)} words. Received: boxes={boxes!r:.80}"
        ) from error


def as_gate(gate: Any, words: Sequence[str]) -> np.ndarray | None:
    """Converts the gate to floats and checks that there is one value for each word.

    Args:
        gate: Array of shape `(steps,)`, or None.
        words: The caption's words, one for each step.

    Returns:
        Float32 array of the same shape, or None.

    Raises:
        ValueError: If there is not one value for each word.
    """
    if gate is None:
        return None
    gate = np.asarray(gate, dtype="float32")
    if gate.shape != (len(words),):
        raise ValueError(
            f"`gate` must have the shape (steps,), one value for each of the {len(words)} words. "
            f"Received: shape {gate.shape}"
        )
    return gate


def fit_picture(image: Any, seen: Sequence[float] | None = None) -> tuple[np.ndarray, Box]:
    """Brings a picture to a size that suits a figure, its aspect ratio kept.

    Pixels of small pictures are repeated, to at least 160 along the shorter side. Large pictures
    are reduced, to at most 480 along the longer side.

    Args:
        image: Picture as `as_picture` takes it.
        seen: Box `(x0, y0, x1, y1)` in pixels of the picture, or None for the whole picture.

    Returns:
        Tuple `(picture, seen)` of a float32 array of shape `(height, width, 3)`, values from 0 to
        1, and the box in its pixels.

    Raises:
        ValueError: If the picture is not RGB or the box does not lie in it.
    """
    picture = as_picture(image)
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = (0.0, 0.0, width, height) if seen is None else seen
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(
            f"`seen` must be a box (x0, y0, x1, y1) in the picture of {width} x {height} pixels. "
            f"Received: seen={seen!r}"
        )
    if max(height, width) > _LARGEST_SIDE:
        reduced = Image.fromarray(np.round(255 * picture).astype("uint8"))
        reduced.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
        picture = np.asarray(reduced, "float32") / 255
    times = math.ceil(_SMALLEST_SIDE / min(picture.shape[:2]))
    picture = picture.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else picture
    down, right = picture.shape[:2]
    # Multiplied first, so that the whole picture stays exactly the whole picture.
    return picture, (x0 * right / width, y0 * down / height, x1 * right / width, y1 * down / height)


def reduce_picture(image: np.ndarray, seen: Box) -> tuple[np.ndarray, Box]:
    """Reduces a picture to the largest size that is drawn, to keep it in memory.

    Args:
        image: `uint8` array of shape `(height, width, 3)`.
        seen: Box `(x0, y0, x1, y1)` in its pixels.

    Returns:
        Tuple of a `uint8` array whose longer side has at most 480 pixels, and the box in its
        pixels, which `fit_picture` takes as it would the original ones.
    """
    height, width = image.shape[:2]
    if max(height, width) > _LARGEST_SIDE:
        reduced = Image.fromarray(image)
        reduced.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
        image = np.asarray(reduced)
    down, right = image.shape[0] / height, image.shape[1] / width
    x0, y0, x1, y1 = seen
    # No further than the picture after rounding.
    box = max(0.0, x0 * right), max(0.0, y0 * down), x1 * right, y1 * down
    return image, (*box[:2], min(box[2], image.shape[1]), min(box[3], image.shape[0]))


def cover_map(weights: np.ndarray, height: int, width: int, seen: Box) -> np.ndarray:
    """Enlarges an attention map over the part of a picture that the model saw.

    Args:
        weights: Array of shape `(grid_height, grid_width)`.
        height: Integer, height of the picture in pixels.
        width: Integer, width of the picture in pixels.
        seen: Box `(x0, y0, x1, y1)` in pixels of the picture.

    Returns:
        Float32 array of shape `(height, width)`: `upsample_attention` inside the box, 0 outside.
    """
    x0, y0, x1, y1 = (round(side) for side in seen)
    alpha = np.zeros((height, width), "float32")
    alpha[y0:y1, x0:x1] = upsample_attention(weights, y1 - y0, x1 - x0)
    return alpha


def _gaussian_weights(pixels: int, regions: int) -> np.ndarray:
    """Returns the weight of each region in each pixel along one axis, `(pixels, regions)`."""
    places = (np.arange(pixels, dtype="float32") + 0.5) * regions / pixels
    distances = (places[:, None] - np.arange(regions) - 0.5) / _SMOOTH_REGIONS
    weights = np.exp(-0.5 * distances.astype("float32") ** 2)
    return weights / weights.sum(axis=1, keepdims=True)
