"""Picture files to RGB pixels: one decoder for training, feature extraction and inference."""

import contextlib
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sat_keras.data.pipeline import without_tuning

# No PostScript, which Pillow hands to another program, and no formats that nobody photographs in.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "AVIF", "HEIF")
MAX_FILE_BYTES = 1 << 30

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_HEIF = re.compile(rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
_ORIENTATION = 0x0112  # of EXIF; from 5 on the picture lies on its side


def load_image(
    picture: str | bytes | os.PathLike | Image.Image | np.ndarray, allow_truncated: bool = False
) -> np.ndarray:
    """Reads a picture as RGB.

    The formats of `FORMATS` are read. Grey, palette, CMYK and 16-bit pictures are converted,
    transparent ones are laid over white, an animation gives its first frame, and the camera's
    orientation (EXIF) is applied. Phones' HEIC needs the package `pillow-heif`.

    Args:
        picture: Path of the file, a `PIL.Image.Image`, or an array of shape `(height, width, 3)`
            with values in 0..255.
        allow_truncated: Boolean, whether a truncated JPEG file is read as far as it goes, the rest
            grey, with a warning that names it. By default it is an error.

    Returns:
        `uint8` array of shape `(height, width, 3)`, values in 0..255.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, broken, too large, no picture or no regular file, or
            the array is no RGB picture in 0..255. The message names it.

    Example:
    >>> load_image("photo.jpg").shape
    (375, 500, 3)
    """
    if isinstance(picture, Image.Image):
        return _to_array(picture)
    if not isinstance(picture, (str, bytes, os.PathLike)):
        return _checked_array(np.asarray(picture))
    path = Path(os.fsdecode(picture))
    data = _read_bytes(path)
    with _errors_of(path, data):
        try:
            return _decode(data)
        except (UnidentifiedImageError, _RefusedError):
            raise
        except Exception:
            if not (allow_truncated and data.startswith(_JPEG_START)):
                raise
            with contextlib.suppress(Exception):
                # An end-of-image marker, at which the decoder stops waiting for more.
                pixels = _decode(data + _JPEG_END)
                warnings.warn(f"{path} is truncated: the missing part is grey", stacklevel=2)
                return pixels
            raise


def picture_size(path: str | bytes | os.PathLike) -> tuple[int, int]:
    """Returns height and width of a picture file in pixels, without decoding it.

    Args:
        path: Path of the file.

    Returns:
        Tuple `(height, width)` of the array that `load_image` returns.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is too large, no picture or no regular file.
    """
    path = Path(os.fsdecode(path))
    data = _read_bytes(path)
    with _errors_of(path, data), _opened(data) as image:
        width, height = image.size
        with contextlib.suppress(Exception):  # a broken EXIF block
            if image.getexif().get(_ORIENTATION, 1) >= 5:
                return width, height
        return height, width


def image_dataset(
    paths: Iterable[str | os.PathLike],
    resize: Callable | None = None,
    num_parallel_calls: int | None = None,
    allow_truncated: bool = False,
) -> Any:
    """Streams picture files as RGB pixels through `tf.data`, decoded by `load_image`.

    Args:
        paths: Paths, in the order to read them.
        resize: Optional callable from a picture to one of fixed size, such as the
            `resize_images` of the `ImageEncoder` that the pictures are for. Without it, pictures
            keep their sizes and cannot be batched.
        num_parallel_calls: Integer, pictures decoded at a time. Defaults to `tf.data.AUTOTUNE`.
        allow_truncated: Boolean, see `load_image`.

    Returns:
        `tf.data.Dataset` of `uint8` tensors of shape `(image_size, image_size, 3)`, or
        `(height, width, 3)` without `resize`, in the order of `paths`.

    Raises:
        tf.errors.OpError: During iteration, if a file is missing or broken. Inside
            `with picture_errors():` it is the error of `load_image`.

    Example:
    >>> encoder = ImageEncoder("VGG16")
    >>> dataset = image_dataset(["a.jpg", "b.png"], encoder.resize_images).batch(2)
    >>> next(iter(dataset)).shape
    TensorShape([2, 224, 224, 3])
    """
    import tensorflow as tf

    def read(path: Any) -> Any:
        picture = tf.numpy_function(
            lambda name: load_image(name, allow_truncated), [path], tf.uint8, stateful=False
        )
        picture = tf.ensure_shape(picture, (None, None, 3))
        return picture if resize is None else resize(picture)

    paths = tf.constant([os.fspath(path) for path in paths], tf.string)
    dataset = tf.data.Dataset.from_tensor_slices(paths)
    # Pillow releases Python's global lock, so that parallel calls run in parallel.
    dataset = dataset.map(read, num_parallel_calls or tf.data.AUTOTUNE, deterministic=True)
    return without_tuning(dataset)


@contextlib.contextmanager
def picture_errors() -> Iterator[None]:
    """Re-raises errors of `load_image` that `tf.data` has wrapped in its own.

    Raises:
        ValueError: If a picture file was truncated, broken or no picture.
        FileNotFoundError: If a picture file was missing.

    Example:
    >>> with picture_errors():
    ...     for picture in image_dataset(["photo.jpg"]):
    ...         pass
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"(ValueError|FileNotFoundError): (.*Received: .*)", str(error))
        if not found:
            raise
        kind = ValueError if found[1] == "ValueError" else FileNotFoundError
        raise kind(found[2]) from None


class _RefusedError(ValueError):
    """A picture that is not decoded; the message says why and what to do."""


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never ends
            raise ValueError(
                "This path is not a regular file; pass the path of a picture file. "
                f"Received: {str(path)!r}"
            )
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(
                f"This picture file is larger than {MAX_FILE_BYTES / 1e9:.1f} GB; save a smaller "
                "copy, or raise `sat_keras.data.images.MAX_FILE_BYTES`. "
                f"Received: {str(path)!r} ({status.st_size} bytes)"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            "There is no picture file at this path; check it against the folder of the data set. "
            f"Received: {str(path)!r}"
        ) from None
    except OSError as error:
        raise ValueError(
            f"This picture file cannot be read ({error.strerror}); check its name and permissions. "
            f"Received: {str(path)!r}"
        ) from error


@contextlib.contextmanager
def _errors_of(path: Path, data: bytes) -> Iterator[None]:
    """Names the file and the remedy in whatever Pillow's decoders raise."""
    try:
        yield
    except _RefusedError as error:
        raise ValueError(f"{error} Received: {str(path)!r}") from None
    except UnidentifiedImageError as error:
        raise ValueError(
            "This file is not a picture, or of a format that is not read; convert it to JPEG or "
            f"PNG, or take it out of the table. Received: {str(path)!r} ({len(data)} bytes)"
        ) from error
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        raise ValueError(
            "This picture file is truncated or broken; get it again, or take it out of the table, "
            "or read JPEG files as far as they go with `allow_truncated=True`. "
            f"Received: {str(path)!r} ({error})"
        ) from error


def _opened(data: bytes) -> Image.Image:
    """Opens a picture without decoding it. Only `FORMATS` and a limited size are accepted."""
    if _HEIF.match(data):
        try:
            import pillow_heif
        except ImportError as error:
            raise _RefusedError(
                "HEIC pictures need the package `pillow-heif`: install it with `pip install "
                "pillow-heif`, or convert the picture to JPEG."
            ) from error
        pillow_heif.register_heif_opener()
    Image.init()
    try:
        image = Image.open(io.BytesIO(data), formats=[f for f in FORMATS if f in Image.OPEN])
        too_large = image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf)
    except Image.DecompressionBombError:
        too_large = True
    if too_large:
        raise _RefusedError(
            f"This picture has more than {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels; "
            "save a smaller copy, or raise Pillow's limit, `PIL.Image.MAX_IMAGE_PIXELS`."
        )
    return image


def _decode(data: bytes) -> np.ndarray:
    with _opened(data) as image:
        return _to_array(image)


def _to_array(image: Image.Image) -> np.ndarray:
    image.load()  # the first frame of an animation
    with contextlib.suppress(Exception):  # a broken EXIF block
        image = ImageOps.exif_transpose(image)
    return np.array(_to_rgb(image), dtype=np.uint8)


def _checked_array(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype.kind not in "uif":
        raise ValueError(
            "An array must be an RGB picture of shape `(height, width, 3)` with values in 0..255. "
            f"Received: shape {pixels.shape}, dtype {pixels.dtype}"
        )
    if pixels.dtype == np.uint8:
        return pixels
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    is_float = pixels.dtype.kind == "f"
    if not (low >= 0 and high <= 255) or (is_float and 0 < high <= 1):
        raise ValueError(
            "Pixels must be in 0..255; multiply floats of 0 to 1 by 255. "
            f"Received: {pixels.dtype} values from {low:g} to {high:g}"
        )
    return np.round(pixels).astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Returns an RGB image of 8 bits a channel from one of any mode."""
    if image.mode.startswith("I"):  # 16 bits a pixel, also where Pillow holds them in 32
        pixels = np.clip(np.asarray(image, dtype=np.float64), 0, 65535) / 257
        image = Image.fromarray(np.round(pixels).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
