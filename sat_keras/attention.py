"""Where to look: the attention of Show, Attend and Tell, soft and hard."""

import collections

import keras
from keras import ops

from sat_keras.dense import RowDense

CONTEXTS = ("expected", "argmax", "sampled")
EXPECTED_PER = ("picture", "batch")


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
        selection = weights if sampling is None else select_regions(weights, *sampling)[0]
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


class Sampling(collections.namedtuple("Sampling", ["noise", "expected"])):
    """What decides which regions hard attention looks at.

    Attributes:
        noise: Tensor of shape `(..., batch_size, num_queries, num_regions)`, Gumbel noise to draw
            regions, 0 for the likeliest.
        expected: Tensor of shape `(batch_size, 1, 1)`, 1 for the pictures whose context is the
            expected one.
    """

    __slots__ = ()

    def at(self, step, queries):
        """Take the noise of one step, of the first few queries.

        Args:
            step: Integer or scalar tensor.
            queries: Integer.

        Returns:
            A `Sampling` whose noise has the shape `(batch_size, queries, num_regions)`.
        """
        return Sampling(ops.take(self.noise, step, axis=0)[:, :queries], self.expected)


@keras.saving.register_keras_serializable("sat_keras")
class HardAttention(BahdanauAttention):
    """Stochastic hard attention: looks at one region, drawn from the attention weights.

    The attention weights `alpha` are those of `BahdanauAttention`. In training the context is

        z = a_s,  s ~ Multinoulli(alpha)

    or, by a coin of probability `expected_probability`, the expected context `sum_i alpha_i a_i` of
    soft attention. Through the expected context gradients reach the attention weights as usual;
    through a drawn region none can, and `sat_keras.objective.Reinforce` estimates them.

    A region is drawn by the Gumbel trick, `s = argmax_i (log alpha_i + g_i)` with
    `g = -log(-log(u))`, `u` uniform, so that the noise of all steps can be drawn beforehand.

    Args:
        attention_dim: Integer, size of the perceptron's hidden layer.
        samples: Integer, sequences of regions drawn for a caption in training.
        expected_probability: Float in [0, 1), how often the expected context replaces the drawn
            one in training.
        expected_per: The coin is tossed for every `"picture"`, as in the paper, or once a
            `"batch"`, as in the authors' code.
        inference: Context outside training: `"expected"`, `"argmax"` (the likeliest region) or
            `"sampled"`.
        seed: Integer, seed of the noise.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        query, annotations, keys, mask: As of `BahdanauAttention`.
        training: Boolean, whether regions are drawn.

    Returns:
        Tuple `(context, weights)`, as of `BahdanauAttention`.

    Raises:
        ValueError: If an argument has an impossible value.

    Example:

    >>> attention = HardAttention(attention_dim=8, inference="argmax")
    >>> annotations = keras.random.normal((2, 196, 512))
    >>> context, weights = attention(keras.random.normal((2, 5, 32)), annotations)
    >>> region = keras.ops.argmax(weights[0, 0])
    >>> bool(keras.ops.all(context[0, 0] == annotations[0, region]))
    True

    Reference:
        Xu et al. 2015, section 4.1. Notebook `08_hard_attention`.
    """

    def __init__(
        self,
        attention_dim,
        samples=1,
        expected_probability=0.5,
        expected_per="picture",
        inference="expected",
        seed=None,
        **kwargs,
    ):
        super().__init__(attention_dim, **kwargs)
        if not isinstance(samples, int) or samples < 1:
            raise ValueError(f"`samples` must be 1 or more. Received: samples={samples!r}")
        if not 0 <= expected_probability < 1:
            raise ValueError(
                "`expected_probability` must be at least 0 and below 1. "
                f"Received: expected_probability={expected_probability!r}"
            )
        _check_choice("expected_per", expected_per, EXPECTED_PER)
        _check_choice("inference", inference, CONTEXTS)
        self.samples = samples
        self.expected_probability = expected_probability
        self.expected_per = expected_per
        self.inference = inference
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def draw(self, shape, training=False, context=None, seed=None):
        """Draw what the choice of regions needs, for any number of steps.

        Args:
            shape: Tuple of integers or tensors `(..., batch_size, num_queries, num_regions)`.
            training: Boolean, whether regions are drawn and mixed with the expected context.
            context: Context outside training, `inference` by default.
            seed: Integer for the same draws at every call, the layer's own generator by default.

        Returns:
            A `Sampling`, or `None` where every context is the expected one.

        Raises:
            ValueError: If there is no such context.
        """
        context = self.inference if context is None else context
        _check_choice("context", context, CONTEXTS)
        seed = self.seed_generator if seed is None else seed
        pictures = (shape[-3], 1, 1)
        if training:
            coins = pictures if self.expected_per == "picture" else (1, 1, 1)
            coin = keras.random.uniform(coins, seed=seed) < self.expected_probability
            expected = ops.cast(coin, "float32") * ops.ones(pictures, "float32")
            return Sampling(gumbel_noise(shape, seed), expected)
        if context == "expected":
            return None
        is_sampled = context == "sampled"
        noise = gumbel_noise(shape, seed) if is_sampled else ops.zeros(shape, "float32")
        return Sampling(noise, ops.zeros(pictures, "float32"))

    def get_config(self):
        return {
            **super().get_config(),
            "samples": self.samples,
            "expected_probability": self.expected_probability,
            "expected_per": self.expected_per,
            "inference": self.inference,
            "seed": self.seed,
        }

    # Keras saves no seed generators: a training that is resumed would draw the same noise again.

    def save_own_variables(self, store):
        store["seed_state"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_state"])


def gumbel_noise(shape, seed):
    """Draw standard Gumbel noise `-log(-log(u))`.

    Args:
        shape: Tuple of integers or tensors.
        seed: Integer or `keras.random.SeedGenerator`.

    Returns:
        Float32 tensor.
    """
    uniform = keras.random.uniform(shape, 1e-20, 1.0, dtype="float32", seed=seed)
    return -ops.log(-ops.log(uniform))


def select_regions(weights, noise, expected):
    """Choose what the context is made of: a region, or all of them by their weights.

    1. `s = argmax_i (log alpha_i + g_i)`, the location
    2. `alpha` where `expected` is 1, the one-hot vector of `s` where it is 0

    Args:
        weights: Attention weights, tensor of shape `(batch_size, num_queries, num_regions)`.
        noise, expected: One step of a `Sampling`.

    Returns:
        Tuple of the selection, of the shape of `weights`, and the locations, int32, shape
        `(batch_size, num_queries)`.
    """
    locations = ops.cast(ops.argmax(ops.log(weights) + noise, axis=-1), "int32")
    return mix_selection(weights, locations, expected), locations


def mix_selection(weights, locations, expected):
    """Do step 2 of `select_regions`, for any number of steps."""
    chosen = ops.one_hot(locations, weights.shape[-1], dtype=weights.dtype)
    return expected * weights + (1 - expected) * chosen


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}"
        )


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
