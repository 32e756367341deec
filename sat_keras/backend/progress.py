"""Progress of phases that take more than two seconds: a bar on a terminal, lines in a pipe.

A phase counts its steps in `track`, which shows nothing unless it runs inside `show_progress`: the
command line shows progress, the library is silent. The bars are tqdm's and go to stderr. Keras's
`Progbar` writes to stdout, among results, prints backspaces into pipes, and needs Keras, which
scoring does not.
"""

import contextlib
import contextvars
import io
import sys
from collections.abc import Iterator
from typing import Any

# Seconds before a phase is shown, and between two lines in a pipe.
DELAY = 2.0
LINE_INTERVAL = 5.0

_is_shown = contextvars.ContextVar("is_shown", default=False)


@contextlib.contextmanager
def show_progress(shown: bool = True) -> Iterator[None]:
    """Shows the progress of the phases in the block.

    Args:
        shown: Boolean. `False` hides it.

    Example:

    >>> with show_progress():
    ...     scores = score_pictures(candidates, references)
    """
    token = _is_shown.set(shown)
    try:
        yield
    finally:
        _is_shown.reset(token)


@contextlib.contextmanager
def track(total: int, label: str, unit: str = "pictures") -> Iterator[Any]:
    """Counts the steps of a phase, with an estimate of its end.

    Args:
        total: Integer, number of steps.
        label: Name of the phase.
        unit: What a step is, in the plural.

    Yields:
        Object whose method `update(n)` adds `n` steps.

    Example:

    >>> with track(len(pictures), "Occlusion") as bar:
    ...     for picture in pictures:
    ...         hide_regions(picture)
    ...         bar.update(1)
    """
    if not _is_shown.get():
        yield _Silent()
        return
    from tqdm import tqdm

    options: dict[str, Any] = {"total": total, "desc": label, "unit": unit}
    if sys.stderr.isatty():
        options |= {"leave": False, "dynamic_ncols": True, "bar_format": _BAR}
    else:
        options |= {"leave": False, "mininterval": LINE_INTERVAL, "bar_format": _LINE}
        # Phases that run side by side share the lines: no codes that move the cursor.
        options |= {"file": _Lines(), "position": 0}
    with tqdm(delay=DELAY, miniters=1, **options) as bar:
        yield bar


_COUNT = "{n_fmt} of {total_fmt} {unit}, {elapsed} so far, {remaining} left"
_BAR = "{desc}: {percentage:3.0f} % |{bar}| " + _COUNT
_LINE = "{desc}: {percentage:.0f} %, " + _COUNT


class _Silent:
    def update(self, n: float = 1) -> None:
        """Shows nothing."""


class _Lines(io.StringIO):
    """Prints what tqdm writes, each state in a line of its own."""

    def write(self, text: str) -> int:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)
        return len(text)
