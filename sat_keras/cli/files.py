"""Files that commands write: never over a file that this program did not write."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sat_keras.cli.errors import printable

RESULTS_SIZE = 1 << 20  # of scores or captions, in bytes


def check_target(option: str, path: str | Path | None, overwrite: bool = False) -> None:
    """Refuses, before any work is done, a file that must not be replaced or cannot be written.

    Results are recognised by the command that they record. Other files that exist are only
    replaced with --overwrite.

    Args:
        option: The option that names the file, for the message.
        path: Path of the file, or `None` if none was asked for.
        overwrite: Boolean, whether any file may be replaced.

    Raises:
        ValueError: If the path is a folder's or lies in a file.
        FileExistsError: If there is a file that this program did not write.
        OSError: If there is no permission or no room to write.
    """
    if path is None:
        return
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{option} must name a file. Received: the folder {path}")
    folder = existing_folder(path.parent)
    if not folder.is_dir():
        raise ValueError(f"{option} must lie in a folder. Received: {path}, but {folder} is a file")
    if path.exists() and not overwrite and not _is_ours(path):
        raise FileExistsError(
            f"{option} names a file that exists and has no sat-keras results in it; choose another "
            f"name, or replace it with --overwrite. Received: {path}"
        )
    check_writable(folder)


def check_writable(folder: str | Path, needed: int = RESULTS_SIZE) -> None:
    """Checks before any work that a folder, or the one in which it is made, can be written.

    Args:
        folder: Path of the folder, which may be missing.
        needed: Integer, estimated bytes.

    Raises:
        OSError: If there is no permission or no room.
    """
    from sat_keras.data.files import check_room

    check_room(existing_folder(folder), needed)


def existing_folder(folder: str | Path) -> Path:
    """Returns the first path that exists, of a folder and those that it lies in."""
    folder = Path(folder).absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def free_path(folder: str | Path, stem: str, suffix: str = ".png") -> Path:
    """Returns a path in a folder at which there is no file yet.

    Args:
        folder: Path of the folder, which may be missing.
        stem: Name without suffix; a number is added if it is taken.
        suffix: End of the name.
    """
    path = Path(folder, stem + suffix)
    number = 2
    while path.exists() or path.is_symlink():
        path = Path(folder, f"{stem}-{number}{suffix}")
        number += 1
    return path


def write_results(path: str | Path, results: Any) -> None:
    """Writes results as JSON and says where.

    Args:
        path: Path of the file.
        results: Value that JSON knows.
    """
    from sat_keras.data.files import write_json

    write_json(path, results)
    print(f"Written to {path}.")


def write_captions(path: str | Path | None, captions: Mapping[str, str]) -> None:
    """Writes captions in COCO's format, if a file was asked for.

    Args:
        path: Path of the file, or `None`.
        captions: Sentences by image id.
    """
    from sat_keras.data.files import write_json

    if path:
        write_json(path, [{"image_id": i, "caption": text} for i, text in captions.items()])


def note(arguments: argparse.Namespace, text: str) -> None:
    """Prints a line about progress, unless --quiet is given."""
    if not arguments.quiet:
        print(printable(text), flush=True)


def _is_ours(path: Path) -> bool:
    """Whether a file records the `sat-keras` command that wrote it."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".html", ".htm"):
            return "sat-keras evaluate" in text
        results = json.loads(text)
    except (OSError, ValueError):
        return False
    command = results.get("command") if isinstance(results, dict) else None
    return isinstance(command, str) and "sat-keras " in command
