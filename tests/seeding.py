"""The seed of what Keras draws."""

import random


def fix_seed(seed: int) -> None:
    """Seeds Python, from which Keras draws the seeds of weights and of dropout, and NumPy.

    `keras.utils.set_random_seed` clears TensorFlow's cache of kernels as well. Their renewal takes
    longer than most of these tests. TensorFlow's own generators, which are not seeded here, only
    shuffle the arrays that `fit` is called on without `shuffle=False`.
    """
    import numpy as np  # after `conftest.py` has set the number of its threads

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - code under test may use NumPy's global generator
