"""Checks of the exercises of `06_attention_plots`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sat_keras.analysis.pointing import pointing_accuracy
from sat_keras.course.checking import (
    NotYetError,
    exercise,
    number,
    require,
    result_of,
)


@exercise(1)
def largest_entropy(answer: Any, num_regions: int) -> str:
    """Checks the entropy of uniform attention over `num_regions` regions, in nats."""
    found, true = number(answer, "a number of nats"), np.log(num_regions)
    for name, base in (("bits", np.log(2)), ("powers of ten", np.log(10))):
        require(not np.isclose(found, true / base, rtol=1e-2), f"That is in {name}, not in nats.")
    require(not np.isclose(found, -true, rtol=1e-2), "-sum(p log p) is positive.")
    require(not np.isclose(found, num_regions), "That is exp(H), the number of regions.")
    require(not np.isclose(found, true / num_regions, rtol=1e-2), "Sum over the regions, no mean.")
    require(np.isclose(found, true, rtol=1e-2), f"exp({found:.3g}) is not {num_regions} regions.")
    return f"exp({true:.2f}) = {num_regions}: no map is wider."


@exercise(2)
def pointing_game(answer: Callable[..., Any]) -> str:
    """Checks a function of maps, boxes and the picture's size that returns the share of hits."""
    maps, boxes, size = _game()
    found = number(result_of(answer, maps, boxes, size), "a share between 0 and 1")
    true = _hits(maps, boxes, size)
    mistakes = {
        "That is the number of hits; return their share.": true * len(maps),
        "That is a percentage; return a share between 0 and 1.": 100 * true,
        "That is the share of misses.": 1 - true,
        "Rows go down (y, size[0]) and columns to the right (x, size[1]).": _hits(
            maps, boxes, size, swapped=True
        ),
        "Take the centre of the region, half a region from its corner.": _hits(
            maps, boxes, size, offset=0.0
        ),
        "A point on the right or lower edge of a box does not lie inside: `x < x1`.": _hits(
            maps, boxes, size, closed=True
        ),
        "Take the region with the highest weight, not the lowest.": _hits(-maps, boxes, size),
    }
    for message, mistake in mistakes.items():
        require(np.isclose(found, true) or not np.isclose(found, mistake), message)
    require(
        np.isclose(found, true),
        f"Of {len(maps)} maps the share is {true:.3f}. Received: {found:.3f}",
    )
    return "It agrees with `analysis.pointing_accuracy`."


@exercise(3)
def maps_of_other_words(
    answer: Any, maps: Sequence, boxes: Sequence, size: tuple[int, int], order: Any
) -> str:
    """Checks the pointing accuracy with the maps in another order."""
    share = number(answer, "a share between 0 and 1")
    require(0 <= share <= 1, f"A share lies between 0 and 1, no percentage. Received: {answer!r}")
    own = pointing_accuracy(maps, boxes, size).value
    true = pointing_accuracy([maps[i] for i in order], boxes, size).value
    both = [boxes[i] for i in order]
    together = pointing_accuracy([maps[i] for i in order], both, size).value
    inverse = pointing_accuracy([maps[i] for i in np.argsort(order)], boxes, size).value
    if not np.isclose(share, true, atol=1e-3):
        require(
            not np.isclose(share, own, atol=1e-3) and not np.isclose(share, together, atol=1e-3),
            "That is the share with each word's own map: permute the maps and not the boxes.",
        )
        require(not np.isclose(share, inverse, atol=1e-3), "That is the inverse of `order`.")
        raise NotYetError("Pass [named_maps[i] for i in order] and the boxes as they are.")
    return f"{100 * true:.0f} % instead of {100 * own:.0f} %: a map belongs to its word."


@exercise(4)
def needed_behind_a_closed_gate(answer: Any, by_word: pd.DataFrame) -> str:
    """Checks the word with a gate below 0.35 that loses most with another picture."""
    require(isinstance(answer, str), f"Expected a word, such as 'of'. Received: {answer!r}")
    require(answer in by_word.index, f"{answer!r} is no word of `by_word`.")
    closed = by_word[by_word["gate"] < 0.35]
    gate, loss = by_word.loc[answer, ["gate", "loss"]]
    require(gate < 0.35, f"The gate of {answer!r} is {gate:.2f}, not below 0.35.")
    lowest = closed["gate"].idxmin()
    best = closed["loss"].idxmax()
    require(
        answer != lowest or answer == best,
        f"{answer!r} has the lowest gate; asked is the largest loss among low gates.",
    )
    require(answer == best, f"{answer!r} loses {loss:.2f} nats; another word loses more.")
    return f"{answer!r} loses {loss:.1f} nats at a gate of {gate:.2f}."


def _game() -> tuple[np.ndarray, list[tuple[float, float, float, float]], tuple[int, int]]:
    """Returns 11 maps of 3 x 5 regions with boxes on which each usual mistake has its own share."""
    size, regions = (30, 100), (3, 5)  # regions of 10 x 20 pixels
    maps, boxes = [], []
    # Row and column of the peak, and the box's sides from the region's centre (x, y).
    right = [((r, c), (-4, -4, 4, 4)) for r, c in ((0, 0), (2, 4), (1, 3), (0, 4))]
    both_ways = [((2, 1), (-6, -6, 6, 6))]  # x = 30, y = 25: inside with x and y swapped too
    on_left = [((1, 1), (0, -2, 6, 2))]  # the centre is on the left edge: inside
    on_right = [((0, 2), (-6, -2, 0, 2)), ((2, 2), (-3, -3, 3, 0))]
    corner = [((1, 4), (-12, -7, -4, -3)), ((2, 1), (-11, -6, -8, -4)), ((0, 3), (-11, -6, -9, -4))]
    for (row, column), (x0, y0, x1, y1) in (*right, *both_ways, *on_left, *on_right, *corner):
        weights = np.full(regions, 0.05)
        weights[row, column] = 0.3
        weights[(row + 1) % 3, (column + 2) % 5] = 0.01
        maps.append(weights / weights.sum())
        x, y = (column + 0.5) * 20, (row + 0.5) * 10
        boxes.append((x + x0, y + y0, x + x1, y + y1))
    return np.stack(maps), boxes, size


def _hits(
    maps: Any,
    boxes: Any,
    size: tuple[int, int],
    swapped: bool = False,
    offset: float = 0.5,
    closed: bool = False,
) -> float:
    """Returns the share of hits, with a mistake if asked for."""
    hits = []
    for weights, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        row, column = np.unravel_index(weights.argmax(), weights.shape)
        y = (row + offset) * size[0] / weights.shape[0]
        x = (column + offset) * size[1] / weights.shape[1]
        if swapped:
            x, y = y, x
        inside = x0 <= x <= x1 and y0 <= y <= y1
        hits.append(inside if closed else inside and x < x1 and y < y1)
    return float(np.mean(hits))
