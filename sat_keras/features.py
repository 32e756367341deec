"""Annotation vectors on disk: computed once, resumed after a kill, never those of another encoder.

A cache folder holds one sub-folder for each encoder setting, named after it and its fingerprint::

    features/VGG16-block5_conv3-crop224-f197da6bb8f2/
        manifest.json                             the setting and the shape of a record
        shard-00000.tfrecord, shard-00000.json    records, and whose they are
        shard-00001.tfrecord, ...

A record is the float16 bytes of one picture's annotation vectors, row by row. All records have one
length, so that any of them is found by its number. Files are written under a temporary name and
then renamed, a shard's `.json` last: what has its `.json` is whole. TFRecord rather than bare bytes
because TensorFlow can start reading it at any byte (`FixedLengthRecordDataset` reads all that is
before), and because its checksums tell a damaged disk from an odd picture.
"""

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np

from sat_keras.images import image_dataset, picture_errors

_FORMAT = 1
_MANIFEST = "manifest.json"
_FRAME_BYTES = 16  # TFRecord: 8 bytes of length and 4 of checksum before a record, 4 after it


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
        self._files, self._starts, self._records = [], [], {}
        position = 0
        for index in sorted(self.directory.glob("shard-*.json")):
            records = _read_index(index, self.record_bytes)
            if records is None:
                warnings.warn(
                    f"{index} or its .tfrecord is damaged; run the extraction again, it computes "
                    "these features anew",
                    stacklevel=2,
                )
                continue
            self._files.append(str(index.with_suffix(".tfrecord")))
            self._starts.append(position)
            for key, digest, mirrored in records:
                self._records[key, mirrored] = (position, digest)  # a newer shard's counts
                position += 1

    @property
    def num_regions(self) -> int:
        """Number of annotation vectors of a picture."""
        return self.grid_shape[0] * self.grid_shape[1]

    @property
    def record_bytes(self) -> int:
        """Size of one picture's annotation vectors on disk, in bytes."""
        return self.num_regions * self.feature_dim * np.dtype(np.float16).itemsize

    @property
    def keys(self) -> list[str]:
        """Image ids of the pictures in the cache, in the order in which they were first written."""
        return [key for key, mirrored in self._records if not mirrored]

    def __len__(self):
        return len(self.keys)

    def __contains__(self, key):
        return (str(key), False) in self._records

    def lookup(self, keys, mirror=False) -> np.ndarray:
        """Where the features of pictures are, for `read`.

        Args:
            keys: Sequence of image ids.
            mirror: Boolean, whether the mirrored views are meant.

        Returns:
            `int64` array of shape `(len(keys),)`. It stays valid when pictures are added.

        Raises:
            ValueError: If features are missing. The message has their number and the first.
        """
        names = [(str(key), bool(mirror)) for key in keys]
        missing = [key for key, mirrored in names if (key, mirrored) not in self._records]
        if missing:
            what = "mirrored pictures" if mirror else "pictures"
            option = ", mirror=True" if mirror else ""
            raise ValueError(
                f"The cache {self.directory} lacks {len(missing)} of {len(names)} {what}; compute "
                f"them with `extract_features(table, encoder, directory{option})`. "
                f"Received: image id {missing[0]!r}"
            )
        return np.array([self._records[name][0] for name in names], dtype=np.int64)

    def read(self, positions):
        """Reads annotation vectors, inside a `tf.data` pipeline or outside.

        Args:
            positions: `int64` tensor from `lookup`, a scalar or of shape `(batch_size,)`.

        Returns:
            `float16` tensor of shape `(num_regions, feature_dim)` or
            `(batch_size, num_regions, feature_dim)`.

        Raises:
            tf.errors.DataLossError: If the record is damaged on disk.
        """
        import tensorflow as tf

        positions = tf.convert_to_tensor(positions, tf.int64)
        if positions.shape.rank == 0:
            records, leading = self._read_bytes(positions), ()
        else:
            records = tf.map_fn(self._read_bytes, positions, fn_output_signature=tf.string)
            leading = (-1,)
        values = tf.io.decode_raw(records, tf.float16)
        return tf.reshape(values, (*leading, self.num_regions, self.feature_dim))

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

    def _read_bytes(self, position):
        """The bytes of one record, by opening its shard at the record's first byte."""
        import tensorflow as tf

        starts = tf.constant(self._starts, tf.int64)
        shard = tf.searchsorted(starts, position[None], side="right")[0] - 1
        offset = (position - starts[shard]) * (self.record_bytes + _FRAME_BYTES)
        # tf.data.TFRecordDataset does not hand `byte_offsets` on, so these are the ops beneath it.
        element = {"output_types": [tf.string], "output_shapes": [tf.TensorShape([])]}
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.constant(self._files)[shard][None],
            compression_type="",
            buffer_size=0,
            byte_offsets=offset[None],
        )
        records = tf.raw_ops.TakeDataset(input_dataset=records, count=1, **element)
        return tf.raw_ops.DatasetToSingleElement(dataset=records, **element)[0]


def extract_features(
    pictures,
    encoder,
    directory,
    batch_size=32,
    shard_size=256,
    mirror=False,
    allow_truncated=False,
    progress=True,
) -> FeatureCache:
    """Computes the annotation vectors of pictures that the cache does not have yet.

    Pictures stream from disk through the encoder to disk. A run that was stopped is resumed by
    calling the function again; after a kill at most one shard is computed anew, after an error or
    Ctrl-C nothing is. New pictures are added, and a picture whose file has changed since is
    computed again. One process may write to a cache at a time, any number may read.

    Args:
        pictures: Table (`pandas.DataFrame`) with columns `image_id` and `image` (path), several
            rows a picture or one; or a mapping from image id to path.
        encoder: `ImageEncoder`.
        directory: Path of the cache folder, made if it does not exist.
        batch_size: Integer, pictures encoded at a time.
        shard_size: Integer, records a file. 256 records of VGG's 196 x 512 are 51 MB.
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
        OSError: If the folder cannot be written or the disk is full. Whole shards are kept.

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
        (key, digests[key], mirrored)
        for mirrored in ((False, True) if mirror else (False,))
        for key in paths
        if cache._records.get((key, mirrored), (None, None))[1] != digests[key]
    ]
    if not views:
        return cache
    _check_space(folder, len(views) * (cache.record_bytes + _FRAME_BYTES))
    batches = _view_batches(views, paths, encoder, batch_size, allow_truncated)
    encode = _compiled(encoder)
    bar = keras.utils.Progbar(len(views), verbose=int(progress), unit_name="picture")
    writer = _ShardWriter(folder, shard_size)
    try:
        with picture_errors():
            done = 0
            for batch in batches:
                annotations = encode(batch.numpy())
                for view, values in zip(views[done:], annotations, strict=False):
                    writer.write(view, values)
                done += len(annotations)
                bar.update(done)
    finally:
        writer.close()  # after an error or Ctrl-C too: what was computed is kept
    return FeatureCache(folder)


class _ShardWriter:
    """Writes records into shards of `shard_size`, each of which appears whole or not at all."""

    def __init__(self, folder, shard_size):
        numbers = [int(path.stem.split("-")[1]) for path in folder.glob("shard-*.json")]
        self._folder, self._shard_size = folder, shard_size
        self._number = max(numbers, default=-1) + 1
        self._file, self._views = None, []

    def write(self, view, annotations):
        import tensorflow as tf

        with np.errstate(over="ignore"):
            annotations = annotations.astype(np.float16)
        if not np.isfinite(annotations).all():
            raise ValueError(
                "The annotation vectors of a picture are not finite in float16; check the "
                f"encoder's weights and precision. Received: image id {view[0]!r}"
            )
        with self._clear_errors():
            if self._file is None:
                self._file = tf.io.TFRecordWriter(str(self._partial))
            self._file.write(annotations.tobytes())
        self._views.append(view)
        if len(self._views) == self._shard_size:
            self.close()

    def close(self):
        """Finishes the shard that is being written, if any."""
        if self._file is None:
            return
        shard = self._folder / f"shard-{self._number:05d}.tfrecord"
        with self._clear_errors():
            self._file.close()
            _rename_synced(self._partial, shard)
            _write_json(shard.with_suffix(".json"), self._views)
        self._file, self._views = None, []
        self._number += 1

    @property
    def _partial(self):
        return self._folder / "writing.partial"

    @contextlib.contextmanager
    def _clear_errors(self):
        import tensorflow as tf

        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            self._file = None  # what the disk has refused cannot be finished
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)
            raise OSError(
                f"Could not write features to {self._folder}; whole shards are kept, so make room "
                f"on the disk and run the same command again. Received: {_first_line(error)}"
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


def _read_index(index, record_bytes):
    """A shard's list of `[image id, content hash, mirrored]`, or None if it is damaged."""
    try:
        records = json.loads(index.read_text(encoding="utf-8"))
        size = index.with_suffix(".tfrecord").stat().st_size
    except (ValueError, FileNotFoundError):
        return None
    return records if size == len(records) * (record_bytes + _FRAME_BYTES) else None


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
        _write_json(folder / _MANIFEST, manifest)
    except OSError as error:
        raise OSError(
            "Cannot write to the features folder; check that it is a folder, its permissions and "
            f"the room on its disk. Received: {str(directory)!r} ({error.strerror})"
        ) from error
    record_bytes = encoder.num_regions * encoder.feature_dim * np.dtype(np.float16).itemsize
    for index in folder.glob("shard-*.json"):
        if _read_index(index, record_bytes) is None:
            index.unlink()
            index.with_suffix(".tfrecord").unlink(missing_ok=True)
    return folder


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
        [paths[key] for key, _, _ in views],
        encoder.resize_images,
        allow_truncated=allow_truncated,
    )
    mirrored = tf.data.Dataset.from_tensor_slices([mirrored for _, _, mirrored in views])
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


def _write_json(path, value):
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    _rename_synced(partial, path)


def _rename_synced(partial, path):
    """Gives a file its name once its bytes are on the disk."""
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _first_line(error):
    return str(error).strip().split("\n")[0][:200]
