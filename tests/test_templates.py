"""Templates against exhaustive search over all sentences of the pattern."""

import itertools
import math

import pytest

from sat_keras.baselines import Templates

CAPTIONS = [
    caption.split()
    for caption in (
        "a brown dog is running on the beach",
        "a black dog is running through the water",
        "the black cat is sitting on the beach",
        "a dog and a cat are playing",
        "a brown cat",
        "an old dog near the water",
    )
]
PROBABILITIES = {
    **{"dog": 0.9, "cat": 0.6, "brown": 0.7, "black": 0.65, "old": 0.1, "running": 0.5},
    **{"sitting": 0.6, "playing": 0.2, "beach": 0.55, "water": 0.3},
}


def pmi(first, second):
    both = sum(first in words and second in words for words in CAPTIONS)
    alone = math.prod(sum(w in words for words in CAPTIONS) + 0.5 for w in (first, second))
    return math.log(len(CAPTIONS) * (both + 0.5) / alone)


def all_sentences():
    """Yields score and words of every sentence of the pattern."""
    for noun, other, adjective, verb, place in itertools.product(
        ("dog", "cat"),
        ("", "dog", "cat"),
        ("", "brown", "black", "old"),
        ("", "running", "sitting", "playing"),
        ("", "beach", "water"),
    ):
        if noun == other:
            continue
        words = [w for w in (noun, other, adjective, verb, place) if w]
        pairs = [(other, noun), (adjective, noun), (verb, noun), (place, verb or noun)]
        score = sum(math.log(PROBABILITIES[w] / 0.5) for w in words)
        yield score + 0.3 * sum(pmi(a, b) for a, b in pairs if a), words


def test_classes_come_from_the_captions():
    templates = Templates(CAPTIONS)
    assert templates.nouns == {"dog", "cat"}
    assert templates.places == {"beach": "on", "water": "through"}
    assert templates.verbs == {"running", "sitting", "playing"}
    assert templates.pmi("dog", "brown") == pytest.approx(pmi("dog", "brown"))


def test_the_sentence_is_the_best_of_all():
    found = Templates(CAPTIONS).caption(PROBABILITIES).split()
    _, expected = max(all_sentences())
    assert {w for w in found if w in PROBABILITIES} == set(expected)
    assert found[0] in ("a", "an")
    assert "on the beach" in " ".join(found) or "beach" not in expected


@pytest.mark.parametrize(
    ("probabilities", "sentence"),
    [
        ({"dog": 0.9}, "a dog"),
        ({"dog": 0.9, "old": 0.9}, "an old dog"),
        ({"dog": 0.9, "cat": 0.9, "playing": 0.9}, "a cat and a dog are playing"),
        ({"brown": 0.9}, ""),
        ({}, ""),
    ],
)
def test_words_that_are_not_seen_are_left_out(probabilities, sentence):
    assert Templates(CAPTIONS).caption(probabilities) == sentence
