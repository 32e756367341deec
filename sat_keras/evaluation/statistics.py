"""Scores of a corpus from counts of each picture, with bootstrap intervals and comparisons.

BLEU and METEOR are functions of sums over pictures, the other metrics are means. With the counts of
every picture, the score of any resampling of the pictures is one matrix product.

The scored pictures are a sample. The bootstrap resamples them with replacement and computes the
score of each resample, whose spread gives the confidence interval. `compare_results` scores two
models on the same resamples (paired bootstrap), which cancels the difficulty of the pictures.
"""

import base64
import functools
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sat_keras.backend.progress import track
from sat_keras.config.fields import check_choice
from sat_keras.evaluation.java import meteor_of_sums
from sat_keras.evaluation.metrics import bleu_of_sums

METRICS = ("bleu", "meteor", "rouge_l", "cider", "spice")
PROTOCOLS = ("coco", "paper")
# The statistics that a metric's score follows from, by protocol. Others are the same in both.
_BLEU = {"coco": "bleu", "paper": "written_bleu"}
_STATISTICS = (*METRICS, "written_bleu")
SAMPLES = 10_000

_CHUNK = 500  # resamples at a time: 40 MB of weights for 5,000 pictures
_REMEMBERED = 20_000_000  # most counts that are remembered, in 40 MB
# What must be equal in compared results, and its name in error messages.
_ALIKE = {"dataset": "data set", "split": "split", "pictures": "number of pictures"}

Scores = dict[str, dict[str, float]]


def resample(
    score: Callable[[np.ndarray], np.ndarray], pictures: int, samples: int = SAMPLES, seed: int = 0
) -> np.ndarray:
    """Computes a score of many resamples of the pictures.

    Args:
        score: Function of weights of shape `(resamples, pictures)`, how often each picture was
            drawn. It returns the score of each resample, `(resamples, ...)`.
        pictures: Number of pictures.
        samples: Number of resamples.
        seed: Random seed. The same seed draws the same pictures.

    Returns:
        Array `(samples, ...)`.

    Example:

    >>> lengths = np.array([3.0, 5.0, 10.0])
    >>> means = resample(lambda weights: weights @ lengths / 3, pictures=3)
    >>> interval(means)
    array([ 3., 10.])

    Reference:
        [Efron & Tibshirani, 1993](https://doi.org/10.1201/9780429246593), chapter 6; for BLEU
        [Koehn, 2004](https://aclanthology.org/W04-3250/).
    """
    scores = []
    with track(samples, "Bootstrap", "resamples") as bar:
        for counts in _draws(pictures, samples, seed):
            scores.append(score(counts.astype("float64")))
            bar.update(len(counts))
    return np.concatenate(scores)


def _draws(pictures: int, samples: int, seed: int) -> Iterable[np.ndarray]:
    """Returns how often each picture was drawn, `(resamples, pictures)`, chunk by chunk.

    An evaluation resamples the same pictures for every kind of score, and drawing takes longer than
    most of these: a set of few pictures is remembered.
    """
    if pictures * samples <= _REMEMBERED:
        return _remembered_draws(pictures, samples, seed)
    return _draw(pictures, samples, seed)


def _draw(pictures: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    chances = np.full(pictures, 1 / pictures)
    for start in range(0, samples, _CHUNK):
        yield generator.multinomial(pictures, chances, min(_CHUNK, samples - start))


@functools.lru_cache(maxsize=1)
def _remembered_draws(pictures: int, samples: int, seed: int) -> list[np.ndarray]:
    kind = np.min_scalar_type(pictures)
    return [counts.astype(kind) for counts in _draw(pictures, samples, seed)]


def interval(resampled: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Computes the percentile interval of resampled scores.

    Args:
        resampled: Array `(samples, ...)`, returned by `resample`.
        level: Share of the resamples inside the interval.

    Returns:
        Array `(2, ...)`: the lower and the upper end.
    """
    tail = (1 - level) / 2
    return np.quantile(resampled, [tail, 1 - tail], axis=0)


def p_value(differences: np.ndarray) -> np.ndarray:
    """Computes the two-sided bootstrap p-value of a difference.

    Twice the share of resamples in which the difference is 0 or has the other sign. It is below
    0.05 where the 95 % interval excludes 0.

    Args:
        differences: Array `(samples, ...)`, returned by `resample`.

    Returns:
        Array `(...)`, from `2 / (samples + 1)` to 1.
    """
    least = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    return np.minimum(2 * (least + 1) / (len(differences) + 1), 1.0)


class PictureScores:
    """Statistics of each picture and the scores that follow from them.

    Args:
        statistics: Dictionary from a metric's name in `METRICS` to its statistics: those of
            `bleu_statistics`, `meteor_statistics`, or an array `(pictures, 1)` of scores.
            `written_bleu` are those of `bleu_statistics` by the protocol `paper`, which has no BLEU
            without them, as in files of versions before 0.2.

    Raises:
        ValueError: If a metric is unknown or the numbers of pictures differ.
    """

    def __init__(self, statistics: Mapping[str, np.ndarray]) -> None:
        sizes = {name: len(values) for name, values in statistics.items()}
        if len(set(sizes.values())) != 1 or not set(sizes) <= set(_STATISTICS):
            raise ValueError(
                f"`statistics` must have names in {_STATISTICS} and arrays of the same length. "
                f"Received: {sizes}"
            )
        self.statistics = {name: statistics[name] for name in _STATISTICS if name in statistics}
        (self.pictures,) = set(sizes.values())

    def keys(self, protocols: Sequence[str] = PROTOCOLS) -> list[tuple[str, str]]:
        """Returns the names of the scores.

        Args:
            protocols: `"coco"`, `"paper"` or both.

        Returns:
            Pairs of a protocol and a score's name, such as `("coco", "bleu4")`.
        """
        return [
            (protocol, name)
            for protocol in protocols
            for metric in self._metrics(protocol)
            for name in ([f"bleu{n}" for n in range(1, 5)] if metric == "bleu" else [metric])
        ]

    def _metrics(self, protocol: str) -> list[str]:
        """Returns the metrics of a protocol."""
        has_bleu = _BLEU[protocol] in self.statistics
        return [m for m in METRICS if (has_bleu if m == "bleu" else m in self.statistics)]

    def array(
        self, weights: np.ndarray | None = None, protocols: Sequence[str] = PROTOCOLS
    ) -> np.ndarray:
        """Computes the scores as an array.

        Args:
            weights: How often each picture counts, `(..., pictures)`. Defaults to once each.
            protocols: `"coco"`, `"paper"` or both.

        Returns:
            Array `(..., len(self.keys(protocols)))`.
        """
        weights = np.ones(self.pictures) if weights is None else weights
        sums = {name: weights @ values for name, values in self.statistics.items()}
        return self._of_sums(sums, weights.sum(axis=-1, keepdims=True), protocols)

    def scores(self, protocols: Sequence[str] = PROTOCOLS) -> Scores:
        """Computes the scores of the corpus.

        Args:
            protocols: `"coco"`, `"paper"` or both.

        Returns:
            `{protocol: {name: score}}`.
        """
        return _nested(self.keys(protocols), self.array(protocols=protocols).tolist())

    def each(self, protocol: str = "coco") -> dict[str, np.ndarray]:
        """Computes the scores of each picture as a corpus of its own.

        Args:
            protocol: `"coco"` or `"paper"`.

        Returns:
            Dictionary from a score's name to an array `(pictures,)`.
        """
        values = self._of_sums(self.statistics, 1.0, [protocol])
        return {name: values[:, i] for i, (_, name) in enumerate(self.keys([protocol]))}

    def intervals(
        self, protocols: Sequence[str] = PROTOCOLS, samples: int = SAMPLES, seed: int = 0
    ) -> dict[str, dict[str, list[float]]]:
        """Computes bootstrap 95 % confidence intervals over pictures.

        CIDEr's document frequencies remain those of the whole corpus in every resample.

        Args:
            protocols: `"coco"`, `"paper"` or both.
            samples: Number of resamples.
            seed: Random seed.

        Returns:
            `{protocol: {name: [lower, upper]}}`.
        """
        draws = resample(
            lambda weights: self.array(weights, protocols), self.pictures, samples, seed
        )
        return _nested(self.keys(protocols), interval(draws).T.tolist())

    def encode(self) -> str:
        """Encodes the statistics as text for `decode`, in about 15 bytes a picture.

        Returns:
            NumPy's compressed archive of float32 arrays, in base64.
        """
        file = io.BytesIO()
        columns = {name: values.T.astype("float32") for name, values in self.statistics.items()}
        np.savez_compressed(file, **columns)
        return base64.b64encode(file.getvalue()).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> "PictureScores":
        """Decodes the text that `encode` returns.

        Args:
            text: Encoded statistics.

        Returns:
            `PictureScores`, rounded to float32.

        Raises:
            ValueError: If the text cannot be decoded.
        """
        try:
            with np.load(io.BytesIO(base64.b64decode(text, validate=True))) as file:
                return cls({name: values.T.astype("float64") for name, values in file.items()})
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                "`picture_scores` must be what `sat-keras evaluate` wrote; evaluate again. "
                f"Received: {text[:20]!r} ({error})"
            ) from error

    def _of_sums(
        self, sums: Mapping[str, np.ndarray], pictures: Any, protocols: Sequence[str]
    ) -> np.ndarray:
        """Computes scores, `(..., keys)`, from sums over `pictures` pictures, `(..., 1)`."""
        parts = []
        for protocol in protocols:
            for metric in self._metrics(protocol):
                values = sums[_BLEU[protocol] if metric == "bleu" else metric]
                if metric == "bleu":
                    parts.append(bleu_of_sums(values, brevity_penalty=protocol == "coco"))
                elif metric == "meteor":
                    parts.append(meteor_of_sums(values)[..., None])
                else:
                    parts.append(values / pictures)
        return np.concatenate(parts, axis=-1)


class Difference(NamedTuple):
    """A score of two models and the difference.

    Attributes:
        first: Score of the first model, the mean over its seeds.
        second: Score of the second model.
        difference: `second - first`.
        low: Lower end of the difference's 95 % confidence interval.
        high: Upper end.
        p_value: Two-sided bootstrap p-value.
        first_spread: Standard deviation over the first model's seeds, `None` for one seed.
        second_spread: Standard deviation over the second model's seeds.
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
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    protocol: str = "coco",
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compares two models by the paired bootstrap over pictures.

    Args:
        first: Results of one model, as returned by `read_results`: one, or one for each seed.
        second: Results of the other model.
        protocol: `"coco"` or `"paper"`.
        samples: Number of resamples.
        seed: Random seed.

    Returns:
        Dictionary from the name of each score that all results have to its `Difference`. The
        p-values are not corrected for multiple comparisons. The intervals are over pictures and do
        not include the variance between seeds.

    Raises:
        ValueError: If the results have different pictures or references.

    Reference:
        [Koehn, 2004](https://aclanthology.org/W04-3250/).
    """
    check_choice("protocol", protocol, PROTOCOLS)
    _check_alike([*first, *second])
    sides = [[PictureScores.decode(r["picture_scores"]) for r in side] for side in (first, second)]
    _check_protocol(protocol, [*first, *second], [*sides[0], *sides[1]])
    names = [key for _, key in sides[0][0].keys([protocol])]
    for scored in [*sides[0], *sides[1]]:
        names = [name for name in names if (protocol, name) in scored.keys([protocol])]

    def scores_of(side: list[PictureScores], weights: np.ndarray | None = None) -> np.ndarray:
        """Computes the scores of every seed, `(seeds, ..., names)`."""
        arrays = []
        for scored in side:
            columns = [scored.keys([protocol]).index((protocol, name)) for name in names]
            arrays.append(scored.array(weights, [protocol])[..., columns])
        return np.stack(arrays)

    def difference(weights: np.ndarray) -> np.ndarray:
        return scores_of(sides[1], weights).mean(axis=0) - scores_of(sides[0], weights).mean(axis=0)

    draws = resample(difference, sides[0][0].pictures, samples, seed)
    low, high = interval(draws)
    p_values = p_value(draws)
    seeds = [scores_of(side) for side in sides]
    means = [scores.mean(axis=0) for scores in seeds]
    spreads = [s.std(axis=0, ddof=1) if len(s) > 1 else None for s in seeds]
    columns = (*means, means[1] - means[0], low, high, p_values)
    return {
        name: Difference(
            *(float(column[i]) for column in columns),
            *(None if spread is None else float(spread[i]) for spread in spreads),
        )
        for i, name in enumerate(names)
    }


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a results file of `sat-keras evaluate` or `score`.

    Args:
        path: Path of the JSON file.

    Returns:
        The results, for `compare_results`.

    Raises:
        ValueError: If the file is not such a file or was written by an older version.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a JSON file in UTF-8. Received: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON file. Received: {error}") from error
    needed = ("scores", "references", "picture_scores")
    missing = [k for k in needed if not isinstance(results, dict) or k not in results]
    if missing:
        raise ValueError(
            f"{path} must be what `sat-keras evaluate` or `score` writes to --out; evaluate again. "
            f"Received: a file without {missing[0]!r}"
        )
    return {**results, "file": str(path)}


def _nested(keys: Sequence[tuple[str, str]], values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Returns `{protocol: {name: value}}`."""
    nested: dict[str, dict[str, Any]] = {}
    for (protocol, name), value in zip(keys, values, strict=True):
        nested.setdefault(protocol, {})[name] = value
    return nested


def _check_protocol(
    protocol: str, everything: Sequence[Mapping[str, Any]], scored: Sequence[PictureScores]
) -> None:
    """Raises an error for results without a protocol's BLEU."""
    for results, pictures in zip(everything, scored, strict=True):
        names = {name for _, name in pictures.keys([protocol])}
        if "bleu" in pictures.statistics and "bleu1" not in names:
            raise ValueError(
                f"Results compared by the protocol {protocol!r} must have been scored by it: "
                "evaluate again, or compare by `coco`. Received: an older definition in "
                f"{results.get('file', 'the results')}"
            )


def _check_alike(everything: Sequence[Mapping[str, Any]]) -> None:
    first = everything[0]
    name = first.get("file", "the first results")
    for other in everything[1:]:
        for key, what in _ALIKE.items():
            if first.get(key) != other.get(key):
                raise ValueError(
                    f"Compared results must have the same pictures: evaluate both on one {what}. "
                    f"Received: {what} {first.get(key)} in {name}, {other.get(key)} in "
                    f"{other.get('file', 'the others')}"
                )
        if first["references"] != other["references"]:
            raise ValueError(
                "Compared results must have the same pictures and references: evaluate both on "
                f"the same files. Received: references {first['references']} in {name}, "
                f"{other['references']} in {other.get('file', 'the others')}"
            )
