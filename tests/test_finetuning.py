"""Training the upper layers of a CNN from cached features: equal to training them from pixels."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from seeding import fix_seed

from sat_keras import cli
from sat_keras.captioning.presets import copy_captioner
from sat_keras.cli import options, program
from sat_keras.cli.inputs import load_splits
from sat_keras.cnn.scenes import scene_cnn
from sat_keras.cnn.split import copy_head, split
from sat_keras.config.config import Config
from sat_keras.data.extraction import extract_features
from sat_keras.data.loaders import PictureSource, caption_batches
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.datasets import load_dataset
from sat_keras.fast.optimizer import FusedAdam, FusedAdamW, FusedRMSprop
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.encoder import ImageEncoder
from sat_keras.training import fit as training
from sat_keras.training.optimizer import compile_captioner, make_optimizer
from sat_keras.training.pretrained import load_pretrained, make_encoder, save_pretrained

pytestmark = pytest.mark.long

LAYER = "upper"
CONFIG = Config.tiny().replace(
    encoder_trainable=LAYER,
    group="picture",
    mirror=True,
    batch_size=20,
    max_length=2,
    encoder_learning_rate=1e-4,
    encoder_clip_norm=0.5,
)


def numpy(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def small_cnn():
    """A CNN whose lower layer computes sums of a few grey levels, which float16 holds exactly."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, 4, padding="same", name="lower")(inputs)
    x = keras.layers.ReLU(name="lower_relu")(x)
    x = shortcut = keras.layers.Rescaling(1 / 256, name="lower_scale")(x)
    x = keras.layers.Conv2D(4, 3, padding="same", name=LAYER)(x)
    x = keras.layers.BatchNormalization(name="upper_norm")(x)
    x = keras.layers.Add(name="add")([x, shortcut])
    outputs = keras.layers.Conv2D(8, 3, 2, padding="same", name="last")(x)
    return keras.Model(inputs, outputs, name="small")


def small_encoder(trainable=LAYER, resize="squash"):
    cnn, random = small_cnn(), np.random.default_rng(0)
    for weight in cnn.weights:  # running statistics too
        low = 0.5 if weight.path.endswith("variance") else -0.2
        weight.assign(random.uniform(low, low + 0.4, weight.shape))
    kernel = np.zeros((3, 3, 3, 4), "float32")
    kernel[[0, 1, 2, 1], [1, 1, 2, 0], [0, 1, 2, 0], range(4)] = (1, 2, 1, 0.5)
    cnn.get_layer("lower").kernel.assign(kernel)
    cnn.get_layer("lower").bias.assign(np.array([0, -64, 8, 1], "float32"))
    return ImageEncoder(cnn, resize=resize, trainable=trainable)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    sizes = {"train": 4, "dev": 2, "test": 0}
    return load_dataset("scenes", tmp_path_factory.mktemp("data"), num_images=sizes)


@pytest.fixture(scope="module")
def tokenizer(table):
    return Tokenizer.from_captions(table["caption"])


@pytest.fixture(scope="module")
def cache(table, tmp_path_factory):
    stem = small_encoder().make_stem()
    folder = tmp_path_factory.mktemp("features")
    return extract_features(table, stem, folder, mirror=True, input_name="features")


def captioners(tokenizer, config=CONFIG):
    """A captioner of pixels, and one of cached features, with the same weights."""
    fix_seed(1)
    from_pixels = Captioner(config, tokenizer, small_encoder())
    return from_pixels, copy_captioner(from_pixels, None, "float32")


def batches(table, tokenizer, source):
    return caption_batches(table, tokenizer, source, 10, group="picture", mirror=True, max_length=2)


# From the cache as from pixels


def test_the_cache_holds_the_output_of_the_frozen_layers(table, tokenizer, cache):
    encoder = small_encoder()
    stem = encoder.make_stem()
    assert cache.fingerprint == stem.fingerprint() != encoder.fingerprint()
    assert (stem.grid_shape, stem.feature_dim, cache.input_name) == ((4, 4), 4, "features")
    picture = PictureSource(table, encoder.resize_images)
    sources = (batches(table, tokenizer, source) for source in (picture, cache))
    for (pixels, *_), (cached, *_) in zip(*sources, strict=True):
        features = numpy(cached["features"])
        np.testing.assert_array_equal(numpy(stem(pixels["images"])), features)
        annotations = numpy(encoder.head(features.reshape(-1, 4, 4, 4), training=False))
        np.testing.assert_allclose(
            numpy(encoder(pixels["images"])), annotations.reshape(-1, 4, 8), rtol=1e-6
        )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_from_the_cache_is_one_from_pixels(optimizer, table, tokenizer, cache):
    """With plain descent at rate 1 the update is the gradient."""
    config = CONFIG.replace(optimizer="adamw", weight_decay=0.01)
    models = captioners(tokenizer, config)
    picture = PictureSource(table, models[0].encoder.resize_images)
    losses = []
    for model, source in zip(models, (picture, cache), strict=True):
        if optimizer == "sgd":
            model.compile(keras.optimizers.SGD(1.0))
        else:
            compile_captioner(model, steps_per_epoch=3)
        before = [w.copy() for w in model.head.get_weights()]
        for arrays in batches(table, tokenizer, source).take(2).as_numpy_iterator():
            losses.append(model.train_on_batch(*arrays, return_dict=True)["loss"])
        after = model.head.get_weights()
        changes = [np.abs(x - y).max() for x, y in zip(before, after, strict=True)]
        trained = [w.trainable for w in model.head.weights]
        # Batch normalisation keeps its running statistics.
        assert [change > 1e-4 for change in changes] == trained
    np.testing.assert_allclose(losses[:2], losses[2:], rtol=1e-5)
    for part in ("decoder", "head"):
        found = [getattr(model, part).get_weights() for model in models]
        for mine, its in zip(*found, strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-5)
    lower = [model.get_layer("lower") for model in (models[0].encoder.cnn, small_encoder().cnn)]
    for mine, its in zip(*(layer.get_weights() for layer in lower), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_only_layers_from_the_named_one_on_are_trained(tokenizer):
    from_pixels, from_cache = captioners(tokenizer)
    names = [v.path for v in from_pixels.encoder.trainable_variables]
    assert names == [f"{layer}/{x}" for layer, x in (
        *((LAYER, "kernel"), (LAYER, "bias"), ("upper_norm", "gamma"), ("upper_norm", "beta")),
        *(("last", "kernel"), ("last", "bias")),
    )]  # fmt: skip
    assert len(from_cache.encoder_variables) == len(from_pixels.encoder_variables) == len(names)
    own = [len(model.own_weights) for model in (from_pixels, from_cache)]
    assert own == [len(from_pixels.decoder.weights)] * 2


def test_captions_of_a_picture_share_one_pass_of_the_head(table, tokenizer, cache):
    (x, y, _) = next(iter(batches(table, tokenizer, cache)))
    assert x["features"].shape == (2, 16, 4)
    assert y.shape[:2] == (2, 5)


# The optimizer

OPTIMIZERS = {
    "adam": (FusedAdam, keras.optimizers.Adam, {}),
    "adamw": (FusedAdamW, keras.optimizers.AdamW, {"weight_decay": 0.1}),
    "rmsprop": (FusedRMSprop, keras.optimizers.RMSprop, {}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_rates_and_norms_are_those_of_two_optimizers(name):
    """The encoder's by itself, with rate 0 in its first two steps, and the decoder's by itself."""
    fused, plain, decay = OPTIMIZERS[name]
    random = np.random.default_rng(0)
    values = [random.normal(size=s).astype("float32") for s in ((2, 3), (3,), (4,), (2, 2))]
    mine, its = ([keras.Variable(x) for x in values] for _ in range(2))
    optimizer = fused(
        0.1, encoder_rate=0.5, encoder_start=2, clip_norms=(1.0, 0.2), name=name, **decay
    )
    optimizer.set_encoder(mine[2:])
    optimizer.build(mine)
    warm_up = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 0.05])
    apart = [
        (plain(0.1, global_clipnorm=1.0, **decay), slice(2)),
        (plain(warm_up, global_clipnorm=0.2, **decay), slice(2, None)),
    ]
    for step in range(4):
        grads = [random.normal(size=x.shape, scale=0.3).astype("float32") for x in values]
        grads = [ops.convert_to_tensor(x) for x in grads]
        optimizer.apply(grads, mine)
        for other, part in apart:
            other.apply(grads[part], its[part])
        for i, (x, y) in enumerate(zip(mine, its, strict=True)):
            np.testing.assert_allclose(numpy(x), numpy(y), rtol=1e-5, atol=1e-6)
            assert np.array_equal(numpy(x), values[i]) == (i >= 2 and step < 2)


def test_the_optimizer_survives_saving():
    optimizer = make_optimizer(CONFIG.replace(encoder_warmup=2), steps_per_epoch=10)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    for each in (optimizer, copy):
        assert each.encoder_rate == pytest.approx(1e-4 / CONFIG.learning_rate)
        assert (each.encoder_start, tuple(each.clip_norms)) == (20, (5.0, 0.5))
        assert each.global_clipnorm is None


@pytest.mark.parametrize("trainable", [True, LAYER, False])
def test_without_options_of_its_own_the_encoder_is_trained_as_the_decoder_is(trainable):
    config = CONFIG.replace(
        encoder_trainable=trainable, encoder_learning_rate=None, encoder_clip_norm=None
    )
    if not trainable:
        config = CONFIG.replace(encoder_trainable=False)
    optimizer = make_optimizer(config, steps_per_epoch=10)
    assert (optimizer.encoder_rate, optimizer.clip_norms) == (1.0, None)
    assert optimizer.global_clipnorm == config.clip_norm


def test_a_rate_of_its_own_needs_one_of_the_decoder():
    with pytest.raises(ValueError, match=r"`learning_rate` must be above 0.*Received: "):
        make_optimizer(CONFIG.replace(learning_rate=0.0), steps_per_epoch=1)


# Trainings


def train(table, out, features, **changes):
    config = CONFIG.replace(epochs=1, beam_size=1, **changes)
    fix_seed(2)
    encoder = small_encoder()
    training.train_captioner(config, table, encoder, out, features, verbose=0)
    return encoder, keras.saving.load_model(out / "model.keras", compile=False)


@pytest.mark.integration
@pytest.mark.parametrize("warm_up", [0, 1])
def test_a_training_saves_the_layers_that_it_trains(warm_up, table, cache, tmp_path):
    """Unless it ends with the warm-up."""
    features = cache.directory.parent
    encoder, model = train(table, tmp_path, features, encoder_warmup=warm_up)
    assert model.encoder is None
    before, after = small_encoder().head.get_weights(), model.head.get_weights()
    changed = [not np.array_equal(x, y) for x, y in zip(before, after, strict=True)]
    assert any(changed) != bool(warm_up)
    for mine, its in zip(encoder.head.get_weights(), after, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert len(list(features.iterdir())) == 1  # it found the cache


# Loading and saving


def test_the_head_is_saved_with_the_decoder_and_joined_to_the_frozen_layers(
    table, tokenizer, cache, tmp_path
):
    """Loaded from each kind of file, the captions and annotation vectors of pixels are the same."""
    cnn = scene_cnn(16)
    cnn.save_weights(tmp_path / "cnn.weights.h5")
    config = Config.tiny().replace(
        encoder_trainable="block3_conv1", feature_dim=128, max_length=2, beam_size=1
    )
    fix_seed(3)
    encoder = make_encoder(config, tmp_path / "cnn.weights.h5")
    captioner = Captioner(config, tokenizer, encoder)
    random = np.random.default_rng(0)
    for weight in captioner.trainable_variables:
        weight.assign(random.normal(size=weight.shape, scale=0.3).astype("float16"))
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), "uint8")
    expected = numpy(captioner.annotate({"images": images}))
    texts = captioner.generate(images)

    trained = copy_captioner(captioner, None, "float32")
    trained.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    features = numpy(encoder.make_stem()(images))
    np.testing.assert_allclose(
        numpy(loaded.annotate({"features": features})), expected, rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"Received: inputs \['images'\]"):
        loaded.annotate({"images": images})

    folder = save_pretrained(trained, tmp_path / "shared")
    assert [path.name for path in folder.glob("*.h5")] == ["captioner.weights.h5"]
    size = (folder / "captioner.weights.h5").stat().st_size
    assert size < 2 * trained.count_params() + 100_000
    shared = load_pretrained(folder, tmp_path / "cnn.weights.h5")
    np.testing.assert_allclose(
        numpy(shared.annotate({"images": images})), expected, rtol=1e-4, atol=1e-5
    )
    assert shared.generate(images) == texts
    assert load_pretrained(folder, encoder=False).encoder is None


TRAIN = ("train", "--dataset", "scenes", "--limit", 2, "--preset", "tiny", "--quiet")
TRAIN += ("--encoder-weights", "cnn.weights.h5", "--max-length", 2, "--beam-size", 1)
TRAIN += ("--batch-size", 10)


def command(*words):
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of the command line in a folder, and what is beside it."""
    folder = tmp_path_factory.mktemp("run")
    fix_seed(4)
    scene_cnn(16).save_weights(folder / "cnn.weights.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sat_keras.cli.train.draw_curves", lambda folder: None)
        assert cli.main(command(
            *TRAIN, "--out", "out", "--encoder-trainable", "block3_conv1", "--epochs", 1,
            "--encoder-learning-rate", 1e-4,
        )) == 0  # fmt: skip
    return folder


@pytest.mark.integration
def test_the_command_line_trains_evaluates_captions_and_exports(run, no_java, monkeypatch):
    """Evaluation reads the cache, captioning pixels."""
    monkeypatch.chdir(run)
    config = json.loads((run / "out" / "config.json").read_text())
    assert config["config"]["group"] == "picture"
    assert not config["encoder"]["in_model"]
    assert list(run.glob("outputs/features/scenes/scenes-below_block3_conv1-squash16-*"))
    options = ("--occlusion", 0, "--captions", "captions.json", "--quiet")
    assert cli.main(command("evaluate", "out", *options)) == 0
    assert cli.main(command("export", "out", "shared", "--quiet")) == 0
    captions = json.loads((run / "captions.json").read_text())
    texts = {caption["image_id"]: caption["caption"] for caption in captions}
    dataset = {"name": "scenes", "data_dir": "data", "splits": None, "limit": 2}
    table = load_splits(dataset, ("dev",))
    paths = dict(zip(table["image_id"], table["image"], strict=True))
    for folder in ("out", "shared"):
        captioner = load_pretrained(folder, run / "cnn.weights.h5")
        found = captioner.caption([paths[image_id] for image_id in texts], beam_size=1)
        assert [" ".join(caption.words) for caption in found] == list(texts.values())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "in_model"),
    [
        (("--encoder-trainable", "block3_conv1"), False),
        (("--no-encoder-trainable",), True),
        (("--encoder-trainable", "block3_conv2"), True),
    ],
)
def test_a_training_starts_from_fine_tuned_layers(options, in_model, run, tmp_path, monkeypatch):
    """Layers that it does not train itself go into its own file."""
    monkeypatch.chdir(run)
    calls = []

    def train_captioner(config, table, encoder, out, **arguments):
        calls.append((encoder.get_weights(), arguments["keep_encoder"]))
        return pd.DataFrame({"epoch": [0], "dev_cider": [1.0], "dev_bleu4": [1.0]})

    monkeypatch.setattr(training, "train_captioner", train_captioner)
    assert cli.main(command(*TRAIN, "--out", tmp_path, "--start", "out", *options)) == 0
    ((found, keep_encoder),) = calls
    assert keep_encoder == in_model
    assert json.loads((tmp_path / "config.json").read_text())["encoder"]["in_model"] == in_model
    expected = load_pretrained("out", run / "cnn.weights.h5").encoder.get_weights()
    for mine, its in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, its)


# Options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--encoder-trainable", "block5_conv1"), ("block5_conv1", "picture")),
        (("--encoder-trainable", "block5_conv1", "--group", "length"), ("block5_conv1", "length")),
        (("--encoder-trainable",), (True, "length")),
        (("--no-encoder-trainable",), (False, "length")),
        (("--encoder-trainable", "x", "--no-encoder-trainable"), (False, "length")),
        ((), (False, "length")),
    ],
)
def test_the_option_takes_a_layer_or_nothing(words, expected):
    parser = program.make_parser()
    arguments = parser.parse_args(["train", "--dataset", "flickr8k", "--out", "x", *words])
    config = options.make_config(arguments)
    assert (config.encoder_trainable, config.group) == expected
    assert Config.from_json(config.to_json()) == config


# Cutting CNNs


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("uper", r"near ones are upper, .*Received: layer='uper'"),
        ("lower", r"cannot be cut .*; choose upper\. Received: layer='lower'"),
        ("upper_norm", r"branch around it; choose upper\. Received: layer='upper_norm'"),
        ("add", r"choose upper\. Received: layer='add'"),
    ],
)
def test_a_layer_where_the_cnn_cannot_be_cut_is_named_beside_one_where_it_can(layer, message):
    with pytest.raises(ValueError, match=message):
        split(small_cnn(), layer, "small")


@pytest.mark.parametrize("layer", ["upper", "last"])
def test_stem_and_head_are_the_cnn(layer):
    cnn = small_cnn()
    stem, head = split(cnn, layer, "small")
    picture = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(numpy(head(stem(picture))), numpy(cnn(picture)), rtol=1e-5)


def test_a_head_of_keras_applications_is_copied_and_serialised():
    """In MobileNetV3 functions of `keras.ops` are among the layers."""
    name, layer = "MobileNetV3Small", "expanded_conv_10_expand"
    encoder = ImageEncoder(name, weights=None, image_size=32, trainable=layer)
    half = copy_head(encoder.head, "float16")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(half))
    copy.set_weights(half.get_weights())
    assert {w.dtype for w in copy.weights} == {"float16"}
    shape = (1, *encoder.head.input_shape[1:])
    features = np.random.default_rng(0).uniform(0, 1, shape).astype("float32")
    expected = numpy(encoder.head(features))
    np.testing.assert_allclose(numpy(copy(features)), expected, atol=0.02 * np.abs(expected).max())
    assert encoder.make_stem().fingerprint() == encoder.make_stem().fingerprint()


def test_a_stem_needs_a_layer_and_with_padding_its_own_grid():
    with pytest.raises(ValueError, match=r"trained in part.*Received: trainable=True"):
        small_encoder(trainable=True).make_stem()
    with pytest.raises(ValueError, match=r"grids \(4, 4\) and \(2, 2\)"):
        small_encoder(resize="pad").make_stem()
