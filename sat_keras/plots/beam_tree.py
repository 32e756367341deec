"""Figure of a beam search as a tree."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from sat_keras.analysis.search_tree import Hypothesis
from sat_keras.plots.style import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    DefaultStyleFigure,
    default_style,
)

# Colour, width and style of the branches to the best caption, to other finished captions, and to
# hypotheses that were dropped.
_BEST, _FINISHED, _DROPPED = (ORANGE, 2.6, "-"), (BLUE, 1.3, "-"), ("#9A9A9A", 1.0, ":")


@default_style()
def plot_beam_tree(hypotheses: Sequence[Hypothesis], vocabulary: Sequence[str]) -> Figure:
    """Draws the hypotheses of a search as a tree, from the first token on the left to the ends.

    A column is a step, with the most probable hypothesis at the top: its last token above its
    `log p`. The path of the best caption is a thick line, those of the other finished captions
    are thin lines, and those of dropped hypotheses are dotted.

    Args:
        hypotheses: Sequence of `Hypothesis`, the second result of
            `sat_keras.analysis.trace_search`.
        vocabulary: The tokens by id, `Tokenizer.get_vocabulary()`.

    Returns:
        A `matplotlib.figure.Figure` with one panel.

    Raises:
        ValueError: If there are no hypotheses.

    Example:

    >>> _, hypotheses = trace_search(beam_search, step, states, **arguments)
    >>> figure = plot_beam_tree(hypotheses, tokenizer.get_vocabulary())

    Reference:
        Notebook `05_decoding`.
    """
    if not len(hypotheses):
        raise ValueError("A tree needs at least one hypothesis. Received: none")
    ranks = _ranks_of_paths(hypotheses)
    rows = _rows_by_step(hypotheses)
    num_rows, steps = max(rows) + 1, max(hypothesis.step for hypothesis in hypotheses)
    figure, axes = plt.subplots(
        figsize=(0.85 * (steps + 1), max(1.6, 0.62 * num_rows)),
        layout="constrained",
        facecolor=PAPER,
        FigureClass=DefaultStyleFigure,
    )
    for hypothesis, rank, row in zip(hypotheses, ranks, rows, strict=True):
        colour, width, style = _DROPPED if rank is None else _FINISHED if rank else _BEST
        if hypothesis.parent is not None:
            ends = (hypothesis.step - 1, hypothesis.step), (rows[hypothesis.parent], row)
            axes.plot(*ends, color=colour, linewidth=width, linestyle=style, zorder=1)
        axes.text(
            hypothesis.step,
            row,
            f"{vocabulary[hypothesis.token_id]}\n{hypothesis.log_probability:.2f}",
            color=MUTED if rank is None else INK,
            fontsize=8,
            ha="center",
            va="center",
            parse_math=False,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": PAPER, "edgecolor": colour},
        )
    axes.set(xlim=(-0.5, steps + 0.5), ylim=(num_rows - 0.5, -0.5))
    axes.axis("off")
    return figure


def _ranks_of_paths(hypotheses: Sequence[Hypothesis]) -> list[int | None]:
    """Returns, for each hypothesis, the best rank of the finished captions that continue it."""
    ranks: list[int | None] = [None] * len(hypotheses)
    finished = {h.rank: index for index, h in enumerate(hypotheses) if h.rank is not None}
    for rank, last in sorted(finished.items()):
        index: int | None = last
        while index is not None and ranks[index] is None:
            ranks[index] = rank
            index = hypotheses[index].parent
    return ranks


def _rows_by_step(hypotheses: Sequence[Hypothesis]) -> list[int]:
    """Returns the place of each hypothesis among those of its step, the most probable first."""
    rows = [0] * len(hypotheses)
    counts: dict[int, int] = {}
    for index in sorted(range(len(rows)), key=lambda i: -hypotheses[i].log_probability):
        step = hypotheses[index].step
        rows[index] = counts.get(step, 0)
        counts[step] = rows[index] + 1
    return rows
