"""The result of captioning a picture."""

import dataclasses
import re
from typing import Any

import numpy as np

from sat_keras.captioning.widget import sentence_html, widget_html

_CLITICS = re.compile(r" ('(?:s|m|d|ll|re|ve)|n't)(?= |$)")


def as_sentence(text: str) -> str:
    """Writes decoded words as a sentence, with a capital letter and a full stop.

    Args:
        text: Words separated by blanks.

    Returns:
        The sentence. Scripts without capital letters get no full stop either.

    Example:

    >>> as_sentence("a man 's dog does n't run")
    "A man's dog doesn't run."
    """
    text = _CLITICS.sub(r"\1", text.removesuffix(".").rstrip())
    if text.lower() == text.upper():
        return text
    return f"{text[0].upper()}{text[1:]}."


@dataclasses.dataclass(frozen=True)
class Caption:
    """A sentence about a picture, with the attention weights of each of its words.

    Jupyter displays it as a widget: point at a word and see where the model looked. `str` and
    `print` give the sentence.

    Attributes:
        text: The words, separated by blanks.
        words: List of the words.
        attention: Array of shape `(num_words, rows, columns)`, the attention weights of each word
            over the annotation grid. Each map sums to 1. `None` of a model without attention.
        gate: Array of shape `(num_words,)`, the gate beta of each word, 0 to 1; or `None`.
        log_probability: Float, the caption's log-probability in nats, including the end token.
        image: The picture, `uint8` array of shape `(height, width, 3)`, reduced to at most 480
            pixels along its longer side; `None` for captions of annotation vectors.
        seen: Box `(x0, y0, x1, y1)` in pixels of `image` that the CNN saw and the maps cover.
    """

    text: str
    words: list[str]
    attention: Any = dataclasses.field(repr=False)
    gate: Any = dataclasses.field(repr=False)
    log_probability: float
    image: np.ndarray | None = dataclasses.field(default=None, repr=False)
    seen: tuple[float, float, float, float] | None = dataclasses.field(default=None, repr=False)

    @property
    def sentence(self) -> str:
        """The caption as people write it, with a capital letter and a full stop."""
        return as_sentence(self.text)

    def __str__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        sentence = sentence_html(self.sentence, self.log_probability)
        if self.image is None or self.attention is None:
            return sentence
        return sentence + widget_html(self.image, self.words, self.attention, self.gate, self.seen)
