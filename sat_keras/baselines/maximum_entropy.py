"""Maximum-entropy language model of Fang et al., the row "MS Research" of Table 1."""

import math
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.backend.xla import fused
from sat_keras.baselines.picture_captioner import caption_loss
from sat_keras.baselines.word_detector import WordDetector
from sat_keras.captioning.model import CaptionModel
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import END_ID, SPECIAL_TOKENS, START_ID, Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.encoder import ImageEncoder
from sat_keras.search.loop import StepFunction

# Words that a picture does not show, as in the authors' code, and the full stop.
FUNCTION_WORDS = {
    *("a", "on", "of", "the", "in", "with", "and", "is", "to", "an", "two", "at", "next", "are"),
    ".",
}
_BLOCK = 32  # consecutive words whose weights lie side by side
_MULTIPLIER = 8191  # times a row of at most 2 ** 18 it fits into int32


@keras.saving.register_keras_serializable("sat_keras")
class MaximumEntropy(CaptionModel):
    """Detects the words of a picture, then writes the likeliest sentence that uses them.

    With `p_w` the probability of a word by `WordDetector`, `V_t` the detected words that have not
    been said before step `t`, and `T_n` a table of weights of n-grams, of two columns

    1. `z_w = b_w + a_w [w in V_t] + s log(p_w) [w in V_t] + e [w = end and V_t is empty]`
    2. `z_w += sum_{n=2,3} T_n[hash(y_{t-n+1}, ..., y_{t-1}, w), [w in V_t]]`
    3. `p(y_t = w) = softmax(z)`

    `V_1` is, in training, the detectable words of the row's captions, and in search those with
    `p_w >= threshold`, at least three. N-grams are hashed into `2 ** hash_bits` buckets in place of
    a list of those that occur, which is the same but for collisions; a context and 32 words that
    follow each other in the vocabulary share a row, so that a step reads rows and not single
    weights. Detectors and language model share no weight; the loss is the sum of both.

    The authors published their detectors; features and training of the language model are
    remembered, not confirmed. They train by noise-contrastive estimation, this one by the full
    softmax, and n-grams here have up to three words, theirs four.

    Args:
        config: A `Config`; `hidden_dim` and `dropout` are the detectors' hidden layer.
        tokenizer, encoder: As of `PictureCaptioner`.
        num_words: Integer, most words to detect: the most frequent but for function words.
        threshold: Float in (0, 1), see above.
        hash_bits: Integer, 5 to 23.
        **kwargs: Arguments of `keras.Model`.

    Example:

    >>> captioner = MaximumEntropy(Config.tiny().replace(vocabulary_size=50))

    Reference:
        [Fang et al., 2015](https://arxiv.org/abs/1411.4952), sections 3 and 4.
    """

    option_names = ("num_words", "threshold", "hash_bits")

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None = None,
        encoder: Any = None,
        num_words: int = 300,
        threshold: float = 0.5,
        hash_bits: int = 21,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, encoder, **kwargs)
        self.num_words = num_words
        self.threshold = threshold
        self.hash_bits = hash_bits
        size = self.vocabulary_size
        vocabulary = tokenizer.get_vocabulary() if tokenizer else [str(i) for i in range(size)]
        self.detectable = [
            i
            for i, word in enumerate(vocabulary)
            if i >= len(SPECIAL_TOKENS) and word not in FUNCTION_WORDS
        ][:num_words]
        self.detector = WordDetector(
            [vocabulary[i] for i in self.detectable],
            config.num_regions,
            config.feature_dim,
            hidden_dim=config.hidden_dim,
            dropout=config.dropout,
            name="detector",
            dtype=self.dtype_policy,
        )
        # Sums of weights of n-grams need float32, whatever the detectors' precision.
        options: dict[str, Any] = {"initializer": "zeros", "autocast": False}
        self.word_bias = self.add_weight(shape=(size,), name="word_bias", **options)
        self.attribute = self.add_weight(shape=(size,), name="attribute", **options)
        self.score = self.add_weight(shape=(), name="score", **options)
        self.ending = self.add_weight(shape=(), name="ending", **options)
        rows = 2**hash_bits // _BLOCK
        self.tables = [
            self.add_weight(shape=(rows, 2, _BLOCK), name=f"ngrams_{n}", **options) for n in (2, 3)
        ]
        self.cross_entropy_tracker = keras.metrics.Mean("cross_entropy")
        self.detector_tracker = keras.metrics.Mean("detector_loss")
        self.built = True

    @classmethod
    def make_encoder(
        cls, config: Config, weights: str | os.PathLike | None, dtype: str = "float32"
    ) -> ImageEncoder:
        """Returns the image encoder of a config, see `CaptionModel.make_encoder`."""
        return Captioner.make_encoder(config, weights, dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{x: getattr(self, x) for x in self.option_names}}

    def word_logits(self, context: Any, left: Any, log_p: Any) -> Any:
        """Computes `z` of the class's description.

        Args:
            context: Integer tensor of shape `(..., 2)`, the last two words.
            left: Tensor of shape `(..., vocabulary_size)`, 1 for the words of `V_t`.
            log_p: Tensor of the same shape, `log(p_w)`, 0 for words that are never detected.

        Returns:
            Tensor of the same shape, float32.
        """
        weights = (self.word_bias, self.attribute, self.score, self.ending, *self.tables)
        return _word_logits(context, left, log_p, *(ops.cast(x, "float32") for x in weights))

    def _of_all_words(self, of_detectable: Any) -> Any:
        """Spreads values of the detectable words over the vocabulary, 0 elsewhere."""
        matrix = np.zeros((len(self.detectable), self.vocabulary_size), "float32")
        matrix[np.arange(len(self.detectable)), self.detectable] = 1
        return ops.matmul(of_detectable, matrix)

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        token_ids = inputs["token_ids"]
        detected = self.detector(self.annotate(inputs, training), training=training)
        said = ops.one_hot(token_ids, self.vocabulary_size, dtype="float32")
        # (batch, vocabulary): words of the row's captions, then of these the detectable ones
        named = ops.max(said, axis=(1, 2)) * self._of_all_words(ops.ones((1, len(self.detectable))))
        left = _not_said(said, named)
        before = ops.concatenate(
            [ops.full_like(token_ids[..., :1], START_ID), token_ids[..., :-1]], axis=-1
        )
        context = ops.cast(ops.stack([before, token_ids], axis=-1), "int32")
        log_p = self._of_all_words(_log_probability(detected["log_absent"]))
        logits = self.word_logits(context, left, ops.stop_gradient(log_p)[:, None, None])
        return {"logits": logits, "log_absent": detected["log_absent"], "named": named}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the losses of language model and detectors and updates the logged metrics.

        Args:
            x, y, y_pred, sample_weight, training: As of `PictureCaptioner`.

        Returns:
            Scalar tensor.
        """
        loss = caption_loss(self, y, y_pred["logits"], sample_weight, training)
        targets = ops.take(y_pred["named"], np.array(self.detectable), axis=1)
        weight = None
        if sample_weight is not None:
            weight = ops.cast(ops.max(sample_weight, axis=(1, 2)) > 0, "float32")
        of_detector = self.detector.compute_loss(
            y=targets, y_pred={"log_absent": y_pred["log_absent"]}, sample_weight=weight
        )
        self.detector_tracker.update_state(of_detector)
        return loss + of_detector

    def detected_words(self, annotations: Any) -> tuple[Any, Any]:
        """Returns `V_1` of a search and `log(p_w)`.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.

        Returns:
            Tuple of two tensors of shape `(batch_size, vocabulary_size)`.
        """
        found = self.detector(annotations)
        third = ops.top_k(found["probabilities"], min(3, len(self.detectable)))[0][:, -1:]
        chosen = found["probabilities"] >= ops.minimum(third, self.threshold)
        log_p = _log_probability(found["log_absent"])
        return self._of_all_words(ops.cast(chosen, "float32")), self._of_all_words(log_p)

    def step_function(
        self,
        annotations: Any,
        steps: int | None = None,
        rows: int | None = None,
        context: str | None = None,
        seed: int | None = None,
        mask: Any = None,
    ) -> tuple[StepFunction, Any]:
        """Returns the step function and the initial states of a search, see `CaptionModel`.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            steps, rows, context, seed, mask: Not used: nothing is drawn.

        Returns:
            Tuple `(step, states)`, see `sat_keras.search.loop`. The record is empty.
        """
        named, log_p = self.detected_words(annotations)

        def step(token_ids: Any, states: Any) -> Any:
            left = states["left"] * (
                1 - ops.one_hot(token_ids, self.vocabulary_size, dtype="float32")
            )
            words = ops.stack([states["before"], token_ids], axis=-1)
            logits = self.word_logits(words, left, log_p[:, None])
            states = {"left": left, "before": token_ids}
            return ops.log_softmax(logits, axis=-1), states, {}

        before = ops.full((ops.shape(named)[0], 1), START_ID, "int32")
        return step, {"left": named[:, None], "before": before}


def _log_probability(log_absent: Any) -> Any:
    """Returns `log(p_w)` from `log(1 - p_w)`, at least `log(1e-4)`."""
    return ops.log(ops.maximum(-ops.expm1(log_absent), 1e-4))


@fused
def _not_said(said: Any, named: Any) -> Any:
    """Returns which of the named words have not been said, before every step.

    Args:
        said: One-hot vectors of a caption's words, `(batch, captions, steps, vocabulary_size)`.
        named: 1 for the words to be said, `(batch, vocabulary_size)`.
    """
    return named[:, None, None] * (1 - ops.minimum(ops.cumsum(said, axis=2), 1.0))


@fused
def _word_logits(
    context: Any,
    left: Any,
    log_p: Any,
    word_bias: Any,
    attribute: Any,
    score: Any,
    ending: Any,
    *tables: Any,
) -> Any:
    """Computes `z` of `MaximumEntropy`, see `word_logits`."""
    size = left.shape[-1]
    z = word_bias + left * (attribute + score * log_p)
    is_empty = ops.cast(ops.sum(left, axis=-1, keepdims=True) < 1, "float32")
    z = z + ending * is_empty * ops.one_hot(END_ID, size, dtype="float32")
    shape = (*ops.shape(context)[:-1], math.ceil(size / _BLOCK) * _BLOCK)
    for n, table in zip((2, 3), tables, strict=True):
        rows = table_rows(context[..., 3 - n :], table.shape[0], size)
        # (..., rows, 2, 32): the weights where a word is not in V_t, and where it is
        found = ops.take(table, rows, axis=0)
        # two of (..., rows, 32) -> (..., vocabulary_size)
        unsaid, said = (ops.reshape(found[..., i, :], shape)[..., :size] for i in (0, 1))
        z = z + unsaid * (1 - left) + said * left
    return z


def table_rows(context: Any, number: int, vocabulary_size: int) -> Any:
    """Returns the rows of a table that have the weights of every word after each context.

    Args:
        context: Integer tensor of shape `(..., words)`.
        number: Integer, rows of the table.
        vocabulary_size: Integer.

    Returns:
        Integer tensor of shape `(..., rows)`: the first 32 words, the next 32, and so on.
    """
    found = context[..., 0]
    for i in range(1, context.shape[-1]):
        found = (found * _MULTIPLIER + context[..., i]) % number
    blocks = ops.arange(math.ceil(vocabulary_size / _BLOCK), dtype="int32")
    return (found[..., None] * _MULTIPLIER + blocks) % number
