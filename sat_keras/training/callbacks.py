"""Callbacks that score and check a training. Saving it is `checkpoint`'s."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from sat_keras.backend.progress import track
from sat_keras.captioning.model import caption_search
from sat_keras.evaluation.scores import score_captions
from sat_keras.training.captioning import AdvanceBar

SHOWN_PICTURES = 64  # in an error, of a minibatch


class DevScores(keras.callbacks.Callback):
    """Captions the dev pictures by search after every epoch and scores the captions.

    Adds `dev_bleu4` and `dev_cider` of the protocol `coco` to the epoch's logs. Callbacks that read
    them must come after this one.

    Args:
        images: Data set of the dev pictures for `predict`, in order, without captions. Pictures
            after the last reference are ignored.
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
        pictures = len(self.references)
        with track(pictures, "Search of dev pictures") as bar:
            advance = AdvanceBar(bar, pictures, len(self.images))
            found = self.search.predict(self.images, verbose=0, callbacks=[advance])
        captions = self.model.read({name: x[:pictures] for name, x in found.items()})
        texts = [caption.text for caption in captions]
        candidates = dict(zip(self.references, texts, strict=True))
        scores = score_captions(candidates, self.references, ["coco"], ("bleu", "cider"))["coco"]
        logs["dev_bleu4"] = scores["bleu4"]
        logs["dev_cider"] = scores["cider"]


class ShowCaption(keras.callbacks.Callback):
    """Prints the caption of one fixed picture after every epoch.

    Args:
        inputs: Dictionary of `images` or `annotations` of one picture, arguments of
            `Captioner.caption`, or of `features` for its head.
        references: List of the picture's captions. The first one is printed as well.
    """

    def __init__(self, inputs: Mapping[str, Any], references: list[str]) -> None:
        super().__init__()
        self.inputs = inputs
        self.reference = references[0]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        inputs = self.inputs
        if "features" in inputs:
            inputs = {"annotations": ops.convert_to_numpy(self.model.annotate(inputs))}
        caption = self.model.caption(**inputs)[0]
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
        expected = math.log(self.model.vocabulary_size)
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
        pictures: Function from an epoch and a step, both from 0, to the image ids of the
            minibatch, such as `minibatch_pictures`, or `None`.

    Raises:
        FloatingPointError: In training, naming epoch, step, minibatch and its pictures.
    """

    def __init__(
        self, first_step: int = 0, pictures: Callable[[int, int], Sequence[str]] | None = None
    ) -> None:
        super().__init__()
        self._first_step = first_step
        self._pictures = pictures
        self._epoch = self._step = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step = self._first_step + batch
        if not math.isfinite(logs["loss"]):
            raise self._error("loss", f"loss {logs['loss']}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.check_weights()
        self._first_step = 0

    def check_weights(self) -> None:
        """Raises an error if a weight is not finite: the loss shows it only at the next step.

        Raises:
            FloatingPointError: If so, naming the weight and the last minibatch.
        """
        for variable in self.model.trainable_variables:
            if not ops.all(ops.isfinite(variable)):
                raise self._error("weights", f"NaN or infinity in {variable.path}")

    def _error(self, what: str, received: str) -> FloatingPointError:
        where = f"epoch {self._epoch + 1}, step {self._step + 1}"
        if self._pictures:
            where += f", the minibatch of {_listed(self._pictures(self._epoch, self._step))}"
        return FloatingPointError(
            f"The {what} must be finite; check these pictures and their captions, or run again "
            "with a lower `learning_rate` or `clip_norm` to resume from the last checkpoint. "
            f"Received: {received} in {where}"
        )


def _listed(image_ids: Sequence[str]) -> str:
    """Returns image ids for a message, at most so many as fit on a screen."""
    more = len(image_ids) - SHOWN_PICTURES
    text = ", ".join(map(str, image_ids[:SHOWN_PICTURES]))
    return f"{text} and {more} more pictures" if more > 0 else text
