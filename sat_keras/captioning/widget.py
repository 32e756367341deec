"""A caption as one piece of HTML: point at a word and see where the model looked.

The HTML holds its style, script, picture and maps. It needs no server and no library, and works in
JupyterLab, on Colab, in nbconvert's pages and in any other page, also several times on one page.
"""

import base64
import hashlib
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from sat_keras.captioning.maps import (
    as_boxes,
    as_gate,
    as_maps,
    cover_map,
    describe_attention,
    fit_picture,
    place_name,
)

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("sat_keras.captioning", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Pixels of a map for each region along a side. The browser enlarges the map further.
_PIXELS_PER_REGION = 6


def widget_html(
    image: Any,
    words: Sequence[str],
    attention: Any,
    gate: Any = None,
    seen: Sequence[float] | None = None,
    still: str | None = None,
    boxes: Sequence | None = None,
) -> str:
    """Renders the widget of a caption.

    Args:
        image, words, attention, gate, seen, boxes: As of `sat_keras.attention_html`.
        still: Optional URI of the picture that is shown where scripts do not run, as in a notebook
            that is not trusted. Defaults to `image`.

    Returns:
        A string of HTML, the same for the same arguments.

    Raises:
        ValueError: If the shapes do not match or `seen` does not lie in the picture.
    """
    (picture, box), maps = fit_picture(image, seen), as_maps(attention, words)
    gate = as_gate(gate, words)
    height, width = picture.shape[:2]
    data = {
        "picture": _picture_uri(picture),
        "aspect": width / height,
        "words": list(words),
        "maps": [_map_uri(weights, (height, width), box) for weights in maps],
        "places": [place_name(weights) for weights in maps],
        "gate": None if gate is None else [round(float(beta), 3) for beta in gate],
        "boxes": [_percentages(found, image) for found in as_boxes(boxes, words)],
    }
    return TEMPLATES.get_template("widget.html").render(
        key=hashlib.sha256(json.dumps(data).encode()).hexdigest()[:12],
        still=data["picture"] if still is None else still,
        description=describe_attention(words, maps),
        data=data,
    )


def sentence_html(text: str, log_probability: float) -> str:
    """Renders a caption's sentence and its log-probability.

    Args:
        text: The sentence.
        log_probability: Float, in nats.

    Returns:
        A string of HTML.
    """
    return (
        f"<p><strong>{html.escape(text) or '(no words)'}</strong> "
        f"<small>log p = {log_probability:.2f}</small></p>"
    )


def data_uri(content: bytes, kind: str) -> str:
    """Returns a picture file as a `data:` address.

    Args:
        content: Content of the file.
        kind: Its format, such as `"png"`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _percentages(boxes: np.ndarray, image: Any) -> list[list[float]]:
    """Returns left, top, width and height of boxes in percent of the picture's."""
    height, width = np.shape(image)[:2]
    corners = 100 * boxes / (width, height, width, height)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return np.round(sides, 2).tolist()


def _picture_uri(picture: np.ndarray) -> str:
    """Encodes a picture `(height, width, 3)` of 0 to 1 as PNG or JPEG, whichever is smaller."""
    pixels = Image.fromarray(np.round(255 * picture).astype("uint8"))
    files = {kind: _encoded(pixels, kind) for kind in ("png", "jpeg")}
    kind = min(files, key=lambda kind: len(files[kind]))
    return data_uri(files[kind], kind)


def _map_uri(weights: np.ndarray, shape: tuple[int, int], seen: Any) -> str:
    """Encodes a map as the opacity of a PNG that stretches over the picture."""
    x0, y0, x1, y1 = seen
    down = _PIXELS_PER_REGION * weights.shape[0] / (y1 - y0)
    right = _PIXELS_PER_REGION * weights.shape[1] / (x1 - x0)
    box = x0 * right, y0 * down, x1 * right, y1 * down
    alpha = cover_map(weights, round(shape[0] * down), round(shape[1] * right), box)
    mask = Image.new("LA", alpha.shape[::-1], 255)
    mask.putalpha(Image.fromarray(np.round(255 * alpha).astype("uint8")))
    return data_uri(_encoded(mask, "png"), "png")


def _encoded(pixels: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    pixels.save(file, format=kind, quality=88, optimize=True)
    return file.getvalue()
