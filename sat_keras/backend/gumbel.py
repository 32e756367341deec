"""Random choice by the Gumbel-max trick: `argmax_i (log p_i + g_i)` is `i` with probability p_i."""

from typing import Any

import keras
from keras import ops


def gumbel_noise(shape: Any, seed: Any) -> Any:
    """Draws standard Gumbel noise `-log(-log(u))`.

    Args:
        shape: Tuple of integers or tensors.
        seed: Integer or `keras.random.SeedGenerator`.

    Returns:
        Float32 tensor.
    """
    uniform = keras.random.uniform(shape, 1e-20, 1.0, dtype="float32", seed=seed)
    return -ops.log(-ops.log(uniform))
