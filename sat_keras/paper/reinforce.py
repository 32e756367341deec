"""REINFORCE for hard attention, equations 10 to 12: gradients through drawn regions."""

from typing import Any

import keras
from keras import ops

from sat_keras.backend.devices import sum_over_devices

# Share of the moving average that each batch keeps.
BASELINE_MOMENTUM = 0.9


@keras.saving.register_keras_serializable("sat_keras")
class Reinforce(keras.Layer):
    """Computes hard attention's two terms of the loss beside `-log p(y | s)`, `s` being drawn.

    Hard attention maximises the variational lower bound `sum_s p(s | a) log p(y | s, a)`. Its
    gradient is estimated from drawn regions (equation 12) as that of

    1. `R_t`, the reward of step `t`: `log p(y | s, a)` of the whole caption, or of the words from
       `t` on, the only ones that the region can influence
    2. `A_t = R_t - b_t`, the advantage, with a baseline `b_t` that does not depend on the region
    3. `-score_weight * sum_t A_t log p(s_t | a)`, in which `A_t` is held constant
    4. `-entropy_weight * sum_t H[s_t]`, the entropy of the attention weights

    The `"average"` baseline is `b_t = b * (words that R_t sums over)`. After its use, each batch
    updates `b <- 0.9 b + 0.1 log p(y | s, a) / words`. The mean per word, as in the authors' code,
    keeps the caption lengths of a batch out of `b`. The `"samples"` baseline is the mean of `R_t`
    over the other samples of the same caption.

    The first term of the paper's estimator, `d log p(y | s, a)`, is the gradient of the
    cross-entropy. `score_weight = 1` is the gradient of the bound itself.

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
        sampled: Tensor of shape `(batch_size, 1)`, 0 for pictures whose context was the expected
            one. Their attention has a gradient without REINFORCE: only 4 applies.
        weight: Tensor of shape `(batch_size, rows, steps)`, 1 at words, 0 at padding.
        training: Boolean, whether the moving average is updated.

    Returns:
        Tensor of shape `(batch_size, rows)`, the sum of 3 and 4.

    Reference:
        Xu et al. 2015, section 4.1, equations 10 to 12. In the authors' code the difference of
        reward and baseline has the other sign (where `RL_sumCost` is set); here it is the paper's.
        Notebooks `08_hard_attention` and `08b_training_hard_attention`.
    """

    def __init__(
        self,
        score_weight: float = 0.1,
        entropy_weight: float = 0.002,
        reward: str = "caption",
        baseline: str = "average",
        samples: int = 1,
        **kwargs: Any,
    ) -> None:
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
        self.average = self.add_weight(  # devices hold equal copies: aggregate them by the mean
            shape=(), initializer="zeros", trainable=False, aggregation="mean", name="average"
        )
        self.built = True

    def call(
        self,
        log_probability: Any,
        attention_weights: Any,
        locations: Any,
        sampled: Any,
        weight: Any,
        training: bool = False,
    ) -> Any:
        log_probability = ops.stop_gradient(log_probability) * weight
        advantage = self.advantage(log_probability, weight)
        if training:
            self._update_average(log_probability, weight, sampled)
        at = ops.expand_dims(locations, -1)
        chosen = ops.squeeze(ops.take_along_axis(attention_weights, at, axis=-1), -1)
        score = sampled * ops.sum(advantage * weight * _log(chosen), axis=-1)
        entropy = ops.sum(weight * location_entropy(attention_weights), axis=-1)
        return -self.score_weight * score - self.entropy_weight * entropy

    def advantage(self, log_probability: Any, weight: Any) -> Any:
        """Computes reward minus baseline, `R_t - b_t`, of the shape of both arguments."""

        def summed(x: Any) -> Any:  # over the words that the reward of step t is of
            whole = ops.sum(x, axis=-1, keepdims=True)
            if self.reward == "caption":
                return whole * ops.ones_like(x)
            return whole - ops.cumsum(x, axis=-1) + x

        reward = summed(log_probability)
        if self.baseline == "average":
            return reward - self.average * summed(weight)
        if self.baseline == "samples":
            batch_size, rows, steps = ops.shape(reward)
            shape = (batch_size, rows // self.samples, self.samples, steps)
            groups = ops.reshape(reward, shape)
            others = (ops.sum(groups, axis=2, keepdims=True) - groups) / (self.samples - 1)
            return ops.reshape(groups - others, (batch_size, rows, steps))
        return reward

    def _update_average(self, log_probability: Any, weight: Any, sampled: Any) -> None:
        """Updates the moving average from a batch, if any of its regions were drawn."""
        sampled = ops.expand_dims(sampled, -1)
        words = sum_over_devices(ops.sum(sampled * weight))
        total = sum_over_devices(ops.sum(sampled * log_probability))
        now = total / ops.maximum(words, 1.0)
        momentum = ops.cast(ops.where(words > 0, BASELINE_MOMENTUM, 1.0), now.dtype)
        self.average.assign(momentum * self.average + (1 - momentum) * now)

    def get_config(self) -> dict[str, Any]:
        names = "score_weight", "entropy_weight", "reward", "baseline", "samples"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def location_entropy(attention_weights: Any) -> Any:
    """Computes the entropy `-sum_i alpha_i log alpha_i` in nats, over the last axis."""
    return -ops.sum(attention_weights * _log(attention_weights), axis=-1)


def _log(probability: Any) -> Any:
    """Returns the logarithm, with a finite gradient where a probability underflows to 0."""
    return ops.log(ops.maximum(probability, 1e-30))
