"""Data-parallel training: every device has all weights and computes its share of each minibatch.

JAX runs one program on a minibatch whose rows lie on several devices, and its sums are sums over
all of them. TensorFlow runs a copy of the program on every device, so that what is a sum over the
minibatch must be summed over the copies: the captions that the loss is divided by, and the
gradients before they are clipped.
"""

import contextlib
import functools

import keras


class Devices:
    """The devices that a training runs on.

    Args:
        number: Integer, how many. 1 leaves everything to Keras.

    Raises:
        ValueError: If there are fewer, or the backend is neither TensorFlow nor JAX.

    Example:

    >>> devices = Devices(2)
    >>> with devices.building():
    ...     captioner = Captioner(config, tokenizer)
    ...     compile_captioner(captioner, len(train))
    ...     devices.distribute(captioner.optimizer)
    >>> with devices.training():
    ...     captioner.fit(pad_rows(train, devices.number))

    Reference:
        Notebook `04_training`.
    """

    def __init__(self, number=1):
        self.number = number
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
                f"The number of devices must lie in [1, {len(found)}], what {backend} sees here. "
                f"Received: {number} devices"
            )
        if backend == "jax":
            self._distribution = keras.distribution.DataParallel(devices=found[:number])
            return
        self._strategy = _mirrored(*found[:number])

    def building(self):
        """Return the context in which model and optimizer are made."""
        return self._strategy.scope() if self._strategy else self.training()

    def training(self):
        """Return the context in which `fit` runs. Every minibatch's rows must divide evenly."""
        return self._distribution.scope() if self._distribution else contextlib.nullcontext()

    def distribute(self, optimizer):
        """Let an optimizer clip the gradient of the whole minibatch.

        Keras sums TensorFlow's gradients over the copies only after it has clipped them. So they
        are averaged before, and clipped at a share of the norm: Keras's sum undoes both.

        Args:
            optimizer: A `keras.Optimizer` without `clipnorm` or `clipvalue`.

        Returns:
            The same optimizer.
        """
        if self._strategy is None:
            return optimizer
        import tensorflow as tf

        plain = optimizer.apply

        def apply(gradients, trainable_variables=None):
            copies = tf.distribute.get_replica_context()
            averaged = copies.all_reduce(tf.distribute.ReduceOp.MEAN, list(gradients))
            return plain(averaged, trainable_variables)

        if optimizer.global_clipnorm:
            optimizer.global_clipnorm /= self.number
        optimizer.apply = apply
        return optimizer


def sum_over_devices(value):
    """Sum a number over the copies of a program, on TensorFlow in training on several devices.

    Args:
        value: Scalar tensor, a sum over this copy's share of a minibatch.

    Returns:
        Scalar tensor, the sum over the minibatch.
    """
    if keras.backend.backend() != "tensorflow":
        return value
    import tensorflow as tf

    if not tf.distribute.in_cross_replica_context() and tf.distribute.has_strategy():
        copies = tf.distribute.get_replica_context()
        return copies.all_reduce(tf.distribute.ReduceOp.SUM, value)
    return value


@functools.cache
def _mirrored(*devices):
    """TensorFlow's strategy, made once.

    A second one would number its sums from the start again, and be taken for the first.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


@contextlib.contextmanager
def one_device():
    """Suspend the distribution of JAX, for minibatches that need not divide evenly."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
