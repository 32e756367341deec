"""The feature cache: the encoder's own numbers, computed once, whatever happens in between."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from PIL import Image
from seeding import fix_seed

from sat_keras.data import extraction
from sat_keras.data.extraction import extract_features
from sat_keras.data.features import FeatureCache
from sat_keras.data.images import load_image
from sat_keras.paper.encoder import ImageEncoder

tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.long

# tf.data resizes with TensorFlow: on other backends a pixel may be one grey level apart.
ATOL = 1e-4 if keras.backend.backend() == "tensorflow" else 5e-3


def make_encoder(seed=0, resize="crop"):
    """A grid of 4 x 4 regions of 3 features: shards of 96 bytes."""
    fix_seed(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(3, 3, strides=2, padding="same", name="last")(x)
    return ImageEncoder(keras.Model(inputs, x, name="tiny"), "last", resize=resize)


class KilledError(Exception):
    pass


@pytest.fixture
def work(monkeypatch):
    """Counts the pictures encoded in `work.pictures`, and fails at `work.limit` of them."""
    work = SimpleNamespace(pictures=0, limit=np.inf)
    compiled = extraction.compiled_encoder

    def counted(encoder):
        encode = compiled(encoder)

        def count(batch):
            if work.pictures >= work.limit:
                raise KilledError
            work.pictures += len(batch)
            return encode(batch)

        return count

    monkeypatch.setattr(extraction, "compiled_encoder", counted)
    return work


@pytest.fixture
def table(tmp_path):
    """Ten pictures of odd sizes, two captions each."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(10):
        height, width = generator.integers(6, 20, 2)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / "pictures" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows += [{"image": str(path), "image_id": f"id{i}", "caption": c} for c in "ab"]
    return pd.DataFrame(rows)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


def extract(table, encoder, folder, **options):
    options = {"batch_size": 2, "progress": False, **options}
    return extract_features(table, encoder, folder, **options)


def expected_features(table, encoder, flip=False):
    """By hand: file, resize, flip, encode, picture by picture."""
    rows = []
    for path in table["image"].unique():
        image = ops.convert_to_numpy(encoder.resize_images(load_image(path)))
        image = image[:, ::-1] if flip else image
        rows.append(ops.convert_to_numpy(encoder(image[None]))[0].astype(np.float16))
    return np.stack(rows)


def assert_features(cache, table, encoder):
    keys = list(table["image_id"].unique())
    result = np.stack([x.numpy() for x in cache.dataset(keys)])
    np.testing.assert_allclose(result, expected_features(table, encoder), rtol=2e-3, atol=ATOL)


# What is stored


def test_features_are_the_encoders_in_the_order_of_the_keys(table, folder):
    encoder = make_encoder()
    cache = extract(table, encoder, folder)
    assert_features(cache, table, encoder)
    assert cache.keys == [f"id{i}" for i in range(10)]
    assert len(cache) == 10
    assert "id3" in cache
    assert "id10" not in cache
    assert (cache.grid_shape, cache.num_regions, cache.feature_dim) == ((4, 4), 16, 3)
    assert cache.dataset(["id1"]).element_spec == tf.TensorSpec((16, 3), tf.float16)


def test_any_order_may_be_read(table, folder):
    encoder = make_encoder()
    cache = extract(table, encoder, folder)
    by_key = dict(zip(cache.keys, expected_features(table, encoder), strict=True))
    keys = [f"id{i}" for i in np.random.default_rng(1).integers(0, 10, 40)]
    expected = np.stack([by_key[key] for key in keys])
    one_by_one = np.stack(list(cache.dataset(keys).as_numpy_iterator()))
    np.testing.assert_allclose(one_by_one, expected, rtol=2e-3, atol=ATOL)
    positions = cache.lookup(keys)
    assert (positions.dtype, positions.shape) == (np.int64, (40,))
    np.testing.assert_array_equal(cache.read(positions), one_by_one)
    batches = tf.data.Dataset.from_tensor_slices(positions).batch(7).map(cache.read)
    np.testing.assert_array_equal(np.concatenate(list(batches)), one_by_one)


def test_a_reader_needs_no_encoder(table, folder):
    encoder = make_encoder()
    cache = extract(table, encoder, folder)
    for arguments in ((folder,), (cache.directory,), (folder, encoder)):
        reopened = FeatureCache(*arguments)
        assert_features(reopened, table, encoder)
        assert reopened.fingerprint == encoder.fingerprint()


def test_mapping_of_paths(table, folder):
    encoder = make_encoder()
    cache = extract(dict(zip(table["image_id"], table["image"], strict=True)), encoder, folder)
    assert_features(cache, table, encoder)


def test_mirrored_views_are_flipped_after_resizing(table, folder):
    encoder = make_encoder()
    cache = extract(table, encoder, folder, mirror=True)
    assert_features(cache, table, encoder)
    result = cache.read(cache.lookup(cache.keys, mirror=True)).numpy()
    expected = expected_features(table, encoder, flip=True)
    np.testing.assert_allclose(result, expected, rtol=2e-3, atol=ATOL)
    assert len(cache) == 10


# What is not computed again


def test_second_run_computes_nothing(table, folder, work):
    extract(table, make_encoder(), folder)
    assert work.pictures == 10
    extract(table, make_encoder(), folder)
    assert work.pictures == 10


def test_new_pictures_and_views_are_added(table, folder, work):
    encoder = make_encoder()
    first = extract(table[table["image_id"] < "id4"], encoder, folder)
    assert work.pictures == 4
    cache = extract(table, encoder, folder)
    assert work.pictures == 10
    assert_features(cache, table, encoder)
    assert_features(first, table[table["image_id"] < "id4"], encoder)  # opened before
    extract(table, encoder, folder, mirror=True)
    assert work.pictures == 20


def test_changed_picture_is_computed_again(table, folder, work):
    encoder = make_encoder()
    extract(table, encoder, folder)
    Image.new("RGB", (9, 9), "red").save(table["image"][6])  # id3
    cache = extract(table, encoder, folder)
    assert work.pictures == 11
    assert len(cache) == 10
    assert_features(cache, table, encoder)


@pytest.mark.parametrize("pictures", [2, 4, 6, 8])
def test_stopped_run_is_resumed(table, folder, work, pictures):
    """After an error all that was computed is there: the rest, and only that, is computed."""
    encoder = make_encoder()
    work.limit = pictures
    with pytest.raises(KilledError):
        extract(table, encoder, folder)
    assert len(FeatureCache(folder, encoder)) == pictures
    work.limit = np.inf
    cache = extract(table, encoder, folder)
    assert work.pictures == 10
    assert_features(cache, table, encoder)


def test_changed_picture_replaces_its_shard(table, folder, work):
    """Should a kill have left the old one as well, the newer one is read."""
    encoder = make_encoder()
    (old,) = extract(table, encoder, folder).directory.glob("id3.*.f16")
    content = old.read_bytes()
    Image.new("RGB", (9, 9), "red").save(table["image"][6])
    cache = extract(table, encoder, folder)
    (new,) = cache.directory.glob("id3.*.f16")
    assert new != old
    old.write_bytes(content)
    os.utime(old, (0, 0))
    assert_features(extract(table, encoder, folder), table, encoder)
    assert work.pictures == 11


def leave_a_shard_half_written(shard):
    partial = shard.rename(shard.with_name(".partial-0123.f16"))
    cut_a_shard_short(partial)
    os.utime(partial, (0, 0))  # a kill some time ago: another process may be writing a new one


def cut_a_shard_short(shard):
    shard.write_bytes(shard.read_bytes()[:-5])


def empty_a_shard(shard):
    shard.write_bytes(b"")


def lose_a_shard(shard):
    shard.unlink()


@pytest.mark.parametrize(
    "damage", [leave_a_shard_half_written, cut_a_shard_short, empty_a_shard, lose_a_shard]
)
def test_what_a_kill_leaves_is_repaired(table, folder, work, damage):
    """A kill or a power failure can strike at any time: only what it struck is computed again."""
    encoder = make_encoder()
    cache = extract(table, encoder, folder)
    (shard,) = cache.directory.glob("id5.*.f16")
    damage(shard)
    cache = extract(table, encoder, folder)
    assert work.pictures == 11
    assert_features(cache, table, encoder)
    assert not list(cache.directory.glob(".partial-*"))


def test_a_complete_cache_is_only_read(table, folder):
    """Trainings that share it may begin at the same moment."""
    files = extract(table, make_encoder(), folder).directory
    before = {path.name: path.stat().st_mtime_ns for path in files.iterdir()}
    files.chmod(0o500)
    try:
        extract(table, make_encoder(), folder)
    finally:
        files.chmod(0o700)
    assert {path.name: path.stat().st_mtime_ns for path in files.iterdir()} == before


def test_damaged_shards_are_reported_and_the_rest_is_readable(table, folder):
    cache = extract(table, make_encoder(), folder)
    for name in ("id5", "id2"):
        (shard,) = cache.directory.glob(f"{name}.*.f16")
        cut_a_shard_short(shard)
    with pytest.warns(UserWarning, match=r"2 files .* first one is id[25]\..*run the extraction"):
        cache = FeatureCache(folder)
    assert cache.keys == ["id0", "id1", "id3", "id4", "id6", "id7", "id8", "id9"]
    assert cache.read(cache.lookup(["id9"])).shape == (1, 16, 3)


@pytest.mark.parametrize("damage", [cut_a_shard_short, lose_a_shard])
def test_shard_damaged_after_opening_is_noticed(table, folder, damage):
    cache = extract(table, make_encoder(), folder)
    (shard,) = cache.directory.glob("id0.*.f16")
    damage(shard)
    with pytest.raises(tf.errors.OpError):
        cache.read(cache.lookup(["id0"]))
    assert cache.read(cache.lookup(["id1"])).shape == (1, 16, 3)


def flip_a_bit(shard):
    data = bytearray(shard.read_bytes())
    data[17] ^= 4
    shard.write_bytes(data)


def test_any_flipped_bit_is_noticed_and_its_file_named(table, folder):
    cache = extract(table, make_encoder(), folder)
    (shard,) = cache.directory.glob("id0.*.f16")
    whole = shard.read_bytes()
    position = cache.lookup(["id0"])
    for bit in range(0, 8 * len(whole), 37):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(data)
        with pytest.raises(tf.errors.OpError, match=rf"(?s)run the extraction again.*{shard.name}"):
            cache.read(position)
    shard.write_bytes(whole)
    assert cache.read(position).shape == (1, 16, 3)


def test_a_flipped_bit_is_noticed_in_a_pipeline(table, folder):
    cache = extract(table, make_encoder(), folder)
    (shard,) = cache.directory.glob("id7.*.f16")
    flip_a_bit(shard)
    with pytest.raises(tf.errors.OpError, match=r"id7\."):
        list(cache.dataset(cache.keys))


def as_written_by_0_1_0(cache):
    """Without checksums in the names."""
    for shard in cache.directory.glob("*.f16"):
        stem, _, suffix = shard.name.rpartition(".")
        shard.rename(shard.with_name(f"{stem.rpartition('.')[0]}.{suffix}"))


def test_a_cache_of_0_1_0_is_read(table, folder, work):
    encoder = make_encoder()
    as_written_by_0_1_0(extract(table, encoder, folder, mirror=True))
    assert len(list(folder.rglob("id3.????????????????.f16"))) == 1
    assert_features(extract(table, encoder, folder, mirror=True), table, encoder)
    assert work.pictures == 20
    cache = FeatureCache(folder, encoder)
    assert len(cache) == 10
    (shard,) = cache.directory.glob("id3.????????????????.f16")
    shard.write_bytes(np.full((16, 3), np.nan, np.float16).tobytes())
    with pytest.raises(tf.errors.OpError, match=r"id3\."):
        cache.read(cache.lookup(["id3"]))


def test_two_extractions_into_one_cache(table, folder):
    """At the same moment, of different pictures: every shard is its own picture's."""
    encoder = make_encoder()
    tables = [table, table.iloc[::-1].reset_index(drop=True)]
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(extract, each, encoder, folder) for each in tables]:
            future.result()
    assert_features(FeatureCache(folder, encoder), table, encoder)


def test_masks_of_padded_pictures_are_cached(table, folder):
    encoder = make_encoder(resize="pad")
    extract(table, encoder, folder, mirror=True)
    cache = FeatureCache(folder)
    assert_features(cache, table, encoder)
    sizes = [load_image(path).shape[:2] for path in table["image"].unique()]
    for mirror in (False, True):
        expected = [encoder.region_mask(*size, mirror=mirror) for size in sizes]
        masks = cache.read_mask(cache.lookup([f"id{i}" for i in range(10)], mirror))
        np.testing.assert_array_equal(masks, expected)
        assert not np.all(expected)


def test_other_policies_store_no_mask(table, folder):
    cache = extract(table, make_encoder(), folder)
    assert cache.read_mask(cache.lookup(["id0"])) is None
    assert "mask" not in (cache.directory / "manifest.json").read_text()


def test_an_image_id_that_is_too_long_is_named(table, folder):
    table["image_id"] = table["image_id"] + "a" * 240
    with pytest.raises(OSError, match=r"too long for a file name.*Received: 'id0aaa"):
        extract(table, make_encoder(), folder)


def test_image_ids_may_be_anything(table, folder):
    """Separators, dots, the ending of a mirrored view, letters beyond ASCII."""
    encoder = make_encoder()
    ids = ["a/b.jpg", "..", "x.mirror", "%2F", "ü 1", "0123456789abcdef.f16", "id0", "A", "*", "é"]
    table["image_id"] = np.repeat(ids, 2)
    assert_features(extract(table, encoder, folder, mirror=True), table, encoder)
    cache = FeatureCache(folder, encoder)
    assert cache.keys == sorted(ids)
    mirrored = cache.read(cache.lookup(ids, mirror=True))
    expected = expected_features(table, encoder, flip=True)
    np.testing.assert_allclose(mirrored, expected, rtol=2e-3, atol=ATOL)


# Other encoders


@pytest.mark.parametrize("changes", [{"seed": 1}, {"resize": "squash"}])
def test_features_of_another_encoder_are_never_read(table, folder, changes):
    first, second = make_encoder(), make_encoder(**changes)
    cache = extract(table, first, folder)
    names = f"{first.fingerprint()}.*Received: encoder .*{second.fingerprint()}"
    for directory in (folder, cache.directory):
        with pytest.raises(ValueError, match=names):
            FeatureCache(directory, second)
    assert_features(extract(table, second, folder), table, second)
    assert_features(FeatureCache(folder, first), table, first)
    with pytest.raises(ValueError, match=rf"several encoders.*{cache.directory.name}.*Received"):
        FeatureCache(folder)


def test_lookup_says_what_is_missing(table, folder):
    cache = extract(table[table["image_id"] < "id4"], make_encoder(), folder)
    with pytest.raises(ValueError, match=r"lacks 2 of 3 pictures.*Received: image id 'id7'"):
        cache.lookup(["id1", "id7", "id8"])
    with pytest.raises(ValueError, match=r"lacks 1 of 1 mirrored pictures.*mirror=True"):
        cache.lookup(["id1"], mirror=True)


# Errors


def test_folder_without_features(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no features in this folder.*Received"):
        FeatureCache(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 0}', "format 0"),
        *(
            (content, "manifest is damaged")
            for content in (
                *("{", "[]", '{"format": 2}', "[" * 10**5),
                '{"format": 2, "grid_shape": [4], "feature_dim": 3}',
                '{"format": 2, "grid_shape": [4, 4], "feature_dim": "3"}',
                '{"format": 2, "grid_shape": [4, -4], "feature_dim": 3}',
                '{"format": 2, "grid_shape": [4, 4], "feature_dim": 3, "encoder": 1}',
            )
        ),
    ],
)
def test_manifest_of_no_use(table, folder, content, message):
    cache = extract(table, make_encoder(), folder)
    (cache.directory / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{message}.*Received|Received: {message}"):
        FeatureCache(folder)


def test_missing_pictures_are_counted_before_any_work(table, folder, work):
    table.loc[[4, 5], "image"] = "gone.jpg"
    with pytest.raises(FileNotFoundError, match=r"1 of 10 .* missing.*Received: 'gone.jpg'"):
        extract(table, make_encoder(), folder)
    assert work.pictures == 0


def test_truncated_picture_stops_the_run_or_is_allowed(table, folder, work, tmp_path):
    path = tmp_path / "broken.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    table.loc[[16, 17], "image"] = str(path)  # id8
    with pytest.raises(ValueError, match=r"^This picture file is truncated.*broken\.jpg.*$"):
        extract(table, make_encoder(), folder)
    assert len(FeatureCache(folder)) == 8  # nothing before it is lost
    with pytest.warns(UserWarning, match=r"broken\.jpg is truncated"):
        cache = extract(table, make_encoder(), folder, allow_truncated=True)
    assert work.pictures == 10
    assert "id8" in cache


def test_folder_that_cannot_be_made(table, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"Cannot write to the features folder.*Received: .*file"):
        extract(table, make_encoder(), tmp_path / "file")


def test_too_little_room_is_said_before_any_work(table, folder, work, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"need 0.00 GB of disk.*Received"):
        extract(table, make_encoder(), folder)
    assert work.pictures == 0


def test_full_disk_keeps_what_was_written(table, folder, work, monkeypatch):
    written = []

    def write_bytes(path, content):
        written.append(path)
        path.touch()
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    write = Path.write_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(OSError, match=r"room on the disk.*Received: .*No space left"):
            extract(table, make_encoder(), folder)
    assert not list(folder.rglob(".partial-*"))
    assert len(FeatureCache(folder)) == 5
    work.pictures = 0
    extract(table, make_encoder(), folder)
    assert work.pictures == 5


def test_numbers_that_float16_cannot_hold(table, folder):
    encoder = make_encoder()
    encoder.cnn.layers[-1].bias.assign([1e6, 0, 0])
    with pytest.raises(ValueError, match=r"not finite in float16.*Received: image id 'id0'"):
        extract(table, encoder, folder)


def test_progress_counts_pictures(table, folder, capsys, monkeypatch):
    monkeypatch.setattr("sat_keras.backend.progress.DELAY", 0.0)
    monkeypatch.setattr("sat_keras.backend.progress.LINE_INTERVAL", 0.0)
    extract(table, make_encoder(), folder, progress=True)
    assert "10 of 10 pictures" in capsys.readouterr().err


def test_manifest_is_readable(table, folder):
    encoder = make_encoder()
    cache = extract(table, encoder, folder)
    manifest = json.loads((cache.directory / "manifest.json").read_text())
    assert manifest["encoder"] == encoder.describe() == cache.encoder
    assert manifest["grid_shape"] == [4, 4]
    assert cache.directory.name == f"tiny-last-crop8-{encoder.fingerprint()}"
