"""BLEU, ROUGE-L and CIDEr-D of captions, in plain Python on tokens, equal to `pycocoevalcap`'s.

BLEU is a score of the whole corpus and not a mean over pictures. It comes from sums of counts, so
that it can be taken of any choice of the pictures, as the bootstrap needs it: `bleu_statistics`
counts and `bleu_of_sums` makes the score. ROUGE-L and CIDEr-D are means over pictures.
"""

import collections
import math
from collections.abc import Iterable, Sequence

import numpy as np

# coco-caption's, against divisions by 0. Without a match BLEU is not quite 0 but below 1e-3.
_TINY, _SMALL = 1e-15, 1e-9

Tokens = Sequence[str]


def corpus_bleu(
    candidates: Iterable[Tokens],
    references: Iterable[Sequence[Tokens]],
    brevity_penalty: bool = True,
    max_n: int = 4,
) -> list[float]:
    """BLEU-1 to BLEU-`max_n` of a corpus, in percent.

    1. Clipped n-gram precision over all pictures: an n-gram of a candidate counts as often as it
       is in the one reference that has it most often,

           p_n = sum min(count_candidate, max_references count) / sum count_candidate

    2. The geometric mean of the first N precisions, times the brevity penalty of the corpus'
       lengths c of the candidates and r of the references, for each picture the reference closest
       in length to the candidate (of two, the shorter one):

           BLEU-N = BP * exp(1/N * sum_n log p_n),    BP = min(1, exp(1 - r / c))

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order.
        brevity_penalty: False leaves BP out, as the paper's Table 1 does.
        max_n: Longest n-grams.

    Returns:
        `[BLEU-1, ..., BLEU-max_n]`, from 0 to 100.

    Reference:
        [Papineni et al., 2002](https://aclanthology.org/P02-1040/);
        `pycocoevalcap/bleu`, option "closest".
        Notebook `05_decoding_and_evaluation`.
    """
    sums = bleu_statistics(candidates, references, max_n).sum(axis=0)
    return bleu_of_sums(sums, brevity_penalty).tolist()


def bleu_statistics(
    candidates: Iterable[Tokens], references: Iterable[Sequence[Tokens]], max_n: int = 4
) -> np.ndarray:
    """What BLEU counts in every picture.

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order.
        max_n: Longest n-grams.

    Returns:
        Float array `(pictures, 2 * max_n + 2)`: for every n the n-grams that match, for every n
        the candidate's n-grams, the candidate's length, the closest reference's length.
    """
    rows = []
    for candidate, picture_references in zip(candidates, references, strict=True):
        matches, counts = [0] * max_n, [0] * max_n
        most = collections.Counter()
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
    """BLEU from sums of `bleu_statistics` over pictures.

    Args:
        sums: `(..., 2 * max_n + 2)`; one picture's own row gives its sentence BLEU.
        brevity_penalty: As in `corpus_bleu`.

    Returns:
        Float array `(..., max_n)` in percent, 0 where there are no words.
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
    """ROUGE-L of every picture, in percent; their mean is the score of the corpus.

    With `L_j`, the length of the longest common subsequence of the candidate (`l` words) and
    its j-th reference (`l_j` words), the F-measure of the best precision and the best recall:

        P = max_j L_j / l,    R = max_j L_j / l_j,    ROUGE-L = (1 + beta^2) P R / (R + beta^2 P)

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order.
        beta: Weight of recall.

    Returns:
        Float array `(number of pictures,)`, from 0 to 100.

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


def cider(
    candidates: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    max_n: int = 4,
    sigma: float = 6.0,
) -> np.ndarray:
    """CIDEr-D of every picture; their mean is the score of the corpus.

    An n-gram `k` weighs by how often it is in a caption and how few pictures have it in their
    references,

        g_k(caption) = count_k(caption) * log(pictures / pictures with k),

    and a caption is likened to each of its `m` references by the cosine of these vectors, one for
    every n, clipped so that repeating a word doesn't pay, and with a penalty on the difference of
    the lengths `l`:

        CIDEr-D = 10 / (N m) * sum_n sum_j exp(-(l - l_j)^2 / (2 sigma^2))
                  * sum_k min(g_k, g_jk) g_jk / (|g| |g_j|)

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order. Of a single picture all
            weights and so its score are 0.
        max_n: Longest n-grams, N.
        sigma: Width of the length penalty, in words.

    Returns:
        Float array `(number of pictures,)`, from 0 to 10.

    Reference:
        [Vedantam et al., 2015](https://arxiv.org/abs/1411.5726), equations 1 to 3 and section 7;
        `pycocoevalcap/cider`.
        Notebook `05_decoding_and_evaluation`.
    """
    counts = [[ngrams(reference, max_n) for reference in picture] for picture in references]
    pictures_with = collections.Counter()
    for picture in counts:
        pictures_with.update(set().union(*picture))
    log_pictures = math.log(max(len(counts), 1))

    def weigh(counts_of_caption):
        """Vectors of n-gram weights, one for every n, and their lengths."""
        vectors = [{} for _ in range(max_n)]
        for ngram, count in counts_of_caption.items():
            rarity = log_pictures - math.log(max(pictures_with[ngram], 1))
            vectors[len(ngram) - 1][ngram] = count * rarity
        return vectors, [math.sqrt(sum(w * w for w in v.values())) for v in vectors]

    def similarity(first, second):
        total = 0.0
        for vector, norm, other, other_norm in zip(*first, *second, strict=True):
            if norm and other_norm:
                shared = vector.keys() & other.keys()
                product = sum(min(vector[k], other[k]) * other[k] for k in shared)
                total += product / (norm * other_norm)
        return total / max_n

    scores = np.zeros(len(counts))
    for i, (candidate, picture) in enumerate(zip(candidates, references, strict=True)):
        candidate_vectors = weigh(ngrams(candidate, max_n))
        for reference, reference_counts in zip(picture, counts[i], strict=True):
            # As in the toolkit, which counts bigrams, an empty caption is as long as one word.
            difference = max(len(candidate), 1) - max(len(reference), 1)
            penalty = math.exp(-(difference**2) / (2 * sigma**2))
            scores[i] += penalty * similarity(candidate_vectors, weigh(reference_counts))
        scores[i] *= 10 / len(picture)
    return scores


def ngrams(tokens: Tokens, max_n: int = 4) -> collections.Counter:
    """Counts the n-grams of a caption.

    Args:
        tokens: Its tokens.
        max_n: Longest n-grams.

    Returns:
        Counter of tuples of 1 to `max_n` tokens.
    """
    tokens = tuple(tokens)
    return collections.Counter(
        tokens[i : i + n] for n in range(1, max_n + 1) for i in range(len(tokens) - n + 1)
    )


def _common_length(first, second):
    """Length of the longest common subsequence, by one row of the usual table after another."""
    row = [0] * (len(second) + 1)
    for token in first:
        above_left = 0
        for j, other in enumerate(second, start=1):
            above = row[j]
            row[j] = above_left + 1 if token == other else max(above, row[j - 1])
            above_left = above
    return row[-1]
