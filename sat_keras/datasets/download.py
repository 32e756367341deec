"""Where a data set's files lie: found, unpacked or downloaded."""

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sat_keras.data.files import replacing

_STAMP = ".unpacked-from.json"
_TIMEOUT = 60  # seconds without an answer until the next mirror is tried


@dataclasses.dataclass(frozen=True)
class Archive:
    """An archive that a data set is published in.

    Args:
        name: file name, as published.
        size: how much there is to download, in words.
        urls: mirrors, tried in turn; none where the owners ask for a form to be filled in.
        page: the owners' page, for whoever downloads by hand.
        md5: checksum of the published bytes; None where none is known, and then none is checked.
            It is held against downloads only: an archive that is there already (resized pictures,
            a part of the set) is used as it is.
        other_names: further names the archive goes by.
    """

    name: str
    size: str
    urls: tuple[str, ...] = ()
    page: str = ""
    md5: str | None = None
    other_names: tuple[str, ...] = ()


class DataFolder:
    """A data set's folder: finds what was put there, unpacks archives, downloads what is missing.

    Args:
        data_dir: folder in which archives and unpacked files are looked for.
        name: the data set's name.
        cache_dir: folder to unpack and download into. Defaults to `data_dir` or, where that is
            write-protected, to `data/<name>` in the working directory.
        download: whether missing archives may be downloaded.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike,
        name: str,
        cache_dir: str | os.PathLike | None = None,
        download: bool = True,
    ):
        self.data_dir = Path(data_dir)
        self.download = download
        if cache_dir is not None:
            self.cache_dir = Path(cache_dir)
        elif _is_writable(self.data_dir):
            self.cache_dir = self.data_dir
        else:
            self.cache_dir = Path("data") / name

    def find(self, *names: str) -> Path | None:
        """The first of these files or folders that was put by hand, at most two folders deep."""
        roots = dict.fromkeys((self.data_dir, self.cache_dir))
        return next((path for root in roots if (path := _find(root, names))), None)

    def require(self, names: tuple[str, ...], archive: Archive) -> Path:
        """Find one of these files or folders, if need be in the archive, if need be downloaded.

        Args:
            names: names that the wanted file or folder goes by, the preferred one first.
            archive: where it is published.

        Returns:
            The path of the file or folder.

        Raises:
            FileNotFoundError: it is not there and cannot be downloaded.
            ValueError: the archive is damaged or holds no such file.
        """
        found = self.find(*names)
        if found:
            return found
        unpacked = self._unpacked(archive)
        found = _find(unpacked, names)
        if not found:
            raise ValueError(
                f"Expected {' or '.join(names)} in the archive {archive.name}; delete {unpacked} "
                f"and replace the archive by the published one"
                f"{f' ({archive.urls[0]})' if archive.urls else ''}. "
                f"Received: an archive with {sorted(p.name for p in unpacked.iterdir())[:5]}"
            )
        return found

    def _unpacked(self, archive: Archive) -> Path:
        """The folder with the archive's contents."""
        names = (archive.name, *archive.other_names)
        roots = dict.fromkeys((self.data_dir, self.cache_dir))
        for path in (root / name for root in roots for name in names):
            if path.is_file():
                return unpack(path, self.cache_dir)
        for path in (_unpacked_folder(root, name) for root in roots for name in names):
            if path.is_dir():  # the archive itself was deleted since
                return path
        return unpack(self._download(archive), self.cache_dir)

    def _download(self, archive: Archive) -> Path:
        if not self.download:
            raise _missing(archive, self.data_dir, "download=False")
        if not archive.urls:
            raise _missing(archive, self.data_dir, "an archive that cannot be downloaded freely")
        return fetch(archive, self.cache_dir)


def fetch(archive: Archive, folder: str | os.PathLike) -> Path:
    """Download an archive from the first mirror that answers, with a progress bar.

    The archive appears in `folder` when it is complete and its checksum, where one is known, is
    right; an interrupted download leaves nothing there.

    Args:
        archive: what to download.
        folder: where to put it.

    Returns:
        The downloaded file's path.

    Raises:
        FileNotFoundError: no mirror gave the archive.
    """
    import keras  # takes seconds to import and is needed for downloads only

    folder, failures = Path(folder), []
    print(f"{archive.name}: {archive.size} to download into {folder}")
    for url in archive.urls:
        try:
            with replacing(folder / archive.name) as partial, _socket_timeout(_TIMEOUT):
                keras.utils.get_file(
                    partial.name,
                    url,
                    cache_dir=str(folder),
                    cache_subdir="",
                    file_hash=archive.md5,
                    hash_algorithm="md5" if archive.md5 else "auto",
                    force_download=True,
                )
                if not (zipfile.is_zipfile(partial) or tarfile.is_tarfile(partial)):
                    raise ValueError(f"{url} answered with something else than an archive")
            return folder / archive.name
        except Exception as error:  # get_file raises a bare Exception for every HTTP error
            failures.append(" ".join(str(error).split()))
    raise _missing(archive, folder, "; ".join(failures))


def _missing(archive: Archive, folder: Path, received: str) -> FileNotFoundError:
    sources = " or ".join([*archive.urls, *([archive.page] if archive.page else [])])
    return FileNotFoundError(
        f"The file {archive.name} ({archive.size}) is missing. Get it from {sources} and put it, "
        f"packed or unpacked, into the folder {folder}. Received: {received}"
    )


def unpack(archive: str | os.PathLike, into: str | os.PathLike) -> Path:
    """Unpack a zip or tar archive once, into a folder that appears when it is complete.

    Args:
        archive: path of the archive.
        into: folder in which the folder `<archive's name>.unpacked` is made. One that is there
            already is kept if it came from the same archive and replaced if from another.

    Returns:
        The folder with the archive's contents.

    Raises:
        ValueError: the archive is damaged.
    """
    archive = Path(archive)
    folder = _unpacked_folder(into, archive.name)
    stamp = _stamp(archive)
    if folder.is_dir() and _read_stamp(folder) == stamp:
        return folder
    print(f"Unpacking {archive} into {folder}")
    with replacing(folder) as partial:
        _extract(archive, partial)
        (partial / _STAMP).write_text(json.dumps(stamp))
    return folder


def _extract(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                members = [m for m in opened.namelist() if not m.startswith("__MACOSX")]
                opened.extractall(folder, members)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"The archive {archive} is damaged or incomplete; delete it and get it again. "
            f"Received: {error}"
        ) from error


def _unpacked_folder(root: str | os.PathLike, archive_name: str) -> Path:
    return Path(root) / f"{archive_name}.unpacked"


def _stamp(archive: Path) -> dict:
    """What tells one archive from another: size and both ends (a zip's list is at its end)."""
    size, end = archive.stat().st_size, 1 << 20
    with archive.open("rb") as file:
        digest = hashlib.sha256(file.read(end))
        file.seek(max(0, size - end))
        digest.update(file.read(end))
    return {"size": size, "sha256_of_ends": digest.hexdigest()}


def _read_stamp(folder: Path) -> dict | None:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / _STAMP).read_text())
    return None


def _find(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these names in `root` or at most two folders below, however it is nested.

    Folders that `unpack` made are passed over, unless `root` is one: their archive decides.
    """
    folders = list(_folders(root, depth=2))
    for name in names:
        for folder in folders:
            path = folder / name
            if path.exists():
                inner = path / name  # an archive unpacked into a folder of its own name
                return inner if inner.is_dir() else path
    return None


def _folders(root: Path, depth: int) -> Iterator[Path]:
    if not root.is_dir():
        return
    yield root
    if depth:
        with os.scandir(root) as entries:
            inner = [Path(entry.path) for entry in entries if entry.is_dir()]
        for folder in sorted(inner):
            if not (folder.name.startswith(".") or (folder / _STAMP).exists()):
                yield from _folders(folder, depth - 1)


def _is_writable(folder: Path) -> bool:
    """Whether files may be made in a folder or, where it does not exist, it may be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    # The second condition is for the superuser, whom the first lets into protected folders.
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Keep a mirror that does not answer from blocking for ever: get_file sets no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
