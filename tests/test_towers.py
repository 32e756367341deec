"""Vision towers: patch tokens are annotation vectors, class and register tokens are left out."""

import sys

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras.cnn.towers import HUB_PREFIX, before_pooling, hub_tower, patch_grid
from sat_keras.paper.encoder import ImageEncoder

SIZE, PATCH, DIM = 12, 4, 5


@keras.saving.register_keras_serializable("test_towers")
class Prefix(keras.layers.Layer):
    """Puts constant tokens before those of the patches."""

    def __init__(self, tokens, **kwargs):
        super().__init__(**kwargs)
        self.tokens = tokens

    def call(self, x):
        constant = ops.full_like(x[:, : self.tokens], 7.0)
        return ops.concatenate([constant, x], axis=1)

    def get_config(self):
        return {**super().get_config(), "tokens": self.tokens}


def make_tower(prefix, as_dict=False):
    """A tower whose patch tokens are linear in the patch."""
    images = keras.Input((SIZE, SIZE, 3), name="images")
    patches = keras.layers.Conv2D(DIM, PATCH, PATCH, name="patches")(images)
    tokens = keras.layers.Reshape((-1, DIM))(patches)
    tokens = Prefix(prefix)(tokens) if prefix else tokens
    return keras.Model({"images": images} if as_dict else images, tokens, name="tower")


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("as_dict", [False, True])
def test_annotation_vectors_are_the_patch_tokens(prefix, as_dict):
    tower = make_tower(prefix, as_dict)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.4, 0.2)
    encoder = ImageEncoder(patch_grid(tower, mean, std), resize="squash")
    assert (encoder.grid_shape, encoder.feature_dim) == ((3, 3), DIM)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype("uint8")
    found = ops.convert_to_numpy(encoder(pixels)).reshape(2, 3, 3, DIM)
    kernel, bias = (ops.convert_to_numpy(w) for w in tower.get_layer("patches").weights)
    normal = (pixels / 255 - mean) / std
    for row, column in np.ndindex(3, 3):
        rows, columns = (slice(PATCH * i, PATCH * (i + 1)) for i in (row, column))
        expected = np.tensordot(normal[:, rows, columns], kernel, axes=3) + bias
        np.testing.assert_allclose(found[:, row, column], expected, rtol=1e-4, atol=1e-4)


def test_it_is_saved_with_the_encoder(tmp_path):
    encoder = ImageEncoder(patch_grid(make_tower(1)), resize="squash")
    copy = ImageEncoder.from_config(encoder.get_config())
    copy.set_weights(encoder.get_weights())
    pixels = np.full((1, SIZE, SIZE, 3), 9, "uint8")
    np.testing.assert_allclose(*(ops.convert_to_numpy(x(pixels)) for x in (encoder, copy)))
    assert copy.fingerprint() == encoder.fingerprint()


def test_pooled_towers_are_refused():
    images = keras.Input((SIZE, SIZE, 3))
    pooled = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images), name="pooled")
    with pytest.raises(ValueError, match=r"before its pooling.*Received: pooled.*\(None, 3\)"):
        patch_grid(pooled)


# KerasHub, where it is installed


def test_without_keras_hub_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(
        ImportError, match=r"pip install sat_keras\[hub\].*Received: cnn='keras_hub:x'"
    ):
        ImageEncoder(f"{HUB_PREFIX}x")


@pytest.mark.parametrize("family", ["CLIPVisionEncoder", "SigLIPVisionEncoder", "DINOV2Backbone"])
def test_towers_of_keras_hub(family):
    hub = pytest.importorskip("keras_hub")
    sizes = {"patch_size": 8, "hidden_dim": 8, "num_layers": 1, "num_heads": 2}
    sizes |= {"intermediate_dim": 16, "image_shape": (32, 32, 3)}
    if family == "DINOV2Backbone":
        sizes |= {"num_register_tokens": 2, "position_embedding_shape": (32, 32, 3)}
    tower = getattr(hub.models, family)(**sizes)
    if family == "SigLIPVisionEncoder":
        with pytest.raises(ValueError, match="before its pooling"):
            patch_grid(tower)
        tower = before_pooling(tower)
    encoder = ImageEncoder(patch_grid(tower), resize="squash")
    assert (encoder.grid_shape, encoder.feature_dim) == ((4, 4), 8)
    assert encoder(np.zeros((1, 40, 50, 3), "uint8")).shape == (1, 16, 8)


def test_a_preset_by_name(tmp_path):
    hub = pytest.importorskip("keras_hub")
    sizes = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    tower = hub.models.ViTBackbone(image_shape=(32, 32, 3), **sizes)
    tower.save_to_preset(str(tmp_path / "vit"))
    named = ImageEncoder(f"{HUB_PREFIX}{tmp_path / 'vit'}", resize="squash", image_size=32)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype("uint8")
    expected = ImageEncoder(patch_grid(tower), resize="squash")(pixels)
    np.testing.assert_allclose(
        ops.convert_to_numpy(named(pixels)), ops.convert_to_numpy(expected), rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"cannot read this preset.*Received: cnn='keras_hub:"):
        hub_tower(str(tmp_path / "nothing"), None)
