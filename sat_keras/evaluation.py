"""Scores of captions: how near they come to what people wrote, and how varied they are.

BLEU in both protocols and CIDEr-D, in plain Python on tokens, equal to `pycocoevalcap`'s on the
same tokens. All pictures are scored together, as one corpus.

| protocol | BLEU | where it comes from |
|---|---|---|
| `coco` | with brevity penalty | the coco-caption toolkit, which later papers use |
| `paper` | without brevity penalty | Xu et al., 2015, Table 1 |

The two differ by several points on short captions: say which one beside every number. Tokens
(`sat_keras.ptb`) and CIDEr-D are the same in both.
"""

import collections
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sat_keras.ptb import ptb_tokenize

PROTOCOLS = ("coco", "paper")

# coco-caption's, against divisions by 0. Without a match BLEU is not quite 0 but below 1e-3.
_TINY, _SMALL = 1e-15, 1e-9

Tokens = Sequence[str]
Captions = Mapping[str, str] | Iterable[tuple[str, str]]


def score_captions(
    candidates: Captions,
    references: Mapping[str, Sequence[str]],
    protocols: Sequence[str] = PROTOCOLS,
) -> dict[str, dict[str, float]]:
    """Scores one caption a picture against the picture's reference captions.

    Args:
        candidates: The caption to score by image id, or pairs `(image_id, caption)`. An empty
            caption is a bad caption, not an error.
        references: The reference captions of the same pictures, by image id, raw or normalised.
        protocols: Out of `"coco"` and `"paper"`, see the module's description.

    Returns:
        `{protocol: {"bleu1": ..., "bleu2": ..., "bleu3": ..., "bleu4": ..., "cider": ...}}`, BLEU
        in percent (as 20.8), CIDEr-D as 0.52. CIDEr-D weights words by how rare they are in
        `references`, so that it compares only between scores of the same pictures.

    Raises:
        ValueError: If the image ids of both don't agree or appear twice, if there are no
            candidates or a picture has no references, or if a protocol is unknown.

    Example:

    >>> references = {
    ...     "1.jpg": ["A dog runs on the beach.", "The dog is running."],
    ...     "2.jpg": ["Two boys play football.", "Boys with a ball."],
    ... }
    >>> candidates = {"1.jpg": "a dog runs", "2.jpg": "two boys play football"}
    >>> score_captions(candidates, references)["coco"]["bleu1"]  # 3 + 4 words against 4 + 4
    86.68...
    """
    unknown = [protocol for protocol in protocols if protocol not in PROTOCOLS]
    if unknown:
        raise ValueError(f"Protocols must be out of {PROTOCOLS}. Received: {unknown[0]!r}")
    candidates = _by_image_id(candidates)
    _check_image_ids(candidates, references)
    candidate_tokens = [ptb_tokenize(caption) for caption in candidates.values()]
    reference_tokens = [
        [ptb_tokenize(caption) for caption in references[image_id]] for image_id in candidates
    ]
    cider_score = float(np.mean(cider(candidate_tokens, reference_tokens)))
    scores = {}
    for protocol in protocols:
        bleu = corpus_bleu(candidate_tokens, reference_tokens, brevity_penalty=(protocol == "coco"))
        scores[protocol] = {f"bleu{n}": score for n, score in enumerate(bleu, start=1)}
        scores[protocol]["cider"] = cider_score
    return scores


def corpus_bleu(
    candidates: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
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
    """
    matches, counts = np.zeros(max_n), np.zeros(max_n)
    candidate_length = reference_length = 0
    for candidate, picture_references in zip(candidates, references, strict=True):
        candidate_length += len(candidate)
        reference_length += min(
            (abs(len(reference) - len(candidate)), len(reference))
            for reference in picture_references
        )[1]
        most = collections.Counter()
        for reference in picture_references:
            most |= _ngrams(reference, max_n)  # the larger count of each n-gram
        for ngram, count in _ngrams(candidate, max_n).items():
            matches[len(ngram) - 1] += min(count, most[ngram])
            counts[len(ngram) - 1] += count
    if not candidate_length:
        return [0.0] * max_n
    precisions = (matches + _TINY) / (counts + _SMALL)
    bleu = 100 * np.cumprod(precisions) ** (1 / np.arange(1, max_n + 1))
    ratio = (candidate_length + _TINY) / (reference_length + _SMALL)
    if brevity_penalty and ratio < 1:
        bleu *= math.exp(1 - 1 / ratio)
    return bleu.tolist()


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
    """
    counts = [[_ngrams(reference, max_n) for reference in picture] for picture in references]
    pictures_with = collections.Counter()
    for picture in counts:
        pictures_with.update(set().union(*picture))
    log_pictures = math.log(max(len(counts), 1))

    def weigh(ngrams):
        """Vectors of n-gram weights, one for every n, and their lengths."""
        vectors = [{} for _ in range(max_n)]
        for ngram, count in ngrams.items():
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
        candidate_vectors = weigh(_ngrams(candidate, max_n))
        for reference, ngrams in zip(picture, counts[i], strict=True):
            # As in the toolkit, which counts bigrams, an empty caption is as long as one word.
            difference = max(len(candidate), 1) - max(len(reference), 1)
            penalty = math.exp(-(difference**2) / (2 * sigma**2))
            scores[i] += penalty * similarity(candidate_vectors, weigh(ngrams))
        scores[i] *= 10 / len(picture)
    return scores


def caption_statistics(captions: Captions | Sequence[str]) -> dict[str, float]:
    """What tells dull captions from varied ones, without references.

    Args:
        captions: Captions by image id, pairs `(image_id, caption)` or captions alone; words are
            what stands between blanks.

    Returns:
        - `captions`: their number.
        - `mean_length`: words a caption.
        - `vocabulary`: number of different words.
        - `distinct1`, `distinct2`: different words (pairs of words) over all words (pairs).
        - `repeated`: share of captions that are the same as an earlier one.
        - `unknown`: share of words that are `<unk>`.

        Shares of nothing are 0.

    Raises:
        ValueError: If there are no captions, or an image id appears twice.

    Reference:
        [Li et al., 2016](https://arxiv.org/abs/1510.03055), for distinct-n.
    """
    captions = captions if isinstance(captions, Mapping) else list(captions)
    if not captions:
        raise ValueError(f"There must be at least one caption. Received: {captions!r}")
    if isinstance(captions, Mapping) or not isinstance(captions[0], str):
        captions = _by_image_id(captions).values()
    tokens = [caption.split() for caption in captions]
    words = [word for caption in tokens for word in caption]
    pairs = [pair for caption in tokens for pair in itertools.pairwise(caption)]

    def share(part, whole):
        return part / whole if whole else 0.0

    return {
        "captions": len(tokens),
        "mean_length": len(words) / len(tokens),
        "vocabulary": len(set(words)),
        "distinct1": share(len(set(words)), len(words)),
        "distinct2": share(len(set(pairs)), len(pairs)),
        "repeated": 1 - len(set(map(tuple, tokens))) / len(tokens),
        "unknown": share(words.count("<unk>"), len(words)),
    }


def _ngrams(tokens, max_n):
    """Counts of all n-grams up to `max_n`."""
    tokens = tuple(tokens)
    return collections.Counter(
        tokens[i : i + n] for n in range(1, max_n + 1) for i in range(len(tokens) - n + 1)
    )


def _by_image_id(captions):
    """The captions as a dictionary."""
    if isinstance(captions, Mapping):
        return captions
    pairs = list(captions)
    counts = collections.Counter(image_id for image_id, _ in pairs)
    twice = [image_id for image_id, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            "Every picture must have one candidate; keep the first one of each, for example with "
            "`dict(reversed(pairs))`. "
            f"Received: {len(twice)} image ids more than once, the first one {twice[0]!r}"
        )
    return dict(pairs)


def _check_image_ids(candidates, references):
    if not candidates:
        raise ValueError("There must be at least one candidate. Received: none")
    problems = {
        "Every candidate must have references: pass the references of the same split. Received: "
        "{} image ids without references": [i for i in candidates if i not in references],
        "Every picture of `references` must have a candidate: leave out the references of pictures "
        "that are not scored. Received: {} image ids without a candidate": [
            i for i in references if i not in candidates
        ],
        "Every picture must have at least one reference caption. Received: {} image ids with an "
        "empty list": [i for i in references if not len(references[i])],
        "The references of a picture must be a list of captions, not one caption. Received: "
        "{} image ids with a string": [i for i in references if isinstance(references[i], str)],
    }
    for problem, image_ids in problems.items():
        if image_ids:
            raise ValueError(f"{problem.format(len(image_ids))}, the first one {image_ids[0]!r}")
