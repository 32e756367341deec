"""Boxes of the objects that a caption's words name, in the picture that the CNN sees."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sat_keras.analysis import ground_captions
from sat_keras.captioning.caption import Caption
from sat_keras.cnn.resize import PictureResize
from sat_keras.datasets import boxes, scenes


def caption(text):
    words = text.split()
    return Caption(text, words, np.ones((len(words), 2, 2)) / 4, np.ones(len(words)), 0.0)


@pytest.fixture
def table(tmp_path):
    """Pictures of 64 x 32 pixels."""
    rows = []
    for image_id in ("1", "2"):
        Image.new("RGB", (64, 32)).save(tmp_path / f"{image_id}.png")
        rows += [{"image_id": image_id, "image": str(tmp_path / f"{image_id}.png")}] * 2
    return pd.DataFrame(rows)


def named(image_id, name, *box, **size):
    sides = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    return {"image_id": image_id, "name": name, **sides, **size}


def test_boxes_go_the_way_of_the_picture(table):
    # The boxes are of a picture twice as large: 128 x 64.
    size = {"width": 128, "height": 64}
    objects = pd.DataFrame(
        [
            named("1", "dog", 36, 4, 56, 64, **size),
            named("1", "dog", 0, 0, 30, 64, **size),
            named("1", "cat", 0, 0, 30, 64, **size),
        ]
    )
    captions = {"2": caption("a dog"), "1": caption("two dogs and a cat"), "3": caption("")}

    def ground(resize):
        return ground_captions(captions, table, objects, boxes.words_to_boxes, resize)

    nothing, found, empty = ground(PictureResize(28, "crop"))
    assert nothing == [None, None]
    assert empty == []
    # Resized to 64 x 32, columns 18 to 46 and rows 2 to 30 are seen; the other two are outside.
    assert [box is not None for box in found] == [False, True, False, False, False]
    np.testing.assert_array_equal(found[1], [[0, 0, 10, 28]])
    squashed = ground(PictureResize(32, "squash"))[1]
    np.testing.assert_array_equal(squashed[1], [[9, 2, 14, 32], [0, 0, 7.5, 32]])
    np.testing.assert_array_equal(squashed[4], [[0, 0, 7.5, 32]])


def test_drawn_scenes(table):
    objects = pd.DataFrame([named("1", "red circle", 16, 8, 48, 24)])
    objects = objects.assign(colour="red", shape="circle", size="small", background="plain")
    captions = {"1": caption("the only circle")}
    resize = PictureResize(64, "squash")
    (found,) = ground_captions(captions, table, objects, scenes.words_to_boxes, resize)
    assert found[:2] == [None, None]
    np.testing.assert_array_equal(found[2], [[16, 16, 48, 48]])
