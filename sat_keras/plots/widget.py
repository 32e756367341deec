"""A caption to explore: point at a word and see where the model looked while writing it.

The widget is one piece of HTML that holds its style, script, picture and maps. It needs no server
and no library. It works in JupyterLab, on Colab, in nbconvert's pages and in any other page, also
several times on one page. Where scripts do not run, as in a notebook that is not trusted, the
figure of `plot_attention` is shown instead.
"""

import base64
import hashlib
import html
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from PIL import Image

from sat_keras.plots.attention import plot_attention
from sat_keras.plots.attention_maps import (
    as_gate,
    as_maps,
    cover_map,
    describe_attention,
    fit_picture,
    place_name,
)
from sat_keras.plots.style import figure_bytes

if TYPE_CHECKING:
    from sat_keras.captioning.caption import Caption

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("sat_keras.plots", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Pixels of a map for each region along a side. The browser enlarges the map further.
_PIXELS_PER_REGION = 6


def attention_html(
    image: Any,
    words: Sequence[str],
    attention: Any,
    gate: Any = None,
    seen: Sequence[float] | None = None,
) -> str:
    """Renders a caption whose words show their attention maps when one points at them.

    A word is a button: pointing at it, reaching it with Tab or an arrow key, or touching it shows
    its map over the picture, drawn as in `plot_attention`, and names the map's place. A click
    keeps the map until the next click. The bar under a word is as long as the word's gate.

    Args:
        image: Array of shape `(height, width, 3)`, an RGB picture: integers from 0 to 255, or
            floats from 0 to 1 or from 0 to 255. The maps stretch over it.
        words: The caption's words, one for each step.
        attention: Array of shape `(steps, grid_height, grid_width)`, the attention weights
            `alpha_t`. Each map sums to 1.
        gate: Optional array of shape `(steps,)`, the gate `beta_t`.
        seen: Optional box `(x0, y0, x1, y1)` in pixels of `image` that the maps cover, as in
            `plot_attention`.

    Returns:
        A string of HTML, the same for the same arguments.

    Raises:
        ValueError: If the shapes do not match or `seen` does not lie in the picture.

    Example:

    >>> from IPython.display import HTML
    >>> caption = captioner.caption(images)[0]
    >>> HTML(attention_html(images[0], caption.words, caption.attention, caption.gate))

    Reference:
        Xu et al. 2015, figures 2, 3 and 5.
        Notebook `06_attention_plots`.
    """
    (picture, box), maps, gate = (
        fit_picture(image, seen),
        as_maps(attention, words),
        as_gate(gate, words),
    )
    figure = plot_attention(picture, words, maps, gate, seen=box)
    height, width = picture.shape[:2]
    data = {
        "picture": _picture_uri(picture),
        "aspect": width / height,
        "words": list(words),
        "maps": [_map_uri(weights, (height, width), box) for weights in maps],
        "places": [place_name(weights) for weights in maps],
        "gate": None if gate is None else [round(float(beta), 3) for beta in gate],
    }
    return TEMPLATES.get_template("widget.html").render(
        key=hashlib.sha256(json.dumps(data).encode()).hexdigest()[:12],
        still=_data_uri(figure_bytes(figure, dpi=60, format="webp", quality=80), "webp"),
        description=describe_attention(words, maps),
        data=data,
    )


def caption_html(caption: "Caption", image: Any = None, seen: Sequence[float] | None = None) -> str:
    """Renders a `Caption` for a notebook: its sentence, and its attention over the picture.

    Args:
        caption: The `Caption`.
        image: Optional RGB picture of the caption, as in `attention_html`. Without one only the
            sentence is rendered.
        seen: Optional box in the picture that the maps cover, as in `attention_html`.

    Returns:
        A string of HTML.
    """
    sentence = (
        f"<p><strong>{html.escape(caption.text) or '(no words)'}</strong> "
        f"<small>log p = {caption.log_probability:.2f}</small></p>"
    )
    if image is None:
        return sentence
    return sentence + attention_html(image, caption.words, caption.attention, caption.gate, seen)


def _picture_uri(picture: np.ndarray) -> str:
    """Encodes a picture `(height, width, 3)` of 0 to 1 as PNG or JPEG, whichever is smaller."""
    pixels = Image.fromarray(np.round(255 * picture).astype("uint8"))
    files = {kind: _encoded(pixels, kind) for kind in ("png", "jpeg")}
    kind = min(files, key=lambda kind: len(files[kind]))
    return _data_uri(files[kind], kind)


def _map_uri(weights: np.ndarray, shape: tuple[int, int], seen: Any) -> str:
    """Encodes a map as the opacity of a PNG that stretches over the picture."""
    x0, y0, x1, y1 = seen
    down = _PIXELS_PER_REGION * weights.shape[0] / (y1 - y0)
    right = _PIXELS_PER_REGION * weights.shape[1] / (x1 - x0)
    box = x0 * right, y0 * down, x1 * right, y1 * down
    alpha = cover_map(weights, round(shape[0] * down), round(shape[1] * right), box)
    mask = Image.new("LA", alpha.shape[::-1], 255)
    mask.putalpha(Image.fromarray(np.round(255 * alpha).astype("uint8")))
    return _data_uri(_encoded(mask, "png"), "png")


def _encoded(pixels: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    pixels.save(file, format=kind, quality=88, optimize=True)
    return file.getvalue()


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
