"""How likely the words of captions are where regions of the picture are hidden."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from sat_keras.analysis.decoding import Decoding
from sat_keras.captioning.caption import Caption
from sat_keras.data.tokenizer import PAD_ID, START_ID
from sat_keras.paper.loss import cross_entropies

# Numbers in the annotation vectors that are decoded at a time: 26 MB.
_NUMBERS = 64 * 196 * 512
# Steps are padded to a multiple, since each number of steps is compiled anew.
_STEPS = 4


class HiddenRegions(Decoding):
    """Forced decoding of pictures with hidden regions, compiled by `predict_on_batch`.

    The annotation vector of a hidden region is replaced by the mean of the picture's.

    Args:
        captioner: `Captioner`, or a function from a dictionary of `annotations`, shape
            `(rows, num_regions, feature_dim)`, and `token_ids`, shape `(rows, 1, steps)`, to one of
            `logits`, shape `(rows, 1, steps, vocabulary_size)`.

    Call arguments:
        inputs: Dictionary of `annotations`, `(pictures, num_regions, feature_dim)`, and for each
            row the number of its `picture`, `(rows,)`, `is_hidden`, bool `(rows, num_regions)`, and
            `token_ids`, from `<start>` on, `(rows, steps + 1)`.

    Returns:
        Tensor of shape `(rows, steps)`, `log p` of every token after the first.
    """

    def call(self, inputs: Mapping[str, Any]) -> Any:
        annotations = inputs["annotations"]
        mean = ops.mean(ops.cast(annotations, "float32"), axis=1, keepdims=True)
        mean = ops.cast(mean, annotations.dtype)
        whole, mean = (ops.take(x, inputs["picture"], axis=0) for x in (annotations, mean))
        # (rows, regions, features)
        hidden = ops.where(inputs["is_hidden"][..., None], mean, whole)
        token_ids = inputs["token_ids"][:, None]
        outputs = self.captioner({"annotations": hidden, "token_ids": token_ids[..., :-1]})
        return -cross_entropies(token_ids[..., 1:], outputs["logits"])[1][:, 0]


def caption_tokens(model: HiddenRegions, captions: Sequence[Caption]) -> list[list[int]]:
    """Returns the token ids of each caption's words, `<start>` first.

    Args:
        model: The `HiddenRegions` of a captioner with a tokenizer.
        captions: The captioner's captions.
    """
    ids = {word: i for i, word in enumerate(model.captioner.tokenizer.get_vocabulary())}
    return [[START_ID, *(ids[word] for word in caption.words)] for caption in captions]


def log_probabilities(
    model: HiddenRegions,
    annotations: np.ndarray,
    pictures: Sequence[int],
    is_hidden: np.ndarray,
    token_ids: Sequence[Sequence[int]],
) -> np.ndarray:
    """Computes the log-probability of every word of captions of pictures with hidden regions.

    Args:
        model: The compiled `HiddenRegions`.
        annotations: Array of shape `(pictures, num_regions, feature_dim)`.
        pictures: The number of each row's picture.
        is_hidden: Boolean array of shape `(rows, num_regions)`.
        token_ids: Token ids of each row's caption, with `<start>`.

    Returns:
        Array of shape `(rows, steps)`, in nats, where `steps` is the words of the longest caption.
        What follows a caption's end is NaN.
    """
    keys = zip(pictures, map(bytes, is_hidden), map(tuple, token_ids), strict=True)
    first: dict[Any, int] = {}
    # Rows that are equal, such as those that hide nothing, are decoded once.
    same_as = [first.setdefault(key, row) for row, key in enumerate(keys)]
    found = np.full((len(token_ids), max(map(len, token_ids), default=1) - 1), np.nan)
    # Captions of equal length together: a batch has as many steps as its longest caption.
    order = sorted(set(same_as), key=lambda row: len(token_ids[row]))
    size = max(1, _NUMBERS // int(np.prod(annotations.shape[1:])))
    size = min(size, 1 << max(0, len(order) - 1).bit_length())  # few sizes to compile
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        steps = _STEPS * max(1, -(-(len(token_ids[rows[-1]]) - 1) // _STEPS))
        padded = np.full((size, steps + 1), PAD_ID, "int32")
        for line, row in zip(padded, rows, strict=False):
            line[: len(token_ids[row])] = token_ids[row]
        at = np.resize(rows, size)
        inputs = {
            "annotations": annotations,
            "picture": np.asarray(pictures, "int32")[at],
            "is_hidden": is_hidden[at],
            "token_ids": padded,
        }
        log_p = np.asarray(model.predict_on_batch(inputs))
        for row, values in zip(rows, log_p, strict=False):
            found[row, : len(token_ids[row]) - 1] = values[: len(token_ids[row]) - 1]
    return found[same_as]


def word_log_probabilities(
    model: HiddenRegions,
    annotations: np.ndarray,
    is_hidden: np.ndarray,
    tokens: Sequence[Sequence[int]],
    words: Sequence[tuple[int, int]],
) -> np.ndarray:
    """Computes the log-probability of single words, each with regions of its own hidden.

    Args:
        model: The compiled `HiddenRegions`.
        annotations: Array of shape `(pictures, num_regions, feature_dim)`.
        is_hidden: Boolean array of shape `(variants, words, num_regions)`.
        tokens: Token ids of each picture's caption, with `<start>`.
        words: Picture and step, from 0, of each word: the word of step `t` is token `t + 1`.

    Returns:
        Array of shape `(variants, words)`, in nats.
    """
    variants = len(is_hidden)
    # A word needs no tokens after its own.
    token_ids = [tokens[picture][: step + 2] for picture, step in words] * variants
    pictures = [picture for picture, _ in words] * variants
    rows = is_hidden.reshape(-1, is_hidden.shape[-1])  # (variants * words, regions)
    log_p = log_probabilities(model, annotations, pictures, rows, token_ids)
    steps = np.array([step for _, step in words] * variants, int)
    return log_p[np.arange(len(steps)), steps].reshape(variants, len(words))
