"""Minibatches for teacher forcing and for decoding, as `tf.data` pipelines.

Only token ids and one permutation per epoch are held in memory. A `Source` reads annotation vectors
or pixels when they are needed, a few minibatches ahead.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import tensorflow as tf

from sat_keras.data.images import load_image, picture_size
from sat_keras.data.pipeline import without_tuning
from sat_keras.data.tokenizer import PAD_ID, UNK_ID, Tokenizer

_SIDES = re.compile(r"(?:^|(?<=-))(left|right)(?=(?:most|wards?|hand|handed|side)?(?:-|$))")


class Source(Protocol):
    """Reads the model's input by picture: `FeatureCache` or `PictureSource`.

    `input_name` is the name of the model's input, `"annotations"`, `"features"` or `"images"`.
    """

    input_name: str

    def lookup(self, keys: Iterable[str], mirror: bool = False) -> np.ndarray:
        """Returns the positions, int64 `(len(keys),)`, of pictures or of their mirrored views."""

    def read(self, positions: Any) -> Any:
        """Returns the annotation vectors or pixels at a position, in TensorFlow ops."""

    def read_mask(self, positions: Any) -> Any:
        """Returns the region mask `(num_regions,)` of a padded picture, `None` without padding."""


def teacher_forcing(token_ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Shifts captions by one: a step's input is word `y_{t-1}`, its target `y_t`.

    The last word of a caption, `<end>`, is a target and never an input. Steps after it are padding
    in inputs and targets.

    Args:
        token_ids: Int32 ids `(..., steps + 1)` of captions from `<start>` to `<end>`, padded
            with 0.

    Returns:
        Tuple `(inputs, targets, sample_weight)` of tensors of shape `(..., steps)`, int32, int32
        and float32. The weight is 1 where the target is a word (`<end>` included), 0 at padding.

    Example:
    >>> inputs, targets, sample_weight = teacher_forcing([[2, 7, 8, 3, 0]])
    >>> inputs.numpy().tolist(), targets.numpy().tolist(), sample_weight.numpy().tolist()
    ([[2, 7, 8, 0]], [[7, 8, 3, 0]], [[1.0, 1.0, 1.0, 0.0]])

    Reference:
        Xu et al. 2015, section 3.1.2 (`E y_{t-1}` in the LSTM and the deep output). Notebook
        `01_preprocessing`.
    """
    token_ids = tf.convert_to_tensor(token_ids)
    targets = token_ids[..., 1:]
    is_word = targets != PAD_ID
    inputs = tf.where(is_word, token_ids[..., :-1], PAD_ID)
    return inputs, targets, tf.cast(is_word, tf.float32)


def caption_batches(
    table: pd.DataFrame,
    tokenizer: Tokenizer,
    source: Source,
    batch_size: int = 64,
    group: str = "length",
    shuffle: bool = True,
    seed: int = 0,
    max_length: int | None = None,
    mirror: bool = False,
    first_epoch: int = 0,
    first_step: int = 0,
    boxes: Sequence[Sequence[tuple]] | None = None,
    grid_shape: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Returns minibatches of captions and their pictures for training with teacher forcing.

    - `group="length"`, the paper's: a row is one caption, and a minibatch holds captions of one
      length. Every epoch shuffles the captions, sorts them by length (equal lengths stay shuffled),
      cuts them into minibatches and shuffles these. Only a few minibatches hold two neighbouring
      lengths. The captions that do not fill a minibatch are a random choice and come last.
    - `group="picture"`: a row is a picture with all its captions, which share its annotation
      vectors, in random order. `batch_size` still counts captions. Lengths are mixed, because the
      length of a caption depends on the picture: in the drawn scenes, all pictures of a minibatch
      of one length have the same number of objects, and batch normalisation of a CNN in training
      would reveal it.

    Each pass over the dataset is the next epoch of `seed`, in a new order. Datasets with equal
    seeds give equal epochs.

    Args:
        table: Captions table of one split, with columns `image_id` and `caption`.
        tokenizer: `Tokenizer`.
        source: `FeatureCache` or `PictureSource`.
        batch_size: Integer, captions in a minibatch. With `group="picture"` it is an average: the
            number of pictures is fixed, and at least one.
        group: `"length"` or `"picture"`.
        shuffle: Boolean. `False` sorts every epoch by length.
        seed: Integer, seed of the order and of the mirroring.
        max_length: Optional integer, the number of words of a caption that are kept, `<end>` not
            counted.
        mirror: Boolean, whether each row shows its picture mirrored with probability 1/2, drawn
            anew in every epoch. "left" and "right" are swapped in its captions.
        first_epoch: Integer, epoch of the first pass, above 0 for a resumed training.
        first_step: Integer, minibatches that every pass leaves out at its start, for the rest of an
            interrupted epoch.
        boxes: Optional sequence as long as `table`: for each caption the boxes of its words, tuples
            `(word, x0, y0, x1, y1)` of the word's position and of shares of the resized picture's
            sides, see `sat_keras.analysis.caption_boxes`.
        grid_shape: Tuple `(rows, columns)` of the annotation grid. Required with `boxes`.

    Returns:
        Finite `tf.data.Dataset`, of known cardinality, of `(x, y, sample_weight)`:

        - `x["annotations"]`: `(rows, num_regions, feature_dim)` in the dtype of the source, or
          `x["images"]`: `(rows, height, width, 3)`.
        - `x["mask"]`: bool `(rows, num_regions)`, only if the encoder pads pictures.
        - `x["token_ids"]`: int32 `(rows, captions, steps)`, each word's predecessor.
        - `x["in_boxes"]`: float32 `(rows, captions, steps, num_regions)`, only with `boxes`: the
          share of every region that lies in the boxes of the word that the step predicts.
        - `y`: int32 `(rows, captions, steps)`, the words.
        - `sample_weight`: float32 `(rows, captions, steps)`, see `teacher_forcing`.

    Raises:
        ValueError: If the table is empty, the source lacks a picture, or an argument is invalid.

    Reference:
        Xu et al. 2015, section 4.3 (minibatches of 64 captions of one length). Notebook
        `01_preprocessing`.
    """
    order = _EpochOrder(table, tokenizer, batch_size, group, shuffle, seed, max_length)
    views = [source.lookup(order.image_ids, mirrored) for mirrored in (False, True)[: 1 + mirror]]
    with tf.device("CPU:0"):
        positions = tf.constant(np.stack(views, axis=-1)[order.pictures])  # (rows, views)

    def read(choice: tf.Tensor) -> tuple[dict, tf.Tensor]:
        return _read_inputs(source, tf.gather_nd(positions, choice)), choice

    in_boxes = None
    if boxes is not None:
        if grid_shape is None or len(boxes) != len(table):
            raise ValueError(
                "`boxes` needs an entry for each caption of the table, and `grid_shape`. "
                f"Received: {len(boxes)} entries, {len(table)} captions, grid_shape={grid_shape}"
            )
        in_boxes = _InBoxes(boxes, order.rows, grid_shape)

    def assemble(x: dict, choices: tf.Tensor) -> tuple[dict, tf.Tensor, tf.Tensor]:
        inputs, targets, sample_weight = teacher_forcing(order.captions.gather(choices))
        x = {**x, "token_ids": inputs}
        if in_boxes is not None:
            x["in_boxes"] = in_boxes.gather(choices, targets)
        return x, targets, sample_weight

    choices = _epochs(lambda epoch: order.draw(epoch, len(views)), first_epoch)
    choices = choices.flat_map(tf.data.Dataset.from_tensor_slices)
    number, rows_a_batch = len(order.pictures), order.rows_a_batch
    skipped = min(first_step * rows_a_batch, number)
    return _batch(choices.skip(skipped), read, number - skipped, rows_a_batch, assemble)


def count_minibatches(
    table: pd.DataFrame,
    tokenizer: Tokenizer,
    batch_size: int = 64,
    group: str = "length",
    seed: int = 0,
    max_length: int | None = None,
) -> int:
    """Returns the number of minibatches in an epoch of `caption_batches`, without its pictures.

    Args:
        table, tokenizer, batch_size, group, seed, max_length: As in `caption_batches`.
    """
    order = _EpochOrder(table, tokenizer, batch_size, group, True, seed, max_length)
    return -(-len(order.pictures) // order.rows_a_batch)


def minibatch_pictures(
    table: pd.DataFrame,
    tokenizer: Tokenizer,
    epoch: int,
    step: int,
    batch_size: int = 64,
    group: str = "length",
    shuffle: bool = True,
    seed: int = 0,
    max_length: int | None = None,
) -> list[str]:
    """Returns the pictures of one minibatch of `caption_batches`, to name them in an error.

    Args:
        table, tokenizer, batch_size, group, shuffle, seed, max_length: As in `caption_batches`.
        epoch: Integer, the epoch from 0.
        step: Integer, the minibatch from 0.

    Returns:
        List of image ids, each once, in the order of the minibatch.
    """
    order = _EpochOrder(table, tokenizer, batch_size, group, shuffle, seed, max_length)
    first = step * order.rows_a_batch
    rows = order.draw(epoch, 1)[first : first + order.rows_a_batch, 0]
    return list(dict.fromkeys(order.image_ids[order.pictures[rows]]))


def pad_rows(batches: tf.data.Dataset, multiple: int) -> tf.data.Dataset:
    """Pads each minibatch with zero-weight rows so that it divides evenly across devices.

    Args:
        batches: Dataset of `caption_batches`.
        multiple: Integer, of which the number of rows becomes a multiple.

    Returns:
        Dataset with the same structure. Added rows repeat the first one and have weight 0.
    """

    def fill(x: dict, y: tf.Tensor, sample_weight: tf.Tensor) -> tuple:
        missing = -tf.shape(y)[0] % multiple

        def pad(tensor: tf.Tensor) -> tf.Tensor:
            return tf.concat([tensor, tf.repeat(tensor[:1], missing, axis=0)], axis=0)

        none = tf.zeros_like(sample_weight[:1])
        weight = tf.concat([sample_weight, tf.repeat(none, missing, axis=0)], axis=0)
        return {name: pad(tensor) for name, tensor in x.items()}, pad(y), weight

    return batches if multiple == 1 else batches.map(fill)


def picture_batches(
    image_ids: Iterable[str], source: Source, batch_size: int = 64
) -> tf.data.Dataset:
    """Returns minibatches of pictures in the order given, for decoding.

    Args:
        image_ids: Image ids, as in a table's column `image_id`. They may repeat.
        source: `FeatureCache` or `PictureSource`.
        batch_size: Integer, pictures in a minibatch. The last one may be smaller.

    Returns:
        Finite `tf.data.Dataset`, of known cardinality, of annotation vectors
        `(batch_size, num_regions, feature_dim)` in the dtype of the source, or of pictures
        `(batch_size, height, width, 3)`. If the encoder pads pictures, its elements are those of
        `input_batches`.

    Raises:
        ValueError: If there are no images, the source lacks one, or `batch_size` is below 1.
    """
    batches = input_batches(image_ids, source, batch_size)
    if "mask" in batches.element_spec:
        return batches
    return batches.map(lambda x: x[source.input_name])


def input_batches(
    image_ids: Iterable[str], source: Source, batch_size: int = 64
) -> tf.data.Dataset:
    """Returns the pictures of `picture_batches` as dictionaries of the model's inputs.

    Args:
        image_ids: Image ids, as in a table's column `image_id`. They may repeat.
        source: `FeatureCache` or `PictureSource`.
        batch_size: Integer, pictures in a minibatch. The last one may be smaller.

    Returns:
        Finite `tf.data.Dataset`, of known cardinality, of dictionaries with `"annotations"` or
        `"images"` and, if the encoder pads pictures, `"mask"`, bool `(batch_size, num_regions)`.

    Raises:
        ValueError: If there are no images, the source lacks one, or `batch_size` is below 1.
    """
    image_ids = list(image_ids)
    _check_batch_size(batch_size)
    if not image_ids:
        raise ValueError(
            "There must be at least one picture; is the split empty? Received: no image ids"
        )
    positions = tf.data.Dataset.from_tensor_slices(source.lookup(image_ids))
    return _batch(positions, lambda at: _read_inputs(source, at), len(image_ids), batch_size)


def epoch_order(
    lengths: np.ndarray, batch_size: int, generator: np.random.Generator | None
) -> np.ndarray:
    """Returns an order of rows that gives minibatches of one length when cut by `batch_size`.

    Args:
        lengths: Integer array of shape `(rows,)`, steps of each row.
        batch_size: Integer, rows in a minibatch.
        generator: Random generator. `None` sorts by length, ties in the order of the rows.

    Returns:
        Int64 array of shape `(rows,)`, a permutation. With a generator, the rows that do not fill a
        minibatch are a random choice and come last.
    """
    lengths = np.asarray(lengths)
    if generator is None:
        return np.argsort(lengths, kind="stable")
    order = generator.permutation(len(lengths))
    order, rest = np.split(order, [len(order) - len(order) % batch_size])
    order = order[np.argsort(lengths[order], kind="stable")]
    batches = generator.permutation(order.reshape(-1, batch_size))  # shuffles whole minibatches
    return np.concatenate([batches.reshape(-1), rest])


def mirror_words(tokenizer: Tokenizer) -> np.ndarray:
    """Returns the ids of the words that describe the mirrored picture.

    "left" and "right" are swapped, also in compounds (`left-handed`, `rightmost`), and also where
    they are no directions ("has left", "right behind"). A word whose counterpart is not in the
    vocabulary becomes `<unk>`.

    Args:
        tokenizer: `Tokenizer`.

    Returns:
        Int32 array of shape `(vocabulary_size,)`: element `i` replaces token id `i`.
    """
    vocabulary = tokenizer.get_vocabulary()
    ids = {word: token_id for token_id, word in enumerate(vocabulary)}
    other = {"left": "right", "right": "left"}
    swapped = [_SIDES.sub(lambda side: other[side[0]], word) for word in vocabulary]
    return np.array([ids.get(word, UNK_ID) for word in swapped], dtype="int32")


class PictureSource:
    """Reads pixels for the loaders, to fine-tune a CNN or to augment pictures.

    Args:
        pictures: Table with columns `image_id` and `image` (path), or a mapping from image id to
            path.
        resize: Callable that brings a picture `(height, width, 3)` to one size, such as the
            `resize_images` of the `ImageEncoder` that the pictures are for.
        augment: Optional callable on resized pictures, in TensorFlow ops that keep the shape, for
            training only.
        allow_truncated: Boolean, whether truncated JPEG files are read, see `load_image`.
        region_mask: Callable `(height, width, mirror)` that returns the mask `(num_regions,)` of a
            padded picture: the `region_mask` of an `ImageEncoder` with `resize="pad"`.

    Raises:
        ValueError: If `resize` pads pictures and there is no `region_mask`.

    Example:
    >>> encoder = ImageEncoder("VGG16")
    >>> source = PictureSource(table, encoder.resize_images)
    >>> for x, y, sample_weight in caption_batches(table, tokenizer, source):
    ...     x["images"]  # (64, 224, 224, 3)
    """

    input_name = "images"

    def __init__(
        self,
        pictures: pd.DataFrame | Mapping[str, str | os.PathLike],
        resize: Callable,
        augment: Callable | None = None,
        allow_truncated: bool = False,
        region_mask: Callable[[int, int, bool], np.ndarray] | None = None,
    ):
        policy = getattr(resize, "resize", None)
        if policy == "pad" and region_mask is None:
            raise ValueError(
                "Padded pictures need the encoder's mask: pass `region_mask=encoder.region_mask`. "
                "Received: region_mask=None"
            )
        if isinstance(pictures, pd.DataFrame):
            pictures = dict(zip(pictures["image_id"], pictures["image"], strict=True))
        self._positions = {str(image_id): position for position, image_id in enumerate(pictures)}
        with tf.device("CPU:0"):
            self._paths = tf.constant([os.fspath(path) for path in pictures.values()], tf.string)
        self._resize = resize
        self._augment = augment
        self._allow_truncated = allow_truncated
        # The masks of "crop" and "squash" are all true.
        self._region_mask = None if policy in ("crop", "squash") else region_mask

    def lookup(self, keys: Iterable[str], mirror: bool = False) -> np.ndarray:
        """Returns the positions of pictures, or of their mirrored views.

        Args:
            keys: Image ids.
            mirror: Boolean, whether the mirrored views are meant.

        Returns:
            Int64 array of shape `(len(keys),)`.

        Raises:
            ValueError: If the source lacks a picture. The message has their number and the first.
        """
        keys = list(keys)
        missing = [key for key in keys if str(key) not in self._positions]
        if missing:
            raise ValueError(
                f"The source lacks {len(missing)} of {len(keys)} pictures; make it from the same "
                f"table. Received: image id {missing[0]!r}"
            )
        first = len(self._positions) if mirror else 0
        return np.array([first + self._positions[str(key)] for key in keys], dtype="int64")

    def read(self, positions: Any) -> Any:
        """Returns the picture at a position, inside a `tf.data` pipeline.

        Args:
            positions: Int64 scalar from `lookup`.

        Returns:
            Tensor of shape `(image_size, image_size, 3)`, `uint8` unless `augment` changes it.

        Raises:
            tf.errors.OpError: If a file is missing or broken. Wrapped in
                `with sat_keras.data.images.picture_errors():` it is the error of `load_image`.
        """

        def decode(path: bytes) -> np.ndarray:
            return load_image(path, self._allow_truncated)

        path, is_mirrored = self._path(positions)
        picture = tf.numpy_function(decode, [path], tf.uint8, stateful=False)
        picture = self._resize(tf.ensure_shape(picture, (None, None, 3)))
        picture = tf.where(is_mirrored, picture[:, ::-1], picture)
        return picture if self._augment is None else self._augment(picture)

    def read_mask(self, positions: Any) -> Any:
        """Returns the region mask of the picture at a position, inside a `tf.data` pipeline.

        Args:
            positions: Int64 scalar from `lookup`.

        Returns:
            Bool tensor of shape `(num_regions,)`, or `None` if pictures are not padded.
        """
        region_mask = self._region_mask
        if region_mask is None:
            return None

        def mask_of(path: bytes, is_mirrored: np.ndarray) -> np.ndarray:
            return region_mask(*picture_size(path), bool(is_mirrored))

        mask = tf.numpy_function(mask_of, self._path(positions), tf.bool, stateful=False)
        return tf.ensure_shape(mask, region_mask(1, 1, False).shape)

    def _path(self, position: Any) -> tuple[Any, Any]:
        """Returns the path at a position and whether its mirrored view is meant."""
        number = len(self._positions)
        return self._paths[position % number], position >= number


def _read_inputs(source: Source, position: tf.Tensor) -> dict[str, Any]:
    """Returns the model's inputs for a picture."""
    inputs, mask = {source.input_name: source.read(position)}, source.read_mask(position)
    return inputs if mask is None else {**inputs, "mask": mask}


class _Captions:
    """Gathers padded token ids by row: one caption, or all captions of a picture."""

    def __init__(self, token_ids: np.ndarray, rows: np.ndarray, tokenizer: Tokenizer):
        lengths = np.count_nonzero(token_ids, axis=-1)
        self.lengths = lengths[rows].max(axis=-1)  # of each row's longest caption
        with tf.device("CPU:0"):
            self._token_ids = tf.constant(token_ids)  # (captions + 1, steps + 1), the last padding
            self._rows = tf.constant(rows)  # (rows, captions of a row)
            self._mirrored = tf.constant(mirror_words(tokenizer))  # (vocabulary_size,)
        is_full = rows.max() < len(token_ids) - 1  # no row is padded: the width is static
        self._shape = (None, rows.shape[1] if is_full else None, None)

    def gather(self, choices: tf.Tensor) -> tf.Tensor:
        """Returns ids `(batch_size, captions, steps + 1)` of rows and views `(batch_size, 2)`."""
        row, view = tf.unstack(choices, axis=-1)
        token_ids = tf.gather(self._token_ids, tf.gather(self._rows, row))
        # Trimmed to the most captions and the most words of this minibatch.
        is_word = token_ids != PAD_ID
        captions = tf.reduce_max(tf.math.count_nonzero(is_word[:, :, 0], axis=1))
        steps = tf.reduce_max(tf.math.count_nonzero(is_word, axis=2))
        token_ids = tf.ensure_shape(token_ids[:, :captions, :steps], self._shape)
        is_mirrored = tf.cast(view, tf.bool)[:, tf.newaxis, tf.newaxis]
        return tf.where(is_mirrored, tf.gather(self._mirrored, token_ids), token_ids)


class _InBoxes:
    """Gathers which share of every region lies in the boxes of a word."""

    def __init__(
        self, boxes: Sequence[Sequence[tuple]], rows: np.ndarray, grid_shape: tuple[int, int]
    ) -> None:
        most = max([1, *map(len, boxes)])
        padded = np.full((len(boxes) + 1, most, 5), -1, "float32")  # the last one is padding
        for entries, each in zip(padded, boxes, strict=False):
            entries[: len(each)] = np.reshape(each, (-1, 5))
        self._grid_shape = grid_shape
        with tf.device("CPU:0"):
            self._boxes = tf.constant(padded)
            self._rows = tf.constant(rows)

    def gather(self, choices: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns shares of rows and views `(batch_size, 2)`, for every word of `targets`.

        Where several boxes of a word cover a region, the largest share counts.
        """
        row, view = tf.unstack(choices, axis=-1)
        captions, steps = tf.unstack(tf.shape(targets)[1:])
        # (batch, captions, boxes, 5)
        boxes = tf.gather(self._boxes, tf.gather(self._rows, row)[:, :captions])
        word, x0, y0, x1, y1 = tf.unstack(boxes, axis=-1)
        is_mirrored = tf.cast(view, tf.bool)[:, tf.newaxis, tf.newaxis]
        x0, x1 = tf.where(is_mirrored, 1 - x1, x0), tf.where(is_mirrored, 1 - x0, x1)
        number_y, number_x = self._grid_shape
        # (batch, captions, boxes, rows, columns) -> (batch, captions, boxes, 1, regions)
        cells = (
            _overlap(y0, y1, number_y)[..., tf.newaxis] * _overlap(x0, x1, number_x)[..., None, :]
        )
        shape = tf.concat([tf.shape(word), [1, number_y * number_x]], axis=0)
        is_word = word[..., tf.newaxis] == tf.range(tf.cast(steps, tf.float32))
        found = tf.where(is_word[..., tf.newaxis], tf.reshape(cells, shape), 0.0)
        found = tf.reduce_max(found, axis=2)
        return tf.ensure_shape(found, (*targets.shape, number_y * number_x))


def _overlap(start: tf.Tensor, end: tf.Tensor, cells: int) -> tf.Tensor:
    """Returns the share of each of `cells` equal parts of 0 to 1 between `start` and `end`."""
    edges = tf.range(cells + 1, dtype=tf.float32) / cells
    inside = tf.minimum(end[..., None], edges[1:]) - tf.maximum(start[..., None], edges[:-1])
    return cells * tf.maximum(inside, 0.0)


def _token_ids(captions: pd.Series, tokenizer: Tokenizer, max_length: int | None) -> np.ndarray:
    """Returns padded int32 ids `(captions + 1, steps + 1)`; the last row is all padding."""
    ragged = tokenizer(captions.tolist())
    words = ragged[:, 1:-1][:, :max_length]
    ragged = tf.concat([ragged[:, :1], words, ragged[:, -1:]], axis=1)
    return np.pad(ragged.to_tensor(PAD_ID).numpy(), ((0, 1), (0, 0)))


class _EpochOrder:
    """The rows of a table, captions or pictures with their captions, and their order by epoch.

    Attributes:
        image_ids: Image ids of the pictures, in order of appearance.
        pictures: Integer array `(rows,)`, the number of each row's picture in `image_ids`.
        rows: Integer array `(rows, captions of a row)`, their numbers in the table.
        captions: `_Captions` of the rows.
        rows_a_batch: Integer, rows in a minibatch.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        tokenizer: Tokenizer,
        batch_size: int,
        group: str,
        shuffle: bool,
        seed: int,
        max_length: int | None,
    ):
        _check_arguments(table, batch_size, group, max_length)
        pictures, self.image_ids = pd.factorize(table["image_id"])
        is_caption = group == "length"
        rows = np.arange(len(table))[:, np.newaxis] if is_caption else _picture_rows(pictures)
        self.rows = rows
        self.pictures = pictures[rows[:, 0]]
        self.captions = _Captions(
            _token_ids(table["caption"], tokenizer, max_length), rows, tokenizer
        )
        self.rows_a_batch = max(1, batch_size * len(rows) // len(table))
        self._by_length = is_caption or not shuffle
        self._shuffle = shuffle
        self._seed = seed

    def draw(self, epoch: int, num_views: int) -> np.ndarray:
        """Returns rows and views `(rows, 2)` in the order of an epoch."""
        generator = np.random.default_rng((self._seed, epoch))
        if self._by_length:
            shuffled = generator if self._shuffle else None
            order = epoch_order(self.captions.lengths, self.rows_a_batch, shuffled)
        else:
            order = generator.permutation(len(self.pictures))
        view = generator.integers(num_views, size=len(order))
        return np.stack([order, view], axis=-1)


def _picture_rows(pictures: np.ndarray) -> np.ndarray:
    """Returns the rows of each picture's captions `(pictures, captions)`, padded.

    Args:
        pictures: Integer array of shape `(captions,)`, the picture of each caption, numbered in
            order of appearance. `len(pictures)` is the padding.
    """
    by_picture = np.argsort(pictures, kind="stable")
    counts = np.bincount(pictures)
    slots = np.arange(len(pictures)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.full((len(counts), counts.max()), len(pictures))
    rows[pictures[by_picture], slots] = by_picture
    return rows


def _epochs(draw_epoch: Callable[[int], np.ndarray], first_epoch: int) -> tf.data.Dataset:
    """Returns a dataset of one element, `draw_epoch(epoch)`, the epoch counting the passes."""
    epochs = itertools.count(first_epoch)

    def one_epoch() -> Iterator[np.ndarray]:
        yield draw_epoch(next(epochs))

    return tf.data.Dataset.from_generator(
        one_epoch, output_signature=tf.TensorSpec((None, 2), tf.int64)
    )


def _batch(
    elements: tf.data.Dataset,
    read: Callable,
    number: int,
    batch_size: int,
    assemble: Callable | None = None,
) -> tf.data.Dataset:
    """Reads `number` elements in parallel and in order, and batches them."""
    batches = elements.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.batch(batch_size)
    if assemble is not None:
        batches = batches.map(assemble)
    batches = batches.apply(tf.data.experimental.assert_cardinality(-(-number // batch_size)))
    return without_tuning(batches.prefetch(tf.data.AUTOTUNE))


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")


def _check_arguments(
    table: pd.DataFrame, batch_size: int, group: str, max_length: int | None
) -> None:
    _check_batch_size(batch_size)
    if group not in ("length", "picture"):
        raise ValueError(f"`group` must be 'length' or 'picture'. Received: group={group!r}")
    if max_length is not None and max_length < 1:
        raise ValueError(f"`max_length` must be at least 1. Received: max_length={max_length}")
    if table.empty:
        raise ValueError(
            "The table must have at least one caption; is its split empty? Received: 0 rows"
        )
