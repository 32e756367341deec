"""SIGTERM as an exception, so that files are closed and locks released as after Ctrl-C."""

import contextlib
import signal
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

    A training loses the epoch it is in; the one before is saved when it ends.

    Example:

    >>> try:
    ...     with sigterm_raises():
    ...         train_captioner(config, table, encoder, "outputs/scenes")
    ... except Terminated:
    ...     print("Terminated. Run the same command again to resume.")
    ...     raise
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(*_: Any) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
