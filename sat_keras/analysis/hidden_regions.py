"""How likely the words of captions are where regions of the picture are hidden."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.backend.devices import one_device
from sat_keras.captioning.caption import Caption
from sat_keras.data.tokenizer import PAD_ID, START_ID
from sat_keras.paper.loss import cross_entropies

# Numbers in the annotation vectors that are decoded at a time: 26 MB.
_NUMBERS = 64 * 196 * 512
# Steps are padded to a multiple, since each number of steps is compiled anew.
_STEPS = 4


class HiddenRegions(keras.Model):
    """Forced decoding of pictures with hidden regions, as a model that `predict_on_batch` compiles.

    The annotation vector of a hidden region is replaced by the mean of the picture's.

    Args:
        captioner: `Captioner`, or a function from a dictionary of `annotations`, shape
            `(rows, num_regions, feature_dim)`, and `token_ids`, shape `(rows, 1, steps)`, to one of
            `logits`, shape `(rows, 1, steps, vocabulary_size)`.

    Call arguments:
        inputs: Dictionary of `annotations`, `(batch_size, num_regions, feature_dim)`, `is_hidden`,
            bool `(batch_size, variants, num_regions)`, and `token_ids`, from `<start>` on,
            `(batch_size, steps + 1)`.

    Returns:
        Tensor of shape `(batch_size, variants, steps)`, `log p` of every token after the first.
    """

    def __init__(self, captioner: Any) -> None:
        super().__init__()
        self.captioner = captioner
        self.built = True
        self.compile(jit_compile=keras.backend.backend() == "jax")

    @classmethod
    def of(cls, captioner: Any) -> "HiddenRegions":
        """Returns the model of a captioner, or what is given if it is such a model already.

        Each model compiles anew: share one between calls of the functions that take it.
        """
        return captioner if isinstance(captioner, cls) else cls(captioner)

    def call(self, inputs: Mapping[str, Any]) -> Any:
        annotations, is_hidden = inputs["annotations"], inputs["is_hidden"]
        variants = ops.shape(is_hidden)[1]
        mean = ops.mean(ops.cast(annotations, "float32"), axis=1, keepdims=True)
        mean = ops.cast(mean, annotations.dtype)
        # (batch, variants, regions, features)
        hidden = ops.where(is_hidden[..., None], mean[:, None], annotations[:, None])
        # (batch, variants, ...) -> (batch * variants, ...)
        hidden = ops.reshape(hidden, (-1, *annotations.shape[1:]))
        # The same caption for all variants: (batch, steps + 1) -> (batch * variants, 1, steps + 1)
        token_ids = inputs["token_ids"][:, None] + ops.zeros_like(is_hidden[..., :1], "int32")
        token_ids = ops.reshape(token_ids, (-1, 1, ops.shape(token_ids)[-1]))
        outputs = self.captioner({"annotations": hidden, "token_ids": token_ids[..., :-1]})
        log_p = -cross_entropies(token_ids[..., 1:], outputs["logits"])[1]
        return ops.reshape(log_p, (-1, variants, ops.shape(log_p)[-1]))


def caption_tokens(model: HiddenRegions, captions: Sequence[Caption]) -> list[list[int]]:
    """Returns the token ids of each caption's words, `<start>` first.

    Args:
        model: The `HiddenRegions` of a captioner with a tokenizer.
        captions: The captioner's captions.
    """
    ids = {word: i for i, word in enumerate(model.captioner.tokenizer.get_vocabulary())}
    return [[START_ID, *(ids[word] for word in caption.words)] for caption in captions]


def rows_at_a_time(annotations: np.ndarray, variants: int) -> int:
    """Returns how many pictures or words to decode at a time, to bound the memory.

    Args:
        annotations: Array of shape `(pictures, num_regions, feature_dim)`.
        variants: Integer, sets of hidden regions of each row.
    """
    return max(1, _NUMBERS // (variants * int(np.prod(np.shape(annotations)[1:]))))


def log_probabilities(
    model: HiddenRegions,
    annotations: np.ndarray,
    is_hidden: np.ndarray,
    token_ids: Sequence[Sequence[int]],
    rows: int,
) -> np.ndarray:
    """Computes the log-probability of every word of captions of pictures with hidden regions.

    Args:
        model: The compiled `HiddenRegions`.
        annotations: Array of shape `(pictures, num_regions, feature_dim)`.
        is_hidden: Boolean array of shape `(variants, pictures, num_regions)`.
        token_ids: Token ids of each picture's caption, with `<start>`.
        rows: Integer, rows to pad the batch to, so that all batches have one shape.

    Returns:
        Array of shape `(variants, pictures, steps)`, in nats; `steps` is that of the longest
        caption or more, and what follows a caption's end means nothing.
    """
    longest = max(len(ids) - 1 for ids in token_ids)
    steps = _STEPS * max(1, -(-longest // _STEPS))
    padded = np.full((len(token_ids), steps + 1), PAD_ID, "int32")
    for row, ids in zip(padded, token_ids, strict=True):
        row[: len(ids)] = ids
    # Variants that are equal in all rows, such as those that hide nothing, are decoded once.
    different, variant = np.unique(is_hidden, axis=0, return_inverse=True)
    at = np.arange(max(rows, len(padded))) % len(padded)
    with one_device():
        found = model.predict_on_batch(
            {
                "annotations": np.asarray(annotations)[at],
                "is_hidden": different.swapaxes(0, 1)[at],
                "token_ids": padded[at],
            }
        )
    return np.asarray(found)[: len(padded), variant.ravel()].swapaxes(0, 1)


def word_log_probabilities(
    model: HiddenRegions,
    annotations: np.ndarray,
    is_hidden: np.ndarray,
    tokens: Sequence[Sequence[int]],
    words: Sequence[tuple[int, int]],
    rows: int,
) -> np.ndarray:
    """Computes the log-probability of single words, each with regions of its own hidden.

    Args:
        model: The compiled `HiddenRegions`.
        annotations: Array of shape `(pictures, num_regions, feature_dim)`.
        is_hidden: Boolean array of shape `(variants, words, num_regions)`.
        tokens: Token ids of each picture's caption, with `<start>`.
        words: Picture and step, from 0, of each word: the word of step `t` is token `t + 1`.
        rows: Integer, as of `log_probabilities`.

    Returns:
        Array of shape `(variants, words)`, in nats.
    """
    pictures, steps = map(list, zip(*words, strict=True))
    # A word needs no tokens after its own.
    token_ids = [tokens[picture][: step + 2] for picture, step in words]
    log_p = log_probabilities(model, annotations[pictures], is_hidden, token_ids, rows)
    return log_p[:, np.arange(len(steps)), steps]
