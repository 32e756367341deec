"""A dense layer that is one matrix product, whatever the rank of its inputs."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("sat_keras")
class RowDense(keras.layers.Dense):
    """`keras.layers.Dense` as one matrix product over the rows of all axes but the last.

    Computes `activation(x W + b)`. Keras before 3.15 leaves `(n, 1, m, k) x (k, l)` to
    TensorFlow's `BatchMatMul`, whose oneDNN kernel corrupts the memory there: wrong numbers, or
    the end of the process. Of this shape are the words of one caption a picture.
    `keras.ops.tensordot` makes a matrix of the rows first, as Keras 3.15 does.

    Args:
        units, **kwargs: As of `keras.layers.Dense`.

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

    def call(self, inputs, training=None):
        outputs = ops.tensordot(inputs, self.kernel, axes=1)
        return self.activation(outputs if self.bias is None else outputs + self.bias)
