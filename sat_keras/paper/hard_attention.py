"""Stochastic hard attention, equations 8 to 12: one drawn region a step, learnt by REINFORCE."""

from typing import Any, NamedTuple

import keras
from keras import ops

from sat_keras.backend.devices import sum_over_devices
from sat_keras.paper.attention import BahdanauAttention

CONTEXTS = ("expected", "argmax", "sampled")
EXPECTED_PER = ("picture", "batch")
# Share of the moving average that each minibatch keeps.
BASELINE_MOMENTUM = 0.9


class Sampling(NamedTuple):
    """The random numbers that choose hard attention's regions, drawn before the loop over steps.

    Attributes:
        noise: Tensor of shape `(..., batch_size, num_queries, num_regions)`: Gumbel noise to draw
            regions, 0 for the likeliest. `None` where every context is the expected one.
        expected: Tensor of shape `(batch_size, 1, 1)`, 1 for the pictures whose context is the
            expected one; `None` with `noise=None`.
    """

    noise: Any = None
    expected: Any = None

    @property
    def draws(self) -> bool:
        """Whether any region is chosen at all."""
        return self.noise is not None

    def at(self, step: Any, queries: int | None = None) -> "Sampling":
        """Returns the noise of one step, of the first few queries.

        Args:
            step: Integer or scalar tensor.
            queries: Integer, or `None` for all.

        Returns:
            A `Sampling` whose noise has the shape `(batch_size, queries, num_regions)`.
        """
        if not self.draws:
            return self
        return Sampling(ops.take(self.noise, step, axis=0)[:, :queries], self.expected)


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
        _check_choice("expected_per", expected_per, EXPECTED_PER)
        _check_choice("inference", inference, CONTEXTS)
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
        _check_choice("context", context, CONTEXTS)
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
        return {
            **super().get_config(),
            "samples": self.samples,
            "expected_probability": self.expected_probability,
            "expected_per": self.expected_per,
            "inference": self.inference,
            "seed": self.seed,
        }

    # Keras saves no seed generators: a resumed training would draw the same noise again.

    def save_own_variables(self, store: Any) -> None:
        store["seed_state"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: Any) -> None:
        self.seed_generator.state.assign(store["seed_state"])


def gumbel_noise(shape: Any, seed: Any) -> Any:
    """Draws standard Gumbel noise `-log(-log(u))`.

    Args:
        shape: Tuple of integers or tensors.
        seed: Integer or `keras.random.SeedGenerator`.

    Returns:
        Float32 tensor.
    """
    uniform = keras.random.uniform(shape, 1e-20, 1.0, dtype="float32", seed=seed)
    return -ops.log(-ops.log(uniform))


def draw_locations(weights: Any, noise: Any) -> Any:
    """Draws regions by the Gumbel-max trick, `s = argmax_i (log alpha_i + g_i)`.

    Args:
        weights: Attention weights, tensor of shape `(..., num_regions)`.
        noise: Gumbel noise of the same shape.

    Returns:
        Locations, int32 tensor of shape `(...)`.
    """
    scores = ops.log(weights) + ops.cast(noise, weights.dtype)
    return ops.cast(ops.argmax(scores, axis=-1), "int32")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}"
        )


@keras.saving.register_keras_serializable("sat_keras")
class Reinforce(keras.Layer):
    """The two terms of hard attention's loss beside `-log p(y | s)`, for drawn regions `s`.

    Hard attention maximises the variational lower bound `sum_s p(s | a) log p(y | s, a)`. Its
    gradient is estimated from drawn regions as that of

    1. `R_t`, the reward of step `t`: `log p(y | s, a)` of the whole caption, or
       `sum_{u >= t} log p(y_u | s, a)` of the rest, on which alone the region has an influence
    2. `A_t = R_t - b_t`, with a baseline `b_t` that does not depend on the region drawn
    3. `-score_weight * sum_t A_t log p(s_t | a)`, in which `A_t` is held constant
    4. `-entropy_weight * sum_t H[s_t]`, the entropy of the attention weights

    The `"average"` baseline is the moving average of log p over the minibatches, a word:
    `b_t = b * (words that R_t is of)` with `b <- 0.9 b + 0.1 log p(y | s, a) / words`, where a
    minibatch counts after its own use of `b`. The authors' code too takes the mean over the words:
    in minibatches of one length each, the lengths would be most of what `b` follows. The
    `"samples"` baseline is the mean of `R_t` over the other samples of the same caption.

    The first factor of the paper's estimator, `d log p(y | s, a)`, is the gradient of the
    cross-entropy. `lambda_r = 1` would be the bound's own gradient.

    Args:
        score_weight: Float, lambda_r.
        entropy_weight: Float, lambda_e.
        reward: `"caption"` or `"rest"`.
        baseline: `"average"`, `"samples"` or `"none"`.
        samples: Integer, samples of a caption. The `"samples"` baseline needs 2 or more.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        log_probability: Tensor of shape `(batch_size, rows, steps)`, `log p(y_t | s, a)`. The rows
            are captions, each `samples` times one after the other.
        attention_weights: Tensor of shape `(batch_size, rows, steps, num_regions)`.
        locations: Integer tensor of shape `(batch_size, rows, steps)`, the regions drawn.
        sampled: Tensor of shape `(batch_size, 1)`, 0 for the pictures whose context was the
            expected one, which teaches the attention by itself: only 4 applies.
        weight: Tensor of shape `(batch_size, rows, steps)`, 1 at words, 0 at padding.
        training: Boolean, whether the moving average moves.

    Returns:
        Tensor of shape `(batch_size, rows)`, the sum of 3 and 4.

    Reference:
        Xu et al. 2015, section 4.1, equations 10 to 12. In the authors' code the difference of
        reward and baseline has the other sign (where `RL_sumCost` is set); here it is the paper's.
        Notebook `08_hard_attention`.
    """

    def __init__(
        self,
        score_weight=0.1,
        entropy_weight=0.002,
        reward="caption",
        baseline="average",
        samples=1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if baseline == "samples" and samples < 2:
            raise ValueError(
                "The baseline 'samples' is the mean of a caption's other samples: draw 2 or more "
                f"(`attention_samples`). Received: {samples!r}"
            )
        self.score_weight = score_weight
        self.entropy_weight = entropy_weight
        self.reward = reward
        self.baseline = baseline
        self.samples = samples
        self.average = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            aggregation="mean",  # of copies that are the same
            name="average",
        )
        self.built = True

    def call(self, log_probability, attention_weights, locations, sampled, weight, training=False):
        log_probability = ops.stop_gradient(log_probability) * weight
        advantage = self.advantage(log_probability, weight)
        if training:
            self._follow(log_probability, weight, sampled)
        at = ops.expand_dims(locations, -1)
        chosen = ops.squeeze(ops.take_along_axis(attention_weights, at, axis=-1), -1)
        score = sampled * ops.sum(advantage * weight * _log(chosen), axis=-1)
        entropy = ops.sum(weight * location_entropy(attention_weights), axis=-1)
        return -self.score_weight * score - self.entropy_weight * entropy

    def advantage(self, log_probability, weight):
        """Compute reward minus baseline.

        Args:
            log_probability, weight: As in the call, 0 at padding.

        Returns:
            Tensor of shape `(batch_size, rows, steps)`.
        """

        def onward(x):
            whole = ops.sum(x, axis=-1, keepdims=True)
            if self.reward == "caption":
                return whole * ops.ones_like(x)
            return whole - ops.cumsum(x, axis=-1) + x

        reward = onward(log_probability)
        if self.baseline == "average":
            return reward - self.average * onward(weight)
        if self.baseline == "samples":
            batch_size, rows, steps = ops.shape(reward)
            shape = (batch_size, rows // self.samples, self.samples, steps)
            groups = ops.reshape(reward, shape)
            others = (ops.sum(groups, axis=2, keepdims=True) - groups) / (self.samples - 1)
            return ops.reshape(groups - others, (batch_size, rows, steps))
        return reward

    def _follow(self, log_probability, weight, sampled):
        """Move the average towards this minibatch's, if any of its regions were drawn."""
        sampled = ops.expand_dims(sampled, -1)
        words = sum_over_devices(ops.sum(sampled * weight))
        total = sum_over_devices(ops.sum(sampled * log_probability))
        now = total / ops.maximum(words, 1.0)
        momentum = ops.where(words > 0, BASELINE_MOMENTUM, 1.0)
        self.average.assign(momentum * self.average + (1 - momentum) * now)

    def get_config(self):
        return {
            **super().get_config(),
            "score_weight": self.score_weight,
            "entropy_weight": self.entropy_weight,
            "reward": self.reward,
            "baseline": self.baseline,
            "samples": self.samples,
        }


def location_entropy(attention_weights):
    """Compute the entropy `-sum_i alpha_i log alpha_i` in nats.

    Args:
        attention_weights: Tensor of shape `(..., num_regions)`.

    Returns:
        Tensor of shape `(...)`.
    """
    return -ops.sum(attention_weights * _log(attention_weights), axis=-1)


def _log(probability):
    """The logarithm, with a finite gradient where a probability has become 0."""
    return ops.log(ops.maximum(probability, 1e-30))
