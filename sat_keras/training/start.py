"""Starting a training from another captioner: its words, extended by new ones, and its weights."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from sat_keras.config.config import Config
from sat_keras.config.model import ModelConfig
from sat_keras.data.tokenizer import Tokenizer

VOCABULARIES = ("captions", "extend", "keep")


def make_tokenizer(
    config: Config, captions: Iterable[str], start: Any = None, vocabulary: str = "captions"
) -> Tokenizer:
    """Returns the tokenizer of a training.

    Args:
        config: A `Config`, whose `vocabulary_size`, `min_count` and `full_stop` choose the words of
            the captions.
        captions: Captions of the training split.
        start: `Captioner` to start from, or `None`.
        vocabulary: `"captions"` for the words of the captions, `"extend"` for those of `start`
            followed by the captions' new ones, `"keep"` for those of `start` alone.

    Returns:
        `Tokenizer`.

    Raises:
        ValueError: If `vocabulary` is unknown, or needs a captioner to start from.
    """
    if vocabulary not in VOCABULARIES or (vocabulary != "captions" and start is None):
        raise ValueError(
            f"`vocabulary` must be one of {', '.join(VOCABULARIES)}, the last two with a captioner "
            f"to `start` from. Received: vocabulary={vocabulary!r}, start={start}"
        )
    if vocabulary == "keep":
        return start.tokenizer
    if vocabulary == "extend":
        return start.tokenizer.extended(captions, config.vocabulary_size, config.min_count)
    return Tokenizer.from_captions(
        captions, config.vocabulary_size, config.min_count, config.full_stop
    )


def take_weights(captioner: Any, start: Any) -> None:
    """Copies the weights of another captioner, whose other options may differ.

    The captioner may know words that follow those of `start`. The embedding, output weights and
    output bias of a new word are its own initial ones plus the mean of the old words', which gives
    it about the probability of a typical word.

    Args:
        captioner: `Captioner` that takes the weights. The encoder's are taken only if it has one,
            and its head's if `start` has the same one.
        start: `Captioner` whose weights are taken.

    Raises:
        ValueError: If words or sizes differ otherwise, or `start` lacks an encoder.

    Reference:
        [Hewitt, 2021](https://www.cs.columbia.edu/~johnhew/vocab-expansion.html), on the mean.
    """
    split_layers = {model.config.split_layer for model in (captioner, start)}

    def parts(model: Any) -> list[Any]:
        decoder = _decoder(model)
        if captioner.encoder is not None:
            return [decoder, model.encoder]
        is_same = captioner.head is not None and len(split_layers) == 1
        return [decoder, model.head] if is_same else [decoder]

    if None in parts(start):
        raise ValueError(
            "A captioner whose encoder is trained must start from one with an encoder: load it "
            "with `encoder=True`. Received: start.encoder=None"
        )
    words = start.tokenizer.get_vocabulary()
    added = captioner.tokenizer.vocabulary_size - len(words)
    is_extended = captioner.tokenizer.get_vocabulary()[: len(words)] == words
    axes = _word_axes(_decoder(captioner))
    for mine, its in zip(parts(captioner), parts(start), strict=True):
        values = []
        for variable, old in zip(mine.weights, its.get_weights(), strict=False):
            axis = axes.get(variable.path)
            padding = [(0, added if i == axis else 0) for i in range(old.ndim)]
            shape = tuple(size + more for size, (_, more) in zip(old.shape, padding, strict=True))
            if not is_extended or shape != tuple(variable.shape):
                raise _mismatch(captioner, start)
            if axis is not None:
                old = _with_new_words(old, keras.ops.convert_to_numpy(variable), axis)
            values.append(old)
        if len(mine.weights) != len(its.weights):
            raise _mismatch(captioner, start)
        mine.set_weights(values)


def _decoder(model: Any) -> Any:
    """Returns what knows the words: the decoder, or the whole of a model without one."""
    return getattr(model, "decoder", model)


def _word_axes(decoder: Any) -> dict[str, int]:
    """Returns the axis of the words, by path, of the weights that have one."""
    axes = {variable.path: 0 for variable in decoder.embedding.weights}
    outputs = decoder.output_words.weights if decoder.output_words else []
    return {**axes, **{variable.path: len(variable.shape) - 1 for variable in outputs}}


def _with_new_words(old: np.ndarray, new: np.ndarray, axis: int) -> np.ndarray:
    """Returns the old words' weights followed by the new words' initial ones plus the old mean."""
    _, added = np.split(new, [old.shape[axis]], axis)
    return np.concatenate([old, added + old.mean(axis, keepdims=True)], axis)


def _mismatch(captioner: Any, start: Any) -> ValueError:
    """Returns an error that names the options in which two captioners differ."""
    pair = captioner.config, start.config
    names = [
        name for name in ModelConfig.STRUCTURE if getattr(pair[0], name) != getattr(pair[1], name)
    ]
    words = [model.tokenizer.get_vocabulary() for model in (captioner, start)]
    differs = next((i for i, (a, b) in enumerate(zip(*words, strict=False)) if a != b), None)
    expected, received = (
        ", ".join(
            [
                *(f"{name}={getattr(config, name)}" for name in names),
                f"{len(of_model)} words",
                *([] if differs is None else [f"word {differs} is {of_model[differs]!r}"]),
            ]
        )
        for config, of_model in zip(pair, words, strict=True)
    )
    return ValueError(
        "The captioner to start from must have the same words and sizes, and use the same parts of "
        "the decoder: train with its options, and on another data set extend or keep its "
        f"`vocabulary`. Expected {expected}. Received: {received}"
    )
