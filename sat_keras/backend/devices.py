"""Data-parallel training: each device holds all weights and processes a share of each batch.

On JAX, one program runs on a batch whose rows are spread over the devices, so that its sums are
sums over the whole batch. On TensorFlow, each device runs a replica of the program, so that what is
a sum over the batch must be reduced over the replicas: the number of captions that the loss is
divided by, and the gradients before they are clipped (`sat_keras.fast.optimizer`).
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras


class Devices:
    """The devices of a training.

    Args:
        number: Integer, number of devices. 1 leaves the placement to Keras.

    Attributes:
        replicas: Integer, copies of the model whose gradients Keras sums: `number` on TensorFlow,
            1 on JAX.

    Raises:
        ValueError: If there are fewer devices, or the backend is neither TensorFlow nor JAX.

    Example:

    >>> devices = Devices(2)
    >>> with devices.building():
    ...     captioner = Captioner(config, tokenizer)
    ...     compile_captioner(captioner, len(train), devices)
    >>> with devices.training():
    ...     captioner.fit(pad_rows(train, devices.number))

    Reference:
        Notebook `04_training`.
    """

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.replicas = 1
        self._strategy = self._distribution = None
        if number == 1:
            return
        backend = keras.backend.backend()
        if backend not in ("tensorflow", "jax"):
            raise ValueError(
                "Several devices need TensorFlow or JAX: set KERAS_BACKEND to one of them. "
                f"Received: {number} devices on {backend}"
            )
        found = keras.distribution.list_devices()
        if not 1 <= number <= len(found):
            raise ValueError(
                f"The number of devices must lie in [1, {len(found)}], the devices that {backend} "
                f"finds. Received: {number} devices"
            )
        if backend == "jax":
            self._distribution = keras.distribution.DataParallel(devices=found[:number])
        else:
            self.replicas = number
            self._strategy = _mirrored(*found[:number])

    def building(self) -> contextlib.AbstractContextManager:
        """Returns the context in which model and optimizer are made."""
        return self._strategy.scope() if self._strategy else self.training()

    def training(self) -> contextlib.AbstractContextManager:
        """Returns the context of `fit`. The number of rows of each batch must be divisible."""
        return self._distribution.scope() if self._distribution else contextlib.nullcontext()


def sum_over_devices(value: Any) -> Any:
    """Sums a number over the replicas of a program; the identity outside of TensorFlow's replicas.

    Args:
        value: Scalar tensor, a sum over this replica's share of a batch.

    Returns:
        Scalar tensor, the sum over the batch.
    """
    if keras.backend.backend() != "tensorflow":
        return value
    import tensorflow as tf

    if not tf.distribute.in_cross_replica_context() and tf.distribute.has_strategy():
        replica = tf.distribute.get_replica_context()
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, value)
    return value


@functools.cache
def _mirrored(*devices: str) -> Any:
    """Returns TensorFlow's strategy, one per process.

    A second strategy would number its reductions from the start again and mix them up with those
    of the first.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


@contextlib.contextmanager
def one_device() -> Iterator[None]:
    """Suspends the distribution of JAX, for batches whose rows need not be divisible."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
