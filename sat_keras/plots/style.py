"""Colours and matplotlib settings of every figure, and how a figure is written to a file."""

import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

INK, MUTED, PAPER = "#1A1A1A", "#595959", "#FFFFFF"
# Okabe and Ito's colours, which people with any colour vision can tell apart.
BLUE, ORANGE, GREEN, PINK, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#F0E442"


def default_style() -> Any:
    """Returns a context, or decorator, in which matplotlib has its default settings.

    The user's `matplotlibrc` and `plt.rcParams` would otherwise change the figures:
    `image.origin: lower` turns pictures upside down. The font is named because the meaning of the
    default, "sans-serif", is itself a setting.
    """
    return plt.style.context(["default", {"font.family": "DejaVu Sans"}])


class DefaultStyleFigure(Figure):
    """A matplotlib figure that is drawn and saved with matplotlib's default settings.

    Some settings, such as `text.hinting` or `savefig.bbox`, are read when a figure is drawn or
    saved, which may be long after it was made.
    """

    @default_style()
    def draw(self, renderer: Any) -> None:
        """Draws the figure with a renderer, as `Figure.draw`."""
        super().draw(renderer)

    @default_style()
    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Writes the figure, as `Figure.savefig`."""
        super().savefig(fname, **kwargs)


def save_figure(
    figure: Figure, path: str | Path, description: str | None = None, dpi: int = 100
) -> Path:
    """Writes a figure as a PNG of 256 colours and closes it.

    A figure of photos takes a third of the bytes that it would take in all its colours.

    Args:
        figure: The figure. It is closed in pyplot afterwards.
        path: File to write, ending in `.png`. Missing folders are created.
        description: Optional alternative text for readers who cannot see the figure, stored in
            the PNG as its `Description`.
        dpi: Integer, resolution in dots per inch.

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
    information = PngInfo()
    if description:
        information.add_itxt("Description", description)
    picture = Image.open(io.BytesIO(figure_bytes(figure, dpi=dpi))).convert("RGB")
    # Pillow's default method merges rare colours into frequent ones: a small yellow outline would
    # turn orange. Every other pixel is enough to choose the colours, in a quarter of the time.
    sample = picture.resize([(side + 1) // 2 for side in picture.size], Image.Resampling.NEAREST)
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    picture = picture.quantize(palette=palette, dither=Image.Dither.NONE)
    # The paper may share its colour with pixels that are nearly white: keep it white.
    colours = np.array(picture.getpalette()).reshape(-1, 3)
    colours[np.asarray(picture)[0, 0]] = 255
    picture.putpalette(colours.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="png", optimize=True, pnginfo=information)
    return path


def figure_bytes(figure: Figure, dpi: int, format: str = "png", **options: Any) -> bytes:
    """Draws a figure in all its colours and closes it.

    Args:
        figure: The figure. It is closed in pyplot afterwards.
        dpi: Integer, resolution in dots per inch.
        format: A picture format that matplotlib writes, such as `"png"` or `"webp"`.
        **options: Pillow's options of that format, such as `quality`.

    Returns:
        The content of a picture file.
    """
    file = io.BytesIO()
    figure.savefig(file, format=format, dpi=dpi, facecolor=PAPER, pil_kwargs=options)
    plt.close(figure)
    return file.getvalue()
