"""BLEU, ROUGE-L and CIDEr-D on tokens, equal to `pycocoevalcap`.

BLEU is a score of the whole corpus, not a mean over pictures. `bleu_statistics` counts n-grams in
each picture and `bleu_of_sums` computes BLEU from sums of these counts, over any selection of
pictures, as the bootstrap needs. ROUGE-L and CIDEr-D are means over pictures.
"""

import collections
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# coco-caption's constants against division by 0. BLEU without any match is below 1e-3, not 0.
_TINY, _SMALL = 1e-15, 1e-9

Tokens = Sequence[str]


def corpus_bleu(
    candidates: Iterable[Tokens],
    references: Iterable[Sequence[Tokens]],
    brevity_penalty: bool = True,
    max_n: int = 4,
) -> list[float]:
    """Computes BLEU-1 to BLEU-`max_n` of a corpus, in percent.

    1. Clipped n-gram precision over all pictures: the count of an n-gram in a candidate is clipped
       to its maximum count in one of the references,

           p_n = sum min(count_candidate, max_references count) / sum count_candidate

    2. Geometric mean of the first N precisions, times the brevity penalty. c is the total length
       of the candidates and r that of the references, for each picture the reference closest in
       length to the candidate (the shorter one of two):

           BLEU-N = BP * exp(1/N * sum_n log p_n),    BP = min(1, exp(1 - r / c))

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order.
        brevity_penalty: Whether to apply BP. The paper's Table 1 does not.
        max_n: Maximum n-gram length.

    Returns:
        `[BLEU-1, ..., BLEU-max_n]`, from 0 to 100.

    Reference:
        [Papineni et al., 2002](https://aclanthology.org/P02-1040/);
        `pycocoevalcap/bleu`, option "closest".
        Notebook `05b_evaluation`.
    """
    sums = bleu_statistics(candidates, references, max_n).sum(axis=0)
    return bleu_of_sums(sums, brevity_penalty).tolist()


def bleu_statistics(
    candidates: Iterable[Tokens], references: Iterable[Sequence[Tokens]], max_n: int = 4
) -> np.ndarray:
    """Counts the n-grams of each picture for BLEU.

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order.
        max_n: Maximum n-gram length.

    Returns:
        Float array `(pictures, 2 * max_n + 2)`: matching n-grams for each n, the candidate's
        n-grams for each n, the candidate's length, the closest reference's length.
    """
    rows = []
    for candidate, picture_references in zip(candidates, references, strict=True):
        matches, counts = [0] * max_n, [0] * max_n
        most: Counter = collections.Counter()
        for reference in picture_references:
            most |= ngrams(reference, max_n)  # the larger count of each n-gram
        for ngram, count in ngrams(candidate, max_n).items():
            matches[len(ngram) - 1] += min(count, most[ngram])
            counts[len(ngram) - 1] += count
        length = len(candidate)
        _, closest = min((abs(len(tokens) - length), len(tokens)) for tokens in picture_references)
        rows.append([*matches, *counts, length, closest])
    return np.array(rows, dtype="float64").reshape(-1, 2 * max_n + 2)


def bleu_of_sums(sums: np.ndarray, brevity_penalty: bool = True) -> np.ndarray:
    """Computes BLEU from sums of `bleu_statistics` over pictures.

    Args:
        sums: Array `(..., 2 * max_n + 2)`. The row of one picture gives its sentence BLEU.
        brevity_penalty: As in `corpus_bleu`.

    Returns:
        Float array `(..., max_n)` in percent, 0 for empty candidates.
    """
    max_n = (sums.shape[-1] - 2) // 2
    matches, counts = sums[..., :max_n], sums[..., max_n:-2]
    length, reference_length = sums[..., -2:-1], sums[..., -1:]
    precisions = (matches + _TINY) / (counts + _SMALL)
    bleu = 100 * np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, max_n + 1))
    if brevity_penalty:
        ratio = (length + _TINY) / (reference_length + _SMALL)
        bleu *= np.exp(np.minimum(1 - 1 / ratio, 0))
    return np.where(length > 0, bleu, 0.0)


def rouge_l(
    candidates: Iterable[Tokens], references: Iterable[Sequence[Tokens]], beta: float = 1.2
) -> np.ndarray:
    """Computes ROUGE-L of each picture, in percent. The corpus score is their mean.

    `L_j` is the length of the longest common subsequence of the candidate (`l` words) and its j-th
    reference (`l_j` words). The score is the F-measure of the best precision and the best recall:

        P = max_j L_j / l,    R = max_j L_j / l_j,    ROUGE-L = (1 + beta^2) P R / (R + beta^2 P)

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order.
        beta: Weight of recall.

    Returns:
        Float array `(pictures,)`, from 0 to 100.

    Reference:
        [Lin, 2004](https://aclanthology.org/W04-1013/); `pycocoevalcap/rouge`.
    """
    scores = []
    for candidate, picture_references in zip(candidates, references, strict=True):
        common = [(_common_length(candidate, tokens), tokens) for tokens in picture_references]
        precision = max(length for length, _ in common) / max(len(candidate), 1)
        recall = max(length / max(len(tokens), 1) for length, tokens in common)
        product = (1 + beta**2) * precision * recall
        scores.append(100 * product / (recall + beta**2 * precision) if product else 0.0)
    return np.array(scores)


class NgramWeights:
    """CIDEr's n-gram weights: term frequency times inverse document frequency over pictures.

        g_k(caption) = count_k(caption) * log(pictures / pictures with k)

    Args:
        pictures: For each picture the n-gram counts of its references, as `ngrams` returns them.
    """

    def __init__(self, pictures: Sequence[Sequence[Counter]]) -> None:
        self._pictures_with: Counter = collections.Counter()
        for picture in pictures:
            self._pictures_with.update(set().union(*picture))
        self._log_pictures = math.log(max(len(pictures), 1))

    def __call__(self, counts: Counter) -> dict[tuple[str, ...], float]:
        """Returns the weight of each n-gram of a caption.

        Args:
            counts: The caption's n-gram counts.

        Returns:
            Dictionary from n-gram to weight, in the order of `counts`.
        """
        return {
            ngram: count * (self._log_pictures - math.log(max(self._pictures_with[ngram], 1)))
            for ngram, count in counts.items()
        }


def cider(
    candidates: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    max_n: int = 4,
    sigma: float = 6.0,
) -> np.ndarray:
    """Computes CIDEr-D of each picture. The corpus score is their mean.

    A candidate is compared with each of its `m` references by the cosine similarity of their
    n-gram weights `g` (`NgramWeights`), separately for each n. Weights are clipped so that
    repeating a word does not pay, and a Gaussian penalises a difference of the lengths `l`:

        CIDEr-D = 10 / (N m) * sum_n sum_j exp(-(l - l_j)^2 / (2 sigma^2))
                  * sum_k min(g_k, g_jk) g_jk / (|g| |g_j|)

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order. With a single picture
            all weights and so its score are 0.
        max_n: Maximum n-gram length, N.
        sigma: Standard deviation of the length penalty, in words.

    Returns:
        Float array `(pictures,)`, from 0 to 10.

    Reference:
        [Vedantam et al., 2015](https://arxiv.org/abs/1411.5726), equations 1 to 3 and section 7;
        `pycocoevalcap/cider`.
        Notebook `05b_evaluation`.
    """
    counts = [[ngrams(reference, max_n) for reference in picture] for picture in references]
    weigh = NgramWeights(counts)
    scores = np.zeros(len(counts))
    for i, (candidate, picture) in enumerate(zip(candidates, references, strict=True)):
        candidate_vectors = _vectors(weigh(ngrams(candidate, max_n)), max_n)
        for reference, reference_counts in zip(picture, counts[i], strict=True):
            # The toolkit's length counts bigrams, so an empty caption is as long as one word.
            difference = max(len(candidate), 1) - max(len(reference), 1)
            penalty = math.exp(-(difference**2) / (2 * sigma**2))
            vectors = _vectors(weigh(reference_counts), max_n)
            scores[i] += penalty * _clipped_cosine(candidate_vectors, vectors)
        scores[i] *= 10 / len(picture)
    return scores


def ngrams(tokens: Sequence[Any], max_n: int = 4) -> Counter:
    """Counts the n-grams of a caption.

    Args:
        tokens: Tokens of the caption.
        max_n: Maximum n-gram length.

    Returns:
        Counter of tuples of 1 to `max_n` tokens.
    """
    tokens = tuple(tokens)
    return collections.Counter(
        tokens[i : i + n] for n in range(1, max_n + 1) for i in range(len(tokens) - n + 1)
    )


def _vectors(
    weights: dict[tuple[str, ...], float], max_n: int
) -> list[tuple[dict[tuple[str, ...], float], float]]:
    """Splits n-gram weights by n into `max_n` pairs of a sparse vector and its norm."""
    vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(max_n)]
    for ngram, weight in weights.items():
        vectors[len(ngram) - 1][ngram] = weight
    return [(vector, math.sqrt(sum(w * w for w in vector.values()))) for vector in vectors]


def _clipped_cosine(candidate: list, reference: list) -> float:
    """Averages over n the cosine similarity, the candidate's weights clipped to the reference's."""
    total = 0.0
    for (vector, norm), (other, other_norm) in zip(candidate, reference, strict=True):
        if norm and other_norm:
            product = sum(min(w, other[k]) * other[k] for k, w in vector.items() if k in other)
            total += product / (norm * other_norm)
    return total / len(candidate)


def _common_length(first: Tokens, second: Tokens) -> int:
    """Returns the length of the longest common subsequence, row by row of the DP table."""
    row = [0] * (len(second) + 1)
    for token in first:
        above_left = 0
        for j, other in enumerate(second, start=1):
            above = row[j]
            row[j] = above_left + 1 if token == other else max(above, row[j - 1])
            above_left = above
    return row[-1]
