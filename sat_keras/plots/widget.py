"""A caption to explore: point at a word and see where the model looked while writing it.

The widget is one piece of HTML with its style, its script, the picture and the maps inside. It
needs no server and no library, and works in JupyterLab, on Colab, in the pages that nbconvert makes
and in any other page, several times over. Where scripts do not run, as in a notebook that
is not trusted, the figure of `sat_keras.plots.figures.plot_attention` stands in its place.
"""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sat_keras.plots.figures import (
    as_gate,
    as_maps,
    as_picture,
    describe_attention,
    enlarged,
    figure_png,
    place_name,
    plot_attention,
    upsample_attention,
)

_TEMPLATE = Path(__file__).with_name("widget.html")
# A map's pixels for each region along a side: the browser enlarges the rest of the way.
_PIXELS_PER_REGION = 6
# Of the figure that stands in for the widget, in dots per inch: small, since it is seldom seen.
_STILL_RESOLUTION = 50


def attention_html(image, words: Sequence[str], attention, gate=None) -> str:
    """Makes a caption whose words show their attention maps when one points at them.

    A word is a button: to point at it, to reach it with the Tab or an arrow key or to touch it
    shows its map over the picture, drawn as `plot_attention` draws it, and says in words where it
    lies. A click keeps the map until the next click. Under each word a bar is as long as its gate.

    Args:
        image: Array of shape `(height, width, 3)`, the RGB picture as the encoder saw it.
            Integers of 0 to 255, or floats of 0 to 1 or 0 to 255.
        words: The caption's words, one for each step.
        attention: Array of shape `(steps, grid_height, grid_width)`, the attention weights
            `alpha_t`, each map's sum 1.
        gate: Optional array of shape `(steps,)`, the gate `beta_t`.

    Returns:
        A string of HTML, the same for the same arguments.

    Raises:
        ValueError: If the shapes do not fit each other.

    Example:

    >>> from IPython.display import HTML
    >>> caption = captioner.caption(images)[0]
    >>> HTML(attention_html(images[0], caption.words, caption.attention, caption.gate))

    Reference:
        Xu et al. 2015, figures 2, 3 and 5. Notebook `06_attention_plots`.
    """
    picture, maps, gate = as_picture(image), as_maps(attention, words), as_gate(gate, words)
    description = describe_attention(words, maps)
    figure = plot_attention(picture, words, maps, gate)
    still = figure_png(figure, description, resolutions=[_STILL_RESOLUTION])
    data = json.dumps(
        {
            "picture": _picture_uri(enlarged(picture)),
            "aspect": picture.shape[1] / picture.shape[0],
            "words": list(words),
            "maps": [_map_uri(weights) for weights in maps],
            "places": [place_name(weights) for weights in maps],
            "gate": None if gate is None else [round(float(beta), 3) for beta in gate],
        }
    )
    values = {
        "KEY": hashlib.sha256(data.encode()).hexdigest()[:12],
        "STILL": _data_uri(still, "png"),
        "DESCRIPTION": html.escape(description),
        # JSON in a script must not close it.
        "DATA": data.replace("<", "\\u003c"),
    }
    template = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub("%([A-Z]+)%", lambda found: values[found[1]], template)


def _picture_uri(picture: np.ndarray) -> str:
    """The picture `(height, width, 3)` of 0 to 1, as a PNG or a JPEG, whichever is smaller."""
    pixels = Image.fromarray(np.round(255 * picture).astype("uint8"))
    files = {kind: _encoded(pixels, kind) for kind in ("png", "jpeg")}
    kind = min(files, key=lambda kind: len(files[kind]))
    return _data_uri(files[kind], kind)


def _map_uri(weights: np.ndarray) -> str:
    """A map as the opacity of a PNG: how much of the lit picture lies over the dimmed one."""
    rows, columns = weights.shape
    alpha = upsample_attention(weights, rows * _PIXELS_PER_REGION, columns * _PIXELS_PER_REGION)
    opacity = Image.fromarray(np.round(255 * alpha).astype("uint8"))
    mask = Image.new("LA", opacity.size, 255)
    mask.putalpha(opacity)
    return _data_uri(_encoded(mask, "png"), "png")


def _encoded(pixels: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    pixels.save(file, format=kind, quality=88, optimize=True)
    return file.getvalue()


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
