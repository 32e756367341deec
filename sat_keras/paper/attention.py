"""Where to look: the attention of Show, Attend and Tell, soft and hard."""

import keras
from keras import ops

from sat_keras.backend.dense import RowDense


@keras.saving.register_keras_serializable("sat_keras")
class BahdanauAttention(keras.Layer):
    """Additive (Bahdanau) attention over a picture's annotation vectors.

    Scores every annotation vector `a_i` against a query `h` (the decoder's previous hidden
    state) with a perceptron of one hidden layer, and returns their weighted mean:

    1. `e_i = v . tanh(W_a a_i + W_h h + b)`, the score of region `i`
    2. `alpha = softmax(e)`, the attention weights
    3. `z = sum_i alpha_i a_i`, the context

    The projected keys `W_a a_i + b` do not depend on the query: `project` computes them once a
    picture, and all time steps, captions and beams of that picture share them.

    Args:
        attention_dim: Integer, size of the perceptron's hidden layer.
        **kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        query: Tensor of shape `(batch_size, num_queries, hidden_dim)`, one row for each caption
            (or beam) of a picture.
        annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
        keys: The result of `project(annotations)`, shape
            `(batch_size, num_regions, attention_dim)`. Computed when it is not given.
        mask: Optional boolean tensor of shape `(batch_size, num_regions)`, `False` for the
            regions that must not be looked at. Every picture needs a region to look at.

    Returns:
        Tuple `(context, weights)` of shapes `(batch_size, num_queries, feature_dim)` and
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

    samples = 1  # contexts of a query in training

    def __init__(self, attention_dim, **kwargs):
        super().__init__(**kwargs)
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
        self.score_vector = RowDense(
            1, use_bias=False, name="score_vector", dtype=self.dtype_policy
        )

    def build(self, query_shape, annotations_shape, keys_shape=None, mask_shape=None):
        self.key_projection.build(annotations_shape)
        self.query_projection.build(query_shape)
        self.score_vector.build((self.attention_dim,))

    def project(self, annotations):
        """Compute the keys `W_a a_i + b`, once for all queries about a picture.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.

        Returns:
            Tensor of shape `(batch_size, num_regions, attention_dim)`.
        """
        return self.key_projection(annotations)

    def draw(self, shape, training=False, context=None, seed=None):
        """Draw what the choice of a region needs. Soft attention chooses none.

        Args:
            shape: Tuple of integers or tensors `(..., batch_size, num_queries, num_regions)`.
            training: Boolean.
            context: Only `"expected"`, or `None` for it.
            seed: Of no effect.

        Returns:
            `None`.

        Raises:
            ValueError: If another context is asked for.
        """
        if context not in (None, "expected"):
            raise ValueError(
                "Soft attention has the context 'expected' only; train with attention='hard' for "
                f"others. Received: context={context!r}"
            )

    def call(self, query, annotations, keys=None, mask=None, training=False):
        if keys is None:
            keys = self.project(annotations)
        hidden = attention_hidden(self.query_projection(query), keys)
        scores = ops.squeeze(self.score_vector(hidden), -1)
        if mask is not None:
            scores = ops.where(ops.expand_dims(mask, 1), scores, -1e4)  # finite in float16
        # The softmax of 196 terms needs float32, also where the rest runs in half precision.
        weights = ops.softmax(ops.cast(scores, "float32"), axis=-1)
        sampling = self.draw(ops.shape(weights), training)
        selection = weights if sampling is None else self.select(weights, *sampling)[0]
        context = ops.matmul(ops.cast(selection, annotations.dtype), annotations)
        return context, weights

    def compute_mask(self, inputs, previous_mask):
        return None  # it is the mask of the regions, which the outputs no longer have

    def compute_output_shape(
        self, query_shape, annotations_shape, keys_shape=None, mask_shape=None
    ):
        context = (*query_shape[:-1], annotations_shape[-1])
        return context, (*query_shape[:-1], annotations_shape[-2])

    def get_config(self):
        return {**super().get_config(), "attention_dim": self.attention_dim}


def attention_hidden(queries, keys):
    """Compute the attention's hidden layer `tanh(k_i + q)` for every query and region.

    Args:
        queries: Projected queries, tensor of shape `(batch_size, num_queries, attention_dim)`.
        keys: Projected annotation vectors, tensor of shape
            `(batch_size, num_regions, attention_dim)`.

    Returns:
        Tensor of shape `(batch_size, num_queries, num_regions, attention_dim)`.
    """
    return ops.tanh(ops.expand_dims(keys, 1) + ops.expand_dims(queries, 2))
