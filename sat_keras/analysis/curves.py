"""Faithfulness of attention beyond one share of hidden regions: curves and rank correlation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sat_keras.analysis.hidden_regions import (
    HiddenRegions,
    caption_tokens,
    log_probabilities,
    word_log_probabilities,
)
from sat_keras.captioning.caption import Caption

# Shares of a picture's regions that are hidden.
SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)
CURVES = ("deletion", "deletion_random", "insertion", "insertion_random")


def word_curves(
    captioner: Any,
    annotations: np.ndarray,
    captions: Sequence[Caption],
    shares: Sequence[float] = SHARES,
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Computes the probability of each word while its regions disappear or appear in order.

    With the regions in the order of their attention weights `alpha_ti`, the largest first, and
    `S_k` the first `k` of them,

        deletion(k) = p(y_t | y_1 .. y_{t-1}, a^{S_k})
        insertion(k) = p(y_t | y_1 .. y_{t-1}, a^{all but S_k})

    where `a^S` are the annotation vectors with those of `S` replaced by their mean, as in
    `occlusion_statistics`. If attention marks what the word depends on, deletion falls and
    insertion rises at once; `..._random` are the same curves for a random order.

    Args:
        captioner, annotations, captions: As in `occlusion_statistics`.
        shares: `k / num_regions` of the curves, ascending.
        seed: Integer seed of the random orders, or the generator that draws them.

    Returns:
        Tuple of the number of each word's picture, `(words,)`, and a dictionary from the curve's
        name to an array of shape `(words, shares)`.

    Reference:
        [Petsiuk et al., 2018](https://arxiv.org/abs/1806.07421), for explanations of classifiers.
    """
    annotations, generator = np.asarray(annotations), np.random.default_rng(seed)
    model = HiddenRegions.of(captioner)
    tokens = caption_tokens(model, captions)
    words = _words(captions)
    num_regions = annotations.shape[1]
    counts = np.round(np.multiply(shares, num_regions)).astype(int)
    # Drawn for all words at once, so that the curves do not depend on the size of the batches.
    ties = generator.random((len(words), num_regions))
    at_random = generator.permuted(np.tile(np.arange(num_regions), (len(words), 1)), axis=1)
    weights = np.array([captions[p].attention[t].ravel() for p, t in words])
    by_weight = np.lexsort((ties, -weights.reshape(ties.shape)))
    # (shares, words, regions): whether a region is among the first k of the order
    first = [np.argsort(order) < counts[:, None, None] for order in (by_weight, at_random)]
    is_hidden = np.concatenate([first[0], first[1], ~first[0], ~first[1]])
    log_p = word_log_probabilities(model, annotations, is_hidden, tokens, words)
    found = np.exp(log_p).reshape(len(CURVES), len(shares), -1).swapaxes(1, 2)
    curves = dict(zip(CURVES, found, strict=True))
    return np.array([p for p, _ in words], int), curves


def curve_statistics(
    pictures: np.ndarray,
    curves: dict[str, np.ndarray],
    number: int,
    shares: Sequence[float] = SHARES,
) -> dict[str, np.ndarray]:
    """Computes the areas under curves, from 0 to 1, by the trapezoidal rule.

    Args:
        pictures, curves: Result of `word_curves`.
        number: Integer, number of pictures.
        shares: The curves' shares of the regions, from 0 to 1.

    Returns:
        Dictionary from the curve's name to an array `(pictures, 2)`: the sum of the areas over the
        picture's words, and their number, for `attention_scores`.
    """
    widths = np.diff(shares)
    return {
        name: _sums(((y[:, 1:] + y[:, :-1]) / 2) @ widths, pictures, number)
        for name, y in curves.items()
    }


def rank_correlation_statistics(
    captioner: Any, annotations: np.ndarray, captions: Sequence[Caption], block: int | None = None
) -> dict[str, np.ndarray]:
    """Computes how far attention weights and the effect of hiding regions order them alike.

    Blocks of `block x block` regions are hidden one at a time. For each word, Spearman's rank
    correlation compares the attention in the blocks with the drop of the word's log-probability:
    1 if the block with more attention always matters more, 0 if there is no relation.

    Args:
        captioner, annotations, captions: As in `occlusion_statistics`.
        block: Integer, side of a block in regions. Blocks at the right and lower edges may be
            smaller. Defaults to a seventh of the grid's shorter side.

    Returns:
        Dictionary with `rank_correlation`, an array `(pictures, 2)`: the sum over the picture's
        words and their number. A word whose attention or drops are the same everywhere is left
        out.

    Reference:
        [Jain and Wallace, 2019](https://arxiv.org/abs/1902.10186), section 4.1, for gradients and
        single words.
    """
    annotations = np.asarray(annotations)
    model = HiddenRegions.of(captioner)
    tokens = caption_tokens(model, captions)
    words = _words(captions)
    if not words:
        return {"rank_correlation": np.zeros((len(captions), 2))}
    height, width = captions[words[0][0]].attention.shape[1:]
    # (blocks, regions)
    blocks = _blocks(height, width, block or max(1, min(height, width) // 7))
    pictures = [picture for picture in range(len(captions)) for _ in blocks]
    is_hidden = np.tile(blocks, (len(captions), 1))
    token_ids = [tokens[picture] for picture in pictures]
    log_p = log_probabilities(model, annotations, pictures, is_hidden, token_ids)
    log_p = log_p.reshape(len(captions), len(blocks), -1)
    correlations = [
        _spearman(blocks @ captions[p].attention[t].ravel(), -log_p[p, :, t]) for p, t in words
    ]
    of_words = np.array([p for p, _ in words])
    is_ranked = np.isfinite(correlations)
    ranked = np.array(correlations)[is_ranked]
    return {"rank_correlation": _sums(ranked, of_words[is_ranked], len(captions))}


def _words(captions: Sequence[Caption]) -> list[tuple[int, int]]:
    """Returns picture and step of every word, by step: a word needs no steps after its own."""
    words = [(p, t) for p, caption in enumerate(captions) for t in range(len(caption.words))]
    return sorted(words, key=lambda word: word[1])


def _sums(values: np.ndarray, pictures: np.ndarray, number: int) -> np.ndarray:
    """Returns the sum of each picture's values and their number, `(pictures, 2)`."""
    return np.stack(
        [np.bincount(pictures, weights, number) for weights in (values, np.ones_like(values))],
        axis=1,
    )


def _blocks(height: int, width: int, block: int) -> np.ndarray:
    """Returns the regions of each block, bool `(blocks, height * width)`."""
    rows, columns = np.divmod(np.arange(height * width), width)
    number = rows // block * -(-width // block) + columns // block
    return number == np.arange(number.max() + 1)[:, None]


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the correlation of ranks, ties at their mean; NaN if either is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(pd.Series(x).rank().corr(pd.Series(y).rank()))
