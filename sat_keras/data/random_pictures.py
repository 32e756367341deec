"""Random inputs in place of pictures, for measurements of speed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf


class RandomPictures:
    """A source of random pictures or annotation vectors, in place of a `PictureSource`.

    The time of a training step does not depend on the values, and the cache of the true ones may
    not exist yet. No generator's state changes.

    Args:
        input_name: Name of the model's input: `"images"`, `"annotations"` or `"features"`.
        shape: Tuple of integers, shape of a picture's input.
        dtype: `"uint8"` for pixels, else a type of floating point numbers.
        num_regions: Integer, number of regions of a mask without padding, or `None` for no mask.

    Example:

    >>> RandomPictures("annotations", (196, 512)).read(0).shape
    TensorShape([196, 512])
    """

    def __init__(
        self,
        input_name: str,
        shape: tuple[int, ...],
        dtype: str = "float16",
        num_regions: int | None = None,
    ) -> None:
        self.input_name = input_name
        self.shape = shape
        self.dtype = dtype
        self.num_regions = num_regions

    def lookup(self, keys: Iterable[str], mirror: bool = False) -> np.ndarray:
        """Returns a position for each picture."""
        return np.arange(len(list(keys)), dtype="int64")

    def read(self, positions: Any) -> Any:
        """Returns the random input at a position."""
        seed = tf.stack([tf.zeros_like(positions), positions])
        if self.dtype == "uint8":
            return tf.cast(tf.random.stateless_uniform(self.shape, seed, 0, 256, tf.int32), "uint8")
        return tf.cast(tf.random.stateless_normal(self.shape, seed), self.dtype)

    def read_mask(self, positions: Any) -> Any:
        """Returns a mask of nothing but pictures, where the encoder pads."""
        return None if self.num_regions is None else tf.ones((self.num_regions,), bool)
