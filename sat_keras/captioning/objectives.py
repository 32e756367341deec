"""What a loss has beside the paper's terms: logged means, supervised attention, drawn captions."""

from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.data.tokenizer import PAD_ID, START_ID, UNK_ID


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


def update_mean(tracker: keras.metrics.Mean, values: Any, weight: Any) -> None:
    """Adds a minibatch to a logged mean, every value with its own weight.

    `Mean` would average over the steps first, so that a word of a short minibatch would count more.

    Args:
        tracker: A `keras.metrics.Mean`.
        values, weight: Float32 tensors of the same shape.
    """
    total = ops.sum(weight)
    tracker.update_state(ops.sum(weight * values) / ops.maximum(total, 1.0), sample_weight=total)
