"""Pictures of what a captioner sees and how it learned: the only module that uses matplotlib.

Every function is pure: it returns a new `matplotlib.figure.Figure` and changes no setting of
matplotlib. The figures are made by pyplot, so `plt.show()` shows them in a notebook; elsewhere,
write them with `save_figure`, which also closes them.

The colours are Okabe and Ito's, which people with any colour vision can tell apart, and lines
differ in their marks as well. The background is opaque white, so that a figure reads the same on
a light and on a dark page.
"""

import io
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

_INK, _MUTED, _PAPER = "#1A1A1A", "#595959", "#FFFFFF"
# Colour of a quantity's curves, and the marks of the train split's and the dev split's.
_CURVES = (
    ("#0072B2", "s", "o"),
    ("#D55E00", "^", "v"),
    ("#009E73", "D", "P"),
    ("#CC79A7", "X", "*"),
)
_OUTLINE_COLOUR = "#F0E442"

# How the picture looks where the model does not: grey, and this share of its brightness.
_DIMMED_BRIGHTNESS = 0.4
# The Gaussian's standard deviation that maps are enlarged with, in regions.
_SMOOTH_REGIONS = 0.75
# Pictures of fewer pixels across than this are enlarged, so that the maps over them are smooth.
_SMOOTH_PIXELS = 160
# The line drawn on a map goes around what has at least this share of the map's highest weight.
_OUTLINE_LEVEL = 0.5
# What `save_figure` writes is to be no larger, in bytes.
_LARGEST_PNG = 300_000
# In dots per inch, the best first. At the last one the words can still be read.
_RESOLUTIONS = (100, 85, 72)
# An attention spread as evenly as this share of all regions has no place worth a name.
_EVEN_SHARE = 0.75

# Colour, width and style of a tree's branches: to the best caption, to others, to dropped ones.
_BRANCHES = (("#D55E00", 2.6, "-"), ("#0072B2", 1.3, "-"), ("#9A9A9A", 1.0, ":"))

# The panels of `plot_history`: title and which columns belong to it. The first that fits counts.
_QUANTITIES = {
    "Attention penalty": "penalty",
    "BLEU-4 (%)": "bleu.?4",
    "CIDEr": "cider",
    "Loss": "loss|cross_?entropy|nll",
}
_SCORES = ("BLEU-4 (%)", "CIDEr")


def plot_attention(
    image,
    words: Sequence[str],
    attention,
    gate=None,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draws the picture, then one panel a word with the places that the model looked at.

    A panel shows the picture in its own colours where the word's attention is high and dimmed to
    dark grey where it is low, `shown = m * picture + (1 - m) * dimmed` with
    `m = upsample(alpha_t) / max(upsample(alpha_t))`, and a line around what has at least half of
    the highest weight. Because a map is divided by its largest weight and nothing is taken off,
    uniform attention shows the whole picture lit and has no line: it cannot pass for a focus.

    Args:
        image: Array of shape `(height, width, 3)`, the RGB picture as the encoder saw it (already
            cropped or squashed; otherwise the maps lie beside what they mean). Integers of
            0 to 255, or floats of 0 to 1 or 0 to 255.
        words: The caption's words, one for each step.
        attention: Array of shape `(steps, grid_height, grid_width)`, the attention weights
            `alpha_t`, each map's sum 1.
        gate: Optional array of shape `(steps,)`, the gate `beta_t`, written under each word.
        columns: Panels a row, the picture's included. Default: at most 6, rows as even as can be.
        title: Optional text above the panels, wrapped where it is too long.

    Returns:
        A `matplotlib.figure.Figure` with `1 + steps` panels, row by row.

    Raises:
        ValueError: If the shapes do not fit each other.

    Example:

    >>> caption = captioner.caption(images)[0]
    >>> figure = plot_attention(images[0], caption.words, caption.attention, caption.gate)
    >>> save_figure(figure, "attention.png", describe_attention(caption.words, caption.attention))

    Reference:
        Xu et al. 2015, figures 2, 3 and 5 and section 5.4; `alpha_t` equation 6, `beta_t`
        section 4.2.1.
        Notebook `06_attention_plots`.
    """
    picture = enlarged(as_picture(image))
    attention = as_maps(attention, words)
    gate = as_gate(gate, words)
    height, width = picture.shape[:2]
    figure, panels = _panel_grid(1 + len(words), height / width, columns, title=title)
    panels[0].imshow(picture)
    dimmed = _dimmed(picture)
    for step, (axes, word) in enumerate(zip(panels[1:], words, strict=True)):
        alpha = upsample_attention(attention[step], height, width)
        axes.imshow(dimmed)
        axes.imshow(np.dstack([picture, alpha]))
        _outline(axes, alpha)
        axes.set_title(word, color=_INK, fontsize=_title_size(word), pad=4, parse_math=False)
        if gate is not None:
            axes.set_xlabel(f"β = {gate[step]:.2f}", color=_MUTED, fontsize=9, labelpad=3)
    return figure


def upsample_attention(weights, height: int, width: int) -> np.ndarray:
    """Enlarges one attention map to a picture's size, smoothly, with 1 at its highest place.

    The value at a pixel is the mean of all weights under a Gaussian around the pixel's place,
    `K_y alpha K_x^T` with the rows of each `K` normalised to 1. So it stays between the smallest
    and the highest weight, and uniform attention stays uniform. Neighbours lift each other: of
    several weights almost equal, another may come out highest; a clear peak stays in its region.

    Args:
        weights: Array of shape `(grid_height, grid_width)`, weights of at least 0.
        height: Height of the result in pixels.
        width: Width of the result in pixels.

    Returns:
        A float32 array of shape `(height, width)` with values of 0 to 1, all 0 if every weight is.

    Example:

    >>> upsample_attention(np.eye(2), 4, 4).shape
    (4, 4)

    Reference:
        Xu et al. 2015, section 5.4, which upsamples by 16 with a Gaussian filter.
        Notebook `06_attention_plots`.
    """
    weights = np.asarray(weights, dtype="float32")
    rows = _gaussian_rows(height, weights.shape[0])
    columns = _gaussian_rows(width, weights.shape[1])
    enlarged = rows @ weights @ columns.T
    highest = enlarged.max()
    return enlarged / highest if highest > 0 else enlarged


def describe_attention(words: Sequence[str], attention) -> str:
    """Says in words where each word's attention lies: the alternative text of `plot_attention`.

    The place is that of the highest weight in a grid of nine. Attention that is spread over most
    regions (the exponential of its entropy is above three quarters of their number) is said to
    be on the whole picture.

    Args:
        words: The caption's words, one for each step.
        attention: Array of shape `(steps, grid_height, grid_width)`, the attention weights.

    Returns:
        One sentence.

    Raises:
        ValueError: If the shapes do not fit each other.

    Example:

    >>> describe_attention(["two", "dogs"], np.stack([np.full((3, 3), 1 / 9), np.eye(3) / 3]))
    'Attention while writing "two dogs": two (the whole picture), dogs (upper left).'
    """
    attention = as_maps(attention, words)
    if len(words) == 0:
        return "A caption without words."
    places = ", ".join(
        f"{word} ({place_name(weights)})" for word, weights in zip(words, attention, strict=True)
    )
    return f'Attention while writing "{" ".join(words)}": {places}.'


def plot_annotation_grid(image, grid_shape: tuple[int, int]) -> Figure:
    """Draws the regions that the encoder's annotation vectors stand for, numbered as they lie.

    The squares are the places on the encoder's grid. What a vector can see (its receptive field)
    is wider than its square.

    Args:
        image: Array of shape `(height, width, 3)`, the RGB picture as the encoder saw it.
            Integers of 0 to 255, or floats of 0 to 1 or 0 to 255.
        grid_shape: Tuple `(grid_height, grid_width)`, regions down and across; 14 x 14 for VGG.

    Returns:
        A `matplotlib.figure.Figure` with one panel. Every region has its index `i` of `a_i` in
        it; in a grid of more than 100 regions only those of the first row and column do.

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
    axes.imshow(picture, extent=(0, width, height, 0))
    shadow = [patheffects.withStroke(linewidth=2, foreground=_INK)]
    lines = {"color": _PAPER, "linewidth": 0.6, "path_effects": shadow}
    axes.hlines(np.linspace(0, height, rows + 1), 0, width, **lines)
    axes.vlines(np.linspace(0, width, columns + 1), 0, height, **lines)
    size = min(10.0, 110 / max(rows, columns))
    for row, column in np.ndindex(rows, columns):
        if rows * columns <= 100 or row == 0 or column == 0:
            axes.text(
                (column + 0.5) * width / columns,
                (row + 0.5) * height / rows,
                str(row * columns + column),
                ha="center",
                va="center",
                color=_PAPER,
                fontsize=size,
                path_effects=shadow,
            )
    label = f"{rows} × {columns} = {rows * columns} regions of {height / rows:.3g} × "
    axes.set_xlabel(f"{label}{width / columns:.3g} pixels", color=_MUTED, fontsize=10)
    return figure


def plot_beam_tree(hypotheses: Sequence, vocabulary: Sequence[str]) -> Figure:
    """Draws the hypotheses of a search as a tree, from the first token on the left to the ends.

    A column is a step, with the likeliest hypothesis on top: its last token over its `log p`. The
    path of the best caption is a thick line, those of the other finished captions are thin ones,
    and what was dropped is dotted.

    Args:
        hypotheses: Sequence of `sat_keras.analysis.search_tree.Hypothesis`, as `trace_search` returns it.
        vocabulary: The tokens by id, `Tokenizer.get_vocabulary()`.

    Returns:
        A `matplotlib.figure.Figure` with one panel.

    Raises:
        ValueError: If there are no hypotheses.

    Example:

    >>> _, hypotheses = trace_search(beam_search, step, states, **arguments)
    >>> figure = plot_beam_tree(hypotheses, tokenizer.get_vocabulary())

    Reference:
        Notebook `05_decoding_and_evaluation`.
    """
    if not len(hypotheses):
        raise ValueError("A tree needs at least one hypothesis. Received: none")
    ranks = _ranks_of_paths(hypotheses)
    rows = _rows_by_step(hypotheses)
    most, steps = max(rows) + 1, max(hypothesis.step for hypothesis in hypotheses)
    size = (0.85 * (steps + 1), max(1.6, 0.62 * most))
    figure, axes = plt.subplots(figsize=size, layout="constrained", facecolor=_PAPER)
    for hypothesis, rank, row in zip(hypotheses, ranks, rows, strict=True):
        colour, width, style = _BRANCHES[0 if rank == 0 else 1 if rank is not None else 2]
        if hypothesis.parent is not None:
            ends = (hypothesis.step - 1, hypothesis.step), (rows[hypothesis.parent], row)
            axes.plot(*ends, color=colour, linewidth=width, linestyle=style, zorder=1)
        axes.text(
            hypothesis.step,
            row,
            f"{vocabulary[hypothesis.token_id]}\n{hypothesis.log_probability:.2f}",
            color=_INK if rank is not None else _MUTED,
            fontsize=8,
            ha="center",
            va="center",
            parse_math=False,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": _PAPER, "edgecolor": colour},
        )
    axes.set(xlim=(-0.5, steps + 0.5), ylim=(most - 0.5, -0.5))
    axes.axis("off")
    return figure


def plot_history(history) -> Figure:
    """Draws training curves: loss, the attention penalty apart from it, and scores by decoding.

    A column belongs to a panel by its name: what contains `penalty` to the penalty's, `bleu4` and
    `cider` to a panel of their own each (BLEU is in percent, CIDEr is not), `loss`,
    `cross_entropy` and `nll` to the loss's. A name that starts with `val` or `dev` is the dev
    split's and its curve is dashed. Panels without a column are left out, and so is every other
    column (seconds, learning rate). The best epoch of each score is marked with its value.

    Args:
        history: A `pandas.DataFrame` with one row an epoch, the path of a CSV log of
            `keras.callbacks.CSVLogger`, or the dictionary `History.history` that `fit` returns.
            A column `epoch` counts from 0, as Keras's log does; without one the rows count.

    Returns:
        A `matplotlib.figure.Figure` with one panel for each quantity, epochs counted from 1.

    Raises:
        ValueError: If no epoch is logged, or no column is one of these.
        FileNotFoundError: If there is no such log.

    Example:

    >>> figure = plot_history("outputs/demo/log.csv")

    Reference:
        Notebook `04_training`.
    """
    table = _as_history(history)
    columns = _columns_by_quantity(table)
    if not columns:
        raise ValueError(
            "The history must have a column with loss, penalty, bleu4 or cider in its name. "
            f"Received: columns {list(table.columns)}"
        )
    figure, panels = plt.subplots(
        1,
        len(columns),
        figsize=(3.3 * len(columns), 2.9),
        layout="constrained",
        squeeze=False,
        facecolor=_PAPER,
    )
    for axes, (quantity, names) in zip(panels.flat, columns.items(), strict=True):
        _plot_curves(axes, table[names])
        if quantity in _SCORES:
            _mark_best(axes, table[names])
        axes.set_title(quantity, color=_INK, fontsize=11)
    return figure


def save_figure(
    figure: Figure,
    path,
    description: str | None = None,
    resolutions: Sequence[int] = _RESOLUTIONS,
) -> Path:
    """Writes a figure as a small PNG and closes it.

    A figure of photos in all its colours takes half a megabyte, and a third of that in the 256
    that suit it best: those are what is written. One of more than 300 kB is drawn smaller, as
    far as its text stays readable.

    Args:
        figure: The figure. pyplot forgets it afterwards.
        path: Where to write; folders that are missing are made.
        description: Optional alternative text for those who cannot see the figure, kept in the
            PNG as its `Description`.
        resolutions: Dots per inch, from the first one on until the PNG is small enough.

    Returns:
        The path as a `pathlib.Path`.

    Raises:
        ValueError: If the path does not end in `.png`.

    Example:

    >>> save_figure(figure, "outputs/attention.png", describe_attention(words, attention))
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"`path` must end in .png. Received: path={str(path)!r}")
    png = figure_png(figure, description, resolutions)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)
    return path


def figure_png(
    figure: Figure,
    description: str | None = None,
    resolutions: Sequence[int] = _RESOLUTIONS,
) -> bytes:
    """Draws a figure as a small PNG and closes it, as `save_figure` writes it.

    Args:
        figure: The figure. pyplot forgets it afterwards.
        description: Optional alternative text, kept in the PNG as its `Description`.
        resolutions: Dots per inch, from the first one on until the PNG is small enough.

    Returns:
        The PNG file's bytes.
    """
    information = PngInfo()
    if description:
        information.add_itxt("Description", description)
    for dots_per_inch in resolutions:
        png = _palette_png(figure, dots_per_inch, information)
        if len(png) <= _LARGEST_PNG:
            break
    plt.close(figure)
    return png


def place_name(weights) -> str:
    """Names the place of an attention map's highest weight in a grid of nine.

    Args:
        weights: Array of shape `(grid_height, grid_width)`, the attention weights.

    Returns:
        A place such as "upper left" or "centre", or "the whole picture" of attention that is
        spread over most regions.
    """
    weights = np.asarray(weights, dtype="float32")
    shares = weights.ravel() / max(weights.sum(), 1e-12)
    entropy = -np.sum(shares * np.log(np.maximum(shares, 1e-12)))
    if np.exp(entropy) > _EVEN_SHARE * shares.size:
        return "the whole picture"
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    vertical = ("upper", "", "lower")[int(3 * (row + 0.5) / weights.shape[0])]
    horizontal = ("left", "", "right")[int(3 * (column + 0.5) / weights.shape[1])]
    return " ".join(filter(None, (vertical, horizontal))) or "centre"


def as_picture(image) -> np.ndarray:
    """Gives a picture as floats of 0 to 1.

    Args:
        image: Array of shape `(height, width, 3)`, integers of 0 to 255, or floats of 0 to 1 or
            0 to 255.

    Returns:
        A float32 array of shape `(height, width, 3)`.

    Raises:
        ValueError: If it has another shape.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            "`image` must be an RGB picture of shape (height, width, 3). "
            f"Received: shape {image.shape}"
        )
    whole = np.issubdtype(image.dtype, np.integer) or image.max() > 1
    return np.clip(image.astype("float32") / (255.0 if whole else 1.0), 0.0, 1.0)


def as_maps(attention, words: Sequence[str]) -> np.ndarray:
    """Gives attention maps as floats, checked against the words that they belong to.

    Args:
        attention: Array of shape `(steps, grid_height, grid_width)`, weights of at least 0.
        words: The caption's words, one for each step.

    Returns:
        A float32 array of that shape.

    Raises:
        ValueError: If there is not one map for each word, or a weight is negative or no number.
    """
    attention = np.asarray(attention, dtype="float32")
    if attention.ndim != 3 or len(attention) != len(words):
        raise ValueError(
            "`attention` must have the shape (steps, grid_height, grid_width), one map for each "
            f"of the {len(words)} words. Received: shape {attention.shape}"
        )
    if not np.isfinite(attention).all() or (attention < 0).any():
        raise ValueError(
            "`attention` must hold weights of at least 0. Received: values from "
            f"{attention.min()} to {attention.max()}"
        )
    return attention


def as_gate(gate, words: Sequence[str]) -> np.ndarray | None:
    """Gives the gate as floats, checked against the words that it belongs to.

    Args:
        gate: Array of shape `(steps,)`, or None.
        words: The caption's words, one for each step.

    Returns:
        A float32 array of that shape, or None.

    Raises:
        ValueError: If there is not one value for each word.
    """
    if gate is None:
        return None
    gate = np.asarray(gate, dtype="float32")
    if gate.shape != (len(words),):
        raise ValueError(
            f"`gate` must have the shape (steps,), one value for each of the {len(words)} words. "
            f"Received: shape {gate.shape}"
        )
    return gate


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small picture a whole number of times, so that maps on it are smooth.

    Args:
        picture: Array of shape `(height, width, 3)`.

    Returns:
        An array of at least 160 pixels along the shorter side, or the picture itself.
    """
    times = math.ceil(_SMOOTH_PIXELS / min(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else picture


def _palette_png(figure: Figure, dots_per_inch: int, information: PngInfo) -> bytes:
    """Draws a figure as a PNG of the 256 colours that suit it best."""
    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dots_per_inch, facecolor=_PAPER)
    picture = Image.open(drawn).convert("RGB")
    # Pillow's default gives rare colours up: a dimmed yellow ring would come out orange. Every
    # other pixel along both axes tells enough about the rest, in a quarter of the time.
    sample = picture.resize([(side + 1) // 2 for side in picture.size], Image.Resampling.NEAREST)
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    small = picture.quantize(palette=palette, dither=Image.Dither.NONE)
    colours, paper = small.getpalette(), small.getpixel((0, 0))
    colours[3 * paper : 3 * paper + 3] = (255, 255, 255)  # and not a mean with what is nearly white
    small.putpalette(colours)
    small.save(png, format="png", optimize=True, pnginfo=information)
    return png.getvalue()


def _as_history(history) -> pd.DataFrame:
    """Gives one row an epoch, indexed by the epoch counted from 1."""
    if isinstance(history, (str, Path)):
        try:
            history = pd.read_csv(history)
        except pd.errors.EmptyDataError:
            history = pd.DataFrame()
    table = pd.DataFrame(history)
    if table.empty:
        raise ValueError(
            "The history must have at least one epoch: train for one first. Received: none"
        )
    epochs = table["epoch"] if "epoch" in table else np.arange(len(table))
    return table.set_index(pd.Index(epochs + 1, name="epoch"))


def _columns_by_quantity(table: pd.DataFrame) -> dict[str, list[str]]:
    """Sorts the columns to the panels, the loss's first."""
    found: dict[str, list[str]] = {quantity: [] for quantity in ("Loss", *_QUANTITIES)}
    for column in table.columns:
        for quantity, pattern in _QUANTITIES.items():
            if re.search(pattern, column, re.IGNORECASE):
                found[quantity].append(column)
                break
    return {quantity: columns for quantity, columns in found.items() if columns}


def _panel_grid(
    panels: int,
    aspect: float,
    columns: int | None,
    panel_width: float = 1.6,
    title: str | None = None,
) -> tuple[Figure, list[Axes]]:
    """Makes a figure with this many bare panels of `aspect = height / width`, in rows.

    The panels are placed by hand, in inches: matplotlib's own layouts take seconds for the
    panels of a long caption, and come to the same.
    """
    if columns is None:
        columns = math.ceil(panels / math.ceil(panels / 6))
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1. Received: columns={columns}")
    columns = min(columns, panels)
    gap, above, below = 0.08, 0.27, 0.27  # between panels, for a word, for its gate
    panel_height = panel_width * aspect
    row_height = above + panel_height + below
    figure_width = columns * (panel_width + gap) + gap
    lines = textwrap.wrap(title, width=int(11 * figure_width)) if title else []
    figure_height = math.ceil(panels / columns) * row_height + 0.22 * len(lines) + gap
    figure = plt.figure(figsize=(figure_width, figure_height), facecolor=_PAPER)
    top = figure_height - 0.22 * len(lines) - gap / 2
    for panel in range(panels):
        row, column = divmod(panel, columns)
        left = gap + column * (panel_width + gap)
        bottom = top - row * row_height - above - panel_height
        place = (left, bottom, panel_width, panel_height)
        axes = figure.add_axes(np.divide(place, 2 * (figure_width, figure_height)))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    if lines:
        text = figure.suptitle("\n".join(lines), color=_INK, fontsize=11, parse_math=False)
        text.set_y(1 - gap / 2 / figure_height)
    return figure, figure.axes


def _dimmed(picture: np.ndarray) -> np.ndarray:
    """Takes the colour and most of the light out of a picture of `(height, width, 3)`."""
    luminance = picture @ np.array([0.299, 0.587, 0.114], dtype="float32")
    return np.repeat(_DIMMED_BRIGHTNESS * luminance[..., None], 3, axis=-1)


def _gaussian_rows(pixels: int, regions: int) -> np.ndarray:
    """Each region's share in each pixel along one axis, `(pixels, regions)`."""
    places = (np.arange(pixels, dtype="float32") + 0.5) * regions / pixels
    distances = (places[:, None] - np.arange(regions) - 0.5) / _SMOOTH_REGIONS
    shares = np.exp(-0.5 * distances.astype("float32") ** 2)
    return shares / shares.sum(axis=1, keepdims=True)


def _outline(axes: Axes, alpha: np.ndarray) -> None:
    """Draws a line around the places of at least half the highest weight, if others have less."""
    if alpha.min() < _OUTLINE_LEVEL <= alpha.max():
        line = axes.contour(alpha, levels=[_OUTLINE_LEVEL], colors=_OUTLINE_COLOUR, linewidths=1.2)
        line.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground=_INK)])


def _title_size(word: str) -> float:
    """A size in points at which the word fits over its panel."""
    return min(11.0, 150 / max(len(word), 1))


def _ranks_of_paths(hypotheses: Sequence) -> list[int | None]:
    """For each hypothesis the best rank of the finished captions that it leads to, if any."""
    ranks: list[int | None] = [None] * len(hypotheses)
    finished = {h.rank: index for index, h in enumerate(hypotheses) if h.rank is not None}
    for rank, index in sorted(finished.items()):
        while index is not None and ranks[index] is None:
            ranks[index] = rank
            index = hypotheses[index].parent
    return ranks


def _rows_by_step(hypotheses: Sequence) -> list[int]:
    """For each hypothesis its place among those of its step, the likeliest first."""
    rows = [0] * len(hypotheses)
    counts: dict[int, int] = {}
    for index in sorted(range(len(rows)), key=lambda i: -hypotheses[i].log_probability):
        step = hypotheses[index].step
        rows[index] = counts.get(step, 0)
        counts[step] = rows[index] + 1
    return rows


def _plot_curves(axes: Axes, curves: pd.DataFrame) -> None:
    """Draws one quantity's curves: a colour and marks for each name, the dev split's dashed."""
    styles: dict[str, tuple[str, str, str]] = {}
    for column in curves:
        stem = re.sub("^(val|dev)_", "", column)
        colour, *marks = styles.setdefault(stem, _CURVES[len(styles) % len(_CURVES)])
        dev = column != stem
        axes.plot(
            curves.index,
            curves[column],
            label=column.replace("_", " "),
            color=colour,
            linestyle="--" if dev else "-",
            marker=marks[dev],
            markersize=4.5,
            markevery=max(1, len(curves) // 20),
        )
    axes.set_xlabel("Epoch", color=_INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _mark_best(axes: Axes, scores: pd.DataFrame) -> None:
    """Writes the highest value of each score beside its point."""
    for column in scores.dropna(axis="columns", how="all"):
        epoch, best = scores[column].idxmax(), scores[column].max()
        axes.plot(epoch, best, marker="o", markersize=8, markerfacecolor="none", color=_INK)
        axes.annotate(
            f"{best:.3g}",
            (epoch, best),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            color=_INK,
            fontsize=9,
        )
    axes.margins(y=0.15)
