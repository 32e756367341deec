"""The bootstrap against the normal approximation and all resamples of three pictures."""

import itertools

import numpy as np
import pytest

from sat_keras.evaluation import interval, p_value, resample


def mean_of(values):
    return lambda weights: weights @ values / len(values)


def test_every_draw_has_as_many_pictures_and_a_seed_repeats_it():
    drawn = resample(lambda weights: weights, pictures=7, samples=1100)
    assert drawn.shape == (1100, 7)
    np.testing.assert_array_equal(drawn.sum(axis=1), 7)
    assert len(np.unique(drawn, axis=0)) > 500
    np.testing.assert_array_equal(drawn, resample(lambda weights: weights, 7, 1100))
    assert (drawn != resample(lambda weights: weights, 7, 1100, seed=1)).any()


def test_draws_are_as_frequent_as_all_draws_of_three_pictures():
    values = np.array([1.0, 2.0, 4.0])
    exact = np.array([np.mean(draw) for draw in itertools.product(values, repeat=3)])
    drawn = resample(mean_of(values), 3)
    for mean in np.unique(exact):
        expected = np.isclose(exact, mean).mean()
        assert np.isclose(drawn, mean).mean() == pytest.approx(expected, abs=0.02)


def test_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(resample(mean_of(values), 400))
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_leaves_out_the_tails():
    np.testing.assert_allclose(interval(np.arange(1001.0)), [25, 975])
    np.testing.assert_allclose(interval(np.arange(1001.0), 0.8), [100, 900])
    assert interval(np.zeros((10, 3, 2))).shape == (2, 3, 2)


def test_p_value_agrees_with_the_interval():
    differences = np.linspace(-1, 39, 4001)  # 2.5 % are 0 or below
    assert p_value(differences) == pytest.approx(0.05, abs=0.001)
    assert p_value(differences - 2) > 0.05
    assert p_value(-differences) == p_value(differences)
    assert p_value(np.zeros(99)) == 1
    np.testing.assert_allclose(p_value(np.ones((99, 2))), [0.02, 0.02])
