"""Scores of captions against references in one call, and statistics of their diversity.

BLEU, ROUGE-L and CIDEr-D are computed in Python (`metrics`), METEOR and SPICE need Java (`java`).
All pictures are scored together, as one corpus.

| protocol | BLEU | used by |
|---|---|---|
| `coco` | tokens of `ptb_tokenize`, with brevity penalty | coco-caption, most later papers |
| `paper` | tokens of `written_tokens`, without brevity penalty | Xu et al., 2015, Table 1 |

The two differ by several points, so state the protocol beside every figure. The other metrics are
those of `ptb_tokenize` in both.
"""

import collections
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sat_keras.evaluation.java import meteor_statistics, spice, unavailable
from sat_keras.evaluation.metrics import bleu_statistics, cider, rouge_l
from sat_keras.evaluation.statistics import METRICS, PROTOCOLS, PictureScores
from sat_keras.evaluation.tokens import ptb_tokenize
from sat_keras.evaluation.written import style_of, written_tokens

# Metrics that need no Java.
PYTHON_METRICS = ("bleu", "rouge_l", "cider")

Captions = Mapping[str, str] | Iterable[tuple[str, str]]


def score_captions(
    candidates: Captions,
    references: Mapping[str, Sequence[str]],
    protocols: Sequence[str] = PROTOCOLS,
    metrics: Sequence[str] = PYTHON_METRICS,
) -> dict[str, dict[str, float]]:
    """Scores one candidate caption a picture against the picture's references.

    Args:
        candidates: Candidate captions by image id, or pairs `(image_id, caption)`. An empty
            caption is allowed and scores 0.
        references: Reference captions of the same pictures, by image id, raw or normalised.
        protocols: `"coco"`, `"paper"` or both, see the table at the top of this module.
        metrics: Any of `"bleu"`, `"meteor"`, `"rouge_l"`, `"cider"` and `"spice"`. Defaults to
            those that need no Java. `available_metrics` returns those that run here.

    Returns:
        `{protocol: {"bleu1": ..., "bleu2": ..., "bleu3": ..., "bleu4": ..., "rouge_l": ...,
        "cider": ...}}`, in percent (BLEU-4 as 20.8) except CIDEr-D (0.52). CIDEr-D takes document
        frequencies from `references`, so only scores of the same pictures are comparable.

    Raises:
        ValueError: If the image ids of both differ or appear twice, there are no candidates, a
            picture has no references, or a protocol or metric is unknown.
        RuntimeError: If a metric is not available here.

    Example:

    >>> references = {
    ...     "1.jpg": ["A dog runs on the beach.", "The dog is running."],
    ...     "2.jpg": ["Two boys play football.", "Boys with a ball."],
    ... }
    >>> candidates = {"1.jpg": "a dog runs", "2.jpg": "two boys play football"}
    >>> score_captions(candidates, references)["coco"]["bleu1"]  # 3 + 4 words against 4 + 4
    86.68...

    Reference:
        Notebook `05b_evaluation`.
    """
    _check_names("protocols", protocols, PROTOCOLS)
    return score_pictures(candidates, references, metrics).scores(protocols)


def score_pictures(
    candidates: Captions,
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] = PYTHON_METRICS,
) -> PictureScores:
    """Scores each picture, for intervals, comparisons and scores of single pictures.

    Args:
        candidates: As in `score_captions`.
        references: As in `score_captions`.
        metrics: As in `score_captions`.

    Returns:
        `PictureScores`, with the pictures sorted by image id as text.

    Raises:
        ValueError: As in `score_captions`.
        RuntimeError: If a metric is not available here.

    Example:

    >>> pictures = score_pictures(candidates, references)
    >>> pictures.scores()["coco"]["bleu4"], pictures.intervals()["coco"]["bleu4"]
    (20.6..., [19.5..., 21.7...])
    """
    candidates = _by_image_id(candidates)
    _check_image_ids(candidates, references)
    image_ids = sorted(candidates, key=str)
    tokens = [ptb_tokenize(candidates[image_id]) for image_id in image_ids]
    truths = [[ptb_tokenize(caption) for caption in references[i]] for i in image_ids]
    scored = score_tokens(tokens, truths, metrics)
    if "bleu" not in metrics:
        return scored
    style = style_of(itertools.chain.from_iterable(references.values()))
    written = bleu_statistics(
        [written_tokens(candidates[i], style) for i in image_ids],
        [[written_tokens(caption) for caption in references[i]] for i in image_ids],
    )
    return PictureScores({**scored.statistics, "written_bleu": written})


def score_tokens(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    metrics: Sequence[str] = PYTHON_METRICS,
) -> PictureScores:
    """Scores tokenized captions, by the protocol `coco` alone.

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order.
        metrics: As in `score_captions`.

    Returns:
        `PictureScores`, with the pictures in the same order.

    Raises:
        ValueError: If a metric is unknown.
        RuntimeError: If a metric is not available here.
    """
    _check_names("metrics", metrics, METRICS)
    measures = {
        "bleu": bleu_statistics,
        "meteor": meteor_statistics,
        "rouge_l": rouge_l,
        "cider": cider,
        "spice": spice,
    }
    found = {name: measures[name](candidates, references) for name in metrics}
    return PictureScores(
        {name: values.reshape(len(candidates), -1) for name, values in found.items()}
    )


def available_metrics() -> tuple[tuple[str, ...], list[str]]:
    """Finds the metrics that run here.

    Returns:
        Tuple of the available metrics' names, and a list with one sentence for each of the others
        that says what to install.
    """
    reasons = {name: unavailable(name) for name in METRICS if name not in PYTHON_METRICS}
    names = tuple(name for name in METRICS if not reasons.get(name))
    return names, [reason for reason in reasons.values() if reason]


def references_digest(references: Mapping[str, Sequence[str]]) -> str:
    """Computes a digest that identifies a set of pictures and references.

    Args:
        references: Reference captions by image id.

    Returns:
        16 hexadecimal digits of a hash of image ids and reference tokens, independent of the order
        of the pictures.
    """
    known = {str(i): [ptb_tokenize(caption) for caption in references[i]] for i in references}
    text = json.dumps(known, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def caption_statistics(
    captions: Captions | Iterable[str], train: Iterable[str] | None = None
) -> dict[str, float]:
    """Computes length, vocabulary and diversity of captions, without references.

    Args:
        captions: Captions by image id, pairs `(image_id, caption)`, or captions. Words are
            separated by whitespace.
        train: Optional captions that the model was trained on.

    Returns:
        - `captions`: number of captions.
        - `mean_length`: words per caption.
        - `vocabulary`: number of distinct words.
        - `distinct1`, `distinct2`: distinct words (bigrams) over all words (bigrams).
        - `repeated`: share of captions equal to an earlier one.
        - `unknown`: share of words that are `<unk>`.
        - `novel`: share of captions that are no train caption word for word, by `ptb_tokenize`;
          only with `train`.

        Shares of empty sets are 0.

    Raises:
        ValueError: If there are no captions, or an image id appears twice.

    Reference:
        [Li et al., 2016](https://arxiv.org/abs/1510.03055), for distinct-n.
        Notebook `05b_evaluation`.
    """
    texts: list[Any] = list(captions.values() if isinstance(captions, Mapping) else captions)
    if not texts:
        raise ValueError(f"`captions` must have at least one caption. Received: {captions!r}")
    if not isinstance(texts[0], str):
        texts = list(_by_image_id(texts).values())
    tokens = [caption.split() for caption in texts]
    words = [word for caption in tokens for word in caption]
    pairs = [pair for caption in tokens for pair in itertools.pairwise(caption)]

    def share(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    novel = {}
    if train is not None:
        known = {tuple(ptb_tokenize(caption)) for caption in train}
        copied = sum(tuple(ptb_tokenize(caption)) in known for caption in texts)
        novel = {"novel": 1 - copied / len(texts)}
    return {
        "captions": len(tokens),
        "mean_length": len(words) / len(tokens),
        "vocabulary": len(set(words)),
        "distinct1": share(len(set(words)), len(words)),
        "distinct2": share(len(set(pairs)), len(pairs)),
        "repeated": 1 - len(set(map(tuple, tokens))) / len(tokens),
        "unknown": share(words.count("<unk>"), len(words)),
        **novel,
    }


def _check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"`{what}` must be one or more of {known}. "
            f"Received: {unknown[0] if unknown else names!r}"
        )


def _by_image_id(captions: Captions) -> Mapping[str, str]:
    """Converts captions to a dictionary."""
    if isinstance(captions, Mapping):
        return captions
    pairs = list(captions)
    counts = collections.Counter(image_id for image_id, _ in pairs)
    twice = [image_id for image_id, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            "Every picture must have one candidate; keep the first of each, for example with "
            "`dict(reversed(pairs))`. "
            f"Received: {len(twice)} image ids more than once, the first one {twice[0]!r}"
        )
    return dict(pairs)


def _check_image_ids(
    candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> None:
    if not candidates:
        raise ValueError("`candidates` must have at least one caption. Received: none")
    problems = {
        "Every candidate must have references: pass the references of the same split. Received: "
        "{} image ids without references": [i for i in candidates if i not in references],
        "Every picture of `references` must have a candidate: remove the references of the other "
        "pictures (`score --subset`). Received: {} image ids without a candidate": [
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
