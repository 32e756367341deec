"""Pictures as people have them: files, folders, addresses, PIL pictures, arrays, one or many."""

import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from sat_keras.data.images import MAX_FILE_BYTES, load_image

_TIMEOUT = 30  # seconds that a server may take to answer


def read_pictures(images: Any) -> tuple[Iterator[np.ndarray], bool]:
    """Reads pictures by `load_image`, each when it is asked for.

    Args:
        images: One picture or many, as of `CaptionModel.caption`.

    Returns:
        Tuple of an iterator over `uint8` arrays of shape `(height, width, 3)`, and a boolean,
        whether `images` is one picture and not a collection.

    Raises:
        ValueError: If `images` is no picture and no collection, or a folder without pictures.

    Example:

    >>> pictures, is_one = read_pictures("holiday/")
    """
    if isinstance(images, (str, bytes, os.PathLike)):
        if not _is_address(images) and os.path.isdir(images):
            return map(load_image, picture_files(images)), False
        return iter([_read_one(images)]), True
    if isinstance(images, Image.Image):
        return iter([_read_one(images)]), True
    if hasattr(images, "shape") and not hasattr(images, "index"):  # no table of pandas
        array = keras.ops.convert_to_numpy(images)
        is_many = array.ndim == 4 or array.dtype.kind in "OUS"
        return (map(_read_one, array), False) if is_many else (iter([_read_one(array)]), True)
    if isinstance(images, Iterable) and not isinstance(images, dict):
        return _read_many(images), False
    raise ValueError(
        "Expected a picture (a path, an address, a PIL picture or an array) or a list of pictures. "
        f"Received: {type(images).__name__}"
    )


def picture_files(folder: str | bytes | os.PathLike) -> list[Path]:
    """Returns the picture files of a folder, in the order of their names.

    Args:
        folder: Path of the folder. Folders inside it are not searched.

    Returns:
        List of `pathlib.Path`.

    Raises:
        ValueError: If there is no picture.
    """
    folder = Path(os.fsdecode(folder))
    suffixes = {*Image.registered_extensions(), ".heic", ".heif"}
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise ValueError(f"Expected a folder with pictures in it. Received: {str(folder)!r}")
    return files


def _read_many(images: Iterable[Any]) -> Iterator[np.ndarray]:
    for image in images:
        if len(getattr(image, "shape", ())) == 4:  # a batch of a data set
            yield from map(_read_one, keras.ops.convert_to_numpy(image))
        else:
            yield _read_one(image)


def _read_one(image: Any) -> np.ndarray:
    if _is_address(image):
        return _download(image)
    if not isinstance(image, (str, bytes, os.PathLike, Image.Image)):
        image = keras.ops.convert_to_numpy(image)
    return load_image(image)


def _is_address(image: Any) -> bool:
    return isinstance(image, str) and image.lower().startswith(("http://", "https://"))


def _download(address: str) -> np.ndarray:
    """Reads a picture from an `http` address."""
    # Many servers of pictures refuse programs without a name.
    request = urllib.request.Request(address, headers={"User-Agent": "sat_keras"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            data = answer.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # URLError and timeouts are OSError
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"The picture at this address cannot be read ({reason}); check the address and the "
            f"connection, or save the picture and give its path. Received: {address!r}"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        try:
            return load_image(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), address)) from None
