"""Atomic writing: a file or folder appears under its name only when it is complete."""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PREFIX = ".partial-"


@contextlib.contextmanager
def replacing(path: str | os.PathLike, sync: bool = True, overwrite: bool = True) -> Iterator[Path]:
    """Yields a temporary path whose file or folder takes the place of `path` at the end.

    The temporary path lies in the same folder, which is made if it does not exist. It is unique, so
    that several processes can write the same target, keeps the suffix, by which some writers choose
    the format, and is removed if the block raises.

    Args:
        path: Path of the file or folder to write.
        sync: Boolean, whether the contents are forced to disk before the renaming. Leave it out
            only for many small files that carry a checksum.
        overwrite: Boolean, whether a folder that exists is replaced.

    Yields:
        `Path` to write to.

    Raises:
        OSError: If the file cannot be written, or the folder exists and `overwrite` is `False`.

    Example:
    >>> with replacing("table.csv") as partial:
    ...     table.to_csv(partial)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{_PREFIX}{uuid.uuid4().hex}{path.suffix[:20]}")
    outdated = partial.with_name(f"{partial.name}.outdated")
    try:
        yield partial
        if sync:
            _sync(partial)
        if overwrite and path.is_dir():
            os.replace(path, outdated)
        try:
            os.replace(partial, path)
        except OSError:
            if outdated.exists():
                os.replace(outdated, path)
            raise
    finally:
        _remove(partial)
        _remove(outdated)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file atomically, see `replacing`.

    Args:
        path: Path of the file. Its folder is made if it does not exist.
        value: Value that `json.dumps` accepts.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def remove_partials(folder: str | os.PathLike, older_than: float = 3600.0) -> None:
    """Deletes temporary files of `replacing` that killed processes left in a folder.

    Args:
        folder: Path of the folder.
        older_than: Float, age in seconds from which a temporary file counts as left behind.
    """
    for path in Path(folder).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - older_than:
                _remove(path)


def _sync(path: Path) -> None:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    for file in files:
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
