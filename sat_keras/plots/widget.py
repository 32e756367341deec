"""A caption to explore: point at a word and see where the model looked while writing it.

The widget is that of `sat_keras.captioning.widget`. Where scripts do not run, as in a notebook that
is not trusted, the figure of `plot_attention` is shown instead.
"""

from collections.abc import Sequence
from typing import Any

from sat_keras.captioning.caption import Caption
from sat_keras.captioning.widget import data_uri, sentence_html, widget_html
from sat_keras.plots.attention import plot_attention
from sat_keras.plots.style import figure_bytes


def attention_html(
    image: Any,
    words: Sequence[str],
    attention: Any,
    gate: Any = None,
    seen: Sequence[float] | None = None,
    boxes: Sequence | None = None,
) -> str:
    """Renders a caption whose words show their attention maps when one points at them.

    A word is a button: pointing at it, reaching it with Tab or an arrow key, or touching it shows
    its map over the picture, drawn as in `plot_attention`, and names the map's place. A click
    keeps the map until the next click. The bar under a word is filled up to the word's gate; bars
    of all words have the same length.

    Args:
        image: Array of shape `(height, width, 3)`, an RGB picture: integers from 0 to 255, or
            floats from 0 to 1 or from 0 to 255. The maps stretch over it.
        words: The caption's words, one for each step.
        attention: Array of shape `(steps, grid_height, grid_width)`, the attention weights
            `alpha_t`. Each map sums to 1.
        gate: Optional array of shape `(steps,)`, the gate `beta_t`.
        seen: Optional box `(x0, y0, x1, y1)` in pixels of `image` that the maps cover, as in
            `plot_attention`.
        boxes: Optional boxes of the things that the words name, as in `plot_attention`.

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
    figure = plot_attention(image, words, attention, gate, seen=seen, boxes=boxes)
    still = data_uri(figure_bytes(figure, dpi=60, format="webp", quality=80), "webp")
    return widget_html(image, words, attention, gate, seen, still, boxes)


def caption_html(caption: Caption, image: Any = None, seen: Sequence[float] | None = None) -> str:
    """Renders a `Caption` for a notebook: its sentence, and its attention over the picture.

    Args:
        caption: The `Caption`.
        image: Optional RGB picture of the caption, as in `attention_html`. Defaults to the
            caption's own; without one only the sentence is rendered.
        seen: Optional box in the picture that the maps cover, as in `attention_html`.

    Returns:
        A string of HTML.
    """
    sentence = sentence_html(caption.sentence, caption.log_probability)
    if image is None:
        image, seen = caption.image, caption.seen
    if image is None:
        return sentence
    return sentence + attention_html(image, caption.words, caption.attention, caption.gate, seen)
