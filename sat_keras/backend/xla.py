"""Compiling small parts by XLA where Keras's backend would run their operations one by one."""

import functools
import platform
from typing import Any

import keras


def fused(function: Any) -> Any:
    """Compiles a function of tensors by XLA, which fuses its operations into few loops over memory.

    TensorFlow runs `tanh(a + b)` as two operations, each of which reads and writes a whole tensor,
    which takes longer than the arithmetic for large tensors. XLA fuses them into one. JAX compiles
    the whole training step anyway, and PyTorch runs the function as it is, so the function must use
    `keras.ops` alone. Keep matrix products outside: TensorFlow's own library computes them faster.

    Args:
        function: Function of tensors, without other arguments, that returns tensors. Each new
            combination of shapes compiles it again.

    Returns:
        A function with the same result.

    Example:

    >>> @fused
    ... def attention_hidden(queries, keys):
    ...     return ops.tanh(ops.expand_dims(keys, 1) + ops.expand_dims(queries, 2))
    """

    @functools.wraps(function)
    def call(*tensors: Any) -> Any:
        if keras.backend.backend() == "tensorflow" and has_fusion():
            return _compiled(function, *(tuple(tensor.shape) for tensor in tensors))(*tensors)
        return function(*tensors)

    return call


@functools.cache
def has_fusion() -> bool:
    """Returns whether XLA compiles functions that are `fused`: always on JAX, never on PyTorch.

    Returns:
        Boolean.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.backend.backend() == "jax"
    import tensorflow as tf

    # TensorFlow's plugin for Apple's GPUs has no XLA.
    return platform.system() != "Darwin" or not tf.config.list_physical_devices("GPU")


@functools.cache
def _compiled(function: Any, *shapes: Any) -> Any:
    """Compiles a function for these shapes.

    A single `tf.function` would reuse a trace with unknown sizes for known ones, which is slower.
    """
    import tensorflow as tf

    # Without AutoGraph, which would parse functions that have nothing to rewrite.
    return tf.function(function, jit_compile=True, autograph=False)
