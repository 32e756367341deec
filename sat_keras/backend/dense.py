"""A dense layer that is one matrix product, whatever the rank of its inputs."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("sat_keras")
class RowDense(keras.layers.Dense):
    """`keras.layers.Dense` as one matrix product over the rows of all axes but the last.

    Computes `activation(x W + b)`. Keras before 3.15 passes `(n, 1, m, k) x (k, l)` to TensorFlow's
    `BatchMatMul`, whose oneDNN kernel corrupts memory: wrong numbers or a crash. One caption a
    picture has this shape. `keras.ops.tensordot` reshapes to a matrix first, as Keras 3.15 does.

    Args:
        units: Integer, size of the outputs.
        float_outputs: Boolean, whether bias and activation are computed in float32 after a matrix
            product in half precision.
        **kwargs: Arguments of `keras.layers.Dense`.

    Call arguments:
        inputs: Tensor of shape `(..., input_dim)`.

    Returns:
        Tensor of shape `(..., units)`.

    Example:

    >>> RowDense(3)(keras.random.normal((64, 1, 12, 5))).shape
    (64, 1, 12, 3)

    Reference:
        https://github.com/tensorflow/tensorflow/issues/117700
    """

    def __init__(self, units: int, float_outputs: bool = False, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.float_outputs = float_outputs

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        outputs = ops.tensordot(inputs, self.kernel, axes=1)
        if self.float_outputs and self.compute_dtype != "float64":
            outputs = ops.cast(outputs, "float32")
        if self.bias is not None:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "float_outputs": self.float_outputs}
