"""Phrases of Flickr30k Entities: which words of a sentence name which boxes."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sat_keras.datasets.boxes import MENTION, open_entities, read_annotation

# Type of what is not in the picture.
_NOT_VISUAL = "notvisual"


class Phrase(NamedTuple):
    """A phrase of a sentence and its boxes.

    Attributes:
        start, end: Integers, the words `[start, end)` of the sentence, split at spaces.
        text: The phrase as written.
        type: Type of the entity, such as `"people"`; the first one where there are several.
        boxes: List of boxes `(x0, y0, x1, y1)` in pixels; empty for phrases that no box belongs to.
    """

    start: int
    end: int
    text: str
    type: str
    boxes: list[tuple]


class Sentence(NamedTuple):
    """A sentence of Flickr30k Entities.

    Attributes:
        image_id: Image id, as asked for.
        text: The sentence without marks.
        phrases: List of its `Phrase`.
        size: Tuple `(width, height)` of the picture that the boxes are in.
    """

    image_id: str
    text: str
    phrases: list[Phrase]
    size: tuple[int, int]


def load_phrases(path: str | os.PathLike, image_ids: Collection[str]) -> list[Sentence]:
    """Loads the sentences of Flickr30k Entities with the boxes of their phrases.

    Args:
        path: Folder with `Annotations` and `Sentences`, its zip archive, or a data folder that
            holds either.
        image_ids: Image ids of the pictures. Those of Flickr8k (`1000268201_693b08cb0e`) find the
            picture of the number before the underscore. Pictures that Entities lacks are skipped.

    Returns:
        List of `Sentence`, in the order of `image_ids`, five for most pictures.

    Raises:
        FileNotFoundError: If Entities is not there.
        ValueError: If a file is damaged. The message names it.

    Example:
    >>> load_phrases("data/flickr8k", ["1000268201_693b08cb0e"])[0].phrases[1]
    Phrase(start=3, end=6, text='a pink dress', type='clothing', boxes=[(7, 190, 86, 299)])

    Reference:
        Plummer et al. 2015, "Flickr30k Entities".
    """
    root = open_entities(Path(path))
    sentences: list[Sentence] = []
    for image_id in image_ids:
        number = image_id.split("_")[0]
        annotation = root / "Annotations" / f"{number}.xml"
        text = root / "Sentences" / f"{number}.txt"
        if not (annotation.exists() and text.exists()):
            continue
        boxes, size = read_annotation(annotation)
        for line in text.read_text(encoding="utf-8").splitlines():
            if line.strip():
                sentences.append(_read_sentence(image_id, line, boxes, size))
    return sentences


def _read_sentence(
    image_id: str, line: str, boxes: dict[str, list[tuple]], size: tuple[int, int]
) -> Sentence:
    """Reads a line such as `[/EN#18/people A child] in [/EN#19/clothing a pink dress] .`."""
    words: list[str] = []
    phrases: list[Phrase] = []
    end = 0
    for match in MENTION.finditer(line):
        words += line[end : match.start()].split()
        mention = match["text"].split()
        kind = match["types"].split("/")[1]
        found: Sequence[Any] = () if kind == _NOT_VISUAL else boxes.get(match["chain"], ())
        start = len(words)
        words += mention
        phrases.append(Phrase(start, len(words), " ".join(mention), kind, list(found)))
        end = match.end()
    words += line[end:].split()
    return Sentence(image_id, " ".join(words), phrases, size)
