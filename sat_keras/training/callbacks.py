"""Callbacks that score and check a training. Saving it is `checkpoint`'s."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from sat_keras.captioning.model import caption_search
from sat_keras.evaluation.scores import score_captions


class DevScores(keras.callbacks.Callback):
    """Captions the dev pictures by search after every epoch and scores the captions.

    Adds `dev_bleu4` and `dev_cider` of the protocol `coco` to the epoch's logs. Callbacks that read
    them must come after this one.

    Args:
        images: Data set of the dev pictures for `predict`, in order, without captions.
        references: Dictionary from image id to the list of the picture's captions, in the same
            order.
        **search: Arguments of `CaptionSearch`.

    Reference:
        Notebook `04_training`.
    """

    def __init__(self, images: Any, references: Mapping[str, list[str]], **search: Any) -> None:
        super().__init__()
        self.images = images
        self.references = references
        self.search_options = search
        self.search: Any = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.search is None:
            # `Captioner.caption` uses the same object, so that it is compiled once.
            self.search = caption_search(self.model, **self.search_options)
        captions = self.model.read(self.search.predict(self.images, verbose=0))
        texts = [caption.text for caption in captions]
        candidates = dict(zip(self.references, texts, strict=True))
        scores = score_captions(candidates, self.references, ["coco"], ("bleu", "cider"))["coco"]
        logs["dev_bleu4"] = scores["bleu4"]
        logs["dev_cider"] = scores["cider"]


class ShowCaption(keras.callbacks.Callback):
    """Prints the caption of one fixed picture after every epoch.

    Args:
        inputs: Dictionary of `images` or `annotations` of one picture, arguments of
            `Captioner.caption`.
        references: List of the picture's captions. The first one is printed as well.
    """

    def __init__(self, inputs: Mapping[str, Any], references: list[str]) -> None:
        super().__init__()
        self.inputs = inputs
        self.reference = references[0]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        caption = self.model.caption(**self.inputs)[0]
        print(f"\n  {caption.text!r} for {self.reference!r}")


class CheckFirstLoss(keras.callbacks.Callback):
    """Warns if the first batch's cross-entropy is far from `log(vocabulary_size)`.

    An untrained model should predict all words with about equal probability. Otherwise the initial
    weights or the targets are wrong.

    Args:
        tolerance: Float, largest difference in nats without a warning.
    """

    def __init__(self, tolerance: float = 1.0) -> None:
        super().__init__()
        self.tolerance = tolerance

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch > 0 or self.model.optimizer.iterations > 1:
            return
        expected = math.log(self.model.decoder.vocabulary_size)
        if abs(logs["cross_entropy"] - expected) > self.tolerance:
            print(
                f"\nWarning: the first cross-entropy should be near log(vocabulary) = "
                f"{expected:.2f} nats a word. Received: {logs['cross_entropy']:.2f}"
            )


class CheckFiniteLoss(keras.callbacks.Callback):
    """Raises an error at the first step whose loss is not finite.

    Keras's `TerminateOnNaN` ends the epoch as usual, so that weights of NaN would be scored and
    saved.

    Args:
        first_step: Integer, steps of the first epoch that were trained by an earlier run.

    Raises:
        FloatingPointError: In training, naming epoch and step.
    """

    def __init__(self, first_step: int = 0) -> None:
        super().__init__()
        self._first_step = first_step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                "The loss must be finite; run again with a lower `learning_rate` or `clip_norm` to "
                f"resume from the last checkpoint. Received: loss {logs['loss']} in epoch "
                f"{self._epoch + 1}, step {self._first_step + batch + 1}"
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._first_step = 0
        check_finite_weights(self.model, epoch)


def check_finite_weights(model: Any, epoch: int) -> None:
    """Raises an error if a weight is not finite: the loss shows it only at the next step.

    Args:
        model: The `Captioner` that is trained.
        epoch: Integer, the epoch from 0.

    Raises:
        FloatingPointError: If so, naming the weight.
    """
    for variable in model.trainable_variables:
        if not ops.all(ops.isfinite(variable)):
            raise FloatingPointError(
                "The weights must be finite; run again with a lower `learning_rate` or `clip_norm` "
                f"to resume from the last checkpoint. Received: NaN or infinity in {variable.path} "
                f"in epoch {epoch + 1}"
            )
