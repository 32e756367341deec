"""The encoder against Keras's own CNNs, Pillow's resize, and itself after saving."""

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image
from seeding import fix_seed

from sat_keras.cnn.resize import PADDING, RESIZE, PictureResize
from sat_keras.cnn.scenes import CoordinateChannels, scene_cnn
from sat_keras.paper.encoder import ImageEncoder

pytestmark = pytest.mark.long


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tiny_cnn(size=8, **kwargs):
    """A CNN of the user's own: a grid of 4 x 4 regions of 5 features."""
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="first", **kwargs)(inputs)
    x = keras.layers.BatchNormalization(name="norm", **kwargs)(x)
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same", name="last", **kwargs)(x)
    return keras.Model(inputs, x, name="tiny")


def numpy(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


# Resizing


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("shape", [(90, 64), (48, 120), (60, 60), (20, 30), (31, 200), (200, 2)])
def test_resize_is_pillows(shape, resize):
    picture = pictures(*shape, 3)
    image = Image.fromarray(picture)
    if resize == "crop":
        scale = 32 / min(shape)  # 32 = 256 / 224 * 28
        height, width = (int(side * scale + 0.5) for side in shape)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - 28) // 2, (height - 28) // 2
        image = image.crop((left, top, left + 28, top + 28))
    elif resize == "squash":
        image = image.resize((28, 28), Image.Resampling.BILINEAR)
    else:
        height, width = (max(1, int(side * 28 / max(shape) + 0.5)) for side in shape)
        canvas = Image.new("RGB", (28, 28), PADDING)
        scaled = image.resize((width, height), Image.Resampling.BILINEAR)
        canvas.paste(scaled, ((29 - width) // 2, (29 - height) // 2))
        image = canvas
    result = ops.convert_to_numpy(PictureResize(28, resize)(picture))
    assert result.dtype == np.uint8
    difference = np.abs(result.astype(int) - np.asarray(image, int))
    assert difference.max() <= 1  # Pillow computes in fixed point


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("shape", [(90, 64), (120, 244), (60, 60), (28, 28), (20, 30)])
@pytest.mark.parametrize("box", [(0.3, 0.4, 0.6, 0.9), (0.0, 0.2, 0.45, 1.0)])
def test_boxes_follow_the_picture(shape, resize, box):
    """A white box on black: where it is after resizing, by its area and its middle."""
    height, width = shape
    x0, y0, x1, y1 = (round(s * side) for s, side in zip(box, (width, height) * 2, strict=True))
    # White on the padding's colour.
    picture = np.tile(np.array(PADDING, "float32"), (*shape, 1))
    picture[y0:y1, x0:x1, 0] += 1
    layer = PictureResize(28, resize)
    white = numpy(layer(picture))[..., 0] - PADDING[0]
    ((x0, y0, x1, y1),) = layer.resize_boxes([[x0, y0, x1, y1]], height, width)
    rows, columns = white.sum(axis=1), white.sum(axis=0)
    assert white.sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=0.03)
    pixels = np.arange(28) + 0.5
    assert (rows @ pixels) / rows.sum() == pytest.approx((y0 + y1) / 2, abs=0.3)
    assert (columns @ pixels) / columns.sum() == pytest.approx((x0 + x1) / 2, abs=0.3)


def test_boxes_outside_of_the_crop_are_empty():
    layer = PictureResize(28, "crop")
    # 64 x 32 pixels before 28 x 28 are cut out of the middle: columns 18 to 46, rows 2 to 30.
    boxes = layer.resize_boxes([[0, 0, 17, 32], [10, 8, 20, 16]], height=32, width=64)
    np.testing.assert_array_equal(boxes, [[0, 0, 0, 28], [0, 6, 2, 14]])


def test_boxes_of_a_padded_picture_can_be_mapped_back():
    layer = PictureResize(28, "pad")
    # 28 x 14 pixels, 7 below the upper edge.
    boxes = np.array([[0, 0, 64, 32], [10, 8, 20, 16]])
    resized = layer.resize_boxes(boxes, height=32, width=64)
    np.testing.assert_allclose(resized, boxes * 28 / 64 + [0, 7, 0, 7])
    outside = layer.resize_boxes([[-9, -9, 99, -1]], height=32, width=64)
    np.testing.assert_array_equal(outside, [[0, 7, 28, 7]])


# The mask of padding


@pytest.mark.parametrize(
    ("shape", "grid", "rows", "columns"),
    [
        ((8, 8), (4, 4), "1111", "1111"),
        ((50, 50), (2, 2), "11", "11"),
        ((10, 20), (4, 4), "0110", "1111"),  # rows 2 to 6 of 8 pixels: centres at 1, 3, 5, 7
        ((20, 10), (4, 4), "1111", "0110"),
        ((20, 10), (3, 8), "111", "00111100"),
        ((30, 40), (4, 4), "1110", "1111"),  # rows 1 to 7, of which 7 is the first below
        ((1, 100), (4, 4), "0010", "1111"),  # one pixel, row 4 (half a pixel downwards)
        ((1, 100), (5, 1), "00100", "1"),
    ],
)
def test_mask_of_cells_whose_centre_is_on_the_picture(shape, grid, rows, columns):
    mask = PictureResize(8, "pad").region_mask(*shape, grid)
    expected = np.outer([int(x) for x in rows], [int(x) for x in columns]).astype(bool)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("shape", [(90, 64), (48, 120), (61, 60), (20, 33), (3, 200), (28, 28)])
def test_mask_of_cells_of_a_pixel_is_the_picture(shape):
    """On a grid of single pixels the mask is exactly what is no padding."""
    layer = PictureResize(28, "pad")
    padded = numpy(layer(np.zeros((*shape, 3), "uint8")))[..., 0]
    np.testing.assert_array_equal(layer.region_mask(*shape, (28, 28)), padded == 0)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_mask_without_padding_is_true(resize):
    assert PictureResize(8, resize).region_mask(3, 200, (4, 5)).all()


def test_regions_on_the_picture_do_not_depend_on_the_padding():
    """A 1 x 1 convolution sees one pixel a cell: equal to encoding the scaled picture alone."""
    inputs = keras.Input((8, 8, 3))
    cnn = keras.Model(inputs, keras.layers.Conv2D(5, 1, name="last")(inputs), name="pixelwise")
    encoder = ImageEncoder(cnn, resize="pad")
    picture = pictures(4, 8, 3)
    mask = encoder.region_mask(4, 8)
    assert mask.shape == (64,)
    expected = numpy(cnn.layers[-1](picture[None].astype("float32"))).reshape(-1, 5)
    np.testing.assert_allclose(numpy(encoder(picture[None]))[0][mask], expected, rtol=1e-5)


@pytest.mark.parametrize("resize", RESIZE)
def test_resized_pictures_pass_unchanged(resize):
    layer = PictureResize(12, resize)
    picture = pictures(2, 12, 12, 3)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(picture)), picture)
    fractions = picture.astype("float32") * np.float32(0.99)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(fractions)), fractions)
    once = layer(pictures(2, 30, 20, 3))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(once)), ops.convert_to_numpy(once))


@pytest.mark.parametrize("resize", RESIZE)
def test_resize_inside_tf_data_is_the_same(resize):
    """One layer for the loaders and the encoder: sizes unknown in the graph change nothing."""
    tf = pytest.importorskip("tensorflow")
    layer = PictureResize(12, resize)
    originals = [pictures(*shape, 3) for shape in ((30, 20), (17, 41), (12, 12), (2, 90))]
    for dtype in ("uint8", "float32"):
        dataset = tf.data.Dataset.from_generator(
            lambda dtype=dtype: (x.astype(dtype) for x in originals),
            output_signature=tf.TensorSpec((None, None, 3), dtype),
        )
        dataset = dataset.map(layer)
        assert dataset.element_spec == tf.TensorSpec((12, 12, 3), dtype)
        for result, picture in zip(dataset, originals, strict=True):
            expected = ops.convert_to_numpy(layer(picture.astype(dtype)))
            # tf.data computes in TensorFlow: other backends may round the last digit differently.
            same = keras.backend.backend() == "tensorflow"
            tolerance = 0 if same else {"uint8": 1, "float32": 1e-3}[dtype]
            difference = np.abs(result.numpy().astype("float32") - expected)
            assert difference.max() <= tolerance


def test_resize_keeps_its_settings():
    layer = PictureResize.from_config(PictureResize(12, "squash", name="r").get_config())
    assert (layer.image_size, layer.resize, layer.name) == (12, "squash", "r")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 4), (1, 2, 8, 8, 3)])
def test_resize_refuses_what_is_not_rgb(shape):
    with pytest.raises(ValueError, match=r"must be RGB.*Received: shape="):
        PictureResize(4)(np.zeros(shape, "uint8"))


@pytest.mark.parametrize("arguments", [{"resize": "fit"}, {"image_size": 0}, {"image_size": 2.5}])
def test_resize_refuses_unknown_settings(arguments):
    with pytest.raises(ValueError, match="Received: "):
        PictureResize(**{"image_size": 8, **arguments})


# Sizes


@pytest.mark.parametrize(
    ("name", "size", "grid", "feature_dim"),
    [
        ("VGG19", 32, (2, 2), 512),
        ("VGG16", 48, (3, 3), 512),
        ("ResNet50", 64, (2, 2), 2048),
        ("MobileNetV3Large", 64, (2, 2), 960),
        ("EfficientNetV2B0", 64, (2, 2), 1280),
    ],
)
def test_cnns_by_name(name, size, grid, feature_dim):
    encoder = ImageEncoder(name, weights=None, image_size=size)
    assert encoder.grid_shape == grid
    assert encoder.num_regions == grid[0] * grid[1]
    assert encoder.feature_dim == feature_dim
    symbolic = encoder(keras.KerasTensor((None, None, None, 3), dtype="uint8"))
    assert symbolic.shape == (None, encoder.num_regions, feature_dim)
    assert encoder.trainable_variables == []


def test_the_papers_grid_is_the_default():
    encoder = ImageEncoder(weights=None)
    assert (encoder.cnn_name, encoder.layer) == ("VGG19", "block5_conv4")
    assert (encoder.grid_shape, encoder.feature_dim, encoder.image_size) == ((14, 14), 512, 224)
    assert encoder.resize == "crop"


# Values


@pytest.mark.parametrize(
    ("name", "layer", "family"),
    [
        ("VGG16", "block2_conv1", "vgg16"),
        ("MobileNetV2", "block_1_expand", "mobilenet_v2"),
        ("DenseNet121", "pool2_conv", "densenet"),
    ],
)
def test_preprocessing_is_the_familys(name, layer, family):
    """Caffe's, TensorFlow's and Torch's way of scaling pixels."""
    encoder = ImageEncoder(name, layer, weights=None, image_size=32)
    picture = pictures(2, 32, 32, 3)
    module = getattr(keras.applications, family)
    expected = encoder.cnn(module.preprocess_input(picture.astype("float32")), training=False)
    result = encoder(picture)
    np.testing.assert_allclose(
        numpy(result), numpy(ops.reshape(expected, result.shape)), rtol=1e-5, atol=1e-5
    )


def test_regions_are_rows_of_the_grid():
    encoder = ImageEncoder(tiny_cnn())
    picture = pictures(2, 8, 8, 3)
    expected = numpy(encoder.cnn(picture.astype("float32")))
    np.testing.assert_allclose(numpy(encoder(picture))[:, 7], expected[:, 1, 3], rtol=1e-5)


def test_uint8_and_float_pictures_agree():
    encoder = ImageEncoder(tiny_cnn(), resize="squash")
    picture = pictures(2, 8, 8, 3)
    unchanged = picture.astype("float32")
    result = encoder(unchanged)
    np.testing.assert_array_equal(numpy(encoder(picture)), numpy(result))
    np.testing.assert_array_equal(unchanged, picture)  # nothing worked in place


def test_real_vgg16_is_keras_by_hand(shared):
    weights = shared / "weights" / "vgg16_imagenet_notop_fp16.weights.h5"
    encoder = ImageEncoder("VGG16", weights=weights)
    vgg = keras.applications.VGG16(include_top=False, weights=str(weights))
    by_hand = keras.Model(vgg.input, vgg.get_layer("block5_conv3").output)
    picture = pictures(1, 224, 224, 3)
    expected = by_hand(keras.applications.vgg16.preprocess_input(picture.astype("float32")))
    np.testing.assert_allclose(
        numpy(encoder(picture)), numpy(expected).reshape(1, 196, 512), rtol=1e-4, atol=1e-3
    )


# Training


def test_frozen_batch_normalisation_stays_as_it_is():
    encoder = ImageEncoder(tiny_cnn())
    before = [numpy(w) for w in encoder.weights]
    picture = pictures(4, 8, 8, 3)
    np.testing.assert_array_equal(
        numpy(encoder(picture, training=True)), numpy(encoder(picture, training=False))
    )
    for weight, old in zip(encoder.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), old)
    assert encoder.trainable_variables == []


def test_trainable_encoder_trains():
    encoder = ImageEncoder(tiny_cnn(), trainable=True)
    assert len(encoder.trainable_variables) == 6
    before = numpy(encoder.cnn.get_layer("norm").moving_mean)
    encoder(pictures(4, 8, 8, 3), training=True)
    assert not np.array_equal(numpy(encoder.cnn.get_layer("norm").moving_mean), before)


def test_fine_tuning_reaches_the_first_layer():
    encoder = ImageEncoder(tiny_cnn(), trainable=True)
    model = keras.Sequential([keras.Input((8, 8, 3)), encoder])
    model.compile("sgd", "mse")
    kernel = encoder.cnn.get_layer("first").kernel
    before = numpy(kernel)
    model.fit(pictures(4, 8, 8, 3).astype("float32"), np.ones((4, 16, 5)), verbose=0)
    assert not np.array_equal(numpy(kernel), before)


def test_dtype_policy_reaches_the_cnn():
    encoder = ImageEncoder("VGG16", weights=None, image_size=32, dtype="mixed_bfloat16")
    assert encoder.cnn.get_layer("block1_conv1").compute_dtype == "bfloat16"
    annotations = encoder(pictures(1, 32, 32, 3))
    assert keras.backend.standardize_dtype(annotations.dtype) == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"  # the global policy is left alone
    assert {w.dtype for w in encoder.cnn.weights} == {"float32"}


# The small CNN of the scenes


def test_scene_cnn_sizes():
    encoder = ImageEncoder("scenes", weights=None, trainable=True)
    assert (encoder.image_size, encoder.grid_shape, encoder.feature_dim) == (64, (8, 8), 128)
    assert scene_cnn(96, filters=(4, 4), feature_dim=6).output_shape == (None, 24, 24, 6)


def test_scene_cnn_sees_39_pixels():
    """Pixels further than its receptive field do not change an annotation vector."""
    cnn = scene_cnn(96)
    picture = np.full((1, 96, 96, 3), 128, "float32")
    reference = numpy(cnn(picture))[0]
    painted = picture.copy()
    painted[:, 48] = 0
    rows = np.flatnonzero(np.any(numpy(cnn(painted))[0] != reference, axis=(1, 2)))
    # Row r of the 12 x 12 grid sees the pixels from 8 r - 12 to 8 r + 26 (padding "same").
    assert set(rows) <= {r for r in range(12) if 8 * r - 12 <= 48 <= 8 * r + 26}
    assert len(rows) >= 3


def test_coordinates_are_the_cells_centres():
    result = numpy(CoordinateChannels()(np.zeros((1, 2, 4, 1), "float32")))
    np.testing.assert_allclose(result[0, :, 0, 1], [-0.5, 0.5])
    np.testing.assert_allclose(result[0, 1, :, 2], [-0.75, -0.25, 0.25, 0.75])


# Saving


def assert_survives_saving(encoder, tmp_path):
    picture = pictures(2, 11, 14, 3)
    model = keras.Sequential([keras.Input((None, None, 3), dtype="uint8"), encoder])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(loaded(picture)), numpy(model(picture)))
    again = loaded.layers[-1]
    assert again.fingerprint() == encoder.fingerprint()
    assert again.describe() == encoder.describe()
    assert again.trainable == encoder.trainable
    assert len(again.trainable_variables) == len(encoder.trainable_variables)


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("layer", [None, "norm"])
def test_own_cnn_survives_saving(tmp_path, layer, trainable):
    encoder = ImageEncoder(tiny_cnn(), layer, resize="squash", trainable=trainable)
    assert_survives_saving(encoder, tmp_path)


def test_named_cnn_survives_saving(tmp_path):
    encoder = ImageEncoder("scenes", weights=None, image_size=16, dtype="mixed_bfloat16")
    assert_survives_saving(encoder, tmp_path)


def test_weights_file(tmp_path):
    source = scene_cnn(16)
    source.save_weights(tmp_path / "cnn.weights.h5")
    encoder = ImageEncoder("scenes", weights=tmp_path / "cnn.weights.h5", image_size=16)
    picture = pictures(1, 16, 16, 3).astype("float32")
    np.testing.assert_array_equal(numpy(encoder(picture))[0, 0], numpy(source(picture))[0, 0, 0])


# Fingerprint


def test_fingerprint_changes_with_every_setting():
    def build(layer=None, resize="crop", image_size=16, dtype="float32", seed=0, change=0.0):
        fix_seed(seed)
        encoder = ImageEncoder(
            "scenes", layer, None, resize=resize, image_size=image_size, dtype=dtype
        )
        encoder.weights[0].assign_add(ops.full(encoder.weights[0].shape, change))
        return encoder.fingerprint()

    others = [
        build(layer="block3_conv2_relu"),
        build(resize="squash"),
        build(resize="pad"),
        build(image_size=24),
        build(dtype="mixed_bfloat16"),
        build(seed=1),
        build(change=1e-4),
    ]
    assert build() == build()
    assert len({build(), *others}) == 8


def test_fingerprint_knows_own_architectures():
    """Same weights, another activation; Keras's own numbering of layers does not matter."""

    def build(activation):
        inputs = keras.Input((8, 8, 3))
        outputs = keras.layers.Conv2D(2, 3, activation=activation)(inputs)
        model = keras.Model(inputs, outputs)
        model.set_weights([np.ones(w.shape) for w in model.get_weights()])
        return ImageEncoder(model).fingerprint()

    assert build("relu") == build("relu")
    assert build("relu") != build("tanh")


# Errors


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cnn": "VGG91"}, ValueError, "such as VGG19.*Received: cnn='VGG91'"),
        ({"cnn": "VGG16", "layer": "block5_conv4"}, ValueError, "block5_conv3.*Received: layer"),
        ({"cnn": "VGG16", "weights": "no/such.h5"}, FileNotFoundError, "Received: weights="),
        ({"cnn": "InceptionV3", "image_size": 32}, ValueError, "another `image_size`.*Received"),
        ({"cnn": "scenes", "weights": "imagenet"}, ValueError, "weights=None, trainable=True"),
        ({"cnn": "scenes", "resize": "fit"}, ValueError, "'squash' or 'pad'. Received: resize"),
    ],
)
def test_errors_name_the_remedy(arguments, error, message):
    with pytest.raises(error, match=message):
        ImageEncoder(**{"weights": None, "image_size": 32, **arguments})


@pytest.mark.parametrize("content", ["other", "not a weights file"])
def test_weights_that_do_not_fit(tmp_path, content):
    path = tmp_path / "wrong.weights.h5"
    if content == "other":
        tiny_cnn().save_weights(path)
    else:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"does not fit scenes.*wrong\.weights\.h5"):
        ImageEncoder("scenes", weights=path, image_size=16)


def test_failed_download_names_the_file_option(monkeypatch):
    def offline(weights, **kwargs):
        raise Exception("URL fetch failure on https://example.org/vgg19.h5: None -- offline")

    monkeypatch.setattr(keras.applications, "VGG19", offline)
    with pytest.raises(ConnectionError, match=r"weights of VGG19.*`weights`.*Received: URL fetch"):
        ImageEncoder()


def test_own_cnn_must_give_a_grid():
    inputs = keras.Input((8, 8, 3))
    flat = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match=r"must lie on a grid.*Received: layer=None"):
        ImageEncoder(flat)
    with pytest.raises(ValueError, match=r"square RGB.*Received"):
        ImageEncoder(keras.Sequential([keras.Input((8, 6, 3))]))
    with pytest.raises(ValueError, match="Received: image_size=16"):
        ImageEncoder(tiny_cnn(8), image_size=16)
