"""Sentences from detected words and a pattern, as Kulkarni et al. and Yang et al. write them."""

import collections
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

PREPOSITIONS = {
    *("in", "on", "at", "through", "near", "by", "over", "under", "beside", "behind", "above"),
    *("below", "across", "into", "along", "inside", "outside", "against", "down", "up"),
}
DETERMINERS = {"a", "an", "the", "one", "two", "three", "some", "his", "her", "their", "its"}
ADJECTIVES = {
    *("black", "white", "brown", "red", "blue", "yellow", "green", "orange", "purple", "pink"),
    *("grey", "gray", "tan", "golden", "blond", "blonde", "dark", "bright", "colorful", "small"),
    *("little", "big", "large", "tall", "young", "old", "older", "wet", "wooden", "muddy"),
}
NO_NOUNS = {
    *("and", "of", "is", "are", "with", "to", "there", "that", "while", "as", "other", "another"),
    *("it", "he", "she", "they", "who", "from", "for", "left", "right", "picture"),
}
NO_VERBS = {"building", "clothing", "ring", "king", "string", "morning", "evening", "something"}


class Templates:
    """Fills the pattern "a {adjective} {noun} and a {noun} is {verb} {preposition} the {place}".

    Words of each class are those of the train captions: adjectives of a fixed list, verbs that end
    in -ing, nouns that follow a determiner or an adjective, and places, nouns of which more than
    half follow a preposition. With `p_w` the probability of a detected word, a sentence scores

        sum_w log(p_w / threshold) + prior_weight * sum_{(w, v)} PMI(w, v)

    over its words and over the pairs (adjective, noun), (noun, noun), (noun, verb) and (verb or
    noun, place). `PMI(w, v) = log(N (c_wv + 1/2) / ((c_w + 1/2) (c_v + 1/2)))` counts the captions
    that hold the words. Everything but the first noun may be left out and then scores 0. The best
    sentence is found by exhaustive search over the likeliest words of each class.

    This stands for a family of systems: Kulkarni et al. label objects, attributes and prepositions
    by a conditional random field, Yang et al. noun, verb, scene and preposition by a hidden Markov
    model, both on detectors of 20 to 30 objects.

    Args:
        captions: Train captions, each a sequence of lower-case words.
        threshold: Float in (0, 1), probability from which a word is used.
        prior_weight: Float, weight of the pairs.
        most: Integer, words of a class that are tried.

    Example:

    >>> templates = Templates([["a", "brown", "dog", "is", "running", "on", "the", "beach"]])
    >>> templates.caption({"dog": 0.9, "brown": 0.8, "running": 0.7})
    'a brown dog is running'

    Reference:
        Kulkarni et al. 2011, "Baby talk"; Yang et al. 2011, "Corpus-guided sentence generation of
        natural images". Both as remembered, not confirmed.
    """

    def __init__(
        self,
        captions: Iterable[Sequence[str]],
        threshold: float = 0.5,
        prior_weight: float = 0.3,
        most: int = 8,
    ) -> None:
        self.threshold = threshold
        self.prior_weight = prior_weight
        self.most = most
        self.number = 0
        self.counts: collections.Counter = collections.Counter()
        self.pairs: collections.Counter = collections.Counter()
        nouns: collections.Counter = collections.Counter()
        places: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        for words in captions:
            self.number += 1
            self.counts.update(set(words))
            self.pairs.update(itertools.combinations(sorted(set(words)), 2))
            for noun, preposition in _noun_phrases(words):
                nouns[noun] += 1
                if preposition:
                    places[noun][preposition] += 1
        self.places = {
            noun: found.most_common(1)[0][0]
            for noun, found in places.items()
            if found.total() > nouns[noun] / 2
        }
        self.nouns = set(nouns) - set(self.places)
        self.verbs = {word for word in self.counts if _is_verb(word)}

    def pmi(self, first: str, second: str) -> float:
        """Returns the pointwise mutual information of two words in a caption, in nats."""
        both = self.pairs[min(first, second), max(first, second)]
        alone = (self.counts[first] + 0.5) * (self.counts[second] + 0.5)
        return math.log(self.number * (both + 0.5) / alone)

    def caption(self, probabilities: Mapping[str, float]) -> str:
        """Returns the best sentence about a picture.

        Args:
            probabilities: Probability of each word that can be detected.

        Returns:
            A sentence in lower case without a full stop.
        """
        score = {word: math.log(max(p, 1e-9) / self.threshold) for word, p in probabilities.items()}

        def likeliest(words: Iterable[str]) -> list[str]:
            known = sorted(word for word in words if word in score)
            return sorted(known, key=lambda word: -score[word])[: self.most]

        def best(words: list[str], *partners: str) -> tuple[float, str]:
            """Returns the best word beside its partners, or 0 and nothing."""
            found = [
                (score[w] + self.prior_weight * sum(self.pmi(w, x) for x in partners), w)
                for w in words
                if w not in partners
            ]
            return max([(0.0, ""), *found])

        nouns, verbs = likeliest(self.nouns), likeliest(self.verbs)
        adjectives, places = likeliest(ADJECTIVES), likeliest(self.places)
        sentences = []
        for noun in nouns:
            adjective, other = best(adjectives, noun), best(nouns, noun)
            ends = []
            for verb in ["", *verbs]:
                of_verb = score[verb] + self.prior_weight * self.pmi(noun, verb) if verb else 0.0
                place = best(places, verb or noun)
                ends.append((of_verb + place[0], verb, place[1]))
            end = max(ends)
            total = score[noun] + adjective[0] + other[0] + end[0]
            sentences.append((total, adjective[1], noun, other[1], *end[1:]))
        return self._sentence(*max(sentences)[1:]) if sentences else ""

    def _sentence(self, adjective: str, noun: str, other: str, verb: str, place: str) -> str:
        """Fills the pattern."""
        words = _with_article([adjective, noun] if adjective else [noun])
        if other:
            words += ["and", *_with_article([other])]
        if verb:
            words += ["are" if other else "is", verb]
        if place:
            words += [self.places[place], "the", place]
        return " ".join(words)


def _with_article(words: list[str]) -> list[str]:
    return ["an" if words[0][0] in "aeiou" else "a", *words]


def _is_verb(word: str) -> bool:
    return word.endswith("ing") and len(word) > 4 and word not in NO_VERBS


def _noun_phrases(words: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Yields each noun, and the preposition before its determiner and adjectives or ""."""
    for i, word in enumerate(words):
        others = PREPOSITIONS | DETERMINERS | ADJECTIVES | NO_NOUNS
        if word in others or _is_verb(word):
            continue
        start = i
        while start and words[start - 1] in DETERMINERS | ADJECTIVES:
            start -= 1
        before = words[start - 1] if start else ""
        if start < i or before in PREPOSITIONS:
            yield word, before if before in PREPOSITIONS else ""
