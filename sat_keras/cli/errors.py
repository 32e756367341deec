"""Errors and warnings as the command line shows them: one line each, on stderr."""

import argparse
import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def sentence(error: BaseException, arguments: argparse.Namespace | None = None) -> str:
    """Returns an error in one line that names options of the command line.

    Args:
        error: The error.
        arguments: The parsed arguments. Python arguments of the same names, in backticks in the
            message, become options: `allow_truncated=True` is `--allow-truncated`.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        reason = (error.strerror or type(error).__name__).lower()
        text = f"The path cannot be used ({reason}); check it and its permissions. "
        text += f"Received: {str(error.filename)!r}"
    is_ours = isinstance(error, (ValueError, OSError, FloatingPointError))
    if not is_ours or len(text) > 1500:
        text = f"{text[:300]} ({type(error).__name__}; --debug shows its traceback)"
    known = vars(arguments) if arguments else {}
    return re.sub(r"`(\w+)(?:=([^`]*))?`", lambda found: _as_option(found, known), text)


def _as_option(found: re.Match, known: dict[str, Any]) -> str:
    name, value = found.groups()
    if name not in known:
        return found[0]
    option = "--" + name.replace("_", "-")
    return option if value in (None, "True") else f"{option} {value.strip(chr(34))}"


@contextlib.contextmanager
def short_warnings() -> Iterator[None]:
    """Shows this package's warnings once, in one line each, and none of other packages."""
    package = str(Path(__file__).resolve().parents[1])
    shown: set[str] = set()

    def show(message: Any, category: Any, filename: str, *_: Any, **__: Any) -> None:
        if str(Path(filename).resolve()).startswith(package) and str(message) not in shown:
            shown.add(str(message))
            print(f"sat-keras: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield
