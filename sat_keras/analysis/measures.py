"""Measures of attention maps in NumPy: how wide they are, how they move, what they cover.

All computations are in float64. The differentiable entropy of training, in float32, is part of
hard attention (`sat_keras.paper.hard_attention`).
"""

import numpy as np
import numpy.typing as npt


def attention_entropy(attention_maps: npt.ArrayLike) -> np.ndarray:
    """Computes the entropy of attention maps, `-sum_i alpha_i log alpha_i`, in nats.

    It is 0 where all attention is on one region, `log(num_regions)` where it is uniform.

    Args:
        attention_maps: Array of shape `(..., grid_height, grid_width)`. Maps are scaled to sum
            to 1.

    Returns:
        Float array of shape `(...)`.

    Raises:
        ValueError: If the maps are not attention weights.
    """
    weights = _normalized(attention_maps)
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    return -(weights * logs).sum(axis=(-2, -1)) + 0.0  # no -0.0


def total_variation(attention_maps: npt.ArrayLike) -> np.ndarray:
    """Computes the share of the attention that moves from each word to the next.

    `1/2 sum_i |alpha_ti - alpha_{t-1,i}|`: 0 where maps are identical, 1 where they have no
    region in common.

    Args:
        attention_maps: Array of shape `(..., steps, grid_height, grid_width)`. Maps are scaled to
            sum to 1.

    Returns:
        Float array of shape `(..., steps - 1)`.

    Raises:
        ValueError: If the maps are not attention weights.

    Reference:
        Notebook `06_attention_plots`.
    """
    weights = _normalized(attention_maps)
    return np.abs(np.diff(weights, axis=-3)).sum(axis=(-2, -1)) / 2


def coverage(attention_maps: npt.ArrayLike) -> np.ndarray:
    """Computes the effective share of the regions that a caption looks at.

    `exp(H) / num_regions`, where `H` is the entropy of the caption's mean map. It is
    `k / num_regions` where the words together look at `k` regions equally, and 1 where they look
    at all regions equally.

    Args:
        attention_maps: Array of shape `(..., steps, grid_height, grid_width)`. Maps are scaled to
            sum to 1.

    Returns:
        Float array of shape `(...)`, from `1 / num_regions` to 1.

    Raises:
        ValueError: If the maps are not attention weights.
    """
    weights = _normalized(attention_maps)
    num_regions = weights.shape[-2] * weights.shape[-1]
    return np.exp(attention_entropy(weights.mean(axis=-3))) / num_regions


def sameness(attention_maps: npt.ArrayLike) -> np.ndarray:
    """Computes how similar maps are: the mean overlap of all pairs of them.

    Two maps overlap by `sum_i min(alpha_si, alpha_ti)`, from 0 (no region in common) to 1
    (identical). For the maps of one caption it shows whether the model looks at the same place
    for every word; for the mean maps of many pictures, whether it does so for every picture.
    Concentrated maps overlap little by chance and wide ones much: read it beside the entropy.

    Args:
        attention_maps: Array of shape `(..., maps, grid_height, grid_width)`, at least two maps.
            Maps are scaled to sum to 1.

    Returns:
        Float array of shape `(...)`, from 0 to 1.

    Raises:
        ValueError: If there are fewer than two maps, or they are not attention weights.
    """
    weights = check_maps(attention_maps)
    if weights.ndim < 3 or weights.shape[-3] < 2:
        raise ValueError(
            "There must be at least two maps to compare, `(..., maps, grid_height, grid_width)`. "
            f"Received: shape {weights.shape}"
        )
    weights = _normalized(weights)
    count = weights.shape[-3]
    # The k-th smallest weight of a region is the smaller one in its pairs with the
    # count - 1 - k larger ones.
    num_larger = np.arange(count - 1, -1, -1)[:, None, None]
    pairs = count * (count - 1) / 2
    return (np.sort(weights, axis=-3) * num_larger).sum(axis=(-3, -2, -1)) / pairs


def check_maps(attention_maps: npt.ArrayLike) -> np.ndarray:
    """Converts attention maps to float64 and checks that they are attention weights.

    Args:
        attention_maps: Array of shape `(..., grid_height, grid_width)`.

    Returns:
        Float64 array of the same shape.

    Raises:
        ValueError: If there are fewer than two axes, or a weight is negative or not finite, or
            all weights of a map are 0.
    """
    maps = np.asarray(attention_maps, dtype="float64")
    if maps.ndim < 2:
        raise ValueError(
            "Attention maps must have the shape `(..., grid_height, grid_width)`; reshape the "
            f"regions to the grid. Received: shape {maps.shape}"
        )
    # Comparisons with NaN are False.
    if not ((maps >= 0).all() and np.isfinite(maps).all() and (maps.sum(axis=(-2, -1)) > 0).all()):
        raise ValueError(
            "Attention maps must be finite, not negative and not all 0; leave out the steps after "
            f"a caption's end. Received: maps from {maps.min()} to {maps.max()}, sums from "
            f"{maps.sum(axis=(-2, -1)).min()}"
        )
    return maps


def _normalized(attention_maps: npt.ArrayLike) -> np.ndarray:
    weights = check_maps(attention_maps)
    return weights / weights.sum(axis=(-2, -1), keepdims=True)
