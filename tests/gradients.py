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
    return value_and_gradients(lambda *values: (function(*values), None), arguments)[1]


def value_and_gradients(function, arguments):
    """Calls a function that returns a scalar and other tensors.

    Returns:
        Tuple of the other tensors and of the scalar's gradients, see `gradients`.
    """
    arguments = [ops.convert_to_tensor(argument) for argument in arguments]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result, others = function(*arguments)
        return others, tape.gradient(result, arguments)
    if keras.backend.backend() == "jax":
        import jax

        found, others = jax.grad(lambda values: function(*values), has_aux=True)(arguments)
        return others, found
    import torch

    arguments = [argument.detach().clone().requires_grad_() for argument in arguments]
    result, others = function(*arguments)
    return others, list(torch.autograd.grad(result, arguments, allow_unused=True))


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
    return outputs_and_weight_gradients(layer, lambda: (loss(), None))[1]


def outputs_and_weight_gradients(layer, loss):
    """As `weight_gradients`, of a `loss` that returns a scalar and the layer's outputs.

    Returns:
        Tuple of the outputs and of the gradients by path.
    """
    variables = layer.trainable_variables

    def value(*weights):
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            return loss()

    outputs, found = value_and_gradients(value, [variable.value for variable in variables])
    paths = [variable.path for variable in variables]
    return outputs, dict(zip(paths, found, strict=True))


def random(*shape, seed=0, scale=1.0):
    """Normally distributed float32 numbers, the same at every call."""
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("float32")
