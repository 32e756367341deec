"""Figures in notebooks."""

import base64
import html
from pathlib import Path

from matplotlib.figure import Figure

from sat_keras.plots.style import save_figure


def figure_html(figure: Figure, path: str | Path, description: str, dpi: int = 100) -> str:
    """Writes a figure as a PNG and returns it as an HTML image with alternative text.

    JupyterLab and `nbconvert` drop the alternative text of PNG outputs and keep that of HTML.

    Args:
        figure: The figure. It is closed in pyplot afterwards.
        path: File to write, ending in `.png`. Missing folders are created.
        description: Alternative text for readers who cannot see the figure.
        dpi: Integer, resolution in dots per inch.

    Returns:
        An `<img>` element that contains the picture.

    Example:

    >>> IPython.display.HTML(figure_html(figure, "outputs/bars.png", "Two bars of equal height."))
    """
    content = save_figure(figure, path, description, dpi).read_bytes()
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(description)}">'
