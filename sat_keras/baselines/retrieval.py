"""Captions that need no training of a captioner: other pictures' captions, written by people.

| name | the caption is |
|---|---|
| `random` | any caption of the train split |
| `nearest` | one of the captions of the train picture that looks most alike |
| `consensus` | of the captions of many alike train pictures the one that most others resemble |

Pictures are alike by the cosine of their annotation vectors' means. A model that does not beat
`consensus` has learned no more than to look up.
"""

import collections
import math
from collections.abc import Mapping, Sequence

import numpy as np

from sat_keras.evaluation.metrics import ngrams
from sat_keras.evaluation.tokens import ptb_tokenize

BASELINES = ("random", "nearest", "consensus")


def random_captions(
    image_ids: Sequence[str], train: Mapping[str, Sequence[str]], seed: int = 0
) -> dict[str, str]:
    """Draws a train caption for each picture.

    Args:
        image_ids: Pictures to caption.
        train: Train captions by image id.
        seed: Of the draws.

    Returns:
        Dictionary from image id to caption.
    """
    captions = [caption for picture in train.values() for caption in picture]
    drawn = np.random.default_rng(seed).integers(len(captions), size=len(image_ids))
    return {image_id: captions[i] for image_id, i in zip(image_ids, drawn, strict=True)}


def nearest_captions(
    neighbours: Mapping[str, Sequence[str]], train: Mapping[str, Sequence[str]], seed: int = 0
) -> dict[str, str]:
    """Takes a caption of the train picture that looks most alike.

    Args:
        neighbours: Train pictures by image id, the nearest first, of `nearest_pictures`.
        train: Train captions by image id.
        seed: Of the choice among the picture's captions.

    Returns:
        Dictionary from image id to caption.
    """
    generator = np.random.default_rng(seed)
    return {
        image_id: train[nearest[0]][generator.integers(len(train[nearest[0]]))]
        for image_id, nearest in neighbours.items()
    }


def consensus_captions(
    neighbours: Mapping[str, Sequence[str]],
    train: Mapping[str, Sequence[str]],
    settings: Sequence[tuple[int, int]] = ((90, 125),),
) -> dict[tuple[int, int], dict[str, str]]:
    """Takes, among the captions C of alike train pictures, the one that most others resemble.

        caption = argmax_{c in C} max_{M in C, |M| = m} sum_{c' in M} similarity(c, c')

    so that only the m captions that resemble it most count: outliers do no harm. The similarity is
    CIDEr's, the mean over n of the cosine of rarity-weighted n-grams.

    Args:
        neighbours: Train pictures by image id, of `nearest_pictures`.
        train: Train captions by image id. How rare an n-gram is, is counted in these.
        settings: Pairs `(k, m)` to try: how many of the neighbours give their captions, and how
            many captions count.

    Returns:
        Dictionary from each setting to captions by image id.

    Reference:
        [Devlin et al., 2015](https://arxiv.org/abs/1505.04467), section 3.
    """
    vectors = _CaptionVectors(train)
    found = {tuple(setting): {} for setting in settings}
    for image_id, pictures in neighbours.items():
        for setting, caption in vectors.best_of(pictures, found).items():
            found[setting][image_id] = caption
    return found


def nearest_pictures(
    cache, image_ids: Sequence[str], train_ids: Sequence[str], neighbours: int = 90
) -> dict[str, list[str]]:
    """Finds the train pictures that look most alike, by the cosine of mean annotation vectors.

    Args:
        cache: `FeatureCache` of all these pictures; they are read one after another.
        image_ids: Pictures to find neighbours of.
        train_ids: Pictures to find them among.
        neighbours: How many.

    Returns:
        Dictionary from image id to a list of train image ids, the nearest first.

    Raises:
        ValueError: If there are fewer train pictures, or features are missing.
    """
    if not 1 <= neighbours <= len(train_ids):
        raise ValueError(
            f"Neighbours must be from 1 to the number of train pictures, {len(train_ids)}. "
            f"Received: {neighbours}"
        )
    train_features = _mean_features(cache, train_ids)
    found = {}
    for image_id, feature in zip(image_ids, _mean_features(cache, image_ids), strict=True):
        order = np.argsort(-(train_features @ feature), kind="stable")[:neighbours]
        found[image_id] = [train_ids[i] for i in order]
    return found


def _mean_features(cache, image_ids):
    """Means over the regions, of length 1, `(pictures, feature_dim)`."""
    features = [
        batch.numpy().astype("float32").mean(axis=1)
        for batch in cache.dataset(list(image_ids)).batch(64)
    ]
    features = np.concatenate(features)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


class _CaptionVectors:
    """The captions of a split as vectors whose products are CIDEr's similarity.

    Args:
        captions: Captions by image id.
        max_n: Longest n-grams.
    """

    def __init__(self, captions, max_n=4):
        self.captions = captions
        counts = {i: [ngrams(ptb_tokenize(c), max_n) for c in captions[i]] for i in captions}
        pictures_with = collections.Counter()
        for picture in counts.values():
            pictures_with.update(set().union(*picture))
        self._ids = {ngram: i for i, ngram in enumerate(pictures_with)}
        rarity = {g: math.log(len(counts) / n) for g, n in pictures_with.items()}
        self._vectors = {
            image_id: [self._vector(caption, rarity, max_n) for caption in picture]
            for image_id, picture in counts.items()
        }

    def best_of(self, pictures, settings):
        """The caption of the first k pictures that most of the others resemble, by `(k, m)`."""
        pictures = pictures[: max(k for k, _ in settings)]
        captions = [caption for picture in pictures for caption in self.captions[picture]]
        similarity = self.similarity([v for picture in pictures for v in self._vectors[picture]])
        np.fill_diagonal(similarity, 0)  # each is like itself
        sums = {}
        for k in {k for k, _ in settings}:
            size = sum(len(self.captions[picture]) for picture in pictures[:k])
            most_alike_first = -np.sort(-similarity[:size, :size], axis=1)
            sums[k] = np.cumsum(most_alike_first, axis=1)
        return {
            (k, m): captions[int(sums[k][:, min(m, sums[k].shape[1]) - 1].argmax())]
            for k, m in settings
        }

    @staticmethod
    def similarity(vectors):
        """Products of all pairs of sparse vectors, `(captions, captions)`."""
        ids = np.concatenate([ids for ids, _ in vectors])
        rows = np.repeat(np.arange(len(vectors)), [len(ids) for ids, _ in vectors])
        _, columns, counts = np.unique(ids, return_inverse=True, return_counts=True)
        # What one caption has alone is in no product, and is most of what there is.
        shared = counts > 1
        columns_of_shared = np.cumsum(shared) - 1
        chosen = shared[columns]
        matrix = np.zeros((len(vectors), int(shared.sum())), "float32")
        weights = np.concatenate([weights for _, weights in vectors])
        matrix[rows[chosen], columns_of_shared[columns[chosen]]] = weights[chosen]
        return matrix @ matrix.T

    def _vector(self, counts, rarity, max_n):
        """N-grams' ids and weights, scaled so that a product is the mean cosine over n."""
        weights = np.array([count * rarity[ngram] for ngram, count in counts.items()], "float32")
        lengths = np.array([len(ngram) for ngram in counts], dtype=int)
        for n in range(1, max_n + 1):
            norm = np.linalg.norm(weights[lengths == n])
            weights[lengths == n] /= norm * math.sqrt(max_n) if norm else 1
        return np.array([self._ids[ngram] for ngram in counts], dtype=int), weights
