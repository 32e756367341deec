"""Importing Keras without the log lines of TensorFlow's libraries."""

import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# A line of absl's logging in C++, as "I0000 00:00:1795898929.314823    3729 port.cc:153] ...", and
# the line before the first of them.
_LOG_LINE = re.compile(
    rb"(?:[IWE]\d{4} [\d:.]+\s+\d+ [^\n]*\] [^\n]*|WARNING: All log messages before absl[^\n]*)\n"
)


def import_keras() -> None:
    """Imports Keras and TensorFlow. Their log lines are dropped, errors and warnings stay.

    `TF_CPP_MIN_LOG_LEVEL` hides what TensorFlow logs later. It does not hide what its libraries log
    while they are loaded, before absl's logging is set up: that there is no GPU, and that oneDNN is
    used. So file descriptor 2 leads to a temporary file during the import, and all that is no log
    line is printed afterwards. A separate process that filters stderr would hide from this one
    whether it is a terminal, and would have to pass on signals and the exit code.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    if "tensorflow" in sys.modules:
        return
    with _without_log_lines():
        with contextlib.suppress(ImportError):  # `keras` works without, and says what needs it
            importlib.import_module("tensorflow")
        importlib.import_module("keras")


@contextlib.contextmanager
def _without_log_lines() -> Iterator[None]:
    """Drops log lines from what is written to file descriptor 2."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            os.write(2, _LOG_LINE.sub(b"", file.read()))
