"""Is a difference between two models real? The paired bootstrap on two results files.

Both models are scored on the same draws of pictures, so that what makes a picture hard for both of
them does not hide the difference. Of several seeds of a model the mean score counts; how far the
seeds lie apart is told beside it and is not in the interval, which is about pictures.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sat_keras.evaluation.bootstrap import SAMPLES, interval, p_value, resample
from sat_keras.evaluation.picture_scores import PROTOCOLS, PictureScores

# What must be alike in results that are compared, and what it is called in an error.
_ALIKE = {"dataset": "data set", "split": "split", "pictures": "number of pictures"}


class Difference(NamedTuple):
    """A score of two models.

    Attributes:
        first: The first model's score, the mean over its seeds.
        second: The second model's.
        difference: `second - first`.
        low: Low end of the difference's 95 % interval.
        high: Its high end.
        p_value: How easily the choice of pictures alone gives a difference of this sign, two-sided.
        first_spread: Standard deviation over the first model's seeds, None for one seed.
        second_spread: The same of the second model.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    first_spread: float | None
    second_spread: float | None


def compare_results(
    first: Sequence[dict],
    second: Sequence[dict],
    protocol: str = "coco",
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compares two models by the paired bootstrap over pictures.

    Args:
        first: Results of one model, of `read_results`: one, or several that differ in the seed.
        second: Results of another.
        protocol: `"coco"` or `"paper"`.
        samples: Number of draws.
        seed: Of the draws.

    Returns:
        Dictionary from the name of each score that all have to its `Difference`. The p-values are
        each by itself: among many scores and models some are small by chance.

    Raises:
        ValueError: If the results are not of the same pictures and references.

    Reference:
        [Koehn, 2004](https://aclanthology.org/W04-3250/).
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"The protocol must be out of {PROTOCOLS}. Received: {protocol!r}")
    _check_alike([*first, *second])
    sides = [[PictureScores.decode(r["picture_scores"]) for r in side] for side in (first, second)]
    names = [key for _, key in sides[0][0].keys([protocol])]
    for scored in [*sides[0], *sides[1]]:
        names = [name for name in names if (protocol, name) in scored.keys([protocol])]

    def scores_of(side, weights=None):
        """Scores of every seed, `(seeds, ..., names)`."""
        arrays = []
        for scored in side:
            columns = [scored.keys([protocol]).index((protocol, name)) for name in names]
            arrays.append(scored.array(weights, [protocol])[..., columns])
        return np.stack(arrays)

    def difference(weights):
        return scores_of(sides[1], weights).mean(axis=0) - scores_of(sides[0], weights).mean(axis=0)

    draws = resample(difference, sides[0][0].pictures, samples, seed)
    low, high = interval(draws)
    p_values = p_value(draws)
    seeds = [scores_of(side) for side in sides]
    means = [scores.mean(axis=0) for scores in seeds]
    spreads = [s.std(axis=0, ddof=1) if len(s) > 1 else [None] * len(names) for s in seeds]
    rows = zip(*means, means[1] - means[0], low, high, p_values, *spreads, strict=True)
    return {
        name: Difference(*(None if value is None else float(value) for value in row))
        for name, row in zip(names, rows, strict=True)
    }


def read_results(path) -> dict:
    """Reads what `sat-keras evaluate` wrote, for `compare_results`.

    Args:
        path: The JSON file's path.

    Returns:
        The results.

    Raises:
        ValueError: If the file is something else or of an older version.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a JSON file in UTF-8. Received: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must be a JSON file. Received: {error}") from error
    needed = ("scores", "references", "picture_scores")
    missing = [k for k in needed if not isinstance(results, dict) or k not in results]
    if missing:
        raise ValueError(
            f"{path} must be what `sat-keras evaluate` or `score` writes to --out; evaluate again. "
            f"Received: a file without {missing[0]!r}"
        )
    return {**results, "file": str(path)}


def _check_alike(everything):
    first = everything[0]
    name = first.get("file", "the first results")
    for other in everything[1:]:
        for key, what in _ALIKE.items():
            if first.get(key) != other.get(key):
                raise ValueError(
                    f"Only results of the same pictures compare: evaluate both on one {what}. "
                    f"Received: {what} {first.get(key)} in {name}, {other.get(key)} in "
                    f"{other.get('file', 'the others')}"
                )
        if first["references"] != other["references"]:
            raise ValueError(
                "Only results of the same pictures and references compare: evaluate both on the "
                f"same files. Received: references {first['references']} in {name}, "
                f"{other['references']} in {other.get('file', 'the others')}"
            )
