"""Functions that XLA compiles: the same results as without, and each size compiled once."""

import keras
import numpy as np
import pytest
import test_recurrence
from gradients import gradients, numpy, random
from keras import ops
from seeding import fix_seed

from sat_keras.backend import xla as fusion
from sat_keras.backend.xla import fused, has_fusion
from sat_keras.config.config import Config
from sat_keras.fast import recurrence
from sat_keras.training.optimizer import make_optimizer

pytestmark = pytest.mark.graph

CASE = {"steps": 4, "batch": 2, "captions": 3}


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


def test_known_sizes_stay_known_on_tensorflow():
    """Also after a call with unknown ones, whose compiled function TensorFlow would take again."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("sizes are always known")
    import tensorflow as tf

    captions = []
    for known in (None, 1):
        shapes = (None, known, 2), (None, 5, 2), (2, 1)
        tf.function(
            lambda *tensors: captions.append(recurrence._attend(*tensors).shape[1]),
            [tf.TensorSpec(shape, "float32") for shape in shapes],
        ).get_concrete_function()
    assert captions == [None, 1]


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


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_fused_updates_are_the_same(name):
    config = Config.tiny().replace(optimizer=name, ema_momentum=0.5, schedule="cosine")
    fused = make_optimizer(config, 4)
    own = ("encoder_rate", "encoder_start", "clip_norms")
    options = {key: value for key, value in fused.get_config().items() if key not in own}
    plain = type(fused).__bases__[1].from_config(options)
    assert type(plain).__module__.startswith("keras.")
    weights = []
    for optimizer in (fused, plain):
        fix_seed(3)
        model = keras.Sequential([keras.layers.Embedding(5, 4), keras.layers.Dense(3)])
        model.compile(optimizer, "mse")
        if name != "adam":  # which is built in the first step, for which TensorFlow traces it twice
            model.build((None, 2))
            optimizer.build(model.trainable_variables)
        x = np.array([[0, 1], [2, 1]])
        model.fit(x, 100 * random(2, 2, 3), epochs=3, batch_size=1, shuffle=False, verbose=0)
        weights.append([*model.get_weights(), *map(numpy, model.optimizer.variables)])
    for x, y in zip(*weights, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


# What the recurrence computes otherwise without fusion


def test_sums_step_by_step_are_the_fused_ones():
    queries, factors = np.exp(random(5, 2, 3, 4, seed=1)), np.exp(random(2, 6, 4, seed=2))
    d_scores = random(5, 2, 3, 6, seed=3)
    sigmoids = 1 / (1 + queries[..., None, :] * factors[None, :, None])
    weighted = d_scores[..., None] * sigmoids
    expected = (weighted * (1 - sigmoids)).sum(axis=0), weighted.sum(axis=0)
    values = [ops.convert_to_tensor(value) for value in (queries, factors, d_scores)]
    step_by_step = recurrence._sum_step_by_step(*values)
    at_once = recurrence._sum_slopes(*values), recurrence._sum_sigmoids(*values)
    for x, y, z in zip(step_by_step, at_once, expected, strict=True):
        np.testing.assert_allclose(numpy(x), z, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(numpy(y), z, rtol=1e-4, atol=1e-6)


def test_recurrence_is_the_same_without_fusion(unfused):
    found = test_recurrence.gradient_of(CASE)
    expected = test_recurrence.gradient_of(CASE, test_recurrence.unrolled)
    for name, x, y in zip(test_recurrence.ARGUMENTS, found, expected, strict=True):
        np.testing.assert_allclose(numpy(x), numpy(y), rtol=1e-4, atol=2e-5, err_msg=name)
        assert np.abs(numpy(y)).max() > 1e-3, name
