"""Captioners in folders: what is saved comes back, and what cannot come back is said."""

import json
import zipfile

import keras
import numpy as np
import pytest

from sat_keras.captioning import presets
from sat_keras.config.config import Config
from sat_keras.data.files import write_json
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.encoder import ImageEncoder
from sat_keras.training import pretrained

CONFIG = Config.tiny().replace(feature_dim=128, max_length=4)


@pytest.fixture
def tokenizer():
    return Tokenizer.from_captions(["a red circle", "a blue square above a ring"])


@pytest.fixture
def captioner(tokenizer):
    return Captioner(CONFIG, tokenizer)


@pytest.fixture
def inputs(tokenizer):
    random = np.random.default_rng(0)
    return {
        "annotations": random.normal(size=(2, CONFIG.num_regions, 128)).astype("float32"),
        "token_ids": random.integers(1, tokenizer.vocabulary_size, size=(2, 3, 4)),
    }


def logits(captioner, inputs):
    return keras.ops.convert_to_numpy(captioner(inputs)["logits"])


def write_training(folder, captioner, encoder_weights=None, in_model=False):
    """A training's folder, as far as loading needs it."""
    folder.mkdir()
    pretrained.save_model(captioner, folder / "model.keras")
    description = {
        "format": pretrained.FORMAT,
        "config": captioner.config.to_dict(),
        "encoder": {"weights": encoder_weights, "fingerprint": "", "in_model": in_model},
        "dataset": {"name": "scenes"},
    }
    write_json(folder / "config.json", description)
    return folder


def test_a_shared_captioner_comes_back_in_float32_as_exactly_as_float16_is(
    captioner, inputs, tmp_path
):
    folder = pretrained.save_pretrained(captioner, tmp_path / "shared", training={"seed": 3})
    loaded = pretrained.load_pretrained(folder, encoder=False)
    assert loaded.config == captioner.config
    assert loaded.tokenizer.get_vocabulary() == captioner.tokenizer.get_vocabulary()
    assert loaded.dtype_policy.name == "float32"
    for ours, theirs in zip(loaded.decoder.weights, captioner.decoder.weights, strict=True):
        assert ours.dtype == "float32"
        expected = keras.ops.convert_to_numpy(theirs).astype("float16").astype("float32")
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), expected)
    np.testing.assert_allclose(logits(loaded, inputs), logits(captioner, inputs), atol=5e-3)
    assert pretrained.read_description(folder)["training"] == {"seed": 3}


def test_a_shared_captioner_takes_two_bytes_a_weight(tokenizer, tmp_path):
    captioner = Captioner(CONFIG.replace(hidden_dim=256), tokenizer)
    folder = pretrained.save_pretrained(captioner, tmp_path / "shared")
    size = (folder / "decoder.weights.h5").stat().st_size
    assert size < 2 * captioner.count_params() + 60_000  # the file's own structure


@pytest.mark.parametrize("trained", [False, True])
def test_an_encoder_that_nobody_else_has_is_shared_too(tokenizer, inputs, trained, tmp_path):
    """One that was trained, and a frozen one whose weights were drawn at random."""
    encoder = ImageEncoder("scenes", weights=None, resize="squash", image_size=16)
    random = np.random.default_rng(2)
    weights = [random.uniform(0.5, 1.5, w.shape).astype("float16") for w in encoder.get_weights()]
    encoder.set_weights(weights)  # no running statistics at their initial values either
    captioner = Captioner(CONFIG.replace(encoder_trainable=trained), tokenizer, encoder)
    folder = pretrained.save_pretrained(
        captioner, tmp_path / "shared", encoder_weights="imagenet" if trained else None
    )
    loaded = pretrained.load_pretrained(folder)
    assert loaded.encoder.fingerprint() == encoder.fingerprint()
    assert loaded.encoder.compute_dtype == "float32"
    images = random.integers(0, 256, size=(2, 16, 16, 3)).astype("uint8")
    expected = captioner.annotate({"images": images})
    np.testing.assert_allclose(loaded.annotate({"images": images}), expected, rtol=1e-5)
    np.testing.assert_allclose(logits(loaded, inputs), logits(captioner, inputs), atol=5e-3)
    assert [path.name for path in folder.glob("*.h5")] == ["captioner.weights.h5"]


@pytest.mark.parametrize("trained", [False, True])
def test_a_training_comes_back_with_its_encoder(captioner, tokenizer, inputs, trained, tmp_path):
    """The CNN is in the model's file if it was trained, else made anew from its weights' file."""
    encoder = ImageEncoder("scenes", weights=None, resize="squash", image_size=16)
    encoder.cnn.save_weights(tmp_path / "cnn.weights.h5")
    captioner = Captioner(
        CONFIG.replace(encoder_trainable=trained), tokenizer, encoder if trained else None
    )
    weights = None if trained else str(tmp_path / "cnn.weights.h5")
    folder = write_training(tmp_path / "run", captioner, weights, in_model=trained)
    loaded = pretrained.load_pretrained(folder)
    np.testing.assert_allclose(logits(loaded, inputs), logits(captioner, inputs), atol=1e-6)
    images = np.random.default_rng(1).integers(0, 256, size=(2, 16, 16, 3)).astype("uint8")
    expected = keras.ops.convert_to_numpy(encoder(images))
    annotations = loaded.annotate({"images": images})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(annotations), expected, atol=1e-5)


@pytest.mark.parametrize("in_model", [False, True])
def test_a_captioner_can_be_loaded_in_another_precision(tokenizer, inputs, in_model, tmp_path):
    encoder = ImageEncoder("scenes", weights=None, resize="squash", image_size=16)
    captioner = Captioner(CONFIG, tokenizer, encoder if in_model else None)
    folder = write_training(tmp_path / "run", captioner, in_model=in_model)
    loaded = pretrained.load_pretrained(folder, encoder=in_model, dtype="mixed_bfloat16")
    assert loaded.decoder.compute_dtype == "bfloat16"
    if in_model:
        assert loaded.encoder.compute_dtype == "bfloat16"
        np.testing.assert_array_equal(loaded.encoder.get_weights()[0], encoder.get_weights()[0])
    close = np.asarray(keras.ops.cast(loaded(inputs)["logits"], "float32"))
    np.testing.assert_allclose(close, logits(captioner, inputs), atol=0.05)


def test_other_weights_of_the_frozen_cnn_can_be_given(captioner, tmp_path):
    encoder = ImageEncoder("scenes", weights=None, resize="squash", image_size=16)
    encoder.cnn.save_weights(tmp_path / "mine.weights.h5")
    folder = write_training(tmp_path / "run", captioner, "gone.weights.h5")
    loaded = pretrained.load_pretrained(folder, encoder_weights=str(tmp_path / "mine.weights.h5"))
    assert loaded.encoder.fingerprint() == encoder.fingerprint()
    with pytest.raises(FileNotFoundError, match="gone.weights.h5"):
        pretrained.load_pretrained(folder)


def test_the_model_file_stands_for_its_folder(captioner, tmp_path):
    folder = write_training(tmp_path / "run", captioner)
    assert pretrained.pretrained_folder(folder / "model.keras") == folder


def test_names_are_found_in_the_package_and_beside_it(captioner, tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "_FOLDERS", (tmp_path / "wheel", tmp_path / "checkout"))
    for place, name in (("wheel", "flickr8k-a"), ("checkout", "flickr8k-b")):
        pretrained.save_pretrained(captioner, tmp_path / place / name)
    assert pretrained.pretrained_names() == ["flickr8k-a", "flickr8k-b"]
    assert pretrained.pretrained_folder("flickr8k-b") == tmp_path / "checkout" / "flickr8k-b"
    assert pretrained.load_pretrained("flickr8k-a", encoder=False).config == CONFIG
    with pytest.raises(FileNotFoundError, match="flickr8k-a.*Received: 'flickr8k-z'"):
        pretrained.pretrained_folder("flickr8k-z")


def test_a_saved_model_holds_no_pickle_and_no_code(captioner, tmp_path):
    """`load_model` in safe mode reads it, from JSON and arrays."""
    folder = write_training(tmp_path / "run", captioner)
    with zipfile.ZipFile(folder / "model.keras") as file:
        assert {name.rpartition(".")[2] for name in file.namelist()} == {"json", "h5"}
        assert "__lambda__" not in file.read("config.json").decode()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_model_format(folder):
    """As a later version might write it."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    contents["config.json"] = contents["config.json"].replace(
        b'"file_format": 1', b'"file_format": 99'
    )
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: change_config(folder, format=99), "config.json.*format 99"),
        (lambda folder: change_config(folder, config={"new_field": 1}), "config.json.*new_field"),
        (lambda folder: change_config(folder, encoder={}), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "model.keras").write_bytes(b"PK\x03\x04"), "model.keras"),
        (change_model_format, "model.keras.*Received: Expected a model file of format 1.*99"),
    ],
    ids=["format", "field", "encoder", "no JSON", "truncated", "model's format"],
)
def test_what_is_damaged_or_of_another_version_is_named(captioner, tmp_path, spoil, named):
    folder = write_training(tmp_path / "run", captioner)
    spoil(folder)
    with pytest.raises(ValueError, match=named):
        pretrained.load_pretrained(folder, encoder=False)


def test_damaged_shared_weights_are_named(captioner, tmp_path):
    folder = pretrained.save_pretrained(captioner, tmp_path / "shared")
    path = folder / "decoder.weights.h5"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="decoder.weights.h5"):
        pretrained.load_pretrained(folder, encoder=False)


@pytest.mark.parametrize("position", [0, 2000, -1])
def test_a_flipped_bit_of_the_shared_weights_is_found(captioner, tmp_path, position):
    folder = pretrained.save_pretrained(captioner, tmp_path / "shared")
    path = folder / "decoder.weights.h5"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"decoder.weights.h5 is damaged: its SHA-256"):
        pretrained.load_pretrained(folder, encoder=False)


def test_a_shared_captioner_without_a_checksum_loads(captioner, tmp_path):
    """Version 0.1.0 wrote none."""
    folder = pretrained.save_pretrained(captioner, tmp_path / "shared")
    description = json.loads((folder / "config.json").read_text())
    del description["sha256"], description["checksum"]
    (folder / "config.json").write_text(json.dumps(description))
    assert pretrained.load_pretrained(folder, encoder=False).config == CONFIG


@pytest.mark.parametrize("step", ["save_weights", "write_json"])
def test_a_killed_export_keeps_the_one_before(captioner, tmp_path, monkeypatch, step):
    folder = pretrained.save_pretrained(captioner, tmp_path / "shared", training={"seed": 1})
    (folder / "README.md").write_text("of the user")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        owner = Captioner if step == "save_weights" else presets
        patch.setattr(owner, step, killed)
        with pytest.raises(KeyboardInterrupt):
            pretrained.save_pretrained(captioner, folder, training={"seed": 2})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]
    pretrained.save_pretrained(captioner, folder, training={"seed": 2})
    assert pretrained.read_description(folder)["training"] == {"seed": 2}
    assert (folder / "README.md").read_text() == "of the user"


def test_a_training_without_an_epoch_says_so(captioner, tmp_path):
    folder = write_training(tmp_path / "run", captioner)
    (folder / "model.keras").unlink()
    with pytest.raises(FileNotFoundError, match="model.keras is missing.*first epoch"):
        pretrained.load_pretrained(folder)


def test_what_cannot_be_shared_without_its_encoder_is_refused(tokenizer, tmp_path):
    captioner = Captioner(CONFIG.replace(encoder_trainable=True), tokenizer)
    with pytest.raises(ValueError, match="whose encoder was trained.*encoder=None"):
        pretrained.save_pretrained(captioner, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_a_failed_save_keeps_the_file_before(captioner, tmp_path, monkeypatch):
    (tmp_path / "model.keras").write_text("before")

    def fail(path):
        raise OSError("disk full")

    monkeypatch.setattr(captioner, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        pretrained.save_model(captioner, tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert (tmp_path / "model.keras").read_text() == "before"


def test_the_words_of_keras_hub(captioner, tokenizer, inputs, tmp_path, monkeypatch):
    """`from_preset`, `presets` and `save_to_preset`, also of a subclass."""

    class Mine(Captioner):
        pass

    monkeypatch.setattr(presets, "_FOLDERS", (tmp_path,))
    assert captioner.save_to_preset(tmp_path / "mine", training={"seed": 5}) == tmp_path / "mine"
    assert Captioner.presets == captioner.presets == {"mine": {"seed": 5}}
    for name in ("mine", tmp_path / "mine"):
        loaded = Mine.from_preset(name, encoder=False)
        assert type(loaded) is Mine
        np.testing.assert_allclose(logits(loaded, inputs), logits(captioner, inputs), atol=5e-3)
    with pytest.raises(FileNotFoundError, match="mine.*Received: 'mime'"):
        Captioner.from_preset("mime")


@pytest.mark.parametrize("given", [{"loss": "mse"}, {"loss_weights": [1.0]}])
def test_a_loss_of_ones_own_is_refused(captioner, given):
    with pytest.raises(ValueError, match=r"computes its own loss.*Received: loss="):
        captioner.compile(optimizer="adam", **given)


def test_a_compiled_captioner_is_loaded_with_its_optimizer(captioner, inputs, tmp_path):
    captioner.compile("adam")
    captioner.fit(inputs, inputs["token_ids"], batch_size=2, verbose=0)
    captioner.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 1
    for ours, theirs in zip(loaded.optimizer.variables, captioner.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
