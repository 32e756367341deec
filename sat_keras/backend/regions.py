"""Means over the regions of pictures that may have padding."""

from typing import Any

from keras import ops


def mean_over_regions(annotations: Any, mask: Any = None) -> Any:
    """Computes the mean annotation vector of the regions that are on the picture.

    Args:
        annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
        mask: Boolean tensor of shape `(batch_size, num_regions)`, `False` for padding.

    Returns:
        Tensor of shape `(batch_size, feature_dim)`.
    """
    if mask is None:
        return ops.mean(annotations, axis=1)
    weight = ops.cast(ops.expand_dims(mask, -1), annotations.dtype)  # (batch, regions, 1)
    return ops.sum(weight * annotations, axis=1) / ops.sum(weight, axis=1)
