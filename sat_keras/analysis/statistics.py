"""Scores of attention for a set of captions: sums for each picture, means and intervals."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sat_keras.analysis.measures import attention_entropy, coverage, sameness, total_variation
from sat_keras.analysis.pointing import BOX_SIZES, box_sizes, mass_in_boxes, pointing_hits
from sat_keras.backend.progress import track
from sat_keras.evaluation.statistics import SAMPLES, interval, resample

# Endings of the scores of attention that ignores the words.
BASELINES = ("_uniform", "_centre", "_mean_map")


def attention_statistics(
    attention_maps: Sequence[npt.ArrayLike],
    gates: Sequence[npt.ArrayLike],
    boxes: Sequence[Sequence] | None = None,
    image_size: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Computes the sums from which `attention_scores` computes means, for each picture.

    Args:
        attention_maps: For each picture the maps of its caption's words,
            `(steps, grid_height, grid_width)`. A caption without words does not count.
        gates: For each picture the gate of each word, `(steps,)`, from 0 to 1.
        boxes: For each picture and word None, or the boxes of the object that the word names, as
            in `pointing_accuracy`. Defaults to None: no boxes are known.
        image_size: Tuple `(height, width)` in pixels of the picture that the boxes are in.

    Returns:
        Dictionary from the score's name to an array `(pictures, 2)`: the sum of the measure over
        the picture's words, and their number. The score is the ratio of their totals: a mean over
        words for `entropy` (nats), `gate` (0 to 1) and, with boxes, `pointing_accuracy` and
        `attention_mass` (0 to 1); over pairs of neighbouring words for `total_variation`; over
        captions for `coverage` and `sameness` (0 to 1). Beside the measures with boxes stand their
        values for attention that ignores the words: `..._uniform`, `..._centre` (`centre_map`) and
        `..._mean_map`, the mean of all captions' maps, which always looks at the same place.
        `pointing_lag` is the next word's hit minus the word's own, over words with a next one:
        attention that comes a word late has a positive one. `pointing_accuracy_small`,
        `..._small_uniform` and so on are the same over the words whose boxes are `"small"`,
        `"medium"` or `"large"`, see `box_sizes`.

    Raises:
        ValueError: If the numbers of pictures or words differ, or maps are not attention weights.
    """
    rows = []
    arrays = [np.asarray(maps) for maps in attention_maps]
    means = [maps.mean(axis=0) for maps in arrays if len(maps)]
    mean_map = np.mean(means, axis=0) if means else None
    all_boxes = [None] * len(attention_maps) if boxes is None else boxes
    with track(len(attention_maps), "Attention") as bar:
        for maps, gate, named in zip(attention_maps, gates, all_boxes, strict=True):
            row = _measures(np.asarray(maps), gate, named, image_size, mean_map)
            rows.append({name: (np.sum(values), np.size(values)) for name, values in row.items()})
            bar.update(1)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, (0.0, 0)) for row in rows]) for name in names}


def attention_scores(
    statistics: Mapping[str, np.ndarray], samples: int = SAMPLES, seed: int = 0
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Computes the scores of a set of captions, with 95 % intervals.

    Args:
        statistics: Result of `attention_statistics`, with that of `occlusion_statistics`.
        samples: Integer, bootstrap samples of pictures for the intervals. Pictures without a word
            that a score is about are not drawn for this score.
        seed: Integer, seed of the samples.

    Returns:
        Tuple of the scores by name and their intervals `[low, high]` by the same names. Shares
        are in percent; `entropy`, `occlusion_...` and `faithfulness` are in nats, `gate` is from
        0 to 1. Scores that are about no word are left out.
    """
    counted = {name: values[:, 1] > 0 for name, values in statistics.items()}
    # Scores about the same pictures share their bootstrap samples.
    groups: dict[bytes, list[str]] = {}
    for name, pictures in counted.items():
        if pictures.any():
            groups.setdefault(pictures.tobytes(), []).append(name)
    scores: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for names in groups.values():
        values = np.stack([statistics[name][counted[names[0]]] for name in names], axis=1)
        units = np.array([100.0 if unit_of(name) == "%" else 1.0 for name in names])

        def ratios(
            weights: np.ndarray, values: np.ndarray = values, units: np.ndarray = units
        ) -> np.ndarray:
            sums = np.tensordot(weights, values, axes=1)  # (..., names, 2)
            return units * sums[..., 0] / sums[..., 1]

        ends = interval(resample(ratios, len(values), samples, seed)).T
        scores |= dict(zip(names, ratios(np.ones(len(values))).tolist(), strict=True))
        intervals |= dict(zip(names, ends.tolist(), strict=True))
    order = [name for name in statistics if name in scores]
    return {name: scores[name] for name in order}, {name: intervals[name] for name in order}


def unit_of(name: str) -> str:
    """Returns the unit of a score of `attention_scores`.

    Args:
        name: The score's name.

    Returns:
        `"nats"`, `"%"`, or `""` for the gate, from 0 to 1, for correlations and ranks.
    """
    if name in ("gate", "rank_correlation", "median_rank"):
        return ""
    if name.startswith(("entropy", "occlusion", "faithfulness")) or name.endswith("_cost"):
        return "nats"
    return "%"


def _measures(
    maps: np.ndarray,
    gate: npt.ArrayLike,
    boxes: Sequence | None,
    image_size: tuple[int, int] | None,
    mean_map: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Returns the measures of a picture's words, by name."""
    row: dict[str, np.ndarray] = {}
    if len(maps):
        row["entropy"] = attention_entropy(maps)
        row["total_variation"] = total_variation(maps)
        row["coverage"] = coverage(maps)
        row["gate"] = np.asarray(gate)
    if len(maps) > 1:
        row["sameness"] = sameness(maps)
    if boxes is not None and image_size is not None and mean_map is not None:
        row |= _box_measures(maps, boxes, image_size, mean_map)
    return row


def _box_measures(
    maps: np.ndarray, boxes: Sequence, image_size: tuple[int, int], mean_map: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the measures of the words that have a box, by name; none without such words."""
    at = [word for word, box in enumerate(boxes) if box is not None]
    if not at:
        return {}
    named = [boxes[word] for word in at]
    always = np.broadcast_to(mean_map, (len(at), *mean_map.shape))
    scores: dict[str, np.ndarray] = {}
    for name, measure in (("pointing_accuracy", pointing_hits), ("attention_mass", mass_in_boxes)):
        value, uniform, centre = measure(maps[at], named, image_size)
        scores |= {name: value, f"{name}_uniform": uniform, f"{name}_centre": centre}
        scores[f"{name}_mean_map"] = measure(always, named, image_size)[0]
    followed = [word for word in at if word + 1 < len(maps)]
    if followed:
        following = maps[[word + 1 for word in followed]]
        late = pointing_hits(following, [boxes[word] for word in followed], image_size)[0]
        scores["pointing_lag"] = late - scores["pointing_accuracy"][: len(followed)]
    sizes = box_sizes(scores["attention_mass_uniform"])
    for name, size in itertools.product(("pointing_accuracy", "attention_mass"), BOX_SIZES):
        for base in ("", *BASELINES):
            scores[f"{name}_{size}{base}"] = scores[name + base][sizes == size]
    return scores
