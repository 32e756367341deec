"""The counts of every picture from which scores, their intervals and comparisons are made.

BLEU and METEOR are functions of sums over pictures, the other metrics are means, so that with the
counts of every picture at hand the score of any draw of pictures is one matrix product.
"""

import base64
import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from sat_keras.evaluation.bootstrap import SAMPLES, interval, resample
from sat_keras.evaluation.java import meteor_of_sums
from sat_keras.evaluation.metrics import bleu_of_sums

METRICS = ("bleu", "meteor", "rouge_l", "cider", "spice")
PROTOCOLS = ("coco", "paper")

Scores = dict[str, dict[str, float]]


class PictureScores:
    """Statistics of a corpus' pictures, and every score that they give.

    Args:
        statistics: Dictionary from a metric's name, out of `METRICS`, to its statistics: of
            `bleu_statistics`, `meteor_statistics`, or `(pictures, 1)` for the means.

    Raises:
        ValueError: If a metric is unknown or the numbers of pictures differ.
    """

    def __init__(self, statistics: Mapping[str, np.ndarray]):
        sizes = {name: len(values) for name, values in statistics.items()}
        if len(set(sizes.values())) != 1 or not set(sizes) <= set(METRICS):
            raise ValueError(
                f"Statistics must be of metrics out of {METRICS} and of one number of pictures. "
                f"Received: {sizes}"
            )
        self.statistics = {name: statistics[name] for name in METRICS if name in statistics}
        (self.pictures,) = set(sizes.values())

    def keys(self, protocols: Sequence[str] = PROTOCOLS) -> list[tuple[str, str]]:
        """Names what there are scores of.

        Args:
            protocols: Out of `"coco"` and `"paper"`.

        Returns:
            Pairs of a protocol and a score's name, such as `("coco", "bleu4")`.
        """
        names = []
        for metric in self.statistics:
            names += [f"bleu{n}" for n in range(1, 5)] if metric == "bleu" else [metric]
        return [(protocol, name) for protocol in protocols for name in names]

    def array(
        self, weights: np.ndarray | None = None, protocols: Sequence[str] = PROTOCOLS
    ) -> np.ndarray:
        """The scores as an array.

        Args:
            weights: How often each picture counts, `(..., pictures)`; by default once.
            protocols: Out of `"coco"` and `"paper"`.

        Returns:
            Array `(..., len(self.keys(protocols)))`.
        """
        weights = np.ones(self.pictures) if weights is None else weights
        sums = {name: weights @ values for name, values in self.statistics.items()}
        return self._of_sums(sums, weights.sum(axis=-1, keepdims=True), protocols)

    def scores(self, protocols: Sequence[str] = PROTOCOLS) -> Scores:
        """The scores of the corpus.

        Args:
            protocols: Out of `"coco"` and `"paper"`.

        Returns:
            `{protocol: {name: score}}`.
        """
        return _nested(self.keys(protocols), self.array(protocols=protocols).tolist())

    def each(self, protocol: str = "coco") -> dict[str, np.ndarray]:
        """Every picture's own scores, as if it were the whole corpus.

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
        """Bootstrap 95 % confidence intervals over pictures.

        CIDEr's weights of words stay those of the whole corpus: a draw chooses among the scores of
        its pictures.

        Args:
            protocols: Out of `"coco"` and `"paper"`.
            samples: Number of draws.
            seed: Of the draws.

        Returns:
            `{protocol: {name: [low, high]}}`.
        """
        draws = resample(
            lambda weights: self.array(weights, protocols), self.pictures, samples, seed
        )
        return _nested(self.keys(protocols), interval(draws).T.tolist())

    def encode(self) -> str:
        """The statistics as text of some 15 bytes a picture, for `decode`.

        Returns:
            NumPy's compressed archive of float32 arrays, in base64.
        """
        file = io.BytesIO()
        columns = {name: values.T.astype("float32") for name, values in self.statistics.items()}
        np.savez_compressed(file, **columns)
        return base64.b64encode(file.getvalue()).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> "PictureScores":
        """Reads what `encode` wrote.

        Args:
            text: The text.

        Returns:
            `PictureScores`, equal to the six or seven digits of float32.

        Raises:
            ValueError: If the text is something else.
        """
        try:
            with np.load(io.BytesIO(base64.b64decode(text, validate=True))) as file:
                return cls({name: values.T.astype("float64") for name, values in file.items()})
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                "Statistics of pictures must be what `sat-keras evaluate` wrote; evaluate again. "
                f"Received: {text[:20]!r} ({error})"
            ) from error

    def _of_sums(self, sums, pictures, protocols):
        """Scores, `(..., keys)`, from sums over `pictures` pictures, `(..., 1)`."""
        parts = []
        for protocol in protocols:
            for metric, values in sums.items():
                if metric == "bleu":
                    parts.append(bleu_of_sums(values, brevity_penalty=protocol == "coco"))
                elif metric == "meteor":
                    parts.append(meteor_of_sums(values)[..., None])
                else:
                    parts.append(values / pictures)
        return np.concatenate(parts, axis=-1)


def _nested(keys, values):
    """`{protocol: {name: value}}` of pairs of names."""
    nested = {}
    for (protocol, name), value in zip(keys, values, strict=True):
        nested.setdefault(protocol, {})[name] = value
    return nested
