"""A small CNN for the drawn scenes, trained with the decoder."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

SCENES = "scenes"
SCENES_IMAGE_SIZE = 64


@keras.saving.register_keras_serializable(package="sat_keras")
class CoordinateChannels(keras.Layer):
    """Appends each grid cell's position to its features, so that position words can be learnt.

    A convolution does not depend on the position. Two further channels hold the row and the column
    of the cell's centre, from -1 (top, left) to 1 (bottom, right).

    Args:
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        features: Tensor of shape `(batch_size, rows, columns, channels)`, rows and columns known.

    Returns:
        Tensor of shape `(batch_size, rows, columns, channels + 2)`.

    Example:
    >>> CoordinateChannels()(np.zeros((1, 2, 2, 3), "float32"))[0, :, :, 3:].shape
    (2, 2, 2)

    Reference:
        Liu et al. 2018, "An intriguing failing of convolutional neural networks and the CoordConv
        solution".
    """

    def call(self, features: Any) -> Any:
        rows, columns = features.shape[1:3]
        y, x = (np.linspace(-1, 1, 2 * n + 1)[1::2] for n in (rows, columns))
        grid = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)[None]  # (1, rows, columns, 2)
        grid = ops.convert_to_tensor(grid, dtype=features.dtype)
        batch_size = ops.shape(features)[0]
        grid = ops.broadcast_to(grid, (batch_size, rows, columns, 2))
        return ops.concatenate([features, grid], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], input_shape[-1] + 2)


def scene_cnn(
    image_size: int = SCENES_IMAGE_SIZE,
    filters: Sequence[int] = (32, 64, 96),
    feature_dim: int = 128,
) -> keras.Model:
    """Builds a small CNN for drawn scenes, to be trained from scratch.

    Every block of `filters` is a convolution of stride 2 and one of stride 1, each followed by
    normalisation and ReLU (the first block has no second convolution, for speed; the last one's is
    1 x 1). A last 1 x 1 convolution follows, and each cell's position is appended. Three blocks
    make a grid of `image_size / 8` cells a side with a receptive field of 23 x 23 pixels, about the
    size of an object (12 to 27 pixels). With a larger one, a cell beside an object would describe
    it as well as the cell on it, and attention would not need to point.

    Args:
        image_size: Integer, height and width of the pictures in pixels.
        filters: Sequence of integers, the channels of each block.
        feature_dim: Integer, size of an annotation vector.

    Returns:
        `keras.Model` from pictures `(batch_size, image_size, image_size, 3)` in 0..255 to
        annotation vectors on a grid, `(batch_size, rows, columns, feature_dim)`.

    Example:
    >>> scene_cnn(64).output_shape
    (None, 8, 8, 128)
    """
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for block, channels in enumerate(filters, start=1):
        for position in (1,) if block == 1 else (1, 2):
            name = f"block{block}_conv{position}"
            strides = 2 if position == 1 else 1
            size = 1 if position == 2 and block == len(filters) else 3
            x = keras.layers.Conv2D(
                channels, size, strides, padding="same", use_bias=False, name=name
            )(x)
            # Momentum 0.9: the running statistics settle within the first, short epoch.
            x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.Conv2D(feature_dim - 2, 1, activation="relu", name="features")(x)
    # Last, so that the context vector holds the attended position.
    x = CoordinateChannels(name="annotations")(x)
    return keras.Model(inputs, x, name="scene_cnn")
