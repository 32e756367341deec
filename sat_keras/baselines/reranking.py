"""Re-ranking of Fang et al.: of a captioner's likeliest sentences the one of the best tuned score.

The last step of the row "MS Research" of Table 1. The captioner's beam search returns the `M`
likeliest sentences of a picture, of which the one of the highest score is its caption:

    score(y) = sum_k w_k f_k(y)

| feature `f_k` | of a sentence |
|---|---|
| `log_probability` | `log p` of the sentence and its end, in nats |
| `words` | number of words |
| `mean_log_probability` | `log p` over the number of words and the end |
| `log_rank` | log of its place among the picture's sentences by `log p`, from 1 |
| `mentioned` | number of different detected words in it |
| `coverage` | share of the detected words in it |
| `similarity` | cosine of picture and sentence in a `VisualSemanticEmbedding` |

The weights `w` are chosen for the BLEU-4 of the captions of train pictures by minimum error rate
training. Captioner and embedding have seen these pictures, so they may trust both too much; the
authors tune on pictures held out for it.

The authors published their detectors only. The features, and that they tune so, are remembered, not
confirmed: theirs have a bit for each number of mentioned words in place of `mentioned` and
`coverage`, 500 sentences a picture, and the similarity of a model of its own (DMSM) in place of the
visual-semantic embedding's.

Reference:
    [Fang et al., 2015](https://arxiv.org/abs/1411.4952), section 5;
    [Och, 2003](https://aclanthology.org/P03-1021/), sections 4 and 5, on the training.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from keras import ops

from sat_keras.baselines.embedding_retrieval import VisualSemanticEmbedding, caption_vectors
from sat_keras.baselines.maximum_entropy import MaximumEntropy
from sat_keras.captioning.caption import Caption
from sat_keras.data.tokenizer import Tokenizer, normalize
from sat_keras.evaluation.metrics import bleu_of_sums, bleu_statistics
from sat_keras.evaluation.tokens import ptb_tokenize

FEATURES = (
    *("log_probability", "words", "mean_log_probability", "log_rank"),
    *("mentioned", "coverage", "similarity"),
)
# Gains of BLEU-4, in percent, that end the search of weights.
_LEAST_GAIN = 1e-3
# Random directions in which each step searches, beside the features' own.
_DIRECTIONS = 16
# Intervals of a line that are narrower than this may be due to rounding.
_LEAST_WIDTH = 1e-9


class Candidates(NamedTuple):
    """The likeliest sentences of pictures.

    Attributes:
        texts: For each picture a list of `M` sentences, the likeliest first. One of a picture with
            fewer is repeated.
        features: Array of shape `(pictures, M, len(FEATURES))`.
    """

    texts: list[list[str]]
    features: np.ndarray

    def best(self, weights: np.ndarray) -> list[str]:
        """Returns each picture's sentence of the highest score.

        Args:
            weights: Array of shape `(len(FEATURES),)`.
        """
        chosen = (self.features @ weights).argmax(axis=1)
        return [texts[i] for texts, i in zip(self.texts, chosen, strict=True)]


def find_candidates(
    captioner: MaximumEntropy,
    embedding: VisualSemanticEmbedding,
    tokenizer: Tokenizer,
    batches: Iterable[np.ndarray],
    num_sentences: int,
) -> Candidates:
    """Searches the likeliest sentences of pictures and computes their features.

    Args:
        captioner: `MaximumEntropy`, trained.
        embedding: `VisualSemanticEmbedding`, trained.
        tokenizer: `Tokenizer` of the embedding.
        batches: Annotation vectors of the pictures, arrays of shape
            `(batch_size, num_regions, feature_dim)`.
        num_sentences: Integer `M`, the beam size of the search.

    Returns:
        `Candidates`.
    """
    texts: list[list[str]] = []
    features: list[np.ndarray] = []
    words = np.array(captioner.detector.words)
    for annotations in batches:
        found = captioner.caption(
            annotations=annotations,
            beam_size=num_sentences,
            num_results=num_sentences,
            length_penalty=0.0,
        )
        named = ops.convert_to_numpy(captioner.detected_words(annotations)[0])
        similarity = _similarities(captioner, embedding, tokenizer, annotations, found)
        for captions, is_named, cosines in zip(found, named, similarity, strict=True):
            detected = words[is_named[captioner.detectable] > 0]
            rows = sentence_features(captions, detected.tolist(), cosines)
            missing = num_sentences - len(captions)
            features.append(np.concatenate([rows, rows[:1].repeat(missing, axis=0)]))
            said = [caption.text for caption in captions]
            texts.append(said + said[:1] * missing)
    return Candidates(texts, np.stack(features))


def _similarities(
    captioner: MaximumEntropy,
    embedding: VisualSemanticEmbedding,
    tokenizer: Tokenizer,
    annotations: np.ndarray,
    found: Sequence[Sequence[Caption]],
) -> list[np.ndarray]:
    """Returns the cosines of each picture and its sentences."""
    pictures = ops.convert_to_numpy(embedding.embed_pictures(annotations))
    texts = [caption.text for captions in found for caption in captions]
    vectors = caption_vectors(embedding, tokenizer, texts, captioner.config.max_length)
    ends = np.cumsum([len(captions) for captions in found])[:-1]
    return [x @ y for x, y in zip(np.split(vectors, ends), pictures, strict=True)]


def sentence_features(
    captions: Sequence[Caption], detected: Collection[str], similarity: npt.ArrayLike
) -> np.ndarray:
    """Computes the features of a picture's sentences.

    Args:
        captions: `Caption` of each sentence, the likeliest first.
        detected: Words that are detected in the picture.
        similarity: The cosine of picture and sentence, of each.

    Returns:
        Array of shape `(len(captions), len(FEATURES))`.
    """
    rows = []
    cosines = np.asarray(similarity)
    texts = normalize([caption.text for caption in captions])
    for rank, (caption, text) in enumerate(zip(captions, texts, strict=True)):
        words, log_p = text.split(), caption.log_probability
        mentioned = len(set(words) & set(detected))
        rows.append(
            [
                *(log_p, len(words), log_p / (len(words) + 1), np.log(rank + 1)),
                *(mentioned, mentioned / max(len(detected), 1), cosines[rank]),
            ]
        )
    return np.array(rows, "float64")


def sentence_statistics(candidates: Candidates, references: Sequence[Sequence[str]]) -> np.ndarray:
    """Counts the n-grams of each sentence for BLEU, see `bleu_statistics`.

    Args:
        candidates: `Candidates`.
        references: Reference captions of each picture.

    Returns:
        Array of shape `(pictures, M, 10)`.
    """
    tokens = [[ptb_tokenize(caption) for caption in captions] for captions in references]
    return np.stack(
        [
            bleu_statistics(map(ptb_tokenize, texts), [truths] * len(texts))
            for texts, truths in zip(candidates.texts, tokens, strict=True)
        ]
    )


def tune_weights(
    features: np.ndarray, statistics: np.ndarray, restarts: int = 8, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Finds the weights whose best sentences have the highest BLEU-4 (minimum error rate training).

    Starts from the log-probability alone and from random weights. Each step searches the line along
    every feature's weight, and lines in random directions, exactly (`line_search`) and moves along
    the best one, until none gains.

    Args:
        features: Array of shape `(pictures, M, num_features)`, the log-probability first.
        statistics: Array of shape `(pictures, M, 10)`, see `sentence_statistics`.
        restarts: Integer, number of random starts.
        seed: Integer, seed of the random starts and directions.

    Returns:
        Tuple of the weights, shape `(num_features,)`, and their BLEU-4 in percent, with brevity
        penalty.
    """
    number = features.shape[-1]
    spread = (features - features.mean(axis=1, keepdims=True)).std(axis=(0, 1))
    spread[spread == 0] = 1.0
    scaled = features / spread  # so that random weights treat all features alike
    generator = np.random.default_rng(seed)
    starts = [np.eye(number)[0], *generator.normal(size=(restarts, number))]
    found = [_ascend(scaled, statistics, weights, generator) for weights in starts]
    weights, bleu = max(found, key=lambda pair: pair[1])
    return weights / spread, bleu


def _ascend(
    features: np.ndarray,
    statistics: np.ndarray,
    weights: np.ndarray,
    generator: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Moves along one direction at a time until no move gains BLEU-4."""
    bleu, axes = -np.inf, np.eye(len(weights))
    while True:
        # Moves along the axes alone stop where a gain needs two weights to change.
        oblique = generator.normal(size=(_DIRECTIONS, len(weights)))
        directions, scores = np.concatenate([axes, oblique]), features @ weights
        moves = [line_search(scores, features @ x, statistics) for x in directions]
        best = int(np.argmax([value for _, value in moves]))
        step, value = moves[best]
        if value < bleu + _LEAST_GAIN:
            return weights, bleu
        weights, bleu = weights + step * directions[best], value


def line_search(
    offsets: np.ndarray, slopes: np.ndarray, statistics: np.ndarray
) -> tuple[float, float]:
    """Finds the step along a line of weights whose best sentences have the highest BLEU-4.

    A sentence's score `offset + step * slope` is a line in the step, and a picture's best sentence
    is the upper envelope of its lines: BLEU-4 is constant between the steps at which some picture
    changes its sentence, so that one value in each interval finds the exact maximum.

    Args:
        offsets, slopes: Arrays of shape `(pictures, M)`.
        statistics: Array of shape `(pictures, M, 10)`.

    Returns:
        Tuple of the step, the middle of the best interval, and its BLEU-4 in percent.
    """
    pictures = len(offsets)
    steps, winners = map(np.stack, zip(*_envelopes(offsets, slopes), strict=True))
    # (changes, pictures, 10); the first change is from nothing to the sentences at -inf
    changes = np.diff(statistics[np.arange(pictures), winners], axis=0, prepend=0)
    happens = steps < np.inf
    order = np.argsort(steps[happens], kind="stable")
    sums = np.cumsum(changes[happens][order], axis=0)[pictures - 1 :]
    edges = np.append(steps[happens][order][pictures - 1 :], np.inf)
    bleu = np.where(np.diff(edges) > _LEAST_WIDTH, bleu_of_sums(sums)[:, -1], -np.inf)
    best = int(bleu.argmax())
    low, high = edges[best : best + 2]
    if np.isinf(low) and np.isinf(high):
        return 0.0, float(bleu[best])
    low, high = (high - 2 if np.isinf(low) else low), (low + 2 if np.isinf(high) else high)
    return float((low + high) / 2), float(bleu[best])


def _envelopes(offsets: np.ndarray, slopes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields where each picture's next best sentence begins, and its index, from `-inf` upwards.

    A picture without a next one has `inf` and its last index.
    """
    rows = np.arange(len(offsets))
    steps = np.full(len(offsets), -np.inf)
    is_first = slopes == slopes.min(axis=1, keepdims=True)
    winners = np.where(is_first, offsets, -np.inf).argmax(axis=1)
    while not np.isposinf(steps).all():
        yield steps, winners
        rise = slopes - slopes[rows, winners, None]
        fall = offsets[rows, winners, None] - offsets
        crossings = np.divide(fall, rise, out=np.full_like(fall, np.inf), where=rise > 0)
        steps = np.maximum(crossings.min(axis=1), steps)
        # Of several sentences that cross at once the steepest wins from there on.
        crosses = crossings == crossings.min(axis=1, keepdims=True)
        steepest = np.where(crosses, slopes, -np.inf).argmax(axis=1)
        winners = np.where(np.isfinite(steps), steepest, winners)
