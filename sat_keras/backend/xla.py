"""Compiling small parts by XLA where Keras's backend would run their operations one by one."""

import functools
import platform

import keras


def fused(function):
    """Let XLA make a few loops over memory of a function of tensors.

    TensorFlow runs `tanh(a + b)` as two operations, each of which reads and writes a whole tensor;
    for large ones that takes longer than the arithmetic. Compiled by XLA they are one. JAX does
    that for a whole training step, and PyTorch runs the function as it stands. So it must be
    written in `keras.ops`, and only where nothing but matrix products would stay outside: those
    are faster in TensorFlow's own library.

    Args:
        function: Function of tensors, without other arguments, that returns tensors. Its sizes may
            be unknown when it is called, but each new size is compiled anew.

    Returns:
        A function that does the same.

    Example:

    >>> @fused
    ... def attention_hidden(queries, keys):
    ...     return ops.tanh(ops.expand_dims(keys, 1) + ops.expand_dims(queries, 2))
    """

    @functools.wraps(function)
    def call(*tensors):
        if keras.backend.backend() == "tensorflow" and has_fusion():
            return _compiled(function, *(tuple(tensor.shape) for tensor in tensors))(*tensors)
        return function(*tensors)

    return call


@functools.cache
def has_fusion():
    """Say whether XLA compiles what is `fused`: everything on JAX, nothing on PyTorch.

    Returns:
        Boolean.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.backend.backend() == "jax"
    import tensorflow as tf

    # TensorFlow's plugin for Apple's GPUs has no XLA.
    return platform.system() != "Darwin" or not tf.config.list_physical_devices("GPU")


@functools.cache
def _compiled(function, *shapes):
    """Compile for these shapes: for known sizes TensorFlow would take what has unknown ones."""
    import tensorflow as tf

    # Without AutoGraph: it would read and rewrite functions in which there is nothing to rewrite.
    return tf.function(function, jit_compile=True, autograph=False)
