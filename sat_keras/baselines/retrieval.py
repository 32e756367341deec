"""Baselines that retrieve captions of training pictures, without training a captioner.

| name | caption |
|---|---|
| `random` | a random caption of the training split |
| `nearest` | a random caption of the most similar training picture |
| `consensus` | the caption of similar training pictures that agrees best with the others |

Picture similarity is the cosine of mean annotation vectors. A captioner that does not beat
`consensus` is no better than retrieval.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sat_keras.evaluation.metrics import NgramWeights, ngrams
from sat_keras.evaluation.tokens import ptb_tokenize

if TYPE_CHECKING:
    from sat_keras.data.features import FeatureCache

BASELINES = ("random", "nearest", "consensus")


def random_captions(
    image_ids: Sequence[str], train: Mapping[str, Sequence[str]], seed: int = 0
) -> dict[str, str]:
    """Draws a random training caption for each picture.

    Args:
        image_ids: Pictures to caption.
        train: Training captions by image id.
        seed: Random seed.

    Returns:
        Dictionary from image id to caption.
    """
    captions = [caption for picture in train.values() for caption in picture]
    drawn = np.random.default_rng(seed).integers(len(captions), size=len(image_ids))
    return {image_id: captions[i] for image_id, i in zip(image_ids, drawn, strict=True)}


def people_captions(
    references: Mapping[str, Sequence[str]], seed: int = 0
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Draws one of the captions that people wrote for each picture, to be compared with the others.

    Args:
        references: Captions by image id. Pictures with a single one are left out.
        seed: Random seed.

    Returns:
        Tuple of the captions drawn and of the other captions, by image id.
    """
    generator = np.random.default_rng(seed)
    drawn, others = {}, {}
    for image_id, captions in references.items():
        if len(captions) > 1:
            left = list(captions)
            drawn[image_id] = left.pop(generator.integers(len(left)))
            others[image_id] = left
    return drawn, others


def nearest_captions(
    neighbours: Mapping[str, Sequence[str]], train: Mapping[str, Sequence[str]], seed: int = 0
) -> dict[str, str]:
    """Returns a random caption of each picture's nearest training picture.

    Args:
        neighbours: Training pictures by image id, nearest first, from `nearest_pictures`.
        train: Training captions by image id.
        seed: Random seed of the choice among the picture's captions.

    Returns:
        Dictionary from image id to caption.
    """
    generator = np.random.default_rng(seed)
    return {
        image_id: train[nearest[0]][int(generator.integers(len(train[nearest[0]])))]
        for image_id, nearest in neighbours.items()
    }


def consensus_captions(
    neighbours: Mapping[str, Sequence[str]],
    train: Mapping[str, Sequence[str]],
    settings: Sequence[tuple[int, int]] = ((90, 125),),
) -> dict[tuple[int, int], dict[str, str]]:
    """Selects the consensus caption among the captions C of similar training pictures.

        caption = argmax_{c in C} max_{M in C, |M| = m} sum_{c' in M} similarity(c, c')

    Only the m most similar captions count, so outliers have no effect. The similarity is CIDEr's:
    the mean over n of the cosine of n-gram weights.

    Args:
        neighbours: Training pictures by image id, nearest first, from `nearest_pictures`.
        train: Training captions by image id, which also give the document frequencies.
        settings: Pairs `(k, m)`: the number of neighbours whose captions are candidates, and the
            number of captions that count.

    Returns:
        Dictionary from each setting to captions by image id.

    Reference:
        [Devlin et al., 2015](https://arxiv.org/abs/1505.04467), section 3.
    """
    vectors = _CaptionVectors(train)
    found: dict[tuple[int, int], dict[str, str]] = {(k, m): {} for k, m in settings}
    for image_id, pictures in neighbours.items():
        for setting, caption in vectors.best_of(pictures, list(found)).items():
            found[setting][image_id] = caption
    return found


def nearest_pictures(
    cache: "FeatureCache", image_ids: Sequence[str], train_ids: Sequence[str], neighbours: int = 90
) -> dict[str, list[str]]:
    """Finds the most similar training pictures, by the cosine of mean annotation vectors.

    Args:
        cache: `FeatureCache` of all these pictures.
        image_ids: Pictures to find neighbours of.
        train_ids: Training pictures to search.
        neighbours: Number of neighbours for each picture.

    Returns:
        Dictionary from image id to a list of training image ids, nearest first.

    Raises:
        ValueError: If `neighbours` exceeds the number of training pictures, or features are
            missing.
    """
    if not 1 <= neighbours <= len(train_ids):
        raise ValueError(
            f"`neighbours` must be from 1 to the number of training pictures, {len(train_ids)}. "
            f"Received: neighbours={neighbours}"
        )
    train_features = _mean_features(cache, train_ids)
    found = {}
    for image_id, feature in zip(image_ids, _mean_features(cache, image_ids), strict=True):
        order = np.argsort(-(train_features @ feature), kind="stable")[:neighbours]
        found[image_id] = [train_ids[i] for i in order]
    return found


def _mean_features(cache: "FeatureCache", image_ids: Sequence[str]) -> np.ndarray:
    """Returns mean annotation vectors of unit length, `(pictures, feature_dim)`."""
    batches = cache.dataset(list(image_ids)).batch(64)
    features = np.concatenate([batch.numpy().astype("float32").mean(axis=1) for batch in batches])
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


class _CaptionVectors:
    """Sparse vectors of a split's captions whose dot products are CIDEr's similarity.

    Args:
        captions: Captions by image id.
        max_n: Maximum n-gram length.
    """

    def __init__(self, captions: Mapping[str, Sequence[str]], max_n: int = 4) -> None:
        self.captions = captions
        counts = {i: [ngrams(ptb_tokenize(c), max_n) for c in captions[i]] for i in captions}
        weigh = NgramWeights(list(counts.values()))
        self._ids: dict[tuple[str, ...], int] = {}
        self._vectors = {
            image_id: [self._vector(weigh(caption), max_n) for caption in picture]
            for image_id, picture in counts.items()
        }

    def best_of(
        self, pictures: Sequence[str], settings: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], str]:
        """Returns the consensus caption of the first k pictures for each `(k, m)`."""
        pictures = pictures[: max(k for k, _ in settings)]
        captions = [caption for picture in pictures for caption in self.captions[picture]]
        similarity = self.similarity([v for picture in pictures for v in self._vectors[picture]])
        np.fill_diagonal(similarity, 0)  # a caption does not vote for itself
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
    def similarity(vectors: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Computes the dot products of all pairs of vectors, `(captions, captions)`."""
        ids = np.concatenate([ids for ids, _ in vectors])
        rows = np.repeat(np.arange(len(vectors)), [len(ids) for ids, _ in vectors])
        _, columns, counts = np.unique(ids, return_inverse=True, return_counts=True)
        # Most n-grams occur in one caption only and contribute to no product.
        shared = counts > 1
        columns_of_shared = np.cumsum(shared) - 1
        chosen = shared[columns]
        matrix = np.zeros((len(vectors), int(shared.sum())), "float32")
        weights = np.concatenate([weights for _, weights in vectors])
        matrix[rows[chosen], columns_of_shared[columns[chosen]]] = weights[chosen]
        return matrix @ matrix.T

    def _vector(
        self, ngram_weights: dict[tuple[str, ...], float], max_n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns n-gram ids and weights whose dot products are the mean cosine over n."""
        weights = np.array(list(ngram_weights.values()), "float32")
        lengths = np.array([len(ngram) for ngram in ngram_weights], dtype=int)
        for n in range(1, max_n + 1):
            norm = np.linalg.norm(weights[lengths == n])
            weights[lengths == n] /= norm * math.sqrt(max_n) if norm else 1
        ids = [self._ids.setdefault(ngram, len(self._ids)) for ngram in ngram_weights]
        return np.array(ids, dtype=int), weights
