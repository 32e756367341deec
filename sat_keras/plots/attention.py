"""Figures of a picture: its annotation grid, and the attention of each word of a caption."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sat_keras.captioning.maps import (
    Box,
    as_boxes,
    as_gate,
    as_maps,
    as_picture,
    cover_map,
    fit_picture,
)
from sat_keras.plots.style import INK, MUTED, PAPER, YELLOW, DefaultStyleFigure, default_style

# Where attention is low, the picture is grey, with this share of its brightness.
_DIMMED_BRIGHTNESS = 0.4
# The outline on a map encloses the weights of at least this share of the largest one.
_OUTLINE_LEVEL = 0.5
# In inches: width of a panel, space between panels, for a word above and for its gate below.
_PANEL_WIDTH, _GAP, _ABOVE, _BELOW, _TITLE_LINE = 1.6, 0.08, 0.27, 0.27, 0.22
# Largest grid in which every region is numbered.
_MOST_NUMBERS = 100


@default_style()
def plot_attention(
    image: Any,
    words: Sequence[str],
    attention: Any,
    gate: Any = None,
    columns: int | None = None,
    title: str | None = None,
    seen: Sequence[float] | None = None,
    boxes: Sequence | None = None,
) -> Figure:
    """Draws a picture, then one panel for each word with the places that the model looked at.

    A panel shows the picture in its colours where the word's attention is high and dimmed to dark
    grey where it is low, `shown = m * picture + (1 - m) * dimmed` with
    `m = upsample(alpha_t) / max(upsample(alpha_t))`, and an outline around the places with at
    least half of the largest weight. Maps are divided by their maximum and nothing is subtracted,
    so uniform attention shows the whole picture lit, without an outline.

    Args:
        image: Array of shape `(height, width, 3)`, an RGB picture: integers from 0 to 255, or
            floats from 0 to 1 or from 0 to 255. It may be the photo before it was resized for the
            encoder: the maps stretch over it.
        words: The caption's words, one for each step.
        attention: Array of shape `(steps, grid_height, grid_width)`, the attention weights
            `alpha_t`. Each map sums to 1.
        gate: Optional array of shape `(steps,)`, the gate `beta_t`, written below each panel.
        columns: Integer, panels in a row, the picture's included. Defaults to at most 6, in rows
            of nearly equal length.
        title: Optional text above the panels. Long titles are wrapped.
        seen: Optional box `(x0, y0, x1, y1)` in pixels of `image`, the part that the encoder saw
            of a cropped photo (see `seen_box`). The maps cover this part. Defaults to the whole
            picture.
        boxes: Optional boxes of the things that the words name, in pixels of `image`: for each word
            `None`, a box `(x0, y0, x1, y1)` or several. They are outlined in the word's panel.

    Returns:
        A `matplotlib.figure.Figure` with `1 + steps` panels, row by row. It does not depend on
        the user's matplotlib settings.

    Raises:
        ValueError: If the shapes do not match or `seen` does not lie in the picture.

    Example:

    >>> caption = captioner.caption(images)[0]
    >>> figure = plot_attention(images[0], caption.words, caption.attention, caption.gate)
    >>> save_figure(figure, "attention.png", describe_attention(caption.words, caption.attention))

    Reference:
        Xu et al. 2015, figures 2, 3 and 5 and section 5.4; `alpha_t` equation 6, `beta_t`
        section 4.2.1.
        Notebook `06_attention_plots`.
    """
    picture, box = fit_picture(image, seen)
    attention = as_maps(attention, words)
    gate = as_gate(gate, words)
    height, width = picture.shape[:2]
    things, scale = as_boxes(boxes, words), width / np.shape(image)[1]
    panel_width = _PANEL_WIDTH * max(1.0, math.sqrt(width / height))
    figure, panels = _panel_grid(1 + len(words), height / width, columns, panel_width, title)
    panels[0].imshow(picture, origin="upper")
    if box != (0, 0, width, height):
        _frame(panels[0], box)
    dimmed = _dimmed(picture)
    for step, (axes, word) in enumerate(zip(panels[1:], words, strict=True)):
        alpha = cover_map(attention[step], height, width, box)
        axes.imshow(dimmed, origin="upper")
        axes.imshow(np.dstack([picture, alpha]), origin="upper")
        _outline(axes, alpha, box)
        for thing in scale * things[step]:
            _frame(axes, thing, linestyle="--")
        axes.set_title(word, color=INK, fontsize=_title_size(word), pad=4, parse_math=False)
        if gate is not None:
            axes.set_xlabel(f"β = {gate[step]:.2f}", color=MUTED, fontsize=9, labelpad=3)
    return figure


@default_style()
def plot_annotation_grid(image: Any, grid_shape: tuple[int, int]) -> Figure:
    """Draws the regions of the encoder's annotation vectors over a picture, with their numbers.

    The rectangles are the places on the encoder's grid. The receptive field of a vector is wider
    than its rectangle.

    Args:
        image: Array of shape `(height, width, 3)`, the RGB picture as the encoder saw it:
            integers from 0 to 255, or floats from 0 to 1 or from 0 to 255.
        grid_shape: Tuple `(grid_height, grid_width)`, regions down and across; `(14, 14)` for
            VGG16.

    Returns:
        A `matplotlib.figure.Figure` with one panel. Every region shows the index `i` of its
        `a_i`; in a grid of more than 100 regions only the first row and column do.

    Raises:
        ValueError: If `grid_shape` is not a pair of positive integers.

    Example:

    >>> figure = plot_annotation_grid(image, (14, 14))

    Reference:
        Xu et al. 2015, section 3.1.1, `a = {a_1, ..., a_L}`.
        Notebook `02_encoder_and_attention`.
    """
    picture = as_picture(image)
    if len(grid_shape) != 2 or min(grid_shape) < 1:
        raise ValueError(
            "`grid_shape` must be the number of regions down and across, such as (14, 14). "
            f"Received: grid_shape={grid_shape!r}"
        )
    (height, width), (rows, columns) = picture.shape[:2], grid_shape
    figure, (axes,) = _panel_grid(1, height / width, 1, panel_width=4.5)
    axes.imshow(picture, origin="upper", extent=(0, width, height, 0))
    shadow = [patheffects.withStroke(linewidth=2, foreground=INK)]
    lines: dict[str, Any] = {"color": PAPER, "linewidth": 0.6, "path_effects": shadow}
    axes.hlines(np.linspace(0, height, rows + 1), 0, width, **lines)
    axes.vlines(np.linspace(0, width, columns + 1), 0, height, **lines)
    for row, column in np.ndindex(rows, columns):
        if rows * columns <= _MOST_NUMBERS or row == 0 or column == 0:
            axes.text(
                (column + 0.5) * width / columns,
                (row + 0.5) * height / rows,
                str(row * columns + column),
                ha="center",
                va="center",
                color=PAPER,
                fontsize=min(10.0, 110 / max(rows, columns)),
                path_effects=shadow,
            )
    label = f"{rows} × {columns} = {rows * columns} regions of {height / rows:.3g} × "
    axes.set_xlabel(f"{label}{width / columns:.3g} pixels", color=MUTED, fontsize=10)
    return figure


def _panel_grid(
    panels: int,
    aspect: float,
    columns: int | None,
    panel_width: float,
    title: str | None = None,
) -> tuple[Figure, list[Axes]]:
    """Creates a figure of empty panels with `aspect = height / width`, in rows.

    The panels are placed in inches: matplotlib's layout engines take seconds for the panels of a
    long caption.
    """
    if columns is None:
        columns = math.ceil(panels / math.ceil(panels / 6))
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1. Received: columns={columns}")
    columns = min(columns, panels)
    panel_height = panel_width * aspect
    row_height = _ABOVE + panel_height + _BELOW
    figure_width = columns * (panel_width + _GAP) + _GAP
    lines = textwrap.wrap(title, width=int(11 * figure_width)) if title else []
    title_height = _TITLE_LINE * len(lines)
    figure_height = math.ceil(panels / columns) * row_height + title_height + _GAP
    figure = plt.figure(
        figsize=(figure_width, figure_height), facecolor=PAPER, FigureClass=DefaultStyleFigure
    )
    top = figure_height - title_height - _GAP / 2
    for panel in range(panels):
        row, column = divmod(panel, columns)
        left = _GAP + column * (panel_width + _GAP)
        bottom = top - row * row_height - _ABOVE - panel_height
        axes = figure.add_axes(
            (
                left / figure_width,
                bottom / figure_height,
                panel_width / figure_width,
                panel_height / figure_height,
            )
        )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    if lines:
        text = figure.suptitle("\n".join(lines), color=INK, fontsize=11, parse_math=False)
        text.set_y(1 - _GAP / 2 / figure_height)
    return figure, figure.axes


def _dimmed(picture: np.ndarray) -> np.ndarray:
    """Removes the colour and most of the brightness of a picture `(height, width, 3)`."""
    luminance = picture @ np.array([0.299, 0.587, 0.114], dtype="float32")
    return np.repeat(_DIMMED_BRIGHTNESS * luminance[..., None], 3, axis=-1)


def _frame(axes: Axes, box: Any, linestyle: str = "-") -> None:
    """Draws a rectangle around a part of the picture: what the model saw, or a thing."""
    x0, y0, x1, y1 = box
    corner, sides = (x0 - 0.5, y0 - 0.5), (x1 - x0, y1 - y0)
    frame = Rectangle(corner, *sides, fill=False, edgecolor=PAPER, linestyle=linestyle)
    frame.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground=INK)])
    axes.add_patch(frame)


def _outline(axes: Axes, alpha: np.ndarray, box: Box) -> None:
    """Outlines the places of at least half the largest weight, unless all of them are."""
    x0, y0, x1, y1 = (round(side) for side in box)
    inside = alpha[y0:y1, x0:x1]
    if inside.min() < _OUTLINE_LEVEL <= inside.max():
        line = axes.contour(
            np.arange(x0, x1),
            np.arange(y0, y1),
            inside,
            levels=[_OUTLINE_LEVEL],
            colors=YELLOW,
            linewidths=1.2,
        )
        line.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground=INK)])


def _title_size(word: str) -> float:
    """Returns the size in points at which a word fits above its panel."""
    return min(11.0, 150 / max(len(word), 1))
