"""Annotation vectors on disk: computed once, resumed after a kill, never those of another encoder.

A cache folder holds one sub-folder for each encoder setting, named after it and its fingerprint::

    features/VGG16-block5_conv3-crop224-f197da6bb8f2/
        manifest.json                            the setting and the shape of a shard
        a.jpg.3c5d0b3a7f0e6f51.f16               a shard: image id, hash of the picture's file
        a.jpg.3c5d0b3a7f0e6f51.mirror.f16        the same picture mirrored
        ...

A shard is the float16 bytes of one picture's annotation vectors, row by row. It is written under a
temporary name and then renamed: what has its name is whole, and the folder's listing is the index.
One picture a file because `tf.io.read_file` takes two thirds of the CPU time that a record of a
TFRecord file does, which a training on the same cores waits for.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

import keras
import numpy as np

from sat_keras.data.files import remove_partials, replacing, write_json
from sat_keras.data.images import image_dataset, picture_errors

_FORMAT = 2
_MANIFEST = "manifest.json"
_SHARD = re.compile(r"(?P<key>.+)\.(?P<digest>[0-9a-f]{16})(?P<mirror>\.mirror)?\.f16")


class FeatureCache:
    """Reads the annotation vectors that `extract_features` wrote.

    Reading is by TensorFlow ops alone and holds no more in memory than the records asked for.

    Args:
        directory: Path of the cache folder, or of one encoder's sub-folder in it.
        encoder: Optional `ImageEncoder` that the features must come from. Without it the folder
            must hold the features of one encoder only.

    Raises:
        FileNotFoundError: If the folder has no features.
        ValueError: If the features are another encoder's, of another version of this package, or
            of several encoders of which none was asked for.

    Example:
    >>> cache = FeatureCache("features", encoder)
    >>> cache.read(cache.lookup(["a.jpg", "b.jpg"])).shape
    TensorShape([2, 196, 512])
    >>> positions = tf.data.Dataset.from_tensor_slices(cache.lookup(image_ids))
    >>> annotations = positions.map(cache.read, num_parallel_calls=tf.data.AUTOTUNE)
    """

    def __init__(self, directory, encoder=None):
        self.directory = _find_folder(Path(directory), encoder)
        manifest = _read_manifest(self.directory)
        self.encoder = manifest["encoder"]
        self.fingerprint = manifest["fingerprint"]
        self.grid_shape = tuple(manifest["grid_shape"])
        self.feature_dim = manifest["feature_dim"]
        self._shards, damaged = _list_shards(self.directory, self.shard_bytes)
        if damaged:
            warnings.warn(
                f"{len(damaged)} files in {self.directory} are damaged, the first one is "
                f"{damaged[0].name}; run the extraction again, it computes these features anew",
                stacklevel=2,
            )
        self._positions = {view: position for position, view in enumerate(self._shards)}

    @property
    def num_regions(self) -> int:
        """Number of annotation vectors of a picture."""
        return self.grid_shape[0] * self.grid_shape[1]

    @property
    def shard_bytes(self) -> int:
        """Size of one picture's annotation vectors on disk, in bytes."""
        return self.num_regions * self.feature_dim * np.dtype(np.float16).itemsize

    @property
    def keys(self) -> list[str]:
        """Image ids of the pictures in the cache, sorted."""
        return sorted(view.key for view in self._shards if not view.mirrored)

    def __len__(self):
        return len(self.keys)

    def __contains__(self, key):
        return _View(str(key)) in self._shards

    def lookup(self, keys, mirror=False) -> np.ndarray:
        """Where the features of pictures are, for `read`.

        Args:
            keys: Sequence of image ids.
            mirror: Boolean, whether the mirrored views are meant.

        Returns:
            `int64` array of shape `(len(keys),)`, for the `read` of this object.

        Raises:
            ValueError: If features are missing. The message has their number and the first.
        """
        views = [_View(str(key), bool(mirror)) for key in keys]
        missing = [view.key for view in views if view not in self._shards]
        if missing:
            what = "mirrored pictures" if mirror else "pictures"
            option = ", mirror=True" if mirror else ""
            raise ValueError(
                f"The cache {self.directory} lacks {len(missing)} of {len(views)} {what}; compute "
                f"them with `extract_features(table, encoder, directory{option})`. "
                f"Received: image id {missing[0]!r}"
            )
        return np.array([self._positions[view] for view in views], dtype=np.int64)

    def read(self, positions):
        """Reads annotation vectors, inside a `tf.data` pipeline or outside.

        Args:
            positions: `int64` tensor from `lookup`, a scalar or of shape `(batch_size,)`.

        Returns:
            `float16` tensor of shape `(num_regions, feature_dim)` or
            `(batch_size, num_regions, feature_dim)`.

        Raises:
            tf.errors.OpError: If a file was removed or cut short since this object was made.
        """
        import tensorflow as tf

        positions = tf.convert_to_tensor(positions, tf.int64)
        paths = tf.gather(self._paths, positions)
        if positions.shape.rank == 0:
            shards, leading = tf.io.read_file(paths), ()
        else:
            shards, leading = tf.map_fn(tf.io.read_file, paths), (-1,)
        values = tf.io.decode_raw(shards, tf.float16)
        return tf.reshape(values, (*leading, self.num_regions, self.feature_dim))

    def _digest(self, view):
        return self._shards[view].digest if view in self._shards else None

    def dataset(self, keys, mirror=False):
        """The features of pictures one by one.

        Args:
            keys: Sequence of image ids.
            mirror: Boolean, whether the mirrored views are meant.

        Returns:
            `tf.data.Dataset` of `float16` tensors of shape `(num_regions, feature_dim)`, in the
            order of `keys`.

        Raises:
            ValueError: If features are missing.
        """
        import tensorflow as tf

        positions = tf.data.Dataset.from_tensor_slices(self.lookup(keys, mirror))
        return positions.map(self.read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    @functools.cached_property
    def _paths(self):
        """Paths of the shards, a string tensor of shape `(number of shards,)`."""
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):  # once, also when it is asked for inside a graph
            return tf.constant([str(shard.path) for shard in self._shards.values()], tf.string)


def extract_features(
    pictures,
    encoder,
    directory,
    batch_size=32,
    mirror=False,
    allow_truncated=False,
    progress=True,
) -> FeatureCache:
    """Computes the annotation vectors of pictures that the cache does not have yet.

    Pictures stream from disk through the encoder to disk. A run that was stopped is resumed by
    calling the function again; at most one minibatch is computed anew. New pictures are added, and
    a picture whose file has changed since is computed again. One process may write to a cache at a
    time, any number may read.

    Args:
        pictures: Table (`pandas.DataFrame`) with columns `image_id` and `image` (path), several
            rows a picture or one; or a mapping from image id to path.
        encoder: `ImageEncoder`.
        directory: Path of the cache folder, made if it does not exist.
        batch_size: Integer, pictures encoded at a time.
        mirror: Boolean, whether the picture flipped from left to right, after resizing, is
            stored as well, for augmentation.
        allow_truncated: Boolean, whether JPEG files that end too early are used as far as they
            go, with a warning for each. By default they are an error.
        progress: Boolean, whether to show a progress bar.

    Returns:
        `FeatureCache` with the features of these pictures (and of those it had before).

    Raises:
        FileNotFoundError: If picture files are missing, before anything is computed.
        ValueError: If a picture file is broken, or the encoder's output does not fit float16.
        OSError: If the folder cannot be written or the disk is full. What was written is kept.

    Example:
    >>> encoder = ImageEncoder("VGG16", resize="crop")
    >>> cache = extract_features(table, encoder, "features")
    >>> cache.dataset(table["image_id"].unique()).element_spec.shape
    TensorShape([196, 512])

    Reference:
        Notebook `04_training`.
    """
    paths = _paths_by_key(pictures)
    digests = _content_digests(paths)
    folder = _prepare_folder(Path(directory), encoder)
    cache = FeatureCache(folder)
    views = [
        _View(key, mirrored)
        for mirrored in ((False, True) if mirror else (False,))
        for key in paths
    ]
    views = [view for view in views if cache._digest(view) != digests[view.key]]
    if not views:
        return cache
    _check_space(folder, len(views) * cache.shard_bytes)
    batches = _view_batches(views, paths, encoder, batch_size, allow_truncated)
    encode = _compiled(encoder)
    bar = keras.utils.Progbar(len(views), verbose=int(progress), unit_name="picture")
    with picture_errors():
        done = 0
        for batch in batches:
            annotations = encode(batch.numpy())
            for view, values in zip(views[done:], annotations, strict=False):
                _write_shard(folder / _shard_name(view, digests[view.key]), view, values)
                if view in cache._shards:  # of the picture as it was
                    cache._shards[view].path.unlink(missing_ok=True)
            done += len(annotations)
            bar.update(done)
    return FeatureCache(folder)


class _View(NamedTuple):
    """A picture, or the same picture mirrored."""

    key: str
    mirrored: bool = False


class _Shard(NamedTuple):
    """The file of a view, and the hash of the picture's file that it was computed from."""

    path: Path
    digest: str


def _shard_name(view, digest):
    return f"{quote(view.key, safe='')}.{digest}{'.mirror' * view.mirrored}.f16"


def _list_shards(folder, shard_bytes):
    """Whole shards of a folder by view, and the paths of those of another size."""
    found, damaged = {}, []
    with os.scandir(folder) as entries:
        files = [(entry.stat(), entry.name) for entry in entries if _SHARD.fullmatch(entry.name)]
    # By age: of a picture that changed, the newer shard counts, should a kill have left both.
    for stat, name in sorted(files, key=lambda file: (file[0].st_mtime_ns, file[1])):
        match = _SHARD.fullmatch(name)
        if stat.st_size == shard_bytes:
            view = _View(unquote(match["key"]), match["mirror"] is not None)
            found[view] = _Shard(folder / name, match["digest"])
        else:
            damaged.append(folder / name)
    return found, damaged


def _write_shard(path, view, annotations):
    """Writes a shard, which appears whole or not at all.

    It is not forced to the disk: what a power failure takes away has another size then.
    """
    with np.errstate(over="ignore"):
        annotations = annotations.astype(np.float16)
    if not np.isfinite(annotations).all():
        raise ValueError(
            "The annotation vectors of a picture are not finite in float16; check the encoder's "
            f"weights and precision. Received: image id {view.key!r}"
        )
    try:
        with replacing(path, sync=False) as partial:
            partial.write_bytes(annotations.tobytes())
    except OSError as error:
        raise OSError(
            f"Could not write features to {path.parent}; what was written is kept, so make room on "
            f"the disk and run the same command again. Received: {_first_line(error)}"
        ) from error


def _find_folder(directory, encoder):
    """The sub-folder with the encoder's features."""
    if (directory / _MANIFEST).is_file():
        folders = [directory]
    else:
        folders = [path.parent for path in sorted(directory.glob(f"*/{_MANIFEST}"))]
    if not folders:
        raise FileNotFoundError(
            "There are no features in this folder; compute them with `sat-keras features` or "
            f"`extract_features(table, encoder, directory)`. Received: {str(directory)!r}"
        )
    if encoder is None and len(folders) == 1:
        return folders[0]
    if encoder is None:
        names = ", ".join(folder.name for folder in folders)
        raise ValueError(
            "This folder holds the features of several encoders; pass the `encoder`, or the path "
            f"of one of the sub-folders {names}. Received: {str(directory)!r}"
        )
    fingerprint = encoder.fingerprint()
    for folder in folders:
        if _read_manifest(folder)["fingerprint"] == fingerprint:
            return folder
    found = "; ".join(_read_manifest(folder)["encoder"] for folder in folders)
    raise ValueError(
        f"The features in {directory} are of another encoder ({found}); use that encoder, or "
        "compute this one's with `extract_features(table, encoder, directory)`, which keeps both. "
        f"Received: encoder {encoder.describe()}"
    )


def _read_manifest(folder):
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"This manifest is damaged; delete {folder} and compute its features again. "
            f"Received: {str(path)!r} ({_first_line(error)})"
        ) from error
    if version != _FORMAT:
        raise ValueError(
            f"These features are of another version of sat_keras; delete {folder} and compute them "
            f"again. Received: format {version!r} in {str(path)!r}, expected {_FORMAT}"
        )
    return manifest


def _prepare_folder(directory, encoder):
    """Makes the encoder's sub-folder, with its manifest and without what is damaged in it."""
    layer = encoder.layer or "output"
    fingerprint = encoder.fingerprint()
    name = f"{encoder.cnn_name}-{layer}-{encoder.resize}{encoder.image_size}-{fingerprint}"
    folder = directory if directory.name == name else directory / name
    manifest = {
        "format": _FORMAT,
        "encoder": encoder.describe(),
        "fingerprint": fingerprint,
        "grid_shape": list(encoder.grid_shape),
        "feature_dim": encoder.feature_dim,
        "dtype": "float16",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _has_manifest(folder, manifest):
            write_json(folder / _MANIFEST, manifest)
    except OSError as error:
        raise OSError(
            "Cannot write to the features folder; check that it is a folder, its permissions and "
            f"the room on its disk. Received: {str(directory)!r} ({error.strerror})"
        ) from error
    shard_bytes = encoder.num_regions * encoder.feature_dim * np.dtype(np.float16).itemsize
    for path in _list_shards(folder, shard_bytes)[1]:
        path.unlink(missing_ok=True)
    remove_partials(folder)
    return folder


def _has_manifest(folder, manifest):
    """Whether the folder has this manifest: several trainings may begin to read it at once."""
    with contextlib.suppress(FileNotFoundError, ValueError):  # a damaged one is written anew
        return _read_manifest(folder) == manifest
    return False


def _paths_by_key(pictures):
    """Path by image id, from a table or a mapping."""
    if not isinstance(pictures, Mapping):
        pictures = dict(zip(pictures["image_id"], pictures["image"], strict=True))
    return {str(key): os.fspath(path) for key, path in pictures.items()}


def _content_digests(paths):
    """Hash of each picture file's bytes by image id."""
    missing = [path for path in paths.values() if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} picture files are missing; check the folder of the "
            f"data set, or take them out of the table. Received: {missing[0]!r}"
        )

    def digest(path):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]

    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(digest, paths.values()), strict=True))


def _check_space(folder, needed):
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"These features need {needed / 1e9:.2f} GB of disk, and {free / 1e9:.2f} GB are free; "
            f"make room, or choose another folder. Received: {str(folder)!r}"
        )


def _view_batches(views, paths, encoder, batch_size, allow_truncated):
    """Batches of pictures as the encoder sees them, flipped where the view is mirrored."""
    import tensorflow as tf

    images = image_dataset(
        [paths[view.key] for view in views],
        encoder.resize_images,
        allow_truncated=allow_truncated,
    )
    mirrored = tf.data.Dataset.from_tensor_slices([view.mirrored for view in views])
    # Flipped after resizing: of an odd rest, the crop takes the same pixels in both views.
    images = tf.data.Dataset.zip((images, mirrored)).map(
        lambda image, flip: tf.where(flip, image[:, ::-1], image)
    )
    return images.batch(batch_size).prefetch(2)


def _compiled(encoder):
    """The encoder as a compiled function from NumPy to NumPy, on every backend."""
    size = encoder.image_size
    model = keras.Sequential([keras.Input((size, size, 3), dtype="uint8"), encoder])
    # XLA is how JAX compiles at all; TensorFlow's own convolutions are faster on a CPU.
    model.compile(jit_compile=keras.backend.backend() == "jax")
    return model.predict_on_batch


def _first_line(error):
    return str(error).strip().split("\n")[0][:200]
