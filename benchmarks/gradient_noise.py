"""How far hard attention's gradient scatters: the same minibatch, other regions drawn."""

import keras
import numpy as np
from keras import ops

from sat_keras.training.pretrained import copy_captioner


def gradient_samples(captioner, annotations, token_ids, targets, draws, warmup=0):
    """Estimates the gradient of one minibatch's loss again and again, with regions drawn anew.

    With `g_d` the gradient that training would follow at draw `d`, the variance of the estimator is

        Var = sum over weights of 1 / (D - 1) sum_d (g_d - mean_d g_d)^2

    which is `gradients.var(axis=0, ddof=1).sum()`. It falls as 1 / N with N samples a caption
    (`config.attention_samples`), and a baseline lowers it and leaves the mean.

    Args:
        captioner: `Captioner` with hard attention. It is not changed.
        annotations: Array of shape `(batch_size, num_regions, feature_dim)`.
        token_ids, targets: Integer arrays of shape `(batch_size, captions, steps)`, as in training.
        draws: Integer, estimates wanted.
        warmup: Integer, estimates made before, which only move the baseline: the moving average
            keeps `0.9 ** warmup` of where it was.

    Returns:
        Float32 array of shape `(draws, weights)`: the gradients of the loss by all trainable
        weights, one after the other.

    Raises:
        ValueError: If the captioner's attention is soft: nothing is drawn.

    Example:

    >>> gradients = gradient_samples(captioner, annotations, token_ids, targets, draws=200)
    >>> variance = gradients.var(axis=0, ddof=1).sum()

    Reference:
        Xu et al. 2015, section 4.1. Notebook `08_hard_attention`.
    """
    if captioner.reinforce is None:
        raise ValueError(
            "Only hard attention draws: make the captioner with `attention='hard'`. "
            f"Received: attention={captioner.config.attention!r}"
        )
    # A step of plain gradient descent of rate 1 is the gradient, on every backend. One epoch is one
    # step: `train_on_batch` traces anew at every call in Keras 3.6.
    copy = copy_captioner(captioner, None, "float32")
    copy.compile(keras.optimizers.SGD(1.0))
    steps = _Steps()
    copy.fit(
        {"annotations": annotations, "token_ids": token_ids},
        targets,
        batch_size=len(targets),
        epochs=warmup + draws,
        callbacks=[steps],
        verbose=0,
    )
    return np.stack(steps.taken[warmup:])


class _Steps(keras.callbacks.Callback):
    """Collects how far each epoch moves the weights, and takes them back."""

    def on_train_begin(self, logs=None):
        self.start = [np.array(ops.convert_to_numpy(weight)) for weight in self._weights()]
        self.taken = []

    def on_epoch_end(self, epoch, logs=None):
        moved = zip(self.start, self._weights(), strict=True)
        self.taken.append(np.concatenate([np.ravel(x - ops.convert_to_numpy(y)) for x, y in moved]))
        for weight, value in zip(self._weights(), self.start, strict=True):
            weight.assign(value)

    def _weights(self):
        return self.model.trainable_variables
