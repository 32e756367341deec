"""Samples of hard attention's gradient: one minibatch, regions sampled anew for each gradient."""

from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.paper.captioner import Captioner
from sat_keras.training.pretrained import copy_captioner


def gradient_samples(
    captioner: Captioner,
    annotations: np.ndarray,
    token_ids: np.ndarray,
    targets: np.ndarray,
    draws: int,
    warmup: int = 0,
) -> np.ndarray:
    """Samples the gradient estimate of one minibatch's loss.

    With `g_d` the gradient estimate of draw `d`, the total variance of the estimator is

        Var = sum over weights of 1 / (D - 1) sum_d (g_d - mean_d g_d)^2

    which is `gradients.var(axis=0, ddof=1).sum()`. It falls as 1 / N with N samples per caption
    (`config.attention_samples`). A baseline reduces it and leaves the mean unchanged.

    Args:
        captioner: `Captioner` with hard attention. It is not changed.
        annotations: Annotation vectors of shape `(batch_size, num_regions, feature_dim)`.
        token_ids, targets: Integer arrays of shape `(batch_size, captions, steps)`, as in training.
        draws: Number of gradients.
        warmup: Number of preceding gradients that only update the baseline, a moving average that
            keeps `0.9 ** warmup` of its initial value.

    Returns:
        Float32 array of shape `(draws, weights)`: the gradients with respect to all trainable
        weights, flattened and concatenated.

    Raises:
        ValueError: If the captioner has soft attention.

    Example:

    >>> gradients = gradient_samples(captioner, annotations, token_ids, targets, draws=200)
    >>> variance = gradients.var(axis=0, ddof=1).sum()

    Reference:
        [Xu et al., 2015](https://arxiv.org/abs/1502.03044), section 4.1.
        Notebook `08b_training_hard_attention`.
    """
    if captioner.reinforce is None:
        raise ValueError(
            "`gradient_samples` requires `attention='hard'`. "
            f"Received: attention={captioner.config.attention!r}"
        )
    # An SGD step with a learning rate of 1 changes the weights by the gradient, on every backend.
    copy = copy_captioner(captioner, None, "float32")
    copy.compile(keras.optimizers.SGD(1.0))
    inputs = {"annotations": annotations, "token_ids": token_ids}
    batches, steps = _Repeated((inputs, targets), warmup + draws), _Steps()
    # `train_on_batch` would retrace at every call in Keras 3.6, and an epoch a step is slow.
    copy.fit(batches, callbacks=[steps], shuffle=False, verbose=0)
    return np.stack(steps.taken[warmup:])


class _Repeated(keras.utils.PyDataset):
    """A data set of one minibatch, `times` times."""

    def __init__(self, minibatch: Any, times: int) -> None:
        super().__init__()
        self.minibatch = minibatch
        self.times = times

    def __len__(self) -> int:
        return self.times

    def __getitem__(self, index: int) -> Any:
        return self.minibatch


class _Steps(keras.callbacks.Callback):
    """Records the change of the weights in each step and restores them."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.start = [np.array(ops.convert_to_numpy(weight)) for weight in self._weights()]
        self.taken = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        moved = zip(self.start, self._weights(), strict=True)
        self.taken.append(np.concatenate([np.ravel(x - ops.convert_to_numpy(y)) for x, y in moved]))
        for weight, value in zip(self._weights(), self.start, strict=True):
            weight.assign(value)

    def _weights(self) -> list[Any]:
        return self.model.trainable_variables
