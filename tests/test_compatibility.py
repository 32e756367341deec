"""Files of version 0.1.0 load and caption as they did.

`fixtures/captions-0.1.0.json` holds what version 0.1.0 computed from the files and from random
annotation vectors: captions, their log-probabilities and the logits.
"""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from sat_keras.data.features import FeatureCache
from sat_keras.training.pretrained import load_pretrained

FIXTURES = Path(__file__).resolve().parent / "fixtures"
EXPECTED = json.loads((FIXTURES / "captions-0.1.0.json").read_text(encoding="utf-8"))


def check(captions, expected):
    assert [caption.text for caption in captions] == expected["texts"]
    found = [caption.log_probability for caption in captions]
    np.testing.assert_allclose(found, expected["log_probabilities"], rtol=1e-4)


@pytest.mark.parametrize("name", EXPECTED["files"])
def test_a_keras_file_loads_and_captions_the_same(name):
    captioner = keras.saving.load_model(FIXTURES / name, compile=False, safe_mode=True)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 16, 16, 3)).astype("uint8")
    token_ids = random.integers(1, captioner.tokenizer.vocabulary_size, (3, 2, 4))
    expected = EXPECTED["files"][name]
    logits = keras.ops.convert_to_numpy(
        captioner({"images": images, "token_ids": token_ids})["logits"]
    )
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-4, atol=1e-4)
    check(captioner.caption(images=images), expected)


@pytest.mark.integration
@pytest.mark.parametrize("name", EXPECTED["pretrained"])
def test_a_pretrained_captioner_captions_the_same(name):
    captioner = load_pretrained(name, encoder=False)
    config = captioner.config
    # Positive, as the annotation vectors behind a rectifier are.
    shape = (2, config.num_regions, config.feature_dim)
    annotations = np.random.default_rng(0).gamma(0.5, 1.0, shape).astype("float32")
    check(captioner.caption(annotations=annotations), EXPECTED["pretrained"][name])


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_a_feature_cache_is_read(version):
    """A shard is the float16 annotation vectors of a picture, row by row, in every version."""
    folder = FIXTURES / f"features-{version}"
    cache = FeatureCache(folder)
    for key in ("0.png", "1.png"):
        shard = next(folder.glob(f"*/{key}.*.f16"))
        expected = np.fromfile(shard, "float16").reshape(4, 128)
        np.testing.assert_array_equal(cache.read(cache.lookup([key])[0]), expected)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_an_export_is_loaded_with_all_its_weights(version):
    folder = FIXTURES / f"export-{version}"
    captioner = load_pretrained(folder, encoder=False)
    words = captioner.tokenizer.get_vocabulary()
    assert sorted(words[4:]) == ["a", "blue", "circle", "red", "square"]
    stored = []
    with h5py.File(folder / "decoder.weights.h5") as file:
        file.visititems(
            lambda _, item: stored.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    # In any order: the layout of the file is Keras's.
    found = np.concatenate([weight.ravel() for weight in captioner.decoder.get_weights()])
    expected = np.concatenate([weight.ravel() for weight in stored if weight.dtype == "float16"])
    np.testing.assert_array_equal(np.sort(found), np.sort(expected.astype("float32")))
