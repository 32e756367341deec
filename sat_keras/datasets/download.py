"""Files of a data set: found, unpacked or downloaded."""

import contextlib
import dataclasses
import errno
import gzip
import hashlib
import json
import lzma
import os
import shutil
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from sat_keras.data.files import replacing

_STAMP = ".unpacked-from.json"
_TIMEOUT = 60  # seconds without an answer until the next mirror is tried
_MAX_RATIO = 100  # of an archive's unpacked size to its packed size


@dataclasses.dataclass(frozen=True)
class Archive:
    """An archive that a data set is published in.

    Args:
        name: File name, as published.
        size: Size of the download, in words.
        urls: Mirrors, tried in turn. Empty if the owners ask for a form to be filled in.
        page: The owners' page, for downloads by hand.
        md5: Checksum of the published bytes, `None` if unknown. Only downloads are checked: an
            archive that is there already may hold resized pictures or a part of the set.
        other_names: Other names of the archive.
    """

    name: str
    size: str
    urls: tuple[str, ...] = ()
    page: str = ""
    md5: str | None = None
    other_names: tuple[str, ...] = ()


class DataFolder:
    """Finds files in a data set's folder, unpacks archives and downloads missing ones.

    Args:
        data_dir: Folder in which archives and unpacked files are looked for.
        name: Name of the data set.
        cache_dir: Folder to unpack and download into. Defaults to `data_dir` or, where that is
            write-protected, to `data/<name>` in the working directory.
        download: Boolean, whether missing archives may be downloaded.
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
        """Returns the first of these files or folders, at most two folders deep, or `None`."""
        roots = dict.fromkeys((self.data_dir, self.cache_dir))
        return next((path for root in roots if (path := _find(root, names))), None)

    def require(self, names: tuple[str, ...], archive: Archive) -> Path:
        """Finds one of these files or folders; unpacks or downloads the archive if necessary.

        Args:
            names: Names of the wanted file or folder, the preferred one first.
            archive: Archive that holds it.

        Returns:
            Path of the file or folder.

        Raises:
            FileNotFoundError: If it is not there and cannot be downloaded.
            ValueError: If the archive is damaged or does not hold it.
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

    def find_or_unpack(self, names: tuple[str, ...], archive: Archive) -> Path | None:
        """Returns one of these files as `require` does, or `None` rather than downloading it."""
        has_archive = self._local(archive) is not None
        return self.require(names, archive) if has_archive else self.find(*names)

    def _unpacked(self, archive: Archive) -> Path:
        """Returns the folder with the archive's contents."""
        return self._local(archive) or unpack(self._download(archive), self.cache_dir)

    def _local(self, archive: Archive) -> Path | None:
        """Returns the folder with the contents of an archive that is there, else `None`."""
        names = (archive.name, *archive.other_names)
        roots = dict.fromkeys((self.data_dir, self.cache_dir))
        for path in (root / name for root in roots for name in names):
            if path.is_file():
                return unpack(path, self.cache_dir)
        for path in (_unpacked_folder(root, name) for root in roots for name in names):
            if path.is_dir():  # the archive itself was deleted since
                return path
        return None

    def _download(self, archive: Archive) -> Path:
        if not self.download:
            raise _missing(archive, self.data_dir, "download=False")
        if not archive.urls:
            raise _missing(archive, self.data_dir, "an archive that cannot be downloaded freely")
        return fetch(archive, self.cache_dir)


def fetch(archive: Archive, folder: str | os.PathLike) -> Path:
    """Downloads an archive from the first mirror that answers, with a progress bar.

    The archive appears in `folder` when it is complete and its checksum, if known, is right.

    Args:
        archive: Archive to download.
        folder: Folder to put it in.

    Returns:
        Path of the downloaded file.

    Raises:
        FileNotFoundError: If no mirror served the archive.
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
                    raise ValueError(f"{url} did not serve an archive")
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
    """Unpacks a zip or tar archive once, into a folder that appears when it is complete.

    Args:
        archive: Path of the archive.
        into: Folder in which the folder `<archive's name>.unpacked` is made. An existing one is
            kept if it came from the same archive, and replaced otherwise.

    Returns:
        Path of the folder with the archive's contents.

    Raises:
        ValueError: If the archive is damaged, encrypted or too large.
        OSError: If a file cannot be written.
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
    damaged = (zipfile.BadZipFile, tarfile.TarError, EOFError)
    broken_stream = (zlib.error, lzma.LZMAError, gzip.BadGzipFile)
    check = _size_check(archive, folder)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                members = [m for m in opened.infolist() if not m.filename.startswith("__MACOSX")]
                check(sum(member.file_size for member in members))
                opened.extractall(folder, members)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter=_tar_filter(check))
                _check_end(opened)
    except (*damaged, *broken_stream) as error:
        raise _damaged(archive, error) from error
    except RuntimeError as error:  # encrypted, or of an unknown compression
        raise ValueError(
            f"The archive {archive} cannot be unpacked; unpack it by hand into {archive.parent}. "
            f"Received: {error}"
        ) from error
    except OSError as error:
        if error.errno is None:  # a broken stream of bzip2
            raise _damaged(archive, error) from error
        raise OSError(
            f"The archive {archive} cannot be unpacked into {folder.parent}; check permissions, "
            "the room on the disk and the names in the archive. "
            f"Received: {error.strerror or error}"
        ) from error


def _damaged(archive: Path, error: Exception) -> ValueError:
    return ValueError(
        f"The archive {archive} is damaged or incomplete; delete it and get it again. "
        f"Received: {error}"
    )


def _size_check(archive: Path, folder: Path) -> Callable[[int], None]:
    """Returns a function that refuses an unpacked size that no disk or data set has."""
    free, packed = shutil.disk_usage(folder).free, archive.stat().st_size

    def check(unpacked: int) -> None:
        if unpacked > _MAX_RATIO * packed + (1 << 20):
            raise ValueError(
                f"The archive {archive} is over {_MAX_RATIO} times larger unpacked, as no data set "
                f"is; delete it and get it again. Received: {unpacked} bytes of {packed}"
            )
        if unpacked > free:
            text = f"{unpacked / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free"
            raise OSError(errno.ENOSPC, text)

    return check


def _tar_filter(check: Callable[[int], None]) -> Callable:
    """Returns an extraction filter that adds up sizes: a tar archive has no directory."""
    unpacked = 0

    def extraction_filter(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        nonlocal unpacked
        unpacked += member.size
        check(unpacked)
        return tarfile.data_filter(member, path)

    return extraction_filter


def _check_end(archive: tarfile.TarFile) -> None:
    """Reads what follows the last file: zeros, and the checksum of the compression.

    `tarfile` takes a damaged header for the end, and does not read as far as the checksum.
    """
    stream = archive.fileobj
    while stream is not None and (rest := stream.read(1 << 20)):
        if any(rest):
            raise tarfile.ReadError("something that is no file follows the last file")


def _unpacked_folder(root: str | os.PathLike, archive_name: str) -> Path:
    return Path(root) / f"{archive_name}.unpacked"


def _stamp(archive: Path) -> dict:
    """Returns the archive's size and a hash of both ends (a zip's directory is at its end)."""
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
    """Returns the first of these names in `root` or at most two folders below.

    Folders that `unpack` made are skipped, unless `root` is one: their archive may have changed.
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
    """Returns whether files can be made in a folder or, if it does not exist, the folder itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    # The first condition is always true for the superuser.
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Sets a timeout for mirrors that do not answer: `get_file` sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
