"""Sampled gradients against the enumeration of all attention sequences."""

import numpy as np
import pytest
from enumeration import batch, enumeration, make

from benchmarks.gradient_noise import gradient_samples
from sat_keras.config.config import Config
from sat_keras.paper.captioner import Captioner

pytestmark = [pytest.mark.graph, pytest.mark.integration]

DRAWS = 100


def draw(draws=DRAWS, warmup=0, **changes):
    """Samples gradients of the bound, which is the negative loss."""
    x, y = batch()
    return -gradient_samples(make(**changes), **x, targets=y, draws=draws, warmup=warmup)


def variance_of(gradients):
    return gradients.var(axis=0, ddof=1).sum()


@pytest.fixture(scope="module")
def plain():
    return draw()


def test_mean_and_variance_are_the_enumerated_ones(plain):
    exact = enumeration()
    each = exact.estimates()
    variance = exact.mean((each - exact.bound) ** 2)
    assert plain.shape == (DRAWS, len(exact.bound))
    off = np.abs(plain.mean(axis=0) - exact.bound)
    assert (off < 5 * np.sqrt(variance / DRAWS) + 1e-4).all()
    # The variance's own standard error, from the exact fourth moment of the sum of squares.
    squares = ((each - exact.bound) ** 2).sum(axis=1)
    error = np.sqrt((exact.mean(squares**2) - variance.sum() ** 2) / DRAWS)
    assert variance_of(plain) == pytest.approx(variance.sum(), abs=5 * error)


def test_variance_falls_as_one_over_the_samples(plain):
    assert variance_of(draw(attention_samples=4)) == pytest.approx(variance_of(plain) / 4, rel=0.25)


def test_baseline_lowers_the_variance_and_leaves_the_mean(plain):
    exact = enumeration()
    found = draw(baseline="average", warmup=50)
    each = exact.estimates(baseline=exact.mean(exact.log_p).mean())
    variance = exact.mean((each - exact.bound) ** 2)
    assert variance_of(found) < 0.6 * variance_of(plain)
    off = np.abs(found.mean(axis=0) - exact.bound)
    assert (off < 6 * np.sqrt(variance / DRAWS) + 1e-4).all()


def test_draws_are_others_and_the_same_again(plain):
    captioner = make()
    before = captioner.get_weights()
    x, y = batch()
    again = -gradient_samples(captioner, **x, targets=y, draws=3)
    np.testing.assert_array_equal(again, plain[:3])
    assert len(np.unique(again.sum(axis=1))) > 1
    for weight, value in zip(captioner.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)  # the captioner stays as it is


def test_soft_attention_draws_nothing():
    captioner = Captioner(Config.tiny().replace(vocabulary_size=6))
    with pytest.raises(ValueError, match="attention='hard'.* Received: attention='soft'"):
        gradient_samples(captioner, None, None, None, draws=1)
