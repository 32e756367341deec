"""Word detectors of Fang et al.: which words a caption may use, and where each is seen."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.data.tokenizer import SPECIAL_TOKENS, Tokenizer


@keras.saving.register_keras_serializable("sat_keras")
class WordDetector(keras.Model):
    """Detects words in a picture by multiple-instance learning over its regions.

    A picture contains a word if at least one of its regions does (noisy-OR):

    1. `z_jw = W_2 relu(W_1 a_j + b_1) + b_2`, the logit of word `w` in region `j`
    2. `p_jw = sigmoid(z_jw)`
    3. `p_w = 1 - prod_j (1 - p_jw)`

    Trained by `fit` on pictures and the words of their captions, with the binary cross-entropy of
    `p_w` summed over the words. `b_2` starts where `p_w` is `prior` in every picture.

    Args:
        words: Sequence of the words to detect.
        num_regions: Integer, annotation vectors of a picture.
        feature_dim: Integer, size of an annotation vector.
        hidden_dim: Integer, size of the hidden layer.
        dropout: Float in [0, 1), dropout rate of the hidden layer.
        prior: Float in (0, 1), `p_w` before training.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
        training: Boolean, whether dropout is active.

    Returns:
        Dictionary of `probabilities`, `p_w` of shape `(batch_size, num_words)`, `log_absent`,
        `log(1 - p_w)` of the same shape, and `word_maps`, `p_jw` of shape
        `(batch_size, num_regions, num_words)`.

    Example:

    >>> detector = WordDetector(["dog", "red"], num_regions=196, feature_dim=512)
    >>> detector.compile("adam")
    >>> detector.fit(annotations, word_targets(captions, detector.words, tokenizer))

    Reference:
        [Fang et al., 2015](https://arxiv.org/abs/1411.4952), section 3, with a hidden layer on
        cached annotation vectors in place of VGG16's fully connected layers.
    """

    def __init__(
        self,
        words: Sequence[str],
        num_regions: int,
        feature_dim: int,
        hidden_dim: int = 1024,
        dropout: float = 0.5,
        prior: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not words:
            raise ValueError(f"`words` must name at least one word. Received: words={words!r}")
        if not 0 < prior < 1:
            raise ValueError(f"`prior` must lie in (0, 1). Received: prior={prior}")
        self.words = list(words)
        self.num_regions = num_regions
        self.feature_dim = feature_dim
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.prior = prior
        in_region = 1 - (1 - prior) ** (1 / num_regions)
        self.hidden = keras.layers.Dense(
            hidden_dim, activation="relu", name="hidden", dtype=self.dtype_policy
        )
        self.drop_hidden = keras.layers.Dropout(
            dropout, name="drop_hidden", dtype=self.dtype_policy
        )
        self.logits = keras.layers.Dense(
            len(self.words),
            kernel_initializer=keras.initializers.RandomNormal(stddev=1e-3),
            bias_initializer=keras.initializers.Constant(math.log(in_region / (1 - in_region))),
            name="logits",
            dtype=self.dtype_policy,
        )
        self.hidden.build((None, num_regions, feature_dim))
        self.logits.build((None, num_regions, hidden_dim))
        self.built = True

    def call(self, annotations: Any, training: bool = False) -> dict[str, Any]:
        hidden = self.drop_hidden(self.hidden(annotations), training=training)
        logits = ops.cast(self.logits(hidden), "float32")
        # log prod_j (1 - p_jw) = -sum_j softplus(z_jw)
        absent = -ops.sum(ops.softplus(logits), axis=1)  # (batch, words)
        return {
            "probabilities": -ops.expm1(absent),
            "word_maps": ops.sigmoid(logits),
            "log_absent": absent,
        }

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the binary cross-entropy, summed over words and averaged over pictures.

        Args:
            x: Not used.
            y: Tensor of shape `(batch_size, num_words)`, 1 for words of the picture's captions.
            y_pred: The result of the call.
            sample_weight: Tensor of shape `(batch_size,)`, or `None` for all 1.
            training: Not used.

        Returns:
            Scalar tensor.
        """
        y, absent = ops.cast(y, "float32"), y_pred["log_absent"]
        # A floor on the probability bounds the gradient of words that no region supports.
        present = ops.log(ops.maximum(-ops.expm1(absent), 1e-7))
        loss = -ops.sum(y * present + (1 - y) * absent, axis=-1)
        weight = (
            ops.ones_like(loss) if sample_weight is None else ops.cast(sample_weight, "float32")
        )
        return ops.sum(weight * loss) / ops.maximum(ops.sum(weight), 1.0)

    def get_config(self) -> dict[str, Any]:
        names = ("words", "num_regions", "feature_dim", "hidden_dim", "dropout", "prior")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def frequent_words(
    captions: Mapping[str, Sequence[str]], tokenizer: Tokenizer, min_pictures: int = 30
) -> list[str]:
    """Returns the words that enough pictures have in a caption, most frequent first.

    Args:
        captions: Captions by image id.
        tokenizer: `Tokenizer` whose words are counted.
        min_pictures: Integer, pictures that a word must occur with.

    Returns:
        List of words.
    """
    counts: dict[str, int] = {}
    for found in _words_of_pictures(captions, tokenizer):
        for word in found:
            counts[word] = counts.get(word, 0) + 1
    frequent = [word for word, count in counts.items() if count >= min_pictures]
    return sorted(frequent, key=lambda word: (-counts[word], word))


def word_targets(
    captions: Mapping[str, Sequence[str]], words: Sequence[str], tokenizer: Tokenizer
) -> np.ndarray:
    """Returns which words occur in each picture's captions, the `y` of `WordDetector.fit`.

    Args:
        captions: Captions by image id.
        words: The detector's words.
        tokenizer: `Tokenizer` that divides captions into words.

    Returns:
        Float32 array of shape `(len(captions), len(words))`, in the order of `captions`.
    """
    columns = {word: column for column, word in enumerate(words)}
    targets = np.zeros((len(captions), len(words)), "float32")
    for row, found in enumerate(_words_of_pictures(captions, tokenizer)):
        targets[row, [columns[word] for word in found if word in columns]] = 1
    return targets


def _words_of_pictures(
    captions: Mapping[str, Sequence[str]], tokenizer: Tokenizer
) -> Iterator[set[str]]:
    """Yields the words of each picture's captions that the tokenizer knows."""
    vocabulary = tokenizer.get_vocabulary()
    rows = iter(tokenizer([c for sentences in captions.values() for c in sentences]).to_list())
    for sentences in captions.values():
        ids = {i for row in itertools.islice(rows, len(sentences)) for i in row}
        yield {vocabulary[i] for i in ids} - set(SPECIAL_TOKENS)
