"""SIGTERM and Ctrl-C: raised at once, or during a training after the step and its checkpoint."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(SystemExit):
    """Raised in the main thread at SIGTERM. Its exit code is 143, as the shell's."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raises `Terminated` at SIGTERM while the block runs. Does nothing outside the main thread.

    Within a training's steps, `train_captioner` saves a checkpoint first, see `StopRequest`.

    Example:

    >>> try:
    ...     with sigterm_raises():
    ...         train_captioner(config, table, encoder, "outputs/scenes")
    ... except Terminated:
    ...     print("Terminated. Run the same command again to resume.")
    ...     raise
    """
    with _handled(_raise, signal.SIGTERM):
        yield


class StopRequest:
    """Notes the first SIGTERM or Ctrl-C, so that a training can save a checkpoint before it stops.

    The second one raises at once. Does nothing outside the main thread.

    Attributes:
        number: Integer, number of the signal that was received, or `None`.

    Example:

    >>> stop = StopRequest()
    >>> with stop.waiting():
    ...     for step in range(steps):
    ...         train(step)
    ...         if stop.number:
    ...             save(step)
    ...             stop.carry_out()
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Returns the context in which signals are noted."""
        return _handled(self._note, signal.SIGTERM, signal.SIGINT)

    def carry_out(self) -> None:
        """Raises `Terminated` or `KeyboardInterrupt` if a signal was received."""
        if self.number is not None:
            _raise(self.number)

    def _note(self, number: int, frame: Any) -> None:
        if self.number is not None:
            _raise(number)
        self.number = number
        # Not `print`: the signal may have interrupted one.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _NOTICE)


_NOTICE = b"\nStopping after a checkpoint; a second signal or Ctrl-C stops at once.\n"


def _raise(number: int, frame: Any = None) -> None:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def _handled(handle: Any, *numbers: int) -> Iterator[None]:
    """Handles signals in the main thread, except those that the process ignores, as under nohup."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        ignored = [n for n in numbers if signal.getsignal(n) is signal.SIG_IGN]
        previous = {n: signal.signal(n, handle) for n in numbers if n not in ignored}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
