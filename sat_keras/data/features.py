"""Annotation vectors on disk, checked when they are read; `extraction` writes them.

A cache folder holds one sub-folder for each encoder setting, named after it and its fingerprint::

    features/VGG16-block5_conv3-crop224-f197da6bb8f2/
        manifest.json                                     the setting and the shape of a shard
        a.jpg.3c5d0b3a7f0e6f51.5f0a11c2.f16               a shard
        a.jpg.3c5d0b3a7f0e6f51.mirror.77b1e06d.f16        the same picture mirrored
        ...

A shard holds the float16 annotation vectors of one picture, row by row. Its name has the image id,
a hash of the picture's file, with `resize="pad"` the grid cells on the picture (`2-12x0-14`: rows 2
to 11, columns 0 to 13), and a checksum of the shard; version 0.1.0 wrote no checksum. Shards are
written atomically, and the folder's listing is the index, so that several processes can write to
one cache. There is one picture per file because `tf.io.read_file` takes two thirds of the CPU time
of a TFRecord.
"""

import functools
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from sat_keras.data.files import read_json
from sat_keras.data.pipeline import without_tuning

FORMAT = 2
MANIFEST = "manifest.json"
_SHARD = re.compile(
    r"(?P<key>.+)\.(?P<digest>[0-9a-f]{16})"
    r"(?:\.(?P<top>\d+)-(?P<bottom>\d+)x(?P<left>\d+)-(?P<right>\d+))?"
    r"(?P<mirror>\.mirror)?(?:\.(?P<checksum>[0-9a-f]{8}))?\.f16"
)
CHECKSUMS = 1 << 32  # number of checksums


class FeatureCache:
    """Reads the annotation vectors that `extract_features` wrote.

    Reading uses TensorFlow ops only, verifies the checksum of every shard, and keeps nothing in
    memory.

    Args:
        directory: Path of the cache folder, or of one encoder's sub-folder in it.
        encoder: Optional `ImageEncoder` that the features must come from. Without it the folder
            must hold the features of one encoder only.
        input_name: Name of the model's input that they are: `"annotations"`, or `"features"` of the
            stem of an encoder that is trained in part (`ImageEncoder.make_stem`).

    Raises:
        FileNotFoundError: If the folder has no features.
        ValueError: If the features are of another encoder or of another version of this package,
            if the manifest is damaged, or if the folder holds several encoders' features and
            `encoder` is `None`.

    Example:
    >>> cache = FeatureCache("features", encoder)
    >>> cache.read(cache.lookup(["a.jpg", "b.jpg"])).shape
    TensorShape([2, 196, 512])
    >>> positions = tf.data.Dataset.from_tensor_slices(cache.lookup(image_ids))
    >>> annotations = positions.map(cache.read, num_parallel_calls=tf.data.AUTOTUNE)
    """

    def __init__(
        self, directory: str | os.PathLike, encoder: Any = None, input_name: str = "annotations"
    ):
        self.input_name = input_name
        self.directory = _find_folder(Path(directory), encoder)
        manifest = read_manifest(self.directory)
        self.encoder = manifest["encoder"]
        self.fingerprint = manifest["fingerprint"]
        self.grid_shape = tuple(manifest["grid_shape"])
        self.feature_dim = manifest["feature_dim"]
        self.shards, damaged = list_shards(self.directory, self.shard_bytes)
        if damaged:
            warnings.warn(
                f"{len(damaged)} files in {self.directory} are damaged, the first one is "
                f"{damaged[0].name}; run the extraction again to compute these features anew",
                stacklevel=2,
            )
        self._has_mask = manifest.get("mask", False)
        self._positions = {view: position for position, view in enumerate(self.shards)}

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
        return sorted(view.key for view in self.shards if not view.mirrored)

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: Any) -> bool:
        return View(str(key)) in self.shards

    def lookup(self, keys: Iterable[str], mirror: bool = False) -> np.ndarray:
        """Returns the positions of pictures, for `read`.

        Args:
            keys: Image ids.
            mirror: Boolean, whether the mirrored views are meant.

        Returns:
            `int64` array of shape `(len(keys),)`.

        Raises:
            ValueError: If features are missing. The message has their number and the first.
        """
        views = [View(str(key), bool(mirror)) for key in keys]
        missing = [view.key for view in views if view not in self.shards]
        if missing:
            what = "mirrored pictures" if mirror else "pictures"
            option = ", mirror=True" if mirror else ""
            raise ValueError(
                f"The cache {self.directory} lacks {len(missing)} of {len(views)} {what}; compute "
                f"them with `extract_features(table, encoder, directory{option})`. "
                f"Received: image id {missing[0]!r}"
            )
        return np.array([self._positions[view] for view in views], dtype=np.int64)

    def read(self, positions: Any) -> Any:
        """Reads annotation vectors, inside a `tf.data` pipeline or outside.

        Args:
            positions: `int64` tensor from `lookup`, a scalar or of shape `(batch_size,)`.

        Returns:
            `float16` tensor of shape `(num_regions, feature_dim)` or
            `(batch_size, num_regions, feature_dim)`.

        Raises:
            tf.errors.OpError: If a shard was removed or damaged. The message names it.
        """
        import tensorflow as tf

        # AutoGraph would first translate it for a second, and it has nothing to translate.
        read_shard = tf.autograph.experimental.do_not_convert(self._read_shard)
        positions = tf.convert_to_tensor(positions, tf.int64)
        if positions.shape.rank == 0:
            return read_shard(positions)
        spec = tf.TensorSpec((self.num_regions, self.feature_dim), tf.float16)
        return tf.map_fn(read_shard, positions, fn_output_signature=spec)

    def _read_shard(self, position: Any) -> Any:
        import tensorflow as tf

        path = self._paths[position]
        shard = tf.io.read_file(path)
        values = tf.io.decode_raw(shard, tf.float16)
        checksum = self._checksums[position]
        remedy = ["delete this damaged file and run the extraction again. Received:", path]
        is_written = tf.strings.to_hash_bucket_fast(shard, CHECKSUMS) == checksum
        if self._have_checksums:
            is_whole = is_written
        else:  # a shard without a checksum, of version 0.1.0, must at least be finite
            is_whole = tf.where(checksum >= 0, is_written, tf.reduce_all(tf.math.is_finite(values)))
        with tf.control_dependencies([tf.debugging.Assert(is_whole, remedy)]):
            return tf.reshape(values, (self.num_regions, self.feature_dim))

    def read_mask(self, positions: Any) -> Any:
        """Returns the region masks of padded pictures.

        Args:
            positions: `int64` tensor from `lookup`, a scalar or of shape `(batch_size,)`.

        Returns:
            Bool tensor of shape `(num_regions,)` or `(batch_size, num_regions)`, or `None` if the
            encoder does not pad pictures.
        """
        import tensorflow as tf

        return tf.gather(self._masks, positions) if self._has_mask else None

    def dataset(self, keys: Iterable[str], mirror: bool = False) -> Any:
        """Returns the features of pictures one by one.

        Args:
            keys: Image ids.
            mirror: Boolean, whether the mirrored views are meant.

        Returns:
            `tf.data.Dataset` of `float16` tensors of shape `(num_regions, feature_dim)`, in the
            order of `keys`.

        Raises:
            ValueError: If features are missing.
        """
        import tensorflow as tf

        positions = tf.data.Dataset.from_tensor_slices(self.lookup(keys, mirror))
        features = positions.map(self.read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return without_tuning(features)

    @functools.cached_property
    def _paths(self) -> Any:
        """Paths of the shards, a string tensor of shape `(shards,)`."""
        return _constant([str(shard.path) for shard in self.shards.values()], str)

    @functools.cached_property
    def _checksums(self) -> Any:
        """Checksums of the shards, an int64 tensor of shape `(shards,)`, -1 for none."""
        return _constant([shard.checksum for shard in self.shards.values()], "int64")

    @functools.cached_property
    def _have_checksums(self) -> bool:
        """Whether no shard is of version 0.1.0, which wrote no checksums."""
        return all(shard.checksum >= 0 for shard in self.shards.values())

    @functools.cached_property
    def _masks(self) -> Any:
        """Region masks of the shards, a bool tensor of shape `(shards, num_regions)`."""
        masks = np.zeros((len(self.shards), *self.grid_shape), bool)
        for mask, shard in zip(masks, self.shards.values(), strict=True):
            top, bottom, left, right = shard.cells
            mask[top:bottom, left:right] = True
        return _constant(masks.reshape(len(masks), self.num_regions), bool)


def _constant(values: Any, dtype: Any) -> Any:
    """Returns a tensor on the CPU, also where it is first needed inside a graph."""
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(np.asarray(values, dtype))


class View(NamedTuple):
    """A picture, or the same picture mirrored."""

    key: str
    mirrored: bool = False


class Shard(NamedTuple):
    """The file of a view, what its name says, and the checksum, -1 for none."""

    path: Path
    digest: str
    checksum: int
    cells: tuple[int, int, int, int]


def list_shards(folder: Path, shard_bytes: int) -> tuple[dict[View, Shard], list[Path]]:
    """Returns the shards of a folder by view, and the paths of those of another size."""
    found: dict[View, Shard] = {}
    damaged: list[Path] = []
    with os.scandir(folder) as entries:
        files = [(entry.stat(), entry.name) for entry in entries if _SHARD.fullmatch(entry.name)]
    # By age: after a kill a changed picture may have two shards, of which the newer one counts.
    for status, name in sorted(files, key=lambda file: (file[0].st_mtime_ns, file[1])):
        match = _SHARD.fullmatch(name)
        if match is None or status.st_size != shard_bytes:
            damaged.append(folder / name)
            continue
        view = View(unquote(match["key"]), match["mirror"] is not None)
        top, bottom, left, right = (
            int(match[side] or 0) for side in ("top", "bottom", "left", "right")
        )
        checksum = int(match["checksum"], 16) if match["checksum"] else -1
        cells = (top, bottom, left, right)
        found[view] = Shard(folder / name, match["digest"], checksum, cells)
    return found, damaged


def _find_folder(directory: Path, encoder: Any) -> Path:
    """Returns the sub-folder with the encoder's features."""
    if (directory / MANIFEST).is_file():
        folders = [directory]
    else:
        folders = [path.parent for path in sorted(directory.glob(f"*/{MANIFEST}"))]
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
        if read_manifest(folder)["fingerprint"] == fingerprint:
            return folder
    found = "; ".join(read_manifest(folder)["encoder"] for folder in folders)
    raise ValueError(
        f"The features in {directory} are of another encoder ({found}); use that encoder, or "
        "compute this one's with `extract_features(table, encoder, directory)`, which keeps both. "
        f"Received: encoder {encoder.describe()}"
    )


def read_manifest(folder: Path) -> dict:
    """Reads and checks the manifest of an encoder's folder."""
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
        version = manifest["format"]
        if version == FORMAT:
            _check_manifest(manifest)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"This manifest is damaged; delete {folder} and compute its features again. "
            f"Received: {str(path)!r} ({type(error).__name__}: {first_line(error)})"
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"These features are of another version of sat_keras; delete {folder} and compute them "
            f"again. Received: format {version!r} in {str(path)!r}, expected {FORMAT}"
        )
    return manifest


def _check_manifest(manifest: dict) -> None:
    rows, columns = manifest["grid_shape"]
    numbers = (rows, columns, manifest["feature_dim"])
    if not all(isinstance(number, int) and 0 < number < 1 << 20 for number in numbers):
        raise ValueError(f"grid_shape and feature_dim are {numbers}")
    if not all(isinstance(manifest[name], str) for name in ("encoder", "fingerprint")):
        raise ValueError("encoder and fingerprint must be strings")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 200 characters."""
    return str(error).strip().split("\n")[0][:200]
