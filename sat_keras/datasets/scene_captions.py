"""Captions of the drawn scenes: their words, how they are written, and when they are true.

`relation_between` decides which relation holds between two objects, both where captions are written
and where they are scored.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
BACKGROUNDS = ("plain", "striped", "checkered", "dotted")
COUNTS = ("one", "two", "three")

Objects: TypeAlias = pd.DataFrame | Sequence[Mapping]  # rows of the objects table, in either form
CAPTIONS_PER_PICTURE = 5
# A relation holds only if the objects' distance along its axis is at least this many times their
# distance along the other: "left of" lies within 30 degrees of the horizontal.
CLEAR_RATIO = 1.7

_RELATION_OF_WORD = {relation.split()[0]: relation for relation in RELATIONS}
_ATTRIBUTE_OF_WORD = {
    **dict.fromkeys(COLOURS, "colour"),
    **dict.fromkeys(SHAPES, "shape"),
    **dict.fromkeys(SIZES, "size"),
}
CONTENT_WORDS = frozenset([*_ATTRIBUTE_OF_WORD, *_RELATION_OF_WORD, *BACKGROUNDS, *COUNTS])

# Fields: `a` is "a red circle", `A` "a small red circle", `name_a` "red circle", and so for b and
# c; `r` is "left of" or "to the left of".
_SINGLE_TEMPLATES = (
    "{A} on a {background} background",
    "there is one {name_a}",
    "the {name_a} is {size_a}",
    "a picture of {A}",
    "a {background} background with {a}",
    "a {shape_a} that is {size_a} and {colour_a}",
)
_PAIR_TEMPLATES = (
    "{A} is {r} {B}",
    "there is {a} {r} {b}",
    "{r} {b} is {A}",
    "the {name_a} sits {r} the {full_b}",
    "{count} shapes with {A} {r} {b}",
    "{a} {r} {B} on a {background} background",
)
_CHAIN_TEMPLATE = "{A} is {r} {b} and {r2} {c}"

_ARTICLES = frozenset(("a", "an", "the"))
_LINKS_OF_RELATION = frozenset(("is", "to", "the"))


def relation_between(a: Mapping, b: Mapping) -> str | None:
    """Returns the relation of object `a` to object `b`, if it is clear.

    Args:
        a: Mapping with the box `x0, y0, x1, y1` in pixels (x right, y down).
        b: Mapping with the box of the other object.

    Returns:
        The relation r of `RELATIONS` for which "a is r b" is true, or `None` if the boxes overlap
        along the dominant axis or the direction is too oblique.

    Example:
    >>> left, right = dict(x0=2, y0=9, x1=12, y1=19), dict(x0=30, y0=8, x1=50, y1=28)
    >>> relation_between(left, right), relation_between(right, left)
    ('left of', 'right of')
    """
    dx = (b["x0"] + b["x1"] - a["x0"] - a["x1"]) / 2
    dy = (b["y0"] + b["y1"] - a["y0"] - a["y1"]) / 2
    if abs(dx) >= CLEAR_RATIO * abs(dy):
        if a["x1"] <= b["x0"]:
            return "left of"
        if b["x1"] <= a["x0"]:
            return "right of"
    if abs(dy) >= CLEAR_RATIO * abs(dx):
        if a["y1"] <= b["y0"]:
            return "above"
        if b["y1"] <= a["y0"]:
            return "below"
    return None


def write_captions(
    objects: Sequence[Mapping], background: str, rng: np.random.Generator
) -> list[str]:
    """Writes five differently worded, true captions of a scene.

    A caption of one object names its attributes or the background. A caption of two or three names
    at least two objects and a clear relation between them.

    Args:
        objects: Mappings with `colour, shape, size` and the box `x0, y0, x1, y1`.
        background: One of `BACKGROUNDS`.
        rng: `numpy.random.Generator` that chooses templates, objects and their order.

    Returns:
        List of five sentences, each from another template.
    """
    chosen: list[tuple[str, tuple[int, ...]]]
    if len(objects) == 1:
        templates = rng.choice(_SINGLE_TEMPLATES, CAPTIONS_PER_PICTURE, replace=False)
        chosen = [(template, (0,)) for template in templates]
    else:
        chosen = _choose_relations(objects, rng)
    return [_fill(template, objects, order, background, rng) for template, order in chosen]


def _choose_relations(
    objects: Sequence[Mapping], rng: np.random.Generator
) -> list[tuple[str, tuple[int, ...]]]:
    """Returns five templates with their objects: (subject, reference[, second reference])."""
    pairs = [
        pair
        for pair in itertools.permutations(range(len(objects)), 2)
        if relation_between(objects[pair[0]], objects[pair[1]])
    ]
    chains = [(a, b, c) for (a, b), (other, c) in itertools.permutations(pairs, 2) if a == other]
    chosen: list[tuple[str, tuple[int, ...]]] = []
    if chains:
        chosen.append((_CHAIN_TEMPLATE, chains[rng.integers(len(chains))]))
    templates = rng.choice(_PAIR_TEMPLATES, CAPTIONS_PER_PICTURE - len(chosen), replace=False)
    chosen += [(template, pairs[rng.integers(len(pairs))]) for template in templates]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _fill(
    template: str,
    objects: Sequence[Mapping],
    order: Sequence[int],
    background: str,
    rng: np.random.Generator,
) -> str:
    """Fills a template's fields with the objects in this order and punctuates the sentence."""
    fields: dict[str, Any] = {"background": background, "count": COUNTS[len(objects) - 1]}
    for letter, index in zip("abc", order, strict=False):
        thing = objects[index]
        name = f"{thing['colour']} {thing['shape']}"
        full = f"{thing['size']} {name}"
        fields |= {letter: _with_article(name), letter.upper(): _with_article(full)}
        fields |= {f"name_{letter}": name, f"full_{letter}": full}
        fields |= {f"{part}_{letter}": thing[part] for part in ("colour", "shape", "size")}
    for field, reference in zip(("r", "r2"), order[1:], strict=False):
        relation = relation_between(objects[order[0]], objects[reference])
        if str(relation).endswith(" of") and rng.random() < 0.5:
            relation = f"to the {relation}"
        fields[field] = relation
    sentence = template.format(**fields)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def caption_accuracy(caption: str, objects: Objects) -> tuple[int, int]:
    """Counts a caption's content words and those that are true of a scene.

    Every noun phrase of the caption ("a small red circle") is assigned to a different object of the
    scene, so that the most words are true. A word is correct if it is true under that assignment:
    an attribute word of its object, a relation word of its two objects, a background or number word
    of the scene. Words of a noun phrase without an object are wrong, as is a relation without two
    objects.

    Args:
        caption: Sentence. Case and punctuation do not matter.
        objects: The scene's rows of the objects table (a DataFrame or a list of mappings).

    Returns:
        Tuple of integers `(num_correct, num_content_words)`.

    Example:
    >>> circle = dict(colour="red", shape="circle", size="small", background="plain")
    >>> circle |= dict(x0=0, y0=0, x1=9, y1=9)
    >>> caption_accuracy("a large red circle on a plain background", [circle])
    (3, 4)
    """
    words = re.findall(r"[a-z]+", caption.lower())
    correct, _ = _best_readings(_parse(words), _records(objects))
    return len(correct), sum(word in CONTENT_WORDS for word in words)


def words_to_boxes(words: Sequence[str], objects: Objects) -> list[tuple | None]:
    """Finds the box of the object that each word of a caption names.

    Args:
        words: Words of a caption.
        objects: The scene's rows of the objects table (a DataFrame or a list of mappings).

    Returns:
        List as long as `words`: `(x0, y0, x1, y1)` in pixels if the word is a shape's name and its
        noun phrase, by those of its attributes and relations that are true, matches exactly one
        object of that shape; else `None`.

    Example:
    >>> circle = dict(colour="red", shape="circle", size="small", x0=0, y0=0, x1=9, y1=9)
    >>> words_to_boxes("the red circle".split(), [circle])
    [None, None, (0, 0, 9, 9)]
    """
    words = [re.sub(r"[^a-z]", "", word.lower()) for word in words]
    objects = _records(objects)
    parsed = _parse(words)
    mentions = parsed[0]
    _, readings = _best_readings(parsed, objects)
    # "A blue star", where there are a blue circle and a red star, names the star.
    num_named = [_num_nouns_right(mentions, meaning, objects) for meaning in readings]
    readings = [r for r, num in zip(readings, num_named, strict=True) if num == max(num_named)]
    boxes: list[tuple | None] = [None] * len(words)
    for mention, meanings in zip(mentions, zip(*readings, strict=True), strict=True):
        if len(set(meanings)) > 1 or meanings[0] is None:
            continue
        meant = objects[meanings[0]]
        for position, word in mention.items():
            if word == meant["shape"]:
                boxes[position] = tuple(meant[side] for side in ("x0", "y0", "x1", "y1"))
    return boxes


def _num_nouns_right(mentions: list[dict], meaning: tuple, objects: Sequence[Mapping]) -> int:
    return sum(
        index is not None and objects[index]["shape"] in mention.values()
        for mention, index in zip(mentions, meaning, strict=True)
    )


def _records(objects: Objects) -> list[Mapping]:
    if isinstance(objects, pd.DataFrame):
        return list(objects.to_dict("records"))
    return list(objects)


def _parse(words: Sequence[str]) -> tuple[list[dict], list[tuple], dict[int, str]]:
    """Parses noun phrases, relations and words about the whole scene.

    Returns:
        mentions: List of {position: attribute word}, one a noun phrase.
        relations: List of (position, relation, subject mention, reference mention). An index may
            lie outside of `mentions` if the caption leaves an object out.
        scene_words: {position: background or number word}.
    """
    mentions: list[dict] = []
    heads: list[tuple[int, int]] = []
    scene_words: dict[int, str] = {}
    pending: dict[int, str] = {}  # attributes before their noun
    copula = False  # "is" since the last noun
    for position, word in enumerate([*words, "the"]):  # the last article closes the last phrase
        if word in SHAPES:
            mentions.append({**pending, position: word})
            pending, copula = {}, False
        elif word in _ATTRIBUTE_OF_WORD:
            pending[position] = word
        elif word == "is":
            copula = True
        elif word in _ARTICLES or word in CONTENT_WORDS:
            _close_phrase(mentions, pending, copula)
            pending, copula = {}, False
            if word in _RELATION_OF_WORD:
                heads.append((position, len(mentions)))
            elif word in CONTENT_WORDS:
                scene_words[position] = word
    return mentions, _resolve_relations(words, heads), scene_words


def _close_phrase(mentions: list[dict], attributes: dict[int, str], copula: bool) -> None:
    """Adds attributes without a noun to the last mention: "the circle is small"."""
    if attributes and copula and mentions:
        mentions[-1].update(attributes)
    elif attributes:
        mentions.append(attributes)


def _resolve_relations(words: Sequence[str], heads: list[tuple[int, int]]) -> list[tuple]:
    """Finds subject and reference of each relation word by the number of mentions before it."""
    relations: list[tuple] = []
    for position, num_before in heads:
        before = position - 1
        while before >= 0 and words[before] in _LINKS_OF_RELATION:
            before -= 1
        if num_before == 0:  # "left of a square is a circle"
            subject, reference = 1, 0
        elif relations and words[before] == "and":  # "a circle is left of ... and above ..."
            subject, reference = relations[-1][2], num_before
        else:
            subject, reference = num_before - 1, num_before
        relations.append((position, _RELATION_OF_WORD[words[position]], subject, reference))
    return relations


def _best_readings(parsed: tuple, objects: Sequence[Mapping]) -> tuple[set[int], list[tuple]]:
    """Returns the positions of the true words under the best assignments, and these assignments.

    An assignment maps each mention to the index of a different object, or to `None` if the caption
    mentions more objects than there are.
    """
    mentions, relations, scene_words = parsed
    true_of_scene = {COUNTS[len(objects) - 1], objects[0].get("background")}
    true_words = {position for position, word in scene_words.items() if word in true_of_scene}
    best: set[int] = set()
    readings: list[tuple] = []
    for meaning in _assignments(len(mentions), len(objects)):
        correct = set()
        for mention, index in zip(mentions, meaning, strict=True):
            if index is not None:
                correct |= {
                    position
                    for position, word in mention.items()
                    if objects[index][_ATTRIBUTE_OF_WORD[word]] == word
                }
        for position, relation, *pair in relations:
            pair = [meaning[m] if m < len(meaning) else None for m in pair]
            if None not in pair and relation_between(*(objects[i] for i in pair)) == relation:
                correct.add(position)
        if len(correct) > len(best) or not readings:
            best, readings = correct, []
        if len(correct) == len(best):
            readings.append(meaning)
    return best | true_words, readings


def _assignments(num_mentions: int, num_objects: int) -> Iterator[tuple]:
    """Yields every way to assign as many mentions as possible to different objects."""
    if num_mentions <= num_objects:
        yield from itertools.permutations(range(num_objects), num_mentions)
        return
    for places in itertools.permutations(range(num_mentions), num_objects):
        meaning = np.full(num_mentions, None)
        meaning[list(places)] = range(num_objects)
        yield tuple(meaning)
