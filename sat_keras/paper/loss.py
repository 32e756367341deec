"""The training objective: cross-entropy of the words and the doubly stochastic penalty (14)."""

from typing import Any

import numpy as np
from keras import ops

from sat_keras.backend.xla import fused
from sat_keras.data.tokenizer import PAD_ID, START_ID, UNK_ID


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


def written_logits(logits: Any) -> Any:
    """Returns logits with no probability for tokens that a search never writes.

    Captions are drawn from `softmax(written_logits(logits))`. A gradient of another distribution
    would move all probability to the tokens that are never drawn.

    Args:
        logits: Tensor of shape `(..., vocabulary_size)`.

    Returns:
        Float32 tensor of the same shape, -1e9 at padding, `<unk>` and `<start>`.
    """
    is_written = ~np.isin(np.arange(logits.shape[-1]), (PAD_ID, UNK_ID, START_ID))
    return ops.where(is_written, ops.cast(logits, "float32"), -1e9)


def grounding_loss(attention_weights: Any, in_boxes: Any) -> Any:
    """Computes `-log sum_i b_ti alpha_ti` of every word that names an object with a box.

    With `b_ti` the share of region `i` that lies in the object's boxes, the sum is the attention in
    the boxes. Supervised attention adds the loss to the objective; it is not part of the paper.

    Args:
        attention_weights: Tensor of shape `(batch_size, captions, steps, num_regions)`.
        in_boxes: Tensor of the same shape, the shares, all 0 for a word without boxes.

    Returns:
        Tuple of two float32 tensors of shape `(batch_size, captions, steps)`: the loss, and 1 for
        the words with boxes, 0 for others, whose loss is 0.

    Reference:
        After [Liu et al., 2017](https://arxiv.org/abs/1605.09553), who take the cross-entropy to
        uniform attention over the box. Guide, "Supervised attention".
    """
    mass = ops.sum(ops.cast(attention_weights, "float32") * in_boxes, axis=-1)
    has_boxes = ops.cast(ops.sum(in_boxes, axis=-1) > 0, "float32")
    # The floor bounds the gradient of attention that is nowhere near the box.
    return -has_boxes * ops.log(ops.maximum(mass, 1e-6)), has_boxes


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
