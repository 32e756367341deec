"""Scores of captions, and of where attention looked.

Captions: BLEU in both protocols and CIDEr-D, in plain Python on tokens, equal to `pycocoevalcap`'s
on the same tokens. All pictures are scored together, as one corpus.

| protocol | BLEU | where it comes from |
|---|---|---|
| `coco` | with brevity penalty | the coco-caption toolkit, which later papers use |
| `paper` | without brevity penalty | Xu et al., 2015, Table 1 |

The two differ by several points on short captions: say which one beside every number. Tokens
(`sat_keras.ptb`) and CIDEr-D are the same in both.

Attention: whether its peak and its mass lie in an object's box, its entropy, and how much it moves
from word to word, in NumPy.
"""

import collections
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

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


class AttentionScore(NamedTuple):
    """A score of attention maps, beside the one of attention that doesn't look at the picture.

    Attributes:
        value: The score, from 0 to 1.
        uniform: What uniform attention gets on the same boxes.
    """

    value: float
    uniform: float


def pointing_accuracy(
    attention_maps: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int]
) -> AttentionScore:
    """Share of the attention maps whose peak lies in their object's box.

    The peak is the centre of the cell with the largest weight. Of several equal ones each counts
    its part, so that a uniform map gets the share of the cells' centres that lie in the box: the
    chance of a random cell, which is `uniform`.

    Args:
        attention_maps: `(maps, grid_height, grid_width)`, one for every word that names an object.
        boxes: `(maps, 4)`, the objects' `x0, y0, x1, y1` in pixels, x right, y down, `x1` and
            `y1` exclusive.
        image_size: `(height, width)` in pixels of the picture that the grid covers.

    Returns:
        An `AttentionScore`.

    Raises:
        ValueError: If there are no maps, shapes don't fit, or maps aren't weights.

    Example:

    >>> attention_map = np.zeros((1, 14, 14))
    >>> attention_map[0, 2, 3] = 1.0  # centre at x = 56, y = 40
    >>> pointing_accuracy(attention_map, [[50, 30, 70, 50]], (224, 224))
    AttentionScore(value=1.0, uniform=0.005...)

    Reference:
        [Zhang et al., 2016](https://arxiv.org/abs/1608.00507), the pointing game.
    """
    maps, boxes = _check_maps_and_boxes(attention_maps, boxes)
    inside = _cover(boxes, maps.shape[1:], image_size, of_centres=True)
    peak = maps == maps.max(axis=(1, 2), keepdims=True)
    hits = (inside * peak).sum(axis=(1, 2)) / peak.sum(axis=(1, 2))
    return AttentionScore(float(hits.mean()), float(inside.mean()))


def attention_mass(
    attention_maps: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int]
) -> AttentionScore:
    """Mean share of the attention that lies in the objects' boxes.

    A cell's weight is spread evenly over the cell, so that a cell that the box covers by half
    counts by half; uniform attention gets the box' share of the picture's area.

    Args:
        attention_maps: `(maps, grid_height, grid_width)`, one for every word that names an object.
            Maps are scaled to the sum 1.
        boxes: `(maps, 4)`, the objects' `x0, y0, x1, y1` in pixels, x right, y down, `x1` and
            `y1` exclusive.
        image_size: `(height, width)` in pixels of the picture that the grid covers.

    Returns:
        An `AttentionScore`.

    Raises:
        ValueError: If there are no maps, shapes don't fit, or maps aren't weights.
    """
    maps, boxes = _check_maps_and_boxes(attention_maps, boxes)
    inside = _cover(boxes, maps.shape[1:], image_size, of_centres=False)
    mass = (inside * maps).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    return AttentionScore(float(mass.mean()), float(inside.mean()))


def attention_entropy(attention_maps: np.ndarray) -> np.ndarray:
    """Entropy of attention maps, `-sum_i alpha_i log alpha_i`, in nats.

    0 looks at one region, `log(num_regions)` is uniform.

    Args:
        attention_maps: `(..., grid_height, grid_width)`. Maps are scaled to the sum 1.

    Returns:
        Float array `(...)`.

    Raises:
        ValueError: If maps aren't weights.
    """
    weights = _check_maps(attention_maps)
    weights = weights / weights.sum(axis=(-2, -1), keepdims=True)
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    return -(weights * logs).sum(axis=(-2, -1)) + 0.0  # no -0.0


def total_variation(attention_maps: np.ndarray) -> np.ndarray:
    """Share of the attention that moves from each word to the next.

    `1/2 sum_i |alpha_ti - alpha_{t-1,i}|`: 0 where maps are identical (the fault to look for), 1
    where they have no region in common.

    Args:
        attention_maps: `(..., steps, grid_height, grid_width)`. Maps are scaled to the sum 1.

    Returns:
        Float array `(..., steps - 1)`.

    Raises:
        ValueError: If maps aren't weights.
    """
    weights = _check_maps(attention_maps)
    weights = weights / weights.sum(axis=(-2, -1), keepdims=True)
    return np.abs(np.diff(weights, axis=-3)).sum(axis=(-2, -1)) / 2


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


def _check_maps(attention_maps):
    maps = np.asarray(attention_maps, dtype="float64")
    if maps.ndim < 2:
        raise ValueError(
            "Attention maps must have the shape `(..., grid_height, grid_width)`; reshape the "
            f"regions to the grid. Received: shape {maps.shape}"
        )
    # A comparison with NaN is False.
    if not ((maps >= 0).all() and np.isfinite(maps).all() and (maps.sum(axis=(-2, -1)) > 0).all()):
        raise ValueError(
            "Attention maps must be finite, not negative and not all 0; leave out the steps after "
            f"a caption's end. Received: maps from {maps.min()} to {maps.max()}, sums from "
            f"{maps.sum(axis=(-2, -1)).min()}"
        )
    return maps


def _check_maps_and_boxes(attention_maps, boxes):
    maps, boxes = _check_maps(attention_maps), np.asarray(boxes, dtype="float64")
    if maps.ndim != 3 or not len(maps) or boxes.shape != (len(maps), 4):
        raise ValueError(
            "There must be at least one map, `(maps, grid_height, grid_width)`, and a box for each "
            f"of them, `(maps, 4)`. Received: maps {maps.shape}, boxes {boxes.shape}"
        )
    if not ((boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])).all():
        raise ValueError(
            "Boxes must be `x0, y0, x1, y1` with x0 < x1 and y0 < y1. "
            f"Received: {boxes[(boxes[:, 0] >= boxes[:, 2]) | (boxes[:, 1] >= boxes[:, 3])]}"
        )
    return maps, boxes


def _cover(boxes, grid, image_size, of_centres):
    """How much of every cell a box covers, `(boxes, grid_height, grid_width)`, from 0 to 1.

    With `of_centres` it is 1 where the cell's centre lies in the box, and else 0.
    """

    def along(low, high, cells, pixels):
        edges = np.linspace(0, pixels, cells + 1)
        low, high = low[:, None], high[:, None]
        if of_centres:
            centres = (edges[:-1] + edges[1:]) / 2
            return ((low <= centres) & (centres < high)).astype("float64")
        overlap = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
        return np.maximum(overlap, 0) / (pixels / cells)

    rows = along(boxes[:, 1], boxes[:, 3], grid[0], image_size[0])
    columns = along(boxes[:, 0], boxes[:, 2], grid[1], image_size[1])
    return rows[:, :, None] * columns[:, None, :]
