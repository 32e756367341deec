"""Computes annotation vectors for a `FeatureCache`, in parts that can be resumed or shared."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import keras
import numpy as np

from sat_keras.backend.progress import show_progress, track
from sat_keras.data.features import (
    CHECKSUMS,
    FORMAT,
    MANIFEST,
    FeatureCache,
    View,
    first_line,
    list_shards,
    read_manifest,
)
from sat_keras.data.files import remove_partials, replacing, write_json
from sat_keras.data.images import image_dataset, picture_errors


class Task(NamedTuple):
    """A view to encode, the picture's file, a hash of it, and a shard that the new one replaces."""

    view: View
    path: str
    digest: str
    outdated: Path | None


def extract_features(
    pictures: Any,
    encoder: Any,
    directory: str | os.PathLike,
    batch_size: int = 32,
    mirror: bool = False,
    allow_truncated: bool = False,
    progress: bool = True,
    input_name: str = "annotations",
) -> FeatureCache:
    """Computes the annotation vectors of pictures that the cache lacks.

    To resume a run that was stopped, call the function again: at most one minibatch is computed
    twice. New pictures are added, and a picture whose file has changed is computed again. Several
    processes may read a cache and write to it.

    Args:
        pictures: Table (`pandas.DataFrame`) with columns `image_id` and `image` (path), several
            rows a picture or one; or a mapping from image id to path.
        encoder: `ImageEncoder`.
        directory: Path of the cache folder, made if it does not exist.
        batch_size: Integer, pictures encoded at a time.
        mirror: Boolean, whether the picture flipped from left to right, after resizing, is
            stored as well, for augmentation.
        allow_truncated: Boolean, whether truncated JPEG files are used as far as they go, with a
            warning for each. By default they are an error.
        progress: Boolean, whether progress is shown on stderr if it takes more than two seconds.
        input_name: As of `FeatureCache`.

    Returns:
        `FeatureCache` with the features of these pictures (and of those it had before).

    Raises:
        FileNotFoundError: If picture files are missing, before anything is computed.
        ValueError: If a picture file is broken, or the encoder's output does not fit float16.
        OSError: If the folder cannot be written, the disk is full (the features written so far are
            kept), or an image id is too long for a file name.

    Example:
    >>> encoder = ImageEncoder("VGG16", resize="crop")
    >>> cache = extract_features(table, encoder, "features")
    >>> cache.dataset(table["image_id"].unique()).element_spec.shape
    TensorShape([196, 512])

    Reference:
        Notebook `04_training`.
    """
    folder, tasks = missing_features(pictures, encoder, directory, mirror, input_name)
    if not tasks:
        return FeatureCache(folder, input_name=input_name)
    encode = compiled_encoder(encoder)
    with show_progress(progress), track(len(tasks), "Features") as bar:
        for number in write_features(tasks, encoder, encode, folder, batch_size, allow_truncated):
            bar.update(number)
    return FeatureCache(folder, input_name=input_name)


def missing_features(
    pictures: Any, encoder: Any, directory: str | os.PathLike, mirror: bool, input_name: str
) -> tuple[Path, list[Task]]:
    """Makes the encoder's folder in a cache and lists what it lacks.

    Args:
        pictures, encoder, directory, mirror, input_name: As of `extract_features`.

    Returns:
        Tuple of the folder and a list of `Task`.

    Raises:
        FileNotFoundError: If picture files are missing.
        OSError: If the folder cannot be written, or the disk has too little room.
    """
    paths = _paths_by_key(pictures)
    digests = _content_digests(paths)
    folder = _prepare_folder(Path(directory), encoder)
    cache = FeatureCache(folder, input_name=input_name)
    tasks = []
    for mirrored in (False, True) if mirror else (False,):
        for key, path in paths.items():
            shard = cache.shards.get(view := View(key, mirrored))
            if shard is None or shard.digest != digests[key]:
                tasks.append(Task(view, path, digests[key], shard and shard.path))
    _check_space(folder, len(tasks) * cache.shard_bytes)
    return folder, tasks


def write_features(
    tasks: Sequence[Task],
    encoder: Any,
    encode: Callable[[np.ndarray], np.ndarray],
    folder: Path,
    batch_size: int,
    allow_truncated: bool,
) -> Iterator[int]:
    """Encodes pictures and writes their shards.

    Args:
        tasks: What to encode.
        encoder: The `ImageEncoder`.
        encode: Its `compiled_encoder`.
        folder: The folder of `missing_features`.
        batch_size, allow_truncated: As of `extract_features`.

    Yields:
        Number of shards written, after each batch.

    Raises:
        ValueError, OSError: As of `extract_features`.
    """
    done = 0
    with picture_errors():
        for batch, sizes in _batches(tasks, encoder, batch_size, allow_truncated):
            annotations = encode(batch.numpy())
            for task, values, size in zip(tasks[done:], annotations, sizes.numpy(), strict=False):
                written = _write_shard(folder, task.view, task.digest, values, encoder, size)
                # The shard of the picture before it changed.
                if task.outdated and task.outdated != written:
                    task.outdated.unlink(missing_ok=True)
            done += len(annotations)
            yield len(annotations)


def _write_shard(
    folder: Path, view: View, digest: str, annotations: Any, encoder: Any, size: Any
) -> Path:
    """Writes a shard atomically and returns its path.

    It is not synchronised to disk: the size or the checksum tells what a power failure destroyed.
    """
    import tensorflow as tf

    with np.errstate(over="ignore"):
        annotations = annotations.astype(np.float16)
    if not np.isfinite(annotations).all():
        raise ValueError(
            "The annotation vectors of a picture are not finite in float16; check the encoder's "
            f"weights and precision. Received: image id {view.key!r}"
        )
    shard = annotations.tobytes()
    cells = ""
    if encoder.resize == "pad":
        mask = encoder.region_mask(*size, view.mirrored).reshape(encoder.grid_shape)
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        cells = f".{rows[0]}-{rows[-1] + 1}x{columns[0]}-{columns[-1] + 1}"
    checksum = int(tf.strings.to_hash_bucket_fast(shard, CHECKSUMS))
    mirrored = ".mirror" * view.mirrored
    path = folder / f"{quote(view.key, safe='')}.{digest}{cells}{mirrored}.{checksum:08x}.f16"
    if len(path.name) > 255:
        raise OSError(
            "This image id is too long for a file name of at most 255 bytes; shorten it. "
            f"Received: {view.key!r}"
        )
    try:
        with replacing(path, sync=False) as partial:
            partial.write_bytes(shard)
    except OSError as error:
        raise OSError(
            f"Could not write features to {folder}; the features written so far are kept. Check "
            "the room on the disk and run the same command again. "
            f"Received: {first_line(error.__cause__ or error)}"
        ) from error
    return path


def _prepare_folder(directory: Path, encoder: Any) -> Path:
    """Makes the encoder's sub-folder and its manifest, and removes damaged shards."""
    layer = encoder.layer or "output"
    fingerprint = encoder.fingerprint()
    name = f"{encoder.cnn_name}-{layer}-{encoder.resize}{encoder.image_size}-{fingerprint}"
    folder = directory if directory.name == name else directory / name
    manifest = {
        "format": FORMAT,
        "encoder": encoder.describe(),
        "fingerprint": fingerprint,
        "grid_shape": list(encoder.grid_shape),
        "feature_dim": encoder.feature_dim,
        "dtype": "float16",
        **({"mask": True} if encoder.resize == "pad" else {}),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _has_manifest(folder, manifest):
            write_json(folder / MANIFEST, manifest, checksum=True)
    except OSError as error:
        raise OSError(
            "Cannot write to the features folder; check that it is a folder, its permissions and "
            f"the room on its disk. Received: {str(directory)!r} ({error.strerror})"
        ) from error
    shard_bytes = encoder.num_regions * encoder.feature_dim * np.dtype(np.float16).itemsize
    for path in list_shards(folder, shard_bytes)[1]:
        path.unlink(missing_ok=True)
    remove_partials(folder)
    return folder


def _has_manifest(folder: Path, manifest: dict) -> bool:
    """Returns whether the folder has this manifest, which other processes may be reading."""
    with contextlib.suppress(FileNotFoundError, ValueError):  # a damaged one is rewritten
        return read_manifest(folder) == manifest
    return False


def _paths_by_key(pictures: Any) -> dict[str, str]:
    """Returns the path by image id, from a table or a mapping."""
    if not isinstance(pictures, Mapping):
        pictures = dict(zip(pictures["image_id"], pictures["image"], strict=True))
    return {str(key): os.fspath(path) for key, path in pictures.items()}


def _content_digests(paths: dict[str, str]) -> dict[str, str]:
    """Returns a hash of each picture file's bytes by image id."""
    missing = [path for path in paths.values() if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} picture files are missing; check the folder of the "
            f"data set, or take them out of the table. Received: {missing[0]!r}"
        )

    def digest(path: str) -> str:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]

    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(digest, paths.values()), strict=True))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"These features need {needed / 1e9:.2f} GB of disk, and {free / 1e9:.2f} GB are free; "
            f"make room, or choose another folder. Received: {str(folder)!r}"
        )


def _batches(tasks: Sequence[Task], encoder: Any, batch_size: int, allow_truncated: bool) -> Any:
    """Returns batches of resized pictures, flipped where the view is mirrored, and their sizes."""
    import tensorflow as tf

    images = image_dataset(
        [task.path for task in tasks],
        lambda image: (encoder.resize_images(image), tf.shape(image)[:2]),
        allow_truncated=allow_truncated,
    )
    mirrored = tf.data.Dataset.from_tensor_slices([task.view.mirrored for task in tasks])
    # Flipped after resizing, so that both views are crops of the same pixels.
    images = tf.data.Dataset.zip((images, mirrored)).map(
        lambda resized, flip: (tf.where(flip, resized[0][:, ::-1], resized[0]), resized[1])
    )
    return images.batch(batch_size).prefetch(2)


def compiled_encoder(encoder: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the encoder as a compiled function from NumPy to NumPy, on every backend."""
    size = encoder.image_size
    model = keras.Sequential([keras.Input((size, size, 3), dtype="uint8"), encoder])
    # JAX compiles with XLA only; TensorFlow's convolutions are faster on a CPU without it.
    model.compile(jit_compile=keras.backend.backend() == "jax")
    return model.predict_on_batch
