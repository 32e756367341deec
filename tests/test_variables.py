"""Keras features that replace variables after building: the same captions, or a refusal."""

import keras
import numpy as np
import pytest
from seeding import fix_seed

from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner

# Keras names each layer that it does not quantize.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CONFIG = Config.tiny().replace(max_length=4, tie_embeddings=True)
TOKENIZER = Tokenizer.from_captions(["a red circle", "a blue square above a ring"])


def enable_lora(captioner):
    """On every layer that has it; each begins with an update of 0."""
    layers = [x for x in captioner._flatten_layers() if hasattr(x, "enable_lora")]
    assert len(layers) > 5
    for layer in layers:
        layer.enable_lora(2)


def set_policy(name):
    def change(captioner):
        for layer in captioner._flatten_layers():
            layer.dtype_policy = name

    return change


CHANGES = {
    "LoRA": enable_lora,
    "int8": lambda captioner: captioner.quantize("int8"),
    "float8": lambda captioner: captioner.quantize("float8"),
    "policy bfloat16": set_policy("mixed_bfloat16"),
    "policy float16": set_policy("mixed_float16"),
    "policy int8": set_policy("int8_from_float32"),
    "policy float8": set_policy("float8_from_float32"),
}


def make(implementation):
    fix_seed(0)
    return Captioner(CONFIG, TOKENIZER, implementation=implementation)


def inputs():
    random = np.random.default_rng(0)
    return {
        "annotations": random.normal(size=(2, CONFIG.num_regions, CONFIG.feature_dim)).astype(
            "float32"
        ),
        "token_ids": random.integers(1, TOKENIZER.vocabulary_size, size=(2, 2, 4)),
    }


def logits(captioner):
    found = captioner(inputs())["logits"]
    return keras.ops.convert_to_numpy(keras.ops.cast(found, "float32"))


def token_ids(captioner):
    found = captioner.search(inputs()["annotations"], beam_size=2, num_results=1)
    return keras.ops.convert_to_numpy(found.token_ids)


@pytest.fixture(scope="module", params=["reference", "auto"])
def unchanged(request):
    """An implementation, and the logits and words of its captioner as it is."""
    captioner = make(request.param)
    return request.param, logits(captioner), token_ids(captioner)


@pytest.mark.parametrize("change", CHANGES)
def test_the_captions_stay_or_the_change_is_refused(change, unchanged):
    implementation, expected, words = unchanged
    captioner = make(implementation)
    captioner(inputs())  # features that replace variables do so after building
    try:
        CHANGES[change](captioner)
    except (ValueError, NotImplementedError):
        return
    np.testing.assert_allclose(logits(captioner), expected, atol=0.03)
    np.testing.assert_array_equal(token_ids(captioner), words)


def test_trained_lora_updates_are_part_of_every_implementation():
    """The fused loop reads the kernels that the layers use, updates included."""
    random = np.random.default_rng(1)
    x = {
        "annotations": random.normal(size=(2, CONFIG.num_regions, CONFIG.feature_dim)),
        "token_ids": random.integers(1, TOKENIZER.vocabulary_size, size=(2, 2, 4)),
    }
    found, words = {}, {}
    for name in ("reference", "auto"):
        captioner = make(name)
        before = keras.ops.convert_to_numpy(captioner(x)["logits"])
        enable_lora(captioner)
        random = np.random.default_rng(2)
        for weight in captioner.weights:
            if "lora" in weight.path:
                weight.assign(random.normal(size=weight.shape, scale=0.3))
        found[name] = keras.ops.convert_to_numpy(captioner(x)["logits"])
        words[name] = captioner.search(x["annotations"], beam_size=2).token_ids
        assert np.abs(found[name] - before).max() > 0.1
    np.testing.assert_allclose(found["auto"], found["reference"], atol=1e-4)
    np.testing.assert_array_equal(words["auto"], words["reference"])
