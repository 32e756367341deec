"""Every kind of picture file, and every way in which one can be broken."""

import os
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
from keras.backend import backend
from PIL import Image

from sat_keras.data import images
from sat_keras.data.images import image_dataset, load_image, picture_errors, picture_size


@pytest.fixture
def picture():
    """Smooth, so that JPEG keeps its values within a few grey levels."""
    y, x = np.mgrid[:24, :32]
    return np.stack([x * 7, y * 9, 255 - x * 4], axis=-1).astype(np.uint8)


def save(array, path, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def write_jpeg(path, picture, **options):
    return save(picture, path, quality=95, **options)


def test_png_is_read_as_it_is(tmp_path, picture):
    result = load_image(save(picture, tmp_path / "a.png"))
    assert (result.dtype, result.shape) == (np.uint8, (24, 32, 3))
    np.testing.assert_array_equal(result, picture)
    np.testing.assert_array_equal(load_image(str(tmp_path / "a.png")), picture)
    result[0, 0] = 0  # a copy that may be written to


def test_grey_becomes_three_equal_channels(tmp_path, picture):
    grey = picture[..., 0]
    result = load_image(save(grey, tmp_path / "a.png"))
    np.testing.assert_array_equal(result, np.repeat(grey[..., None], 3, axis=-1))


def test_cmyk_jpeg_has_the_right_colours(tmp_path, picture):
    result = load_image(write_jpeg(tmp_path / "a.jpg", picture, mode="CMYK"))
    assert np.abs(result.astype(int) - picture).mean() < 5


def test_palette(tmp_path):
    colours = np.array([[255, 0, 0], [0, 102, 255]], np.uint8)
    picture = colours[np.arange(64).reshape(8, 8) % 2]
    result = load_image(save(picture, tmp_path / "a.gif", mode="P"))
    np.testing.assert_array_equal(result, picture)


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_laid_over_white(tmp_path, picture, alpha):
    with_alpha = np.concatenate([picture, np.full((24, 32, 1), alpha, np.uint8)], axis=-1)
    result = load_image(save(with_alpha, tmp_path / "a.png"))
    expected = picture * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(result - expected).max() <= 1


def test_transparent_palette_entry_is_white(tmp_path):
    indices = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    indices.putpalette([255, 0, 0, 0, 0, 255])
    indices.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), [[[255] * 3, [0, 0, 255]]])


def test_grey_with_alpha(tmp_path):
    pixels = np.array([[[10, 255], [10, 0]]], np.uint8)
    result = load_image(save(pixels, tmp_path / "a.png"))
    np.testing.assert_array_equal(result, [[[10] * 3, [255] * 3]])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path, suffix):
    pixels = np.array([[0, 257 * 100, 257 * 200 + 3, 65535]], np.uint16)
    result = load_image(save(pixels, tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(result[0, :, 0], [0, 100, 200, 255])


def test_black_and_white(tmp_path):
    pixels = np.array([[True, False]])
    np.testing.assert_array_equal(
        load_image(save(pixels, tmp_path / "a.png")), [[[255] * 3, [0] * 3]]
    )


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    result = load_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(result, np.broadcast_to([255, 0, 0], (4, 6, 3)))


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda x: x),
        (2, np.fliplr),
        (3, lambda x: np.rot90(x, 2)),
        (6, lambda x: np.rot90(x, 3)),
    ],
)
def test_orientation_of_the_camera(tmp_path, picture, orientation, turn):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), turn(picture))


def test_broken_exif_does_not_spoil_the_pixels(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), picture)


# Broken files


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Received: .*gone\.jpg"):
        load_image(tmp_path / "gone.jpg")


def test_folder_is_no_picture(tmp_path):
    with pytest.raises(ValueError, match=r"not a regular file.*Received: "):
        load_image(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff", b"<svg></svg>"])
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"Received: .*a\.jpg"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_truncated_file_is_an_error_that_names_it(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = save(noise, tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=rf"truncated or broken.*Received: .*{name}"):
        load_image(path)


def test_truncated_jpeg_can_be_read_as_far_as_it_goes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = write_jpeg(tmp_path / "a.jpg", noise)
    whole = load_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"a\.jpg is truncated"):
        part = load_image(path, allow_truncated=True)
    assert part.shape == whole.shape
    np.testing.assert_array_equal(part[:8], whole[:8])
    assert np.abs(part[-8:].astype(int) - 128).max() < 8  # grey


def test_allowing_truncated_files_hides_no_others(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 nothing")
    with pytest.raises(ValueError, match=r"Received: .*a\.jpg"):
        load_image(tmp_path / "a.jpg", allow_truncated=True)


# What else is a picture


def test_paths_pillow_pictures_and_arrays_are_one(tmp_path, picture):
    path = save(picture, tmp_path / "a.png")
    with Image.open(path) as opened:
        for same in (str(path), os.fsencode(path), opened, picture, picture.astype("float32")):
            np.testing.assert_array_equal(load_image(same), picture)
    np.testing.assert_array_equal(load_image(Image.fromarray(picture).convert("RGBA")), picture)


@pytest.mark.parametrize(
    "array",
    [
        np.full((2, 2, 3), 0.5, "float32"),
        np.eye(3)[None],
        np.full((2, 2, 3), -1.0),
        np.full((2, 2, 3), 256),
        np.full((2, 2, 3), np.nan),
        np.zeros((2, 2)),
        np.zeros((1, 2, 2, 3), "uint8"),
        np.zeros((2, 2, 3), bool),
        [["a", "b"]],
    ],
)
def test_arrays_that_are_no_pixels_are_refused(array):
    with pytest.raises(ValueError, match="0[.][.]255.*Received: "):
        load_image(array)


def test_black_floats_are_a_picture():
    assert load_image(np.zeros((2, 2, 3))).dtype == np.uint8


def test_pictures_of_phones(tmp_path, picture):
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.fromarray(picture)).save(path, quality=100)
    assert np.abs(load_image(path).astype(int) - picture).max() < 16
    assert picture_size(path) == (24, 32)


def test_pictures_of_phones_without_their_package(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"pip install pillow-heif.*Received: .*a\.jpg"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_pixels(tmp_path, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_jpeg(tmp_path / "a.jpg", picture, exif=exif)
    assert picture_size(path) == load_image(path).shape[:2]


# Hostile files


def png_of(width, height):
    """A few bytes that claim to be a large picture."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [10_000, 13_000, 60_000])
@pytest.mark.parametrize("read", [load_image, picture_size])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_and_the_limit_is_named(tmp_path, side, read):
    (tmp_path / "a.png").write_bytes(png_of(side, side))
    with pytest.raises(ValueError, match=r"89 mega.*MAX_IMAGE_PIXELS.*Received: .*a\.png"):
        read(tmp_path / "a.png")


def test_the_limit_can_be_raised(tmp_path, picture, monkeypatch):
    path = save(picture, tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ValueError, match="MAX_IMAGE"):
        load_image(path)
    for limit in (768, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        np.testing.assert_array_equal(load_image(path), picture)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    with pytest.raises(ValueError, match=r"MAX_FILE_BYTES.*Received: .*a\.png"):
        load_image(path)


def test_postscript_is_not_run(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def called(*args, **kwargs):
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", called)
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(ValueError, match=r"not a picture.*Received: .*a\.jpg"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", "/dev/zero"):
        with pytest.raises(ValueError, match="not a regular file.*Received"):
            load_image(path)


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(ValueError, match="cannot be read .File name too long.*Received"):
        load_image(tmp_path / ("a" * 300))


# tf.data


def test_dataset_is_load_image_in_order(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from sat_keras.cnn.resize import PictureResize

    generator = np.random.default_rng(0)
    paths = []
    for i in range(9):
        height, width = generator.integers(5, 20, 2)
        noise = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(save(noise, tmp_path / f"{i}.jpg"))
    for picture, path in zip(image_dataset(paths), paths, strict=True):
        np.testing.assert_array_equal(picture, load_image(path))
    resize = PictureResize(8)
    dataset = image_dataset(paths, resize, num_parallel_calls=2)
    assert dataset.element_spec == tf.TensorSpec((8, 8, 3), tf.uint8)
    batch = next(iter(dataset.batch(9))).numpy()
    expected = np.stack([np.asarray(resize(load_image(path))) for path in paths])
    assert np.abs(batch.astype(int) - expected).max() <= (backend() != "tensorflow")


def test_dataset_of_no_pictures_is_empty():
    assert list(image_dataset([])) == []


@pytest.mark.parametrize(("content", "error"), [(None, FileNotFoundError), (b"hello", ValueError)])
def test_errors_come_out_of_the_pipeline_as_they_went_in(tmp_path, content, error):
    path = tmp_path / "a.jpg"
    if content:
        path.write_bytes(content)
    with pytest.raises(error, match=r"^[^\n]*Received: [^\n]*a\.jpg[^\n]*$"), picture_errors():
        list(image_dataset([path]))


def test_damaged_picture_of_flickr8k_is_whole_enough(shared, tmp_path):
    """Its lower half is damaged, but the file is not truncated: every decoder reads it."""
    name = "Flicker8k_Dataset/1798209205_77dbf525b0.jpg"
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_Dataset.zip") as archive:
        path = archive.extract(name, tmp_path)
    assert load_image(path).shape == (224, 224, 3)
