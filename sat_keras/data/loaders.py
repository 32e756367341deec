"""Minibatches for teacher forcing and for decoding, as `tf.data` pipelines.

Nothing but the token ids and one permutation an epoch is held in memory: annotation vectors and
pixels are read as they are needed, by a source (`Source`), and a few minibatches ahead.
"""

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import tensorflow as tf

from sat_keras.data.images import load_image
from sat_keras.data.tokenizer import PAD_ID, UNK_ID, Tokenizer

_SIDES = re.compile(r"(?:^|(?<=-))(left|right)(?=(?:most|wards?|hand|handed|side)?(?:-|$))")


class Source(Protocol):
    """Where a loader reads what the model sees: `FeatureCache` or `PictureSource`.

    A source whose elements are no annotation vectors has an attribute `input_name`, the name of
    the model's input.
    """

    def lookup(self, keys: Sequence[str], mirror: bool = False) -> np.ndarray:
        """Positions, int64 `(len(keys),)`, of pictures or of their mirrored views by image id."""

    def read(self, positions: tf.Tensor) -> tf.Tensor:
        """What lies at a position, in TensorFlow ops: annotation vectors or pixels."""


def teacher_forcing(token_ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Shift captions by one: a step's input is word `y_{t-1}`, its target `y_t`.

    The only place that shifts and masks. The last word of a caption is `<end>`, which is a target
    and no input; steps after it are padding in inputs and targets alike.

    Args:
        token_ids: int32 ids `(..., steps + 1)` of captions from `<start>` to `<end>`, padded
            with 0.

    Returns:
        `(inputs, targets, sample_weight)`, each `(..., steps)`: int32, int32 and float32, the
        weight 1 where the target is a word (`<end>` included) and 0 at padding.

    Example:

    >>> inputs, targets, sample_weight = teacher_forcing([[2, 7, 8, 3, 0]])
    >>> inputs.numpy().tolist(), targets.numpy().tolist(), sample_weight.numpy().tolist()
    ([[2, 7, 8, 0]], [[7, 8, 3, 0]], [[1.0, 1.0, 1.0, 0.0]])

    Reference: Xu et al., 2015, section 3.1.2 (`E y_{t-1}` in the LSTM and the deep output).
    Notebook `01_preprocessing`.
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
) -> tf.data.Dataset:
    """Minibatches of captions and their pictures for training with teacher forcing.

    - `group="length"`, the paper's: a row is one caption, a minibatch holds captions of one
      length and minibatches come in random order. In every epoch the captions are shuffled,
      sorted by length (ties stay shuffled) and cut, so that only a few minibatches hold two
      neighbouring lengths; the captions that are left over are drawn at random and come last.
    - `group="picture"`: a row is a picture with all its captions, which share its annotation
      vectors, in random order. `batch_size` still counts captions. Lengths are mixed, for they
      tell what is in a picture: on the drawn scenes a minibatch of one length is one of pictures
      with one number of objects, by which the batch normalisation of a CNN in training gives the
      number away.

    Every caption comes once an epoch. Each pass over the dataset is the next epoch of `seed`, in
    a new order; two datasets of one seed give the same epochs whatever else draws random numbers.

    Args:
        table: one row a caption, of one split, with columns `image_id` and `caption`.
        tokenizer: turns captions into ids.
        source: annotation vectors (`FeatureCache`) or pixels (`PictureSource`) by image id.
        batch_size: captions a minibatch. With `group="picture"` on average: always the same
            number of pictures, at least one.
        group: `"length"` or `"picture"`.
        shuffle: `False` keeps one order, by length, for every pass.
        seed: of the order and of the mirroring.
        max_length: words of a caption that are kept, `<end>` not counted. `None`: all.
        mirror: whether each row shows its picture mirrored with probability 1/2, drawn anew in
            every epoch. "left" and "right" are swapped in its captions.
        first_epoch: epoch of the first pass, above 0 for a training that goes on.

    Returns:
        Finite dataset, of known cardinality, of `(x, y, sample_weight)`:

        - `x["annotations"]`: `(rows, num_regions, feature_dim)` in the dtype of the source, or
          `x["images"]`: `(rows, height, width, 3)`.
        - `x["token_ids"]`: int32 `(rows, captions, steps)`, each word's predecessor.
        - `y`: int32 `(rows, captions, steps)`, the words.
        - `sample_weight`: float32 `(rows, captions, steps)`, see `teacher_forcing`.

    Raises:
        ValueError: if the table is empty, the source lacks an image, or an argument is not one
            of the possible.

    Reference: Xu et al., 2015, section 4.3 (minibatches of 64 captions of one length).
    Notebook `01_preprocessing`.
    """
    _check_arguments(table, batch_size, group, max_length)
    pictures, image_ids = pd.factorize(table["image_id"])
    rows = np.arange(len(table))[:, np.newaxis] if group == "length" else _picture_rows(pictures)
    captions = _Captions(_token_ids(table["caption"], tokenizer, max_length), rows, tokenizer)
    views = [source.lookup(image_ids, mirrored) for mirrored in (False, True)[: 1 + mirror]]
    with tf.device("CPU:0"):
        positions = tf.constant(np.stack(views, axis=-1)[pictures[rows[:, 0]]])  # (rows, views)
    rows_a_batch = max(1, batch_size * len(rows) // len(table))

    def draw_epoch(epoch: int) -> np.ndarray:
        generator = np.random.default_rng((seed, epoch))
        if group == "picture" and shuffle:
            order = generator.permutation(len(rows))
        else:
            order = epoch_order(captions.lengths, rows_a_batch, generator if shuffle else None)
        view = generator.integers(len(views), size=len(order))
        return np.stack([order, view], axis=-1)  # (rows, 2)

    def read(choice: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return source.read(tf.gather_nd(positions, choice)), choice

    def assemble(pictures: tf.Tensor, choices: tf.Tensor) -> tuple[dict, tf.Tensor, tf.Tensor]:
        inputs, targets, sample_weight = teacher_forcing(captions.gather(choices))
        return {input_name: pictures, "token_ids": inputs}, targets, sample_weight

    input_name = getattr(source, "input_name", "annotations")
    choices = _epochs(draw_epoch, first_epoch).flat_map(tf.data.Dataset.from_tensor_slices)
    return _batch(choices, read, len(rows), rows_a_batch, assemble)


def pad_rows(batches: tf.data.Dataset, multiple: int) -> tf.data.Dataset:
    """Fills minibatches up with rows that count nothing, for several devices to share them evenly.

    Args:
        batches: what `caption_batches` returns.
        multiple: what the number of rows must be a multiple of.

    Returns:
        Dataset of the same, whose further rows repeat the first one and have the weight 0.
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
    image_ids: Sequence[str], source: Source, batch_size: int = 64
) -> tf.data.Dataset:
    """Minibatches of pictures in the order given, for decoding.

    Args:
        image_ids: as in a table's column `image_id`. One that comes twice is read twice.
        source: annotation vectors (`FeatureCache`) or pixels (`PictureSource`) by image id.
        batch_size: pictures a minibatch; the last one may be smaller.

    Returns:
        Finite dataset, of known cardinality, of annotation vectors
        `(batch_size, num_regions, feature_dim)` in the dtype of the source, or of pictures
        `(batch_size, height, width, 3)`.

    Raises:
        ValueError: if there are no images, the source lacks one, or `batch_size` is below 1.
    """
    image_ids = list(image_ids)
    _check_batch_size(batch_size)
    if not image_ids:
        raise ValueError(
            "There must be at least one picture; is the split empty? Received: no image ids"
        )
    positions = tf.data.Dataset.from_tensor_slices(source.lookup(image_ids))
    return _batch(positions, source.read, len(image_ids), batch_size)


def epoch_order(
    lengths: np.ndarray, batch_size: int, generator: np.random.Generator | None
) -> np.ndarray:
    """Order of an epoch's rows that, cut every `batch_size` rows, gives minibatches of one length.

    Args:
        lengths: integers `(number of rows,)`, steps of each row.
        batch_size: rows a minibatch.
        generator: draws the order. `None`: by length, ties in the order of the rows.

    Returns:
        Permutation of the rows, int64. With a generator the rows that fill no minibatch are a
        random choice, at its end.
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
    """Ids of the words that describe the mirrored picture, `(vocabulary_size,)` int32.

    "left" and "right" change places, also in compounds (`left-handed`, `rightmost`); a word whose
    counterpart is not in the vocabulary becomes `<unk>`. All other ids stay. What is no direction
    ("has left", "right behind") cannot be told from one and changes as well.

    Args:
        tokenizer: its vocabulary counts.

    Returns:
        Array whose element `i` is the id that token `i` has in the mirrored picture's caption.
    """
    vocabulary = tokenizer.get_vocabulary()
    ids = {word: token_id for token_id, word in enumerate(vocabulary)}
    other = {"left": "right", "right": "left"}
    swapped = [_SIDES.sub(lambda side: other[side[0]], word) for word in vocabulary]
    return np.array([ids.get(word, UNK_ID) for word in swapped], dtype="int32")


class PictureSource:
    """Pixels for the loaders, decoded as they are needed: to fine-tune a CNN or to augment.

    Args:
        pictures: table with columns `image_id` and `image` (path), or a mapping from image id to
            path.
        resize: callable that brings a picture `(height, width, 3)` to one size, such as the
            `resize_images` of the `ImageEncoder` that the pictures are for.
        augment: optional callable on resized pictures, in TensorFlow ops that keep the shape, for
            training alone. Its random numbers are its own.
        allow_truncated: whether JPEG files that end too early are read as far as they go.

    Example:

    >>> encoder = ImageEncoder("VGG16")
    >>> source = PictureSource(table, encoder.resize_images)
    >>> for x, y, sample_weight in caption_batches(table, tokenizer, source):
    ...     x["images"]  # (64, 224, 224, 3)
    """

    input_name = "images"

    def __init__(
        self,
        pictures: pd.DataFrame | Mapping[str, str],
        resize: Callable,
        augment: Callable | None = None,
        allow_truncated: bool = False,
    ):
        if isinstance(pictures, pd.DataFrame):
            pictures = dict(zip(pictures["image_id"], pictures["image"], strict=True))
        self._positions = {str(image_id): position for position, image_id in enumerate(pictures)}
        with tf.device("CPU:0"):
            self._paths = tf.constant([os.fspath(path) for path in pictures.values()], tf.string)
        self._resize = resize
        self._augment = augment
        self._allow_truncated = allow_truncated

    def lookup(self, keys: Sequence[str], mirror: bool = False) -> np.ndarray:
        """Positions of pictures, or of their mirrored views.

        Args:
            keys: image ids, each one of those of this source.
            mirror: whether positions of the mirrored views are meant.

        Returns:
            int64 array `(len(keys),)`.

        Raises:
            ValueError: if the source lacks a picture. The message has their number and the first.
        """
        missing = [key for key in keys if str(key) not in self._positions]
        if missing:
            raise ValueError(
                f"The source lacks {len(missing)} of {len(keys)} pictures; make it of the same "
                f"table. Received: image id {missing[0]!r}"
            )
        first = len(self._positions) if mirror else 0
        return np.array([first + self._positions[str(key)] for key in keys], dtype="int64")

    def read(self, position: tf.Tensor) -> tf.Tensor:
        """The picture at a position, inside a `tf.data` pipeline.

        Args:
            position: int64 scalar from `lookup`.

        Returns:
            Picture `(image_size, image_size, 3)`, `uint8` unless `augment` makes it another.

        Raises:
            tf.errors.OpError: if a file is missing or broken. Wrapped in
                `with sat_keras.data.images.picture_errors():` it is the error of `load_image`.
        """

        def decode(path: bytes) -> np.ndarray:
            return load_image(path, self._allow_truncated)

        number = len(self._positions)
        path = self._paths[position % number]
        picture = tf.numpy_function(decode, [path], tf.uint8, stateful=False)
        picture = self._resize(tf.ensure_shape(picture, (None, None, 3)))
        picture = tf.where(position < number, picture, picture[:, ::-1])
        return picture if self._augment is None else self._augment(picture)


class _Captions:
    """Padded token ids, one row or several captions of a picture at a time."""

    def __init__(self, token_ids: np.ndarray, rows: np.ndarray, tokenizer: Tokenizer):
        lengths = np.count_nonzero(token_ids, axis=-1)
        self.lengths = lengths[rows].max(axis=-1)  # of each row's longest caption
        with tf.device("CPU:0"):
            self._token_ids = tf.constant(token_ids)  # (captions + 1, steps + 1), the last padding
            self._rows = tf.constant(rows)  # (rows, captions of a row)
            self._mirrored = tf.constant(mirror_words(tokenizer))  # (vocabulary_size,)
        is_full = rows.max() < len(token_ids) - 1  # no row is padded: its width is always the same
        self._shape = (None, rows.shape[1] if is_full else None, None)

    def gather(self, choices: tf.Tensor) -> tf.Tensor:
        """Ids `(batch_size, captions, steps + 1)` of `(batch_size, 2)` rows and views."""
        row, view = tf.unstack(choices, axis=-1)
        token_ids = tf.gather(self._token_ids, tf.gather(self._rows, row))
        # Trimmed to the most captions and the most words of this minibatch.
        is_word = token_ids != PAD_ID
        captions = tf.reduce_max(tf.math.count_nonzero(is_word[:, :, 0], axis=1))
        steps = tf.reduce_max(tf.math.count_nonzero(is_word, axis=2))
        token_ids = tf.ensure_shape(token_ids[:, :captions, :steps], self._shape)
        is_mirrored = tf.cast(view, tf.bool)[:, tf.newaxis, tf.newaxis]
        return tf.where(is_mirrored, tf.gather(self._mirrored, token_ids), token_ids)


def _token_ids(captions: pd.Series, tokenizer: Tokenizer, max_length: int | None) -> np.ndarray:
    """Padded int32 ids `(captions + 1, steps + 1)`; the last row is all padding."""
    ragged = tokenizer(captions.tolist())
    words = ragged[:, 1:-1][:, :max_length]
    ragged = tf.concat([ragged[:, :1], words, ragged[:, -1:]], axis=1)
    return np.pad(ragged.to_tensor(PAD_ID).numpy(), ((0, 1), (0, 0)))


def _picture_rows(pictures: np.ndarray) -> np.ndarray:
    """Positions of each picture's captions `(pictures, captions)`; `len(pictures)` is padding.

    Args:
        pictures: each caption's picture, numbered in order of appearance.
    """
    by_picture = np.argsort(pictures, kind="stable")
    counts = np.bincount(pictures)
    slots = np.arange(len(pictures)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.full((len(counts), counts.max()), len(pictures))
    rows[pictures[by_picture], slots] = by_picture
    return rows


def _epochs(draw_epoch: Callable[[int], np.ndarray], first_epoch: int) -> tf.data.Dataset:
    """One element, `draw_epoch(epoch)`, whose epoch counts the passes over the dataset."""
    epochs = itertools.count(first_epoch)

    def one_epoch():
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
    """Reads `number` elements in parallel, in order, and batches what was read."""
    batches = elements.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.batch(batch_size)
    if assemble is not None:
        batches = batches.map(assemble)
    batches = batches.apply(tf.data.experimental.assert_cardinality(-(-number // batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE)


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
