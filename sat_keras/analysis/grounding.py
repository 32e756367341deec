"""The boxes of the objects that a caption's words name, in the picture that the CNN sees."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from sat_keras.captioning.caption import Caption
from sat_keras.cnn.resize import PictureResize
from sat_keras.data.images import picture_size
from sat_keras.data.tokenizer import normalize

# From a caption's words and a picture's rows of the table of objects, to the boxes of each word:
# None, one box `(x0, y0, x1, y1)` or several.
WordsToBoxes = Callable[[Sequence[str], pd.DataFrame], Sequence]


def ground_captions(
    captions: Mapping[str, Caption],
    table: pd.DataFrame,
    objects: pd.DataFrame,
    words_to_boxes: WordsToBoxes,
    resize: PictureResize,
) -> list[list[np.ndarray | None]]:
    """Finds the boxes of the objects that each word of each caption names.

    Args:
        captions: `Caption` by image id.
        table: Captions table of these pictures, for their files.
        objects: Table of objects by `image_id`: of `load_objects` for drawn scenes, of
            `load_boxes` for Flickr30k Entities and COCO. Where it has columns `width` and
            `height`, the boxes are in pixels of a picture of that size, and the file shows the
            whole of it at any size.
        words_to_boxes: Function that finds the boxes of a caption's words in a picture's rows of
            `objects`: `sat_keras.datasets.scenes.words_to_boxes` for drawn scenes,
            `sat_keras.datasets.boxes.words_to_boxes` for the other tables.
        resize: `PictureResize` of the encoder, which the boxes follow.

    Returns:
        For each caption a list as long as its words: an array `(objects, 4)` of boxes in pixels of
        the resized picture, or None for a word that names no object or none that the CNN sees.
    """
    words = [(image_id, caption.words) for image_id, caption in captions.items()]
    return _ground(words, table, objects, words_to_boxes, resize)


def caption_boxes(
    table: pd.DataFrame,
    objects: pd.DataFrame,
    words_to_boxes: WordsToBoxes,
    resize: PictureResize,
    full_stop: bool = False,
) -> list[list[tuple[float, ...]]]:
    """Finds the boxes of the objects that reference captions name, for supervised attention.

    Args:
        table: Captions table.
        objects, words_to_boxes, resize: As in `ground_captions`.
        full_stop: Boolean, whether the tokenizer has the full stop as a word.

    Returns:
        For each caption a list of `(word, x0, y0, x1, y1)`: the position of a word, and a box in
        shares of the sides of the resized picture; the argument `boxes` of `caption_batches`.

    Example:

    >>> resize = PictureResize(64, "squash")
    >>> caption_boxes(table, load_objects(table), scenes.words_to_boxes, resize)[0]
    [(2, 0.25, 0.5, 0.5, 0.75)]
    """
    texts = normalize(table["caption"].tolist(), full_stop)
    words = [(i, text.split()) for i, text in zip(table["image_id"], texts, strict=True)]
    side = resize.image_size
    return [
        [
            (position, *(float(x) / side for x in box))
            for position, boxes in enumerate(named)
            if boxes is not None
            for box in boxes
        ]
        for named in _ground(words, table, objects, words_to_boxes, resize)
    ]


def _ground(
    captions: Sequence[tuple[str, Sequence[str]]],
    table: pd.DataFrame,
    objects: pd.DataFrame,
    words_to_boxes: WordsToBoxes,
    resize: PictureResize,
) -> list[list[np.ndarray | None]]:
    """Returns the boxes of each word of captions, pairs of an image id and words."""
    paths = dict(zip(table["image_id"], table["image"], strict=True))
    by_picture = dict(list(objects.groupby("image_id")))
    sizes: dict[str, tuple[int, int]] = {}
    found: list[list[np.ndarray | None]] = []
    for image_id, words in captions:
        rows = by_picture.get(image_id)
        named = [None] * len(words) if rows is None else words_to_boxes(words, rows)
        if rows is None or all(boxes is None for boxes in named):
            found.append([None] * len(words))
            continue
        if image_id not in sizes:
            sizes[image_id] = picture_size(paths[image_id])
        height, width = sizes[image_id]
        first = rows.iloc[0]
        scale = width / first.get("width", width), height / first.get("height", height)
        found.append([_resized(boxes, scale, resize, height, width) for boxes in named])
    return found


def _resized(
    boxes: Sequence | None,
    scale: tuple[float, float],
    resize: PictureResize,
    height: int,
    width: int,
) -> np.ndarray | None:
    """Returns a word's boxes in the resized picture, or None if none of them is visible there."""
    if boxes is None:
        return None
    resized = np.reshape(boxes, (-1, 4)) * np.tile(scale, 2)
    resized = resize.resize_boxes(resized, height, width)
    resized = resized[(resized[:, 0] < resized[:, 2]) & (resized[:, 1] < resized[:, 3])]
    return resized if len(resized) else None
