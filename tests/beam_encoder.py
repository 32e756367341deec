"""An encoder that workers of Apache Beam make, each in a process of its own."""

import os
from pathlib import Path

import keras

from sat_keras.paper.encoder import ImageEncoder


def make(folder, seeds=(0, 0)):
    """Returns a grid of 4 x 4 regions and leaves a file named after the process in the folder.

    Args:
        folder: Path.
        seeds: Seeds of the weights in the first process and in those after it.
    """
    is_first = not any(Path(folder).iterdir())
    (Path(folder) / str(os.getpid())).touch()
    keras.utils.set_random_seed(seeds[0] if is_first else seeds[1])
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(3, 3, strides=2, padding="same", name="last")(x)
    return ImageEncoder(keras.Model(inputs, x, name="tiny"), "last", resize="crop")
