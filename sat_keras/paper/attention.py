"""Soft attention over annotation vectors, equations 4 to 6."""

from typing import Any

import keras
from keras import ops

from sat_keras.backend.dense import RowDense, ScoreVector, float_dtype

# exp(-1e9) is 0 in float32: the softmax gives a masked region no weight.
MASKED_SCORE = -1e9


@keras.saving.register_keras_serializable("sat_keras")
class BahdanauAttention(keras.Layer):
    """Additive (Bahdanau) attention over a picture's annotation vectors.

    1. `e_i = v . tanh(W_a a_i + b + W_h h)`, the score of region `i` (equation 4)
    2. `alpha = softmax(e)`, the attention weights (equation 5)
    3. `z_hat = sum_i alpha_i a_i`, the context (equations 6 and 13)

    The keys `W_a a_i + b` do not depend on the query `h`. `project` computes them once for a
    picture; all time steps, captions and beams of that picture share them. Matrix products run in
    the compute dtype; tanh, scores and softmax in float32 at any precision.

    Args:
        attention_dim: Integer, size of the perceptron's hidden layer.
        **kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        query: Tensor of shape `(batch_size, num_queries, hidden_dim)`, the previous hidden state
            of each caption (or beam) of a picture.
        annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
        keys: The result of `project(annotations)`, shape
            `(batch_size, num_regions, attention_dim)`. Computed when it is not given.
        mask: Optional boolean tensor of shape `(batch_size, num_regions)`. Regions that are
            `False`, such as padding, get weight 0. Every picture needs a region that is `True`.
        query_bias: Optional tensor of shape `(batch_size, num_queries, attention_dim)`, added to
            `W_h h`: what else the query knows, such as the previous word.

    Returns:
        Tuple `(context, attention_weights)` of shapes `(batch_size, num_queries, feature_dim)` and
        `(batch_size, num_queries, num_regions)`. The weights of a query sum to 1.

    Raises:
        ValueError: If `attention_dim` is not a positive integer.

    Example:

    >>> attention = BahdanauAttention(attention_dim=8)
    >>> annotations = keras.random.normal((2, 196, 512))
    >>> query = keras.random.normal((2, 5, 32))
    >>> context, weights = attention(query, annotations)
    >>> context.shape, weights.shape
    ((2, 5, 512), (2, 5, 196))

    Reference:
        Xu et al. 2015, equations 4 to 6 and section 4.2; Bahdanau et al. 2015. Notebook
        `02_encoder_and_attention`.
    """

    samples = 1  # contexts of a query in training; hard attention may draw more

    def __init__(self, attention_dim: int, **kwargs: Any) -> None:
        # No autocast: the query is a float32 state also where products run in half precision.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(attention_dim, int) or attention_dim < 1:
            raise ValueError(
                "`attention_dim` must be a positive integer, the size of the attention "
                f"perceptron's hidden layer. Received: attention_dim={attention_dim!r}"
            )
        self.attention_dim = attention_dim
        self.supports_masking = True
        self.key_projection = RowDense(
            attention_dim, name="key_projection", dtype=self.dtype_policy
        )
        self.query_projection = RowDense(
            attention_dim, use_bias=False, name="query_projection", dtype=self.dtype_policy
        )
        self.score_vector = ScoreVector(name="score_vector", dtype=self.dtype_policy)

    def build(self, query_shape: Any, annotations_shape: Any, **_: Any) -> None:
        self.key_projection.build(annotations_shape)
        self.query_projection.build(query_shape)
        self.score_vector.build((None, self.attention_dim))

    def project(self, annotations: Any) -> Any:
        """Computes the keys `W_a a_i + b`, shape `(batch_size, num_regions, attention_dim)`."""
        return self.key_projection(annotations)

    def call(
        self,
        query: Any,
        annotations: Any,
        keys: Any = None,
        mask: Any = None,
        query_bias: Any = None,
    ) -> tuple[Any, Any]:
        annotations = ops.cast(annotations, self.compute_dtype)
        dtype = float_dtype(self.compute_dtype)
        keys = ops.cast(self.project(annotations) if keys is None else keys, dtype)
        query = ops.cast(self.query_projection(query), dtype)
        if query_bias is not None:
            query = query + ops.cast(query_bias, dtype)
        # (batch, 1, regions, attention_dim) + (batch, queries, 1, attention_dim)
        hidden = ops.tanh(ops.expand_dims(keys, 1) + ops.expand_dims(query, 2))
        scores = self.score_vector(hidden)  # (batch, queries, regions)
        if mask is not None:
            # (batch, regions) -> (batch, 1, regions)
            scores = ops.where(ops.expand_dims(mask, 1), scores, MASKED_SCORE)
        weights = ops.softmax(scores, axis=-1)
        context = ops.matmul(ops.cast(weights, self.compute_dtype), annotations)
        return context, weights

    def draw(
        self, shape: Any, training: bool = False, context: str | None = None, seed: Any = None
    ) -> Any:
        """Returns `None`, since soft attention draws nothing; see `HardAttention.draw`."""
        if context not in (None, "expected"):
            raise ValueError(
                "Soft attention has the context 'expected' only; train with attention='hard' for "
                f"others. Received: context={context!r}"
            )
        return None

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        return None  # the mask is of the regions, over which the outputs are summed

    def compute_output_shape(self, query_shape: Any, annotations_shape: Any, **_: Any) -> Any:
        context = (*query_shape[:-1], annotations_shape[-1])
        return context, (*query_shape[:-1], annotations_shape[-2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "attention_dim": self.attention_dim}
