"""Picture files to RGB pixels: one decoder for training, feature extraction and inference."""

import contextlib
import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def load_image(path, allow_truncated=False) -> np.ndarray:
    """Reads a picture file as RGB.

    Whatever Pillow reads is welcome: grey, palette, CMYK and 16-bit pictures are converted,
    transparency is laid over white, an animation gives its first frame, and the camera's
    orientation (EXIF) is honoured, so that people stand upright.

    Args:
        path: Path of the file.
        allow_truncated: Boolean. Whether a JPEG file that ends too early is read as far as it
            goes, the rest grey, with a warning that names it. By default it is an error.

    Returns:
        `uint8` array of shape `(height, width, 3)`, values in 0..255.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, broken or no picture. The message names it.

    Example:
    >>> load_image("photo.jpg").shape
    (375, 500, 3)
    """
    path = Path(os.fsdecode(path))
    data = _read_bytes(path)
    try:
        return _decode(data)
    except UnidentifiedImageError as error:
        raise ValueError(
            "This file is not a picture, or not of a kind that Pillow reads; convert it to JPEG or "
            f"PNG, or take it out of the table. Received: {str(path)!r} ({len(data)} bytes)"
        ) from error
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        if allow_truncated and data.startswith(_JPEG_START):
            with contextlib.suppress(Exception):
                # An end-of-image marker, at which the decoder stops waiting for more.
                picture = _decode(data + _JPEG_END)
                warnings.warn(f"{path} is truncated: what is missing is grey", stacklevel=2)
                return picture
        raise ValueError(
            "This picture file is truncated or broken; get it again, or take it out of the table, "
            "or read JPEG files as far as they go with `allow_truncated=True`. "
            f"Received: {str(path)!r} ({error})"
        ) from error


def image_dataset(paths, resize=None, num_parallel_calls=None, allow_truncated=False):
    """Streams picture files as RGB pixels through `tf.data`, decoded by `load_image`.

    Args:
        paths: Sequence of paths, in the order to read them.
        resize: Optional callable from a picture to one of fixed size, such as the
            `resize_images` of the `ImageEncoder` that the pictures are for. Without it pictures
            keep their sizes and cannot be batched.
        num_parallel_calls: Integer, pictures decoded at a time. Defaults to `tf.data.AUTOTUNE`.
        allow_truncated: Boolean, see `load_image`.

    Returns:
        `tf.data.Dataset` of `uint8` tensors of shape `(image_size, image_size, 3)`, or
        `(height, width, 3)` without `resize`, in the order of `paths`.

    Raises:
        tf.errors.OpError: While it is read, if a file is missing or broken. Wrapped in
            `with picture_errors():` it is the error of `load_image`.

    Example:
    >>> encoder = ImageEncoder("VGG16")
    >>> dataset = image_dataset(["a.jpg", "b.png"], encoder.resize_images).batch(2)
    >>> next(iter(dataset)).shape
    TensorShape([2, 224, 224, 3])
    """
    import tensorflow as tf

    def read(path):
        picture = tf.numpy_function(
            lambda name: load_image(name, allow_truncated), [path], tf.uint8, stateful=False
        )
        picture = tf.ensure_shape(picture, (None, None, 3))
        return picture if resize is None else resize(picture)

    paths = tf.constant([os.fspath(path) for path in paths], tf.string)
    dataset = tf.data.Dataset.from_tensor_slices(paths)
    # Pillow decodes outside of Python's global lock, so that parallel calls do run in parallel.
    return dataset.map(read, num_parallel_calls or tf.data.AUTOTUNE, deterministic=True)


@contextlib.contextmanager
def picture_errors():
    """Turns what `tf.data` makes of an error of `load_image` back into that error.

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


def _read_bytes(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            "There is no picture file at this path; check it against the folder of the data set. "
            f"Received: {str(path)!r}"
        ) from None
    except OSError as error:
        raise ValueError(
            f"This picture file cannot be read ({error.strerror}); check that it is a file and its "
            f"permissions. Received: {str(path)!r}"
        ) from error


def _decode(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # the first frame of an animation
        # A broken EXIF block does not spoil the pixels.
        with contextlib.suppress(Exception):
            image = ImageOps.exif_transpose(image)
        return np.array(_to_rgb(image), dtype=np.uint8)


def _to_rgb(image):
    """An RGB image of 8 bits a channel from one of any mode."""
    if image.mode.startswith("I"):  # 16 bits a pixel, also where Pillow holds them in 32
        pixels = np.clip(np.asarray(image, dtype=np.float64), 0, 65535) / 257
        image = Image.fromarray(np.round(pixels).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
