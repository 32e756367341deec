"""How far a score would move with other pictures: the bootstrap.

The pictures that were scored are a sample. The bootstrap draws as many of them again and again,
with replacement, and looks how the score spreads over these draws. Two models are compared on the
same draws (paired), which takes out what the pictures have in common.
"""

from collections.abc import Callable

import numpy as np

SAMPLES = 10_000
_CHUNK = 500  # draws at a time: 40 MB of weights for 5,000 pictures


def resample(
    score: Callable[[np.ndarray], np.ndarray], pictures: int, samples: int = SAMPLES, seed: int = 0
) -> np.ndarray:
    """Takes a score of many draws of the pictures.

    Args:
        score: Function of weights, `(draws, pictures)`: how often each picture was drawn. It
            returns the score of each draw, `(draws, ...)`.
        pictures: Number of pictures.
        samples: Number of draws.
        seed: Of the draws. The same seed draws the same pictures.

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
    generator = np.random.default_rng(seed)
    chances = np.full(pictures, 1 / pictures)
    sizes = [min(_CHUNK, samples - start) for start in range(0, samples, _CHUNK)]
    draws = (generator.multinomial(pictures, chances, size).astype("float64") for size in sizes)
    return np.concatenate([score(weights) for weights in draws])


def interval(resampled: np.ndarray, level: float = 0.95) -> np.ndarray:
    """The percentile interval of resampled scores.

    Args:
        resampled: `(samples, ...)`, of `resample`.
        level: Share of the draws inside.

    Returns:
        Array `(2, ...)`: the low and the high end.
    """
    tail = (1 - level) / 2
    return np.quantile(resampled, [tail, 1 - tail], axis=0)


def p_value(differences: np.ndarray) -> np.ndarray:
    """How easily a difference of this sign comes from the choice of the pictures, two-sided.

    Twice the share of draws in which the difference is 0 or has the other sign, so that it is
    below 0.05 where the 95 % interval leaves out 0.

    Args:
        differences: `(samples, ...)`, of `resample`.

    Returns:
        Array `(...)`, from `2 / (samples + 1)` to 1.
    """
    least = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    return np.minimum(2 * (least + 1) / (len(differences) + 1), 1.0)
