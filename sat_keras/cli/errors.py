"""Errors and warnings as the command line shows them: one line each, on stderr."""

import argparse
import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sat_keras.cli.options import FIELDS, flag

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Python arguments whose option has another name.
_ALIASES = {"cnn": "encoder", "weights": "encoder_weights", "only": "split"}


def printable(text: str) -> str:
    """Returns a text with its control characters escaped as in JSON, for a terminal.

    The name of a file may hold sequences that move the cursor, a line break, or bytes that are no
    UTF-8.

    Args:
        text: The text.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def sentence(error: BaseException, arguments: argparse.Namespace | None = None) -> str:
    """Returns an error in one line that names options of the command line.

    Args:
        error: The error.
        arguments: The parsed arguments. Python arguments of the same names, and fields of the
            config, become options: `allow_truncated=True` is --allow-truncated.
    """
    text = _cause(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        reason = (error.strerror or type(error).__name__).lower()
        text = f"The path cannot be used ({reason}); check it and its permissions. "
        text += f"Received: {str(error.filename)!r}"
    is_ours = isinstance(error, (ValueError, OSError, FloatingPointError))
    if not is_ours or len(text) > 1500:
        text = f"{text[:300]} ({type(error).__name__}; --debug shows its traceback)"
    known = {*FIELDS, *getattr(arguments, "options", vars(arguments))} if arguments else set()
    for argument in (r"`(\w+)(?:=([^`]*))?`", r"\b(\w+)=('[^']*'|\"[^\"]*\"|[\w.-]*\w)"):
        text = re.sub(argument, lambda found: _as_option(found, known), text)
    return printable(text)


def _cause(text: str) -> str:
    """Returns the message of an error that Keras or the operating system has wrapped."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # bold
    found = re.findall(
        r"Exception encountered when calling .*\(\)\. (.*?) Arguments received by", text
    )
    text = found[-1] if found else text
    return re.sub(r"\[Errno -?\d+\] ", "", text)


def _as_option(found: re.Match, known: set[str]) -> str:
    name, value = found.groups()
    name = _ALIASES.get(name, name)
    if name not in known:
        return found[0]
    if value in (None, "True"):
        return flag(name)
    if value == "False":
        return flag(f"no_{name}")
    value = value.strip("'\"")
    return f"{flag(name)} {'none' if value == 'None' else value}"


@contextlib.contextmanager
def short_warnings() -> Iterator[None]:
    """Shows this package's warnings once, in one line each, and none of other packages."""
    package = str(Path(__file__).resolve().parents[1])
    shown: set[str] = set()

    def show(message: Any, category: Any, filename: str, *_: Any, **__: Any) -> None:
        if str(Path(filename).resolve()).startswith(package) and str(message) not in shown:
            shown.add(str(message))
            print(f"sat-keras: warning: {printable(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield
