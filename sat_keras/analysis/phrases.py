"""Attention on the phrases of Flickr30k Entities: the protocol of Liu et al.

A phrase such as "a pink dress" has boxes. Attention is right about it if, at one of its words, it
lies in the union of these boxes. The words are those of a reference caption, which the captioner is
forced to say, or those that it generates.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sat_keras.analysis.pointing import BOX_SIZES, box_sizes, mass_in_boxes
from sat_keras.cnn.resize import PictureResize
from sat_keras.data.tokenizer import normalize
from sat_keras.datasets.phrases import Phrase, Sentence


class NormalizedSentence(NamedTuple):
    """A sentence in the tokenizer's words.

    Attributes:
        image_id: Image id.
        words: List of words.
        phrases: List of `Phrase` whose `start` and `end` count these words.
        size: Tuple `(width, height)` of the picture that the boxes are in.
    """

    image_id: str
    words: list[str]
    phrases: list[Phrase]
    size: tuple[int, int]


def normalize_sentences(sentences: Sequence[Sentence]) -> list[NormalizedSentence]:
    """Divides the sentences of Entities into the tokenizer's words.

    Args:
        sentences: The result of `load_phrases`.

    Returns:
        List of `NormalizedSentence`. A phrase without any word left is dropped.
    """
    pieces: list[tuple[int, str, Phrase | None]] = []
    for number, sentence in enumerate(sentences):
        words, end = sentence.text.split(), 0
        for phrase in sentence.phrases:
            pieces.append((number, " ".join(words[end : phrase.start]), None))
            pieces.append((number, phrase.text, phrase))
            end = phrase.end
        pieces.append((number, " ".join(words[end:]), None))
    texts = normalize([text for _, text, _ in pieces])
    result = [NormalizedSentence(s.image_id, [], [], s.size) for s in sentences]
    for (number, _, piece), text in zip(pieces, texts, strict=True):
        words, phrases = result[number].words, result[number].phrases
        start = len(words)
        words += text.split()
        if piece is not None and len(words) > start:
            phrases.append(piece._replace(start=start, end=len(words)))
    return result


def reference_phrases(
    references: Sequence[tuple[str, Sequence[str]]], sentences: Sequence[NormalizedSentence]
) -> list[list[Phrase]]:
    """Finds the phrases of reference captions that are sentences of Entities word for word.

    Args:
        references: Pairs of an image id and a caption's words.
        sentences: The pictures' sentences.

    Returns:
        For each caption its phrases; none for a caption that is no sentence of Entities.
    """
    known = {(s.image_id, tuple(s.words)): s.phrases for s in sentences}
    return [known.get((image_id, tuple(words)), []) for image_id, words in references]


def generated_phrases(
    captions: Sequence[tuple[str, Sequence[str]]], sentences: Sequence[NormalizedSentence]
) -> list[list[Phrase]]:
    """Finds the phrases of a picture's sentences in generated captions, by their exact words.

    Longer phrases count before shorter ones, and a word belongs to one phrase at most. A phrase
    of several entities has the boxes of all of them.

    Args:
        captions: Pairs of an image id and a caption's words.
        sentences: The pictures' sentences.

    Returns:
        For each caption its phrases.
    """
    known: dict[str, dict[tuple[str, ...], Phrase]] = {}
    for sentence in sentences:
        of_picture = known.setdefault(sentence.image_id, {})
        for phrase in sentence.phrases:
            key = tuple(sentence.words[phrase.start : phrase.end])
            boxes = of_picture[key].boxes if key in of_picture else []
            union = list(dict.fromkeys([*boxes, *phrase.boxes]))
            of_picture[key] = phrase._replace(boxes=union)
    return [_matches(list(words), known.get(image_id, {})) for image_id, words in captions]


def _matches(words: list[str], known: Mapping[tuple[str, ...], Phrase]) -> list[Phrase]:
    """Returns the known phrases in a caption, in the order of its words."""
    free = [True] * len(words)
    found: list[Phrase] = []
    for key, phrase in sorted(known.items(), key=lambda item: (-len(item[0]), item[0])):
        for start in range(len(words) - len(key) + 1):
            end = start + len(key)
            if tuple(words[start:end]) == key and all(free[start:end]):
                free[start:end] = [False] * len(key)
                found.append(phrase._replace(start=start, end=end))
    return sorted(found, key=lambda phrase: phrase.start)


def resize_phrases(
    phrases: Sequence[Phrase],
    size: tuple[int, int],
    file_size: tuple[int, int],
    resize: PictureResize,
) -> list[Phrase]:
    """Maps the boxes of phrases to the picture that the CNN sees.

    Args:
        phrases: Phrases with boxes in pixels of the original picture.
        size: Tuple `(width, height)` of the original picture.
        file_size: Tuple `(height, width)` of the picture's file, which shows the whole of it at
            any size.
        resize: `PictureResize` of the encoder.

    Returns:
        List of the phrases that have a visible box.
    """
    height, width = file_size
    scale = np.tile((width / size[0], height / size[1]), 2)
    result: list[Phrase] = []
    for phrase in phrases:
        boxes = np.reshape(phrase.boxes, (-1, 4)) * scale
        boxes = resize.resize_boxes(boxes, height, width)
        boxes = boxes[(boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])]
        if len(boxes):
            result.append(phrase._replace(boxes=[tuple(box) for box in boxes.tolist()]))
    return result


def phrase_statistics(
    attention_maps: Sequence[npt.ArrayLike],
    phrases: Sequence[Sequence[Phrase]],
    image_size: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Computes the attention correctness of phrases, as sums for each caption.

    `correctness(phrase) = max over its words of the attention mass in the union of its boxes`.
    Values of exactly 0 or 1 are left out, as in the published protocol. Beside it stand its values
    for attention that ignores the words: uniform (the union's share of the picture), at the centre
    (`centre_map`), and the mean of all captions' maps, which always looks at the same place.

    Args:
        attention_maps: For each caption the maps of its words, `(words, rows, columns)`.
        phrases: For each caption its phrases, with boxes in pixels of the resized picture.
        image_size: Tuple `(height, width)` in pixels of that picture.

    Returns:
        Dictionary from a name to an array `(captions, 2)`, the sum over the caption's phrases and
        their number, for `attention_scores`: `phrase_mass`, `phrase_mass_uniform`, `..._centre` and
        `..._mean_map`, then these for every type of entity (`phrase_mass:people`,
        `phrase_mass_uniform:people`) and for every size of the phrase's boxes
        (`phrase_mass:small`, see `box_sizes`).

    Reference:
        [Liu et al., 2017](https://arxiv.org/abs/1605.09553), "Attention Correctness in Neural Image
        Captioning", with exact areas of cells in place of bicubic enlargement.
    """
    maps = [np.asarray(x, dtype="float64") for x in attention_maps]
    mean_map = np.mean([x.mean(axis=0) for x in maps if len(x)], axis=0)
    rows = [
        _correctness(found, named, mean_map, image_size)
        for found, named in zip(maps, phrases, strict=True)
    ]
    sizes = list(BOX_SIZES)
    names = sorted(  # the sizes last, from small to large
        dict.fromkeys(name for row in rows for name in row),
        key=lambda name: sizes.index(suffix) if (suffix := name.partition(":")[2]) in sizes else -1,
    )
    return {
        name: np.array([(sum(row.get(name, ())), len(row.get(name, ()))) for row in rows], float)
        for name in names
    }


def _correctness(
    maps: np.ndarray, phrases: Sequence[Phrase], mean_map: np.ndarray, image_size: tuple[int, int]
) -> dict[str, list[float]]:
    """Returns the correctness of a caption's phrases by name."""
    row: dict[str, list[float]] = {}
    for phrase in phrases:
        of_words = np.concatenate([maps[phrase.start : phrase.end], mean_map[None]])
        mass, uniform, centre = mass_in_boxes(of_words, [phrase.boxes] * len(of_words), image_size)
        value = mass[:-1].max()
        if not 0 < value < 1 or uniform[0] >= 1:
            continue
        values = {
            "phrase_mass": value,
            "phrase_mass_uniform": uniform[0],
            "phrase_mass_centre": centre[0],
            "phrase_mass_mean_map": mass[-1],
        }
        for suffix in ("", f":{phrase.type}", f":{box_sizes(uniform[0])}"):
            for name, number in values.items():
                row.setdefault(name + suffix, []).append(float(number))
    return row
