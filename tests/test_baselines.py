"""Retrieval baselines against exhaustive search on a small in-memory cache."""

import itertools
import math

import numpy as np
import pytest

from sat_keras.baselines.retrieval import (
    _CaptionVectors,
    consensus_captions,
    nearest_captions,
    nearest_pictures,
    people_captions,
    random_captions,
)

TRAIN = {
    "t0": ["a dog runs on sand", "a brown dog runs", "dog on sand"],
    "t1": ["a dog runs", "the brown dog runs on sand", "something else entirely"],
    "t2": ["two boys play", "boys play with a ball", "two boys with a ball"],
}


class Cache:
    """In-memory stand-in for `FeatureCache`."""

    def __init__(self, features):
        self.features = features

    def dataset(self, keys):
        return Batches([self.features[key] for key in keys])


class Batches(list):
    def batch(self, size):
        for start in range(0, len(self), size):
            yield Batch(np.array(self[start : start + size], "float16"))


class Batch(np.ndarray):
    def __new__(cls, values):
        return values.view(cls)

    def numpy(self):
        return np.asarray(self)


def test_random_captions_are_of_train_and_follow_the_seed():
    image_ids = [f"d{n}" for n in range(200)]
    drawn = random_captions(image_ids, TRAIN)
    assert list(drawn) == image_ids
    assert set(drawn.values()) == {caption for picture in TRAIN.values() for caption in picture}
    assert drawn == random_captions(image_ids, TRAIN)
    assert drawn != random_captions(image_ids, TRAIN, seed=1)


def test_neighbours_are_the_nearest_by_the_cosine_of_means():
    generator = np.random.default_rng(0)
    features = {f"t{n}": generator.normal(size=(4, 6)) for n in range(150)}
    features["d0"] = 10 * np.roll(features["t7"], 1, axis=0)  # the same regions, elsewhere, longer
    features["d1"] = generator.normal(size=(4, 6))
    train = list(features)[:150]
    found = nearest_pictures(Cache(features), ["d0", "d1"], train, 5)
    assert found["d0"][0] == "t7"

    def cosine(a, b):
        a, b = (features[name].astype("float16").mean(axis=0) for name in (a, b))
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for name, nearest in found.items():
        assert nearest == sorted(train, key=lambda t: -cosine(name, t))[:5]
    for neighbours in (0, 151):
        with pytest.raises(ValueError, match="from 1 to .*, 150. Received: neighbours="):
            nearest_pictures(Cache(features), ["d0"], train, neighbours)


def test_nearest_captions_are_of_the_first_neighbour():
    neighbours = {f"d{n}": ["t2", "t0"] for n in range(60)}
    found = nearest_captions(neighbours, TRAIN)
    assert set(found.values()) == set(TRAIN["t2"])
    assert found == nearest_captions(neighbours, TRAIN)


def similarity(first, second, train=TRAIN):
    """CIDEr's similarity: mean over n of the cosine of TF-IDF weighted n-grams."""

    def vector(caption, n):
        words = caption.split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

        def pictures_with(gram):
            texts = [f" {' '.join(gram)} "]
            return sum(any(texts[0] in f" {c} " for c in captions) for captions in train.values())

        return {g: grams.count(g) * math.log(len(train) / pictures_with(g)) for g in grams}

    total = 0
    for n in range(1, 5):
        a, b = vector(first, n), vector(second, n)
        norms = math.hypot(*a.values()) * math.hypot(*b.values())
        total += sum(a[g] * b.get(g, 0) for g in a) / norms if norms else 0
    return total / 4


def test_similarity_is_ciders():
    captions = [caption for picture in TRAIN.values() for caption in picture]
    vectors = _CaptionVectors(TRAIN)
    found = vectors.similarity([v for picture in TRAIN for v in vectors._vectors[picture]])
    for i, j in itertools.combinations(range(len(captions)), 2):
        assert found[i, j] == pytest.approx(similarity(captions[i], captions[j]), abs=1e-6)


def test_consensus_is_the_best_of_all_choices():
    generator = np.random.default_rng(0)
    words = list("abcdefgh")
    train = {
        f"t{n}": [" ".join(generator.choice(words, generator.integers(3, 7))) for _ in range(3)]
        for n in range(6)
    }
    neighbours = {f"d{n}": list(generator.permutation(list(train))) for n in range(4)}
    settings = list(itertools.product([1, 3, 6], [1, 3, 99]))
    found = consensus_captions(neighbours, train, settings)
    assert list(found) == settings
    for (k, m), (image_id, pictures) in itertools.product(settings, neighbours.items()):
        captions = [caption for picture in pictures[:k] for caption in train[picture]]

        def agreement(number, captions=captions, m=m):
            others = [c for i, c in enumerate(captions) if i != number]
            alike = sorted((similarity(captions[number], c, train) for c in others), reverse=True)
            return sum(alike[:m])

        chosen = captions.index(found[k, m][image_id])
        best = max(agreement(number) for number in range(len(captions)))
        assert agreement(chosen) == pytest.approx(best, abs=1e-6)
    assert len({tuple(captions.values()) for captions in found.values()}) > 5


def test_people_are_compared_with_each_other():
    references = {"a": ["x", "y", "x"], "b": ["one"], "c": ["u", "v"]}
    drawn, others = people_captions(references)
    assert list(drawn) == list(others) == ["a", "c"]
    for image_id, caption in drawn.items():
        assert sorted([caption, *others[image_id]]) == sorted(references[image_id])
    many = {str(i): ["u", "v"] for i in range(20)}
    assert set(people_captions(many)[0].values()) == {"u", "v"}
