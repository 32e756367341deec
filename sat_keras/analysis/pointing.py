"""Which objects a caption's words name, and where the CNN saw them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sat_keras.cnn.resize import PictureResize
from sat_keras.data.images import load_image
from sat_keras.datasets import boxes, scenes
from sat_keras.paper.captioner import Caption


def ground_captions(
    captions: Mapping[str, Caption],
    table: pd.DataFrame,
    objects: pd.DataFrame,
    resize: PictureResize,
) -> list[list]:
    """Find the boxes of the objects that each word of each caption names.

    Args:
        captions: A `Caption` by image id.
        table: The captions table of these pictures, for their files.
        objects: The table of drawn scenes' objects (`load_objects`), or of boxes (`load_boxes`).
        resize: What resizes the pictures for the CNN: the boxes go the same way. A file that is a
            copy in another size than the boxes' picture is taken to show the whole of it.

    Returns:
        For each caption a list as long as its words: an array `(objects, 4)` of boxes in pixels of
        the resized picture, or None for a word that names nothing, or nothing that the CNN sees.
    """
    paths = dict(zip(table["image_id"], table["image"], strict=True))
    by_picture = dict(list(objects.groupby("image_id")))
    name_boxes = scenes.words_to_boxes if "shape" in objects else boxes.words_to_boxes
    found = []
    for image_id, caption in captions.items():
        rows = by_picture.get(image_id)
        named = [None] * len(caption.words)
        if rows is not None:
            named = name_boxes(caption.words, rows)
        if any(box is not None for box in named):
            height, width = load_image(paths[image_id]).shape[:2]
            first = rows.iloc[0]
            scale = width / first.get("width", width), height / first.get("height", height)
            named = [_seen(box, scale, resize, height, width) for box in named]
        found.append(named)
    return found


def _seen(named, scale, resize, height, width):
    """A word's boxes where the CNN sees them, or None."""
    if named is None:
        return None
    resized = np.reshape(named, (-1, 4)) * np.tile(scale, 2)
    resized = resize.resize_boxes(resized, height, width)
    resized = resized[(resized[:, 0] < resized[:, 2]) & (resized[:, 1] < resized[:, 3])]
    return resized if len(resized) else None
