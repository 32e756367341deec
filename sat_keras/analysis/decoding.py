"""What the models share that decode captions by teacher forcing for a measurement."""

from typing import Any

import keras

from sat_keras.backend.devices import one_device


class Decoding(keras.Model):
    """A captioner's decoding as a model, so that `predict_on_batch` compiles it.

    Args:
        captioner: A `Captioner`, or what a subclass takes in its place.
    """

    def __init__(self, captioner: Any) -> None:
        super().__init__()
        self.captioner = captioner
        self.built = True
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def predict_on_batch(self, x: Any) -> Any:
        """Decodes a batch, on one device; see `keras.Model.predict_on_batch`."""
        with one_device():
            return super().predict_on_batch(x)

    @classmethod
    def of(cls, captioner: Any) -> Any:
        """Returns the model of a captioner, or what is given if it is such a model already.

        Each model compiles anew: share one between calls of the functions that take it.
        """
        return captioner if isinstance(captioner, cls) else cls(captioner)
