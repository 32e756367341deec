"""Figure of a training's curves."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sat_keras.plots.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    PINK,
    DefaultStyleFigure,
    default_style,
)

# Colour of a quantity's curves, and the markers of the train split's and of the dev split's.
_CURVES = ((BLUE, "s", "o"), (ORANGE, "^", "v"), (GREEN, "D", "P"), (PINK, "X", "*"))
# Title of each panel and the columns that belong to it. A column goes to the first that matches.
_QUANTITIES = {
    "Attention penalty": "penalty",
    "BLEU-4 (%)": "bleu.?4",
    "CIDEr": "cider|reward",
    "Supervised attention": "grounding",
    "Loss": "loss|cross_?entropy|nll",
}
_SCORES = ("BLEU-4 (%)", "CIDEr")


@default_style()
def plot_history(history: pd.DataFrame | Mapping[str, Sequence[float]] | str | Path) -> Figure:
    """Draws training curves: loss, attention penalty, BLEU-4, CIDEr and more in a panel each.

    The name of a column decides its panel: `penalty`, `bleu4`, `cider` and the `grounding` of
    supervised attention have one each (BLEU is in percent, CIDEr is not); `loss`, `cross_entropy`
    and `nll` go to the loss, and the `reward` of self-critical training, CIDEr-D of captions drawn
    for train pictures, to CIDEr. Names that begin with `val` or `dev` are of the dev split and
    their curves are dashed. Panels without a column are left out, and so are other columns
    (seconds, learning rate). The best epoch of each score is marked with its value.

    Args:
        history: A `pandas.DataFrame` with one row for each epoch, the path of a CSV log of
            `keras.callbacks.CSVLogger`, or the dictionary `History.history` that `fit` returns.
            A column `epoch` counts from 0, as in Keras's log; without one the rows are counted.

    Returns:
        A `matplotlib.figure.Figure` with one panel for each quantity. Epochs are counted from 1.

    Raises:
        ValueError: If no epoch is logged, or no column matches.
        FileNotFoundError: If the log does not exist.

    Example:

    >>> figure = plot_history("outputs/demo/log.csv")

    Reference:
        Notebook `04_training`.
    """
    table = _as_table(history)
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
        facecolor=PAPER,
        FigureClass=DefaultStyleFigure,
    )
    for axes, (quantity, names) in zip(panels.flat, columns.items(), strict=True):
        _plot_curves(axes, table[names])
        if quantity in _SCORES:
            _mark_best(axes, table[[name for name in names if name != "reward"]])
        axes.set_title(quantity, color=INK, fontsize=11)
    return figure


def _as_table(history: pd.DataFrame | Mapping[str, Sequence[float]] | str | Path) -> pd.DataFrame:
    """Returns one row for each epoch, indexed by the epoch counted from 1."""
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
    """Returns the columns of each panel, the loss's first."""
    found: dict[str, list[str]] = {quantity: [] for quantity in ("Loss", *_QUANTITIES)}
    for column in table.columns:
        for quantity, pattern in _QUANTITIES.items():
            if re.search(pattern, column, re.IGNORECASE):
                found[quantity].append(column)
                break
    return {quantity: columns for quantity, columns in found.items() if columns}


def _plot_curves(axes: Axes, curves: pd.DataFrame) -> None:
    """Draws a quantity's curves, one colour and marker for each name, the dev split's dashed."""
    styles: dict[str, tuple[str, str, str]] = {}
    for column in curves:
        stem = re.sub("^(val|dev)_", "", column)
        colour, *markers = styles.setdefault(stem, _CURVES[len(styles) % len(_CURVES)])
        is_dev = column != stem
        axes.plot(
            curves.index,
            curves[column],
            label=column.replace("_", " "),
            color=colour,
            linestyle="--" if is_dev else "-",
            marker=markers[is_dev],
            markersize=4.5,
            markevery=max(1, len(curves) // 20),
        )
    axes.set_xlabel("Epoch", color=INK)
    axes.locator_params(axis="x", integer=True)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _mark_best(axes: Axes, scores: pd.DataFrame) -> None:
    """Marks the best epoch of each score with its value."""
    for column in scores.dropna(axis="columns", how="all"):
        epoch, best = scores[column].idxmax(), scores[column].max()
        axes.plot(epoch, best, marker="o", markersize=8, markerfacecolor="none", color=INK)
        axes.annotate(
            f"{best:.3g}",
            (epoch, best),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=9,
        )
    axes.margins(y=0.15)
