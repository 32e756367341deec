"""Dense layers as one matrix product whatever the rank of their inputs, and an initialiser."""

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


@keras.saving.register_keras_serializable("sat_keras")
class ScoreVector(keras.Layer):
    """Computes the scores `v . x` in float32 at any precision, for the softmax over regions.

    Args:
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        hidden: Float32 tensor of shape `(..., attention_dim)`.

    Returns:
        Float32 tensor of shape `(...)`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.initializer = keras.initializers.GlorotUniform()

    def build(self, hidden_shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(hidden_shape[-1], 1), initializer=self.initializer, name="kernel"
        )

    def call(self, hidden: Any) -> Any:
        # Rounded to the compute dtype as all weights are, then multiplied in float32.
        kernel = ops.cast(ops.cast(self.kernel, self.compute_dtype), hidden.dtype)
        return ops.tensordot(hidden, kernel[:, 0], axes=1)


@keras.saving.register_keras_serializable("sat_keras")
def forget_gate_bias(shape: Any, dtype: Any = None) -> Any:
    """Initialises the LSTM's biases with 0, those of the forget gate with 1.

    Args:
        shape: Tuple `(4 * hidden_dim,)`.
        dtype: Data type of the result.

    Returns:
        Tensor of that shape.

    Reference:
        Jozefowicz et al. 2015, as `unit_forget_bias` of `keras.layers.LSTM`.
    """
    quarter = shape[0] // 4
    parts = ops.zeros(quarter, dtype), ops.ones(quarter, dtype), ops.zeros(2 * quarter, dtype)
    return ops.concatenate(parts)


def float_dtype(compute_dtype: str) -> str:
    """Returns the dtype of softmax, gates and LSTM state: float32, or float64 where all is."""
    return "float64" if compute_dtype == "float64" else "float32"


def embedding_matrix(embedding: keras.layers.Embedding) -> Any:
    """Returns an embedding's matrix in its compute dtype, also where it is quantized.

    Args:
        embedding: A built `keras.layers.Embedding`.

    Returns:
        Tensor of shape `(input_dim, output_dim)`.
    """
    if getattr(embedding, "quantization_mode", None):
        return embedding(ops.arange(embedding.input_dim))
    return ops.cast(embedding.embeddings, embedding.compute_dtype)
