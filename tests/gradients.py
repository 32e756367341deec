"""Gradients and compilation on whatever backend Keras runs: what the tests' oracles need."""

import keras
import numpy as np
import pytest
from keras import ops


def numpy(x):
    """A tensor of any backend and dtype as a NumPy array, half precision as float32."""
    if keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16"):
        x = ops.cast(x, "float32")
    return ops.convert_to_numpy(x)


def gradients(function, arguments):
    """The gradient of a scalar function for each of its arguments, by automatic differentiation.

    `None` where TensorFlow or PyTorch find that an argument does not matter.
    """
    arguments = [ops.convert_to_tensor(argument) for argument in arguments]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments)
        return tape.gradient(result, arguments)
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(lambda values: function(*values))(arguments)
    import torch

    arguments = [argument.detach().clone().requires_grad_() for argument in arguments]
    return list(torch.autograd.grad(function(*arguments), arguments, allow_unused=True))


def compiled(function):
    """The function, compiled by XLA."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    pytest.skip("PyTorch has no XLA here")


def weight_gradients(layer, loss):
    """The gradient of `loss(outputs of layer)` for each trainable weight, by path.

    Args:
        layer: A built `keras.Layer`.
        loss: Function of no argument that calls the layer and returns a scalar.
    """
    variables = layer.trainable_variables

    def value(*weights):
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            return loss()

    found = gradients(value, [variable.value for variable in variables])
    return {variable.path: gradient for variable, gradient in zip(variables, found, strict=True)}


def random(*shape, seed=0, scale=1.0):
    """Normally distributed float32 numbers, the same at every call."""
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("float32")
