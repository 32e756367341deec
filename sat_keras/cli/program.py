"""The program `sat-keras`: parses the arguments, runs a command, turns errors into sentences.

Commands import Keras when they run, so that help and mistakes in options take no time.
"""

import argparse
import os
import shlex
import sys

from sat_keras.backend.progress import show_progress
from sat_keras.cli import (
    app,
    baseline,
    caption,
    compare,
    data,
    evaluate,
    export,
    features,
    options,
    score,
    table1,
    train,
)
from sat_keras.cli.errors import sentence, short_warnings
from sat_keras.cli.quiet import import_keras
from sat_keras.training.signals import Terminated

COMMANDS = {
    "data": data,
    "train": train,
    "evaluate": evaluate,
    "caption": caption,
    "app": app,
    "baseline": baseline,
    "table1": table1,
    "features": features,
    "export": export,
    "score": score,
    "compare": compare,
}


WITHOUT_KERAS = ("score", "compare")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: List of arguments without the program's name, by default those of `sys.argv`.

    Returns:
        Integer exit code: 0, 1 if some photos could not be captioned, 2 for an error that the user
        can fix, 130 after Ctrl-C, 141 if the reader of the output stopped reading.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    # Read when matplotlib is imported.
    os.environ.setdefault("MPLBACKEND", "Agg")
    arguments = argparse.Namespace()
    try:
        return _run(argv, arguments)
    except BrokenPipeError:
        # As in `sat-keras ... | head -1`, see "Note on SIGPIPE" in Python's module `signal`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, Terminated) as error:
        print("\nInterrupted. Run the same command again to resume.", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130
    except Exception as error:
        if "--debug" in argv:
            raise
        print(f"sat-keras: error: {sentence(error, arguments)}", file=sys.stderr)
        return 2


def _run(argv: list[str], arguments: argparse.Namespace) -> int:
    """Runs a command. Its output is flushed even if it exits as --help does."""
    try:
        with short_warnings():
            make_parser().parse_args(argv, arguments)
            arguments.command_line = shlex.join(["sat-keras", *argv])
            if arguments.command not in WITHOUT_KERAS:
                import_keras()
            with show_progress(not arguments.quiet):
                return arguments.run(arguments) or 0
    finally:
        sys.stdout.flush()


def make_parser() -> options.Parser:
    """Returns the parser of all commands."""
    return options.make_parser(COMMANDS)
