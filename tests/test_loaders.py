"""Minibatches: every caption once an epoch, of one length, beside its own picture."""

import itertools

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sat_keras.backend.dense import RowDense
from sat_keras.data.extraction import extract_features
from sat_keras.data.features import FeatureCache
from sat_keras.data.images import image_dataset, picture_errors
from sat_keras.data.loaders import (
    PictureSource,
    caption_batches,
    count_minibatches,
    epoch_order,
    input_batches,
    minibatch_pictures,
    mirror_words,
    pad_rows,
    picture_batches,
    teacher_forcing,
)
from sat_keras.data.tokenizer import SPECIAL_TOKENS, Tokenizer

BATCH_SIZE = 4
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven"]


class FakeCache:
    """Annotation vectors `(2, 3)` that are the picture's number, negative where it is mirrored."""

    input_name = "annotations"

    def __init__(self, image_ids, has_mask=False):
        self.image_ids = list(image_ids)
        self.has_mask = has_mask

    def lookup(self, keys, mirror=False):
        return np.array([self.image_ids.index(key) + 100 * mirror for key in keys], "int64")

    def read(self, position):
        value = tf.where(position < 100, position, 100 - position)
        return tf.fill((2, 3), tf.cast(value, tf.float16))

    def read_mask(self, position):
        return tf.stack([position < 100, position % 2 == 0]) if self.has_mask else None


@pytest.fixture(scope="module")
def table():
    """8 pictures with 1 to 3 captions of 2 to 7 words that name picture and caption."""
    captions = []
    for picture, name in enumerate(NUMBERS):
        for caption in range(1 + picture % 3):
            words = ["picture", name, *["very"] * ((picture * 5 + caption * 2) % 5)]
            captions.append((f"id{picture}", f"{' '.join(words)} {NUMBERS[caption]}."))
    table = pd.DataFrame(captions, columns=["image_id", "caption"])
    return table.sample(frac=1, random_state=0, ignore_index=True)


@pytest.fixture(scope="module")
def tokenizer(table):
    return Tokenizer.from_captions(table["caption"])


@pytest.fixture(scope="module")
def source():
    return FakeCache(f"id{picture}" for picture in range(len(NUMBERS)))


@pytest.fixture
def batches(table, tokenizer, source):
    def make(**arguments):
        return caption_batches(table, tokenizer, source, **{"batch_size": BATCH_SIZE, **arguments})

    return make


def arrays(dataset):
    """A pass over the dataset, with NumPy arrays for tensors."""
    return list(dataset.as_numpy_iterator())


def captions_of(batch, tokenizer):
    """Pairs of a picture's number and a caption, one for each caption of the minibatch."""
    x, y, _ = batch
    pairs = zip(x["annotations"][:, 0, 0], tokenizer.detokenize(y), strict=True)
    return [(int(number), text) for number, texts in pairs for text in texts if text]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, a, b)


def test_teacher_forcing_shifts_and_masks():
    inputs, targets, sample_weight = teacher_forcing(
        np.array([[[2, 7, 8, 3], [2, 9, 3, 0], [0, 0, 0, 0]]], "int32")
    )
    np.testing.assert_array_equal(inputs, [[[2, 7, 8], [2, 9, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(targets, [[[7, 8, 3], [9, 3, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(sample_weight, [[[1, 1, 1], [1, 1, 0], [0, 0, 0]]])
    assert (inputs.dtype, targets.dtype, sample_weight.dtype) == (tf.int32, tf.int32, tf.float32)


@pytest.mark.parametrize("group", ["length", "picture"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [4, 100])
def test_an_epoch_has_every_caption_once_with_its_picture(
    batches, table, tokenizer, group, shuffle, batch_size
):
    dataset = batches(group=group, shuffle=shuffle, batch_size=batch_size)
    expected = sorted(
        (int(image_id.removeprefix("id")), caption.removesuffix("."))
        for image_id, caption in zip(table["image_id"], table["caption"], strict=True)
    )
    for _ in range(2):
        epoch = arrays(dataset)
        assert len(epoch) == dataset.cardinality() == len(dataset)
        pairs = [captions_of(batch, tokenizer) for batch in epoch]
        assert sorted(itertools.chain(*pairs)) == expected


def test_batches_of_one_length(batches, table):
    dataset = batches()
    x, y, sample_weight = dataset.element_spec
    assert x["annotations"].shape.as_list() == [None, 2, 3]
    assert x["annotations"].dtype == tf.float16
    assert x["token_ids"].shape.as_list() == [None, 1, None]
    assert (x["token_ids"].dtype, y.dtype, sample_weight.dtype) == (tf.int32, tf.int32, tf.float32)
    *full, last = arrays(dataset)
    for x, y, sample_weight in full:
        assert len(y) == BATCH_SIZE
        for annotated in (x["token_ids"], sample_weight):
            assert annotated.shape == y.shape
    mixed = sum(np.ptp(sample_weight.sum(axis=-1)) > 0 for _, _, sample_weight in full)
    assert mixed < table["caption"].str.count(" ").nunique()
    assert len(last[1]) == len(table) % BATCH_SIZE
    for _, y, sample_weight in [*full, last]:
        assert sample_weight.sum(axis=-1).max() == y.shape[-1]  # no step is padding throughout


def test_pictures_with_all_their_captions(batches, table, tokenizer):
    counts = table["image_id"].value_counts()
    epoch = arrays(batches(group="picture"))
    assert {len(y) for _, y, _ in epoch} == {BATCH_SIZE * len(counts) // len(table)}
    for batch in epoch:
        _, y, sample_weight = batch
        numbers = batch[0]["annotations"][:, 0, 0].astype(int)
        per_picture = (sample_weight.sum(axis=-1) > 0).sum(axis=-1)
        np.testing.assert_array_equal(per_picture, [counts[f"id{number}"] for number in numbers])
        assert y.shape[1] == per_picture.max()
        assert y.shape[2] == sample_weight.sum(axis=-1).max()


def test_equal_numbers_of_captions_give_a_static_shape(tokenizer, source):
    table = pd.DataFrame({"image_id": ["id0", "id1"] * 3, "caption": ["picture zero"] * 6})
    dataset = caption_batches(table, tokenizer, source, 6, group="picture")
    assert dataset.element_spec[1].shape.as_list() == [None, 3, None]
    assert [y.shape for _, y, _ in arrays(dataset)] == [(2, 3, 3)]


def test_one_seed_gives_one_sequence_of_different_epochs(batches):
    first, second = batches(seed=7, mirror=True), batches(seed=7, mirror=True)
    np.random.seed(5)  # noqa: NPY002 - the global state must not matter
    keras.utils.set_random_seed(6)
    epochs = [arrays(first) for _ in range(2)]
    keras.utils.set_random_seed(8)
    for epoch in epochs:
        assert_same(epoch, arrays(second))
    with pytest.raises(AssertionError):
        assert_same(*epochs)
    with pytest.raises(AssertionError):
        assert_same(epochs[0], arrays(batches(seed=8, mirror=True)))


def test_a_later_first_epoch_goes_on_where_the_passes_before_would_have_led(batches):
    whole, rest = batches(seed=7, mirror=True), batches(seed=7, mirror=True, first_epoch=2)
    epochs = [arrays(whole) for _ in range(4)]
    for epoch in epochs[2:]:
        assert_same(epoch, arrays(rest))


@pytest.mark.parametrize("group", ["length", "picture"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_pictures_of_a_minibatch(batches, table, tokenizer, group, shuffle):
    options = {"batch_size": BATCH_SIZE, "group": group, "shuffle": shuffle, "seed": 7}
    dataset = batches(**options, mirror=True)
    number = count_minibatches(table, tokenizer, BATCH_SIZE, group)
    assert number == len(dataset)
    for epoch in range(2):
        for step, (x, _, _) in enumerate(arrays(dataset)):
            found = minibatch_pictures(table, tokenizer, epoch, step, **options)
            numbers = np.abs(x["annotations"][:, 0, 0]).astype(int)
            assert found == list(dict.fromkeys(f"id{number}" for number in numbers))


def test_minibatches_of_pictures_do_not_tell_them_apart_by_length(tokenizer, source):
    captions = ["picture"] * 4 + ["picture very very very"] * 4
    table = pd.DataFrame({"image_id": source.image_ids, "caption": captions})

    def mixed(group):
        dataset = caption_batches(table, tokenizer, source, 4, group=group)
        words = [weight.sum(axis=(1, 2)) for _ in range(4) for _, _, weight in arrays(dataset)]
        return [np.ptp(number) > 0 for number in words]

    assert sum(mixed("picture")) > 4
    assert not any(mixed("length"))


def test_without_shuffle_every_epoch_is_by_length(batches):
    dataset = batches(shuffle=False, batch_size=1)
    first = arrays(dataset)
    assert_same(first, arrays(dataset))
    assert_same(first, arrays(batches(shuffle=False, batch_size=1, seed=5)))
    assert (np.diff([y.shape[-1] for _, y, _ in first]) >= 0).all()


def test_long_captions_are_cut_and_still_end(batches, tokenizer):
    for _, y, _ in arrays(batches(max_length=3)):
        assert y.shape[-1] == 4
        assert (y == 3).sum(axis=-1).tolist() == [[1]] * len(y)
        assert all(len(text.split()) == 3 for texts in tokenizer.detokenize(y) for text in texts)


def test_an_empty_caption_is_just_its_end(tokenizer, source):
    table = pd.DataFrame({"image_id": ["id1"], "caption": ["..."]})
    ((x, y, sample_weight),) = arrays(caption_batches(table, tokenizer, source))
    assert (x["token_ids"].tolist(), y.tolist(), sample_weight.tolist()) == (
        [[[2]]],
        [[[3]]],
        [[[1.0]]],
    )


def test_mirrored_views_have_mirrored_words(source):
    table = pd.DataFrame({"image_id": ["id3"] * 64, "caption": ["a dog left of a cat"] * 64})
    tokenizer = Tokenizer([*SPECIAL_TOKENS, "a", "dog", "cat", "of", "left", "right"])
    dataset = caption_batches(table, tokenizer, source, mirror=True)
    flags = []
    for _ in range(2):
        ((x, y, _),) = arrays(dataset)
        mirrored = x["annotations"][:, 0, 0] < 0
        side = np.where(mirrored, "right", "left")
        assert tokenizer.detokenize(y[:, 0]) == [f"a dog {word} of a cat" for word in side]
        assert 16 < mirrored.sum() < 48
        flags.append(mirrored)
    assert (flags[0] != flags[1]).any()
    ((x, _, _),) = arrays(caption_batches(table, tokenizer, source, mirror=False))
    assert (x["annotations"] > 0).all()


def test_mirror_words():
    words = ["left", "right", "left-handed", "right-handed", "rightmost", "bright", "leftover"]
    mirrored = mirror_words(Tokenizer([*SPECIAL_TOKENS, *words]))
    # `leftmost` is not in the vocabulary; `bright` and `leftover` are no directions.
    assert mirrored.tolist() == [0, 1, 2, 3, 5, 4, 7, 6, 1, 9, 10]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 99))
def test_epoch_order_is_a_permutation_in_batches_of_near_lengths(lengths, batch_size, seed):
    lengths = np.array(lengths)
    order = epoch_order(lengths, batch_size, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(lengths)))
    full = lengths[order[: len(order) - len(order) % batch_size]].reshape(-1, batch_size)
    # Sorted, no two minibatches overlap in more than a length that both hold.
    by_length = full[np.lexsort((full[:, -1], full[:, 0]))]
    assert (by_length[1:, 0] >= by_length[:-1, -1]).all()
    in_order = epoch_order(lengths, batch_size, None)
    assert in_order.tolist() == sorted(range(len(lengths)), key=lambda row: lengths[row])


def test_epoch_order_draws_lengths_in_turn():
    lengths = np.repeat(np.arange(8), 4)
    drawn = [lengths[epoch_order(lengths, 4, np.random.default_rng(seed))][::4] for seed in (0, 1)]
    assert sorted(drawn[0]) == list(range(8))
    assert drawn[0].tolist() not in (sorted(drawn[0]), drawn[1].tolist())


def test_picture_batches_keep_the_order(source):
    image_ids = ["id5", "id2", "id2", "id0", "id7"]
    dataset = picture_batches(image_ids, source, batch_size=2)
    assert dataset.cardinality() == 3
    pictures = arrays(dataset)
    assert [len(batch) for batch in pictures] == [2, 2, 1]
    assert pictures[0].dtype == np.float16
    np.testing.assert_array_equal(np.concatenate(pictures)[:, 1, 2], [5, 2, 2, 0, 7])


@pytest.mark.parametrize("group", ["length", "picture"])
def test_batches_of_padded_pictures_carry_their_mask(table, tokenizer, group):
    source = FakeCache([f"id{picture}" for picture in range(len(NUMBERS))], has_mask=True)
    dataset = caption_batches(table, tokenizer, source, BATCH_SIZE, group, mirror=True)
    views = set()
    for x, _, _ in arrays(pad_rows(dataset, 4)):
        number = x["annotations"][:, 0, 0]
        expected = np.stack([number >= 0, number % 2 == 0], axis=-1)
        views.update(np.sign(number))
        is_zero = number == 0  # mirrored or not
        np.testing.assert_array_equal(x["mask"][~is_zero], expected[~is_zero])
    assert views >= {-1, 1}
    for batches in (picture_batches, input_batches):
        (batch,) = arrays(batches(["id3", "id4"], source))
        np.testing.assert_array_equal(batch["mask"], [[True, False], [True, True]])
        assert batch["annotations"][:, 0, 0].tolist() == [3, 4]


def test_input_batches_without_padding(source):
    (batch,) = arrays(input_batches(["id3", "id4"], source))
    assert list(batch) == ["annotations"]


def test_keras_fits_on_the_batches(batches):
    annotations = keras.Input((2, 3), name="annotations")
    token_ids = keras.Input((1, None), dtype="int32", name="token_ids")
    embedded = keras.layers.Embedding(40, 5)(token_ids)
    context = keras.layers.Flatten()(annotations)[:, None, None]
    logits = RowDense(40)(embedded + keras.layers.Dense(5)(context))
    model = keras.Model({"annotations": annotations, "token_ids": token_ids}, logits)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(batches(), epochs=2, shuffle=False, verbose=0).history["loss"]
    assert history[1] < history[0]


@pytest.fixture
def pictures(tmp_path):
    """Two pictures with a gradient from left to right, as a table."""
    rows = []
    for number, size in enumerate([(12, 8), (8, 10)]):
        path = tmp_path / f"{number}.png"
        pixels = np.zeros((size[1], size[0], 3), "uint8") + 40 * number
        pixels[..., 0] = np.arange(size[0]) * 10
        Image.fromarray(pixels).save(path)
        caption = f"picture {NUMBERS[number]} left"
        rows += [(f"id{number}", str(path), caption)] * 2
    return pd.DataFrame(rows, columns=["image_id", "image", "caption"])


def crop(picture):
    return tf.ensure_shape(picture[:8, :8], (8, 8, 3))


def test_pixels_for_fine_tuning(pictures):
    tokenizer = Tokenizer.from_captions([*pictures["caption"], "right"])
    source = PictureSource(pictures, crop)
    dataset = caption_batches(pictures, tokenizer, source, mirror=True, batch_size=2)
    assert dataset.element_spec[0]["images"].shape.as_list() == [None, 8, 8, 3]
    seen = set()
    for _ in range(6):
        for x, y, _ in arrays(dataset):
            assert x["images"].dtype == np.uint8
            for picture, text in zip(x["images"], tokenizer.detokenize(y[:, 0]), strict=True):
                number, is_mirrored = picture[0, 0, 1] // 40, picture[0, 0, 0] > picture[0, -1, 0]
                assert text == f"picture {NUMBERS[number]} {'right' if is_mirrored else 'left'}"
                seen.add((int(number), bool(is_mirrored)))
    assert seen == {(0, False), (0, True), (1, False), (1, True)}


def test_pixels_for_decoding_and_augmentation(pictures):
    paths = dict(zip(pictures["image_id"], pictures["image"], strict=True))
    (batch,) = arrays(picture_batches(["id1", "id0"], PictureSource(paths, crop)))
    assert batch[:, 0, 0, 1].tolist() == [40, 0]
    source = PictureSource(pictures, crop, augment=lambda picture: 255 - picture)
    (augmented,) = arrays(picture_batches(["id1", "id0"], source))
    np.testing.assert_array_equal(augmented, 255 - batch)


@pytest.mark.parametrize("cached", [False, True])
def test_pixels_and_features_of_padded_pictures_have_the_same_mask(pictures, tmp_path, cached):
    from sat_keras.paper.encoder import ImageEncoder

    encoder = ImageEncoder("scenes", weights=None, image_size=32, resize="pad")
    wide = tmp_path / "wide.png"
    Image.new("RGB", (30, 9)).save(wide)
    paths = {**dict(zip(pictures["image_id"], pictures["image"], strict=True)), "wide": str(wide)}
    if cached:
        source = extract_features(paths, encoder, tmp_path / "f", mirror=True, progress=False)
        source = FeatureCache(source.directory)
    else:
        source = PictureSource(paths, encoder.resize_images, region_mask=encoder.region_mask)
    (batch,) = arrays(picture_batches(["id1", "wide", "id0"], source))
    expected = [encoder.region_mask(*size) for size in ((10, 8), (9, 30), (8, 12))]
    np.testing.assert_array_equal(batch["mask"], expected)
    positions = tf.data.Dataset.from_tensor_slices(source.lookup(["id1"], mirror=True))
    (mask,) = arrays(positions.map(source.read_mask))
    np.testing.assert_array_equal(mask, encoder.region_mask(10, 8, mirror=True))


def test_padded_pixels_need_a_mask(pictures):
    from sat_keras.cnn.resize import PictureResize

    with pytest.raises(ValueError, match="region_mask=encoder.region_mask.*Received"):
        PictureSource(pictures, PictureResize(8, "pad"))
    mask = lambda height, width, mirror: np.ones(1, bool)  # noqa: E731
    source = PictureSource(pictures, PictureResize(8, "crop"), region_mask=mask)
    assert source.read_mask(tf.constant(0)) is None


def test_a_broken_picture_is_named(pictures, tmp_path):
    (tmp_path / "1.png").write_bytes(b"no picture")
    dataset = picture_batches(["id0", "id1"], PictureSource(pictures, crop))
    with pytest.raises(ValueError, match=r"1\.png"), picture_errors():
        arrays(dataset)


def test_features_of_a_real_cache(pictures, tmp_path):
    from sat_keras.paper.encoder import ImageEncoder

    encoder = ImageEncoder("scenes", weights=None, image_size=16, resize="squash")
    cache = extract_features(pictures, encoder, tmp_path / "features", mirror=True, progress=False)
    tokenizer = Tokenizer.from_captions([*pictures["caption"], "right"])
    views = {
        mirrored: np.stack(list(cache.dataset(["id0", "id1"], mirror=mirrored)))
        for mirrored in (False, True)
    }
    (decoded,) = arrays(picture_batches(["id1", "id0"], cache))
    np.testing.assert_array_equal(decoded, views[False][::-1])
    dataset = caption_batches(pictures, tokenizer, FeatureCache(cache.directory), mirror=True)
    for _ in range(2):
        ((x, y, _),) = arrays(dataset)
        for annotations, text in zip(x["annotations"], tokenizer.detokenize(y[:, 0]), strict=True):
            _, name, side = text.split()
            expected = views[side == "right"][NUMBERS.index(name)]
            np.testing.assert_array_equal(annotations, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"group": "caption"}, "group='caption'"),
        ({"max_length": 0}, "max_length=0"),
    ],
)
def test_bad_arguments_are_named(batches, arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(**arguments)


def test_an_empty_split_is_named(table, tokenizer, source):
    with pytest.raises(ValueError, match="Received: 0 rows"):
        caption_batches(table.iloc[:0], tokenizer, source)
    with pytest.raises(ValueError, match="Received: no image ids"):
        picture_batches([], source)
    with pytest.raises(ValueError, match="batch_size=0"):
        picture_batches(["id0"], source, batch_size=0)


def test_missing_pictures_are_counted_and_the_first_is_named(pictures):
    tokenizer = Tokenizer.from_captions(pictures["caption"])
    source = PictureSource(pictures.iloc[:0], crop)
    with pytest.raises(ValueError, match="lacks 2 of 2 pictures.*Received: image id 'id0'"):
        caption_batches(pictures, tokenizer, source)


def test_no_pipeline_has_the_thread_that_tunes_it(batches, source, pictures):
    """TensorFlow may wait for it where an iterator ends, for up to a minute."""
    pipelines = [
        batches(),
        pad_rows(batches(), 4),
        picture_batches(["id1", "id0"], source),
        image_dataset(pictures["image"]),
    ]
    for pipeline in pipelines:
        assert pipeline.options().autotune.enabled is False
