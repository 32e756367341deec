"""Functions that XLA compiles: the same results as without, and each size compiled once."""

import keras
import numpy as np
import pytest
from gradients import gradients, numpy, random
from keras import ops

from sat_keras import fusion, recurrence
from sat_keras.fusion import fused, has_fusion


def scaled_tanh(x, y):
    return ops.sum(ops.tanh(ops.expand_dims(x, 0) + ops.expand_dims(y, 1)) * 3, axis=-1)


def inputs():
    return random(3, 4, seed=1), random(2, 4, seed=2)


@pytest.fixture
def unfused(monkeypatch):
    """As on a backend that runs operations one by one."""
    monkeypatch.setattr(fusion, "has_fusion", lambda: False)
    monkeypatch.setattr(recurrence, "has_fusion", lambda: False)


def test_fused_is_the_same_function():
    expected = np.tanh(inputs()[0][None] + inputs()[1][:, None]).sum(-1) * 3
    np.testing.assert_allclose(numpy(fused(scaled_tanh)(*inputs())), expected, rtol=1e-5)


def test_fused_has_the_same_gradient():
    def loss(function):
        return lambda *values: ops.sum(function(*values) ** 2)

    found = gradients(loss(fused(scaled_tanh)), inputs())
    expected = gradients(loss(scaled_tanh), inputs())
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(numpy(x), numpy(y), rtol=1e-5, atol=1e-6)


def test_a_size_is_compiled_once_on_tensorflow():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX compiles the whole, PyTorch nothing")
    calls = []

    def function(x):
        calls.append(x.shape)
        return x + 1

    for size in (3, 3, 5, 3):
        assert fused(function)(ops.ones((size,))).shape == (size,)
    assert calls == [(3,), (5,)]


def test_without_fusion_the_function_runs_as_it_stands(unfused):
    calls = []

    def function(x):
        calls.append(x.shape)
        return x + 1

    for _ in range(2):
        fused(function)(ops.ones((3,)))
    assert len(calls) == 2


def test_fusion_is_there_where_xla_is():
    assert has_fusion() == (keras.backend.backend() in ("tensorflow", "jax"))


# What the recurrence computes otherwise without fusion


def test_sums_step_by_step_are_the_fused_ones():
    values = [
        random(*shape, seed=i) for i, shape in enumerate([(5, 2, 3, 4), (2, 6, 4), (5, 2, 3, 6)])
    ]
    queries, keys, d_scores = map(ops.convert_to_tensor, values)
    layer = np.tanh(values[1][None, :, None] + values[0][..., None, :])
    scored = values[2][..., None] * layer
    step_by_step = recurrence._sums_step_by_step(queries, keys, d_scores)
    fused_sums = (
        recurrence._squared_sums(queries, keys, d_scores),
        recurrence._scored_sums(queries, keys, d_scores),
    )
    for x, y, expected in zip(
        step_by_step, fused_sums, ((scored * layer).sum(0), scored.sum(0)), strict=True
    ):
        np.testing.assert_allclose(numpy(x), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(numpy(y), expected, rtol=1e-4, atol=1e-6)
