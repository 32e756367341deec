"""The result of captioning a picture."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Caption:
    """A sentence about a picture, with the attention weights of each of its words.

    Attributes:
        text: The sentence.
        words: List of its words.
        attention: Array of shape `(num_words, rows, columns)`, the attention weights of each word
            over the annotation grid. Each map sums to 1.
        gate: Array of shape `(num_words,)`, the gate beta of each word, 0 to 1.
        log_probability: Float, the caption's log-probability in nats, including the end token.
    """

    text: str
    words: list[str]
    attention: np.ndarray
    gate: np.ndarray
    log_probability: float
