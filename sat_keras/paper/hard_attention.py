"""Stochastic hard attention, equations 8 and 9: the context is one region, drawn at every step."""

from typing import Any

import keras
from keras import ops

from sat_keras.backend.gumbel import Sampling, draw_locations, gumbel_noise
from sat_keras.config.fields import check_choice
from sat_keras.paper.attention import BahdanauAttention

CONTEXTS = ("expected", "argmax", "sampled")
EXPECTED_PER = ("picture", "batch")


@keras.saving.register_keras_serializable("sat_keras")
class HardAttention(BahdanauAttention):
    """Stochastic hard attention: the context is one region, drawn from the attention weights.

    The attention weights `alpha` are those of `BahdanauAttention`. In training the context is

        z_hat = a_s,  s ~ Multinoulli(alpha)

    or, with probability `expected_probability`, the expected context `sum_i alpha_i a_i` of soft
    attention. The expected context passes gradients on to the attention weights; a drawn region
    passes none, and `Reinforce` estimates them.

    A region is drawn by the Gumbel-max trick, `s = argmax_i (log alpha_i + g_i)` with
    `g = -log(-log(u))`, `u` uniform, so that the noise of all steps is drawn before the loop.

    Args:
        attention_dim: Integer, size of the perceptron's hidden layer.
        samples: Integer, sequences of regions drawn for a caption in training.
        expected_probability: Float in [0, 1), how often the expected context replaces the drawn
            one in training.
        expected_per: `"picture"` decides that for each picture, as in the paper, `"batch"` once
            for a minibatch, as in the authors' code.
        inference: Context outside training: `"expected"`, `"argmax"` (the likeliest region) or
            `"sampled"`.
        seed: Integer, seed of the noise.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        query, annotations, keys, mask, query_bias: As of `BahdanauAttention`.
        sampling: One step's `Sampling`. Drawn by `draw` where it is not given.
        training: Boolean, whether regions are drawn.

    Returns:
        Tuple `(context, attention_weights)`, as of `BahdanauAttention`.

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
        attention_dim: int,
        samples: int = 1,
        expected_probability: float = 0.5,
        expected_per: str = "picture",
        inference: str = "expected",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(attention_dim, **kwargs)
        if not isinstance(samples, int) or samples < 1:
            raise ValueError(f"`samples` must be 1 or more. Received: samples={samples!r}")
        if not 0 <= expected_probability < 1:
            raise ValueError(
                "`expected_probability` must be at least 0 and below 1. "
                f"Received: expected_probability={expected_probability!r}"
            )
        check_choice("expected_per", expected_per, EXPECTED_PER)
        check_choice("inference", inference, CONTEXTS)
        self.samples = samples
        self.expected_probability = expected_probability
        self.expected_per = expected_per
        self.inference = inference
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def draw(
        self, shape: Any, training: bool = False, context: str | None = None, seed: Any = None
    ) -> Sampling:
        """Draws what chooses the regions, for any number of steps.

        Args:
            shape: Tuple of integers or tensors `(..., batch_size, num_queries, num_regions)`.
            training: Boolean, whether regions are drawn and mixed with the expected context.
            context: Context outside training, `inference` by default.
            seed: Integer for the same draws at every call, the layer's own generator by default.

        Returns:
            A `Sampling`.

        Raises:
            ValueError: If there is no such context.
        """
        context = self.inference if context is None else context
        check_choice("context", context, CONTEXTS)
        seed = self.seed_generator if seed is None else seed
        pictures = (shape[-3], 1, 1)
        if training:
            coins = pictures if self.expected_per == "picture" else (1, 1, 1)
            coin = keras.random.uniform(coins, seed=seed) < self.expected_probability
            expected = ops.cast(coin, "float32") * ops.ones(pictures, "float32")
            return Sampling(gumbel_noise(shape, seed), expected)
        if context == "expected":
            return Sampling()
        is_sampled = context == "sampled"
        noise = gumbel_noise(shape, seed) if is_sampled else ops.zeros(shape, "float32")
        return Sampling(noise, ops.zeros(pictures, "float32"))

    def call(
        self,
        query: Any,
        annotations: Any,
        keys: Any = None,
        mask: Any = None,
        query_bias: Any = None,
        sampling: Sampling | None = None,
        training: bool = False,
    ) -> tuple[Any, Any]:
        expected_context, weights = super().call(query, annotations, keys, mask, query_bias)
        if sampling is None:
            sampling = self.draw(ops.shape(weights), training)
        if not sampling.draws:
            return expected_context, weights
        locations = draw_locations(weights, sampling.noise)
        chosen = ops.one_hot(locations, weights.shape[-1], dtype=self.compute_dtype)
        # a_s: (batch, queries, regions) x (batch, regions, feature_dim)
        drawn_context = ops.matmul(chosen, ops.cast(annotations, self.compute_dtype))
        expected = ops.cast(sampling.expected, expected_context.dtype)
        return expected * expected_context + (1 - expected) * drawn_context, weights

    def get_config(self) -> dict[str, Any]:
        names = "samples", "expected_probability", "expected_per", "inference", "seed"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    # Keras saves no seed generators: a resumed training would draw the same noise again.

    def save_own_variables(self, store: Any) -> None:
        store["seed_state"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: Any) -> None:
        self.seed_generator.state.assign(store["seed_state"])
