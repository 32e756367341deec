"""Signals during a training, and weights that are not finite."""

import os
import signal
import types

import keras
import pytest

from sat_keras.training.callbacks import CheckFiniteLoss
from sat_keras.training.signals import StopRequest, Terminated


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """Handles Ctrl-C as Python does, also where the tests run in a background that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_the_first_signal_waits_and_the_second_one_stops(number, error):
    before, stop = signal.getsignal(number), StopRequest()
    stop.carry_out()
    with stop.waiting():
        os.kill(os.getpid(), number)
        assert stop.number == number
        with pytest.raises(error):
            stop.carry_out()
        with pytest.raises(error):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        stop = StopRequest()
        with stop.waiting():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_weights_that_are_not_finite_are_named_before_they_are_scored():
    """The loss of the last step of an epoch is finite, and its gradient is not."""
    good, bad = keras.Variable([1.0], name="good"), keras.Variable([float("nan")], name="bad")
    check = CheckFiniteLoss()
    check.set_model(types.SimpleNamespace(trainable_variables=[good]))
    check.on_epoch_begin(0)
    check.on_epoch_end(0)
    check.set_model(types.SimpleNamespace(trainable_variables=[good, bad]))
    with pytest.raises(FloatingPointError, match=r"NaN or infinity in bad in epoch 1, step 1$"):
        check.on_epoch_end(0)


def test_a_loss_after_a_resumed_step_names_the_step_of_the_epoch_and_its_pictures():
    minibatches = {(1, 7): ["a.jpg", "b.jpg"], (2, 0): [str(i) for i in range(70)]}
    check = CheckFiniteLoss(first_step=5, pictures=lambda *at: minibatches[at])
    check.set_model(types.SimpleNamespace(trainable_variables=[]))
    check.on_epoch_begin(1)
    with pytest.raises(FloatingPointError, match="epoch 2, step 8, the minibatch of a.jpg, b.jpg$"):
        check.on_train_batch_end(2, {"loss": float("inf")})
    check.on_epoch_end(1)
    check.on_epoch_begin(2)
    with pytest.raises(FloatingPointError, match="epoch 3, step 1, .* 63 and 6 more pictures$"):
        check.on_train_batch_end(0, {"loss": float("inf")})


def test_weights_are_checked_before_a_checkpoint_within_an_epoch():
    check = CheckFiniteLoss(pictures=lambda epoch, step: [f"picture-{epoch}-{step}"])
    bad = keras.Variable([float("inf")], name="bad")
    check.set_model(types.SimpleNamespace(trainable_variables=[bad]))
    check.on_epoch_begin(1)
    check.on_train_batch_end(3, {"loss": 1.0})
    with pytest.raises(FloatingPointError, match=r"bad in epoch 2, step 4, .* picture-1-3$"):
        check.check_weights()
