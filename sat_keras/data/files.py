"""Atomic writing: a file or folder appears under its name only when it is complete."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_PREFIX = ".partial-"
_CHECKSUM = "checksum"


@contextlib.contextmanager
def replacing(path: str | os.PathLike, sync: bool = True, overwrite: bool = True) -> Iterator[Path]:
    """Yields a temporary path whose file or folder takes the place of `path` at the end.

    The temporary path lies in the same folder, which is made if it does not exist. It is unique, so
    that several processes can write the same target, keeps the suffixes, by which some writers
    choose the format, and is removed if the block raises.

    Args:
        path: Path of the file or folder to write.
        sync: Boolean, whether the contents are forced to disk before the renaming. Leave it out
            only for many small files that carry a checksum.
        overwrite: Boolean, whether a folder that exists is replaced.

    Yields:
        `Path` to write to.

    Raises:
        OSError: If the file cannot be written, the folder exists and `overwrite` is `False`, or the
            folder is a mount point.

    Example:
    >>> with replacing("table.csv") as partial:
    ...     table.to_csv(partial)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.ismount(path):
        raise OSError(
            f"A mount point cannot be replaced; name a folder inside it to write. Received: {path}"
        )
    suffixes = "".join(path.suffixes)[-20:]  # such as .weights.h5
    partial = path.with_name(f"{_PREFIX}{uuid.uuid4().hex}{suffixes}")
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
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # A write that fails, on a full disk for example, does not know its file.
        raise OSError(
            f"The path {path} could not be written; make room on its disk, or choose another "
            f"folder. Received: {error.strerror}"
        ) from error
    finally:
        _remove(partial)
        _remove(outdated)


def write_json(path: str | os.PathLike, value: Any, checksum: bool = False) -> None:
    """Writes a JSON file atomically, see `replacing`.

    Args:
        path: Path of the file. Its folder is made if it does not exist.
        value: Value that `json.dumps` accepts.
        checksum: Boolean, whether a dictionary gets the key `checksum`, which `read_json` compares.
    """
    if checksum:
        value = {**value, _CHECKSUM: _checksum(value)}
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file and compares its checksum, if it has one.

    Args:
        path: Path of the file.

    Returns:
        The value, without the checksum.

    Raises:
        ValueError: If the file is no JSON or has another checksum.
        OSError: If it cannot be read.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("The JSON file is nested too deeply") from error
    if not isinstance(value, dict) or _CHECKSUM not in value:
        return value
    expected = value.pop(_CHECKSUM)
    if expected != _checksum(value):
        raise ValueError(
            f"the checksum must be {_checksum(value)!r} and is {expected!r}; after a change by "
            f"hand delete the line {_CHECKSUM!r}"
        )
    return value


def _checksum(value: Any) -> str:
    """Returns a checksum of a JSON value that does not depend on the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: str | os.PathLike) -> str:
    """Returns the SHA-256 checksum of a file in hexadecimal digits.

    Args:
        path: Path of the file.
    """
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_sum(path: str | os.PathLike, expected: str | None) -> None:
    """Compares the SHA-256 checksum of a file.

    Args:
        path: Path of the file.
        expected: The checksum, or `None` where it is not known, as in files of 0.1.0.

    Raises:
        ValueError: If the file has another checksum.
    """
    if expected is not None and (found := sha256(path)) != expected:
        raise ValueError(
            f"The file {path} is damaged: its SHA-256 must be {expected}; get it again. "
            f"Received: {found}"
        )


def check_room(folder: str | os.PathLike, needed: int) -> None:
    """Checks that a folder can take a file of a size, by reserving its room for a moment.

    Called before HDF5 writes: where a write fails on a full disk, HDF5 crashes the process.

    Args:
        folder: Path of a folder that exists.
        needed: Integer, bytes.

    Raises:
        OSError: If there is no room, or no permission.
    """
    try:
        with tempfile.TemporaryFile(dir=os.fspath(folder)) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, needed)
            elif shutil.disk_usage(folder).free < needed:  # macOS
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(
            f"The folder {folder} must be writable and have {needed / 1e6:.1f} MB of room; make "
            f"room on its disk, or choose another folder. Received: {error.strerror}"
        ) from error


def hdf5_size(variables: Iterable[Any]) -> int:
    """Returns a bound on the size of an HDF5 file of variables of at most 32 bits, in bytes.

    Args:
        variables: Keras variables.
    """
    return (1 << 16) + sum((1 << 13) + 4 * math.prod(variable.shape) for variable in variables)


def compress_hdf5(path: str | os.PathLike) -> None:
    """Compresses the arrays of an HDF5 file without loss, in place.

    Sorting the bytes of float16 numbers by significance (shuffle) makes their exponents
    compressible: weights lose about a seventh of their size. Readers need no option.

    Args:
        path: Path of the file.

    Example:
    >>> captioner.save_weights("captioner.weights.h5")
    >>> compress_hdf5("captioner.weights.h5")
    """
    import h5py

    with replacing(path) as partial, h5py.File(path) as source, h5py.File(partial, "w") as target:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                new = target.require_group(name)
            else:  # a small array would grow by the table of its compressed chunks
                options = {"compression": "gzip", "shuffle": True} if item.size > 1 << 16 else {}
                new = target.create_dataset(name, data=item[()], **options)
            new.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)


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
