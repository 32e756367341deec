"""What teaches hard attention where to look: REINFORCE, with an entropy term and a baseline."""

import keras
from keras import ops

from sat_keras.devices import sum_over_devices

# How much of the moving average each minibatch keeps.
BASELINE_MOMENTUM = 0.9


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
