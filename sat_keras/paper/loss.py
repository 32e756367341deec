"""The training objective: cross-entropy of the words and the doubly stochastic penalty (14)."""

from typing import Any

from keras import ops

from sat_keras.backend.xla import fused


def cross_entropies(token_ids: Any, logits: Any, smoothing: float = 0.0) -> tuple[Any, Any]:
    """Computes the cross-entropy of every word, with and without label smoothing.

    With `p = softmax(logits)`, `y` the true word and `epsilon` the smoothing

        smoothed = -sum_w q(w) log p(w),  q(w) = (1 - epsilon) [w = y] + epsilon / vocabulary_size

    Args:
        token_ids: Integer tensor of shape `(...)`, the true words.
        logits: Tensor of shape `(..., vocabulary_size)`.
        smoothing: Float in [0, 1).

    Returns:
        Tuple `(smoothed, plain)` of float32 tensors of shape `(...)`, in nats. `plain` is
        `-log p(y)`, which is logged and passes no gradient on.
    """
    smoothing = ops.convert_to_tensor(smoothing, "float32")
    smoothed, plain = _cross_entropies(ops.cast(token_ids, "int32"), logits, smoothing)
    return smoothed, ops.stop_gradient(plain)


@fused
def _cross_entropies(token_ids: Any, logits: Any, smoothing: Any) -> tuple[Any, Any]:
    logits = ops.cast(logits, "float32")
    log_normalizer = ops.logsumexp(logits, axis=-1)
    # A sum over the one-hot vector: the gradient of picking one logit would be a slow scatter.
    is_true = ops.equal(ops.expand_dims(token_ids, -1), ops.arange(logits.shape[-1], dtype="int32"))
    true = ops.sum(ops.where(is_true, logits, 0.0), axis=-1)
    plain = log_normalizer - true
    return plain + smoothing * (true - ops.mean(logits, axis=-1)), plain


def doubly_stochastic_penalty(
    attention_weights: Any, weight: Any, target: str = "one", mask: Any = None
) -> Any:
    """Computes `sum_i (tau - sum_t alpha_ti)^2` for every caption (equation 14).

    Args:
        attention_weights: Tensor of shape `(batch_size, captions, steps, num_regions)`.
        weight: Tensor of shape `(batch_size, captions, steps)`, 1 at words, 0 at padding.
        target: `"one"` for `tau = 1`, `"length"` for the caption's words / regions.
        mask: Optional boolean tensor of shape `(batch_size, num_regions)`, `False` for regions
            that are padding, which are left out.

    Returns:
        Tensor of shape `(batch_size, captions)`, 0 for a caption without words.

    Reference:
        Xu et al. 2015, section 4.2.1, equation 14. Notebook `03_decoder_and_loss`.
    """
    attention_weights = ops.cast(attention_weights, "float32")
    # (batch, captions, steps, regions) -> (batch, captions, regions)
    attended = ops.sum(attention_weights * ops.expand_dims(weight, -1), axis=2)
    words = ops.sum(weight, axis=-1, keepdims=True)  # (batch, captions, 1)
    region = ops.ones_like(attended[:, :1])  # (batch, 1, regions)
    if mask is not None:
        region = ops.cast(ops.expand_dims(mask, 1), "float32")
    regions = ops.sum(region, axis=-1, keepdims=True)
    tau = words / regions if target == "length" else 1.0
    penalty = ops.sum(region * (tau - attended) ** 2, axis=-1)
    return penalty * ops.cast(words[..., 0] > 0, "float32")
