"""The photo of the course with its caption, so that notebooks can show its maps without a CNN.

`camera.json` is written by `docs/figures.py`; its weights are multiples of 1e-5.
"""

import json
from importlib.resources import files

import numpy as np

from sat_keras.captioning.caption import Caption

# Drawn by hand, in pixels of the photo's 512 x 512. The "shirt" is the dark coat. CC0.
_BOXES = {"man": (0, 62, 330, 512), "shirt": (0, 104, 310, 384), "camera": (254, 136, 330, 206)}


def camera_boxes() -> dict[str, tuple[int, int, int, int]]:
    """Returns the boxes of what the words of `camera_caption` name.

    Returns:
        Dictionary from word to `(x0, y0, x1, y1)` in pixels of `skimage.data.camera()`.
    """
    return dict(_BOXES)


def camera_caption() -> Caption:
    """Returns the caption that `flickr8k-soft-vgg16` gives `skimage.data.camera()`.

    Returns:
        A `Caption` without its image; maps of 14 x 14 regions.

    Reference:
        Notebook `07_flickr8k`, which computes it anew.
    """
    content = files("sat_keras.course").joinpath("camera.json").read_text(encoding="utf-8")
    stored = json.loads(content)
    words = stored["text"].split()
    attention = np.array(stored["attention"], "float32").reshape(len(words), *stored["grid_shape"])
    attention /= attention.sum(axis=(1, 2), keepdims=True)
    gate = np.array(stored["gate"], "float32")
    return Caption(stored["text"], words, attention, gate, stored["log_probability"])
