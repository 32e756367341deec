"""A dense layer's matrix product, at the shapes where TensorFlow's own goes wrong."""

import numpy as np
import pytest
from gradients import gradients, numpy, random
from keras import ops

from sat_keras.backend.dense import RowDense


@pytest.mark.parametrize("shape", [(3, 5), (2, 1, 5), (2, 3, 4, 5), (2, 1, 30, 40), (3, 1, 10, 16)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_outputs_and_gradient_are_a_matrix_products(shape, use_bias):
    layer = RowDense(6, activation="tanh", use_bias=use_bias)
    x = random(*shape, seed=1)
    layer.build(shape)
    if use_bias:
        layer.bias.assign(random(6, seed=2))  # not its initial zeros
    w, b = numpy(layer.kernel), numpy(layer.bias) if use_bias else 0
    expected = np.tanh(np.asarray(x) @ w + b)
    np.testing.assert_allclose(numpy(layer(x)), expected, rtol=1e-5, atol=1e-5)
    (found,) = gradients(lambda x: ops.sum(layer(x)), [x])
    np.testing.assert_allclose(numpy(found), (1 - expected**2) @ w.T, rtol=1e-4, atol=1e-5)


def test_configuration_is_a_dense_layers():
    layer = RowDense(3, activation="relu", name="gate")
    again = RowDense.from_config(layer.get_config())
    assert (again.units, again.activation, again.name) == (3, layer.activation, "gate")
