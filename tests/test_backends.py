"""The model on JAX and PyTorch: the same weights do and learn the same, and without TensorFlow.

Each runs in a process of its own. A backend that is not installed is skipped.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from sat_keras.backend.gumbel import Sampling
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.training.cider_reward import DocumentFrequencies, cider_rewards
from sat_keras.training.self_critical import SelfCritical

LEARNING_RATE = 0.1
TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "red", "circle"])

# In the other process importing TensorFlow fails, as where it is not installed.
SCRIPT = """
import sys
if sys.argv[1] != "tensorflow":
    sys.modules["tensorflow"] = None
import numpy, test_backends
assert test_backends.keras.backend.backend() == sys.argv[1]
numpy.savez(sys.argv[3], **test_backends.results(sys.argv[2]))
"""


def make():
    keras.utils.set_random_seed(7)
    captioner = Captioner(Config.tiny().replace(label_smoothing=0.1), TOKENIZER)
    captioner.compile(keras.optimizers.SGD(LEARNING_RATE), run_eagerly=True)
    return captioner


def results(weights):
    """All that must be the same everywhere, as NumPy arrays by name."""
    generator = np.random.default_rng(0)
    x = {
        "annotations": generator.normal(size=(2, 4, 8)).astype("float32"),
        "token_ids": generator.integers(2, 7, (2, 3, 4)).astype("int32"),
    }
    y = generator.integers(3, 7, (2, 3, 4)).astype("int32")
    sample_weight = np.ones(y.shape, "float32")
    sample_weight[1, 2, 2:] = 0
    captioner = make()
    captioner.load_weights(weights)
    found = {name: keras.ops.convert_to_numpy(value) for name, value in captioner(x).items()}
    captions = captioner.caption(annotations=x["annotations"], beam_size=2, max_length=4)
    found["texts"] = np.array([caption.text for caption in captions])
    found["log_probability"] = np.array([caption.log_probability for caption in captions])
    found["attention"] = np.concatenate([caption.attention for caption in captions])
    before = captioner.get_weights()
    found["loss"] = np.array(captioner.train_on_batch(x, y, sample_weight=sample_weight))
    for variable, old, new in zip(captioner.weights, before, captioner.get_weights(), strict=True):
        found[f"gradient of {variable.path}"] = (old - new) / LEARNING_RATE
    found["rewards"] = self_critical_rewards(captioner, x, y, sample_weight)
    return {**found, **hard_results(x, y, sample_weight)}


def self_critical_rewards(captioner, x, y, sample_weight):
    """The rewards of given captions, after a training step on drawn ones."""
    frequencies = DocumentFrequencies(picture.tolist() for picture in y)
    captioner.self_critical = critic = SelfCritical(frequencies, samples=2, max_length=3)
    captioner.compile(keras.optimizers.SGD(LEARNING_RATE))
    captioner.fit(x, y, sample_weight=sample_weight, verbose=0)
    assert keras.ops.convert_to_numpy(critic.seeds.state)[1] == 1  # drawn once, and counted
    return keras.ops.convert_to_numpy(cider_rewards(x["token_ids"], y, frequencies))


def hard_results(x, y, sample_weight):
    """A training step of hard attention, by noise that is the same everywhere."""
    keras.utils.set_random_seed(7)
    config = Config.tiny().replace(
        attention="hard", attention_samples=2, score_weight=1.0, entropy_weight=0.1
    )
    captioner = Captioner(config, TOKENIZER)
    generator = np.random.default_rng(1)
    for variable in captioner.trainable_variables:
        variable.assign(generator.normal(scale=0.5, size=variable.shape))
    noise = generator.gumbel(size=(4, 2, 6, 4)).astype("float32")
    sampling = Sampling(noise, np.array([1, 0], "float32").reshape(2, 1, 1))
    sampling = Sampling(*map(keras.ops.convert_to_tensor, sampling))
    captioner.decoder.attention.draw = lambda *args, **kwargs: sampling
    captioner.compile(keras.optimizers.SGD(LEARNING_RATE), run_eagerly=True)
    before = captioner.get_weights()
    found = {"hard loss": np.array(captioner.train_on_batch(x, y, sample_weight=sample_weight))}
    for variable, old, new in zip(captioner.weights, before, captioner.get_weights(), strict=True):
        found[f"gradient of hard {variable.path}"] = (old - new) / LEARNING_RATE
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The weights' file and this process's results."""
    path = tmp_path_factory.mktemp("backends") / "captioner.weights.h5"
    captioner = make()
    # A likely word and no end, or the captions of an untrained model have no words to compare.
    captioner.decoder.output_words.bias.assign([0, 0, 0, -2, 0.5, 0.6, 0.4])
    captioner.save_weights(path)
    return path, results(path)


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_other_backends_compute_and_learn_the_same(backend, here, tmp_path):
    if backend == keras.backend.backend():
        pytest.skip(f"{backend} is the backend of these tests")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    weights, expected = here
    path = tmp_path / "results.npz"
    folder = Path(__file__).resolve().parent
    search_path = os.pathsep.join(map(str, [folder, folder.parent, *filter(None, sys.path)]))
    subprocess.run(
        [sys.executable, "-c", SCRIPT, backend, str(weights), str(path)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": search_path,
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # JAX compiles sooner
        },
        check=True,
        timeout=600,
    )
    found = dict(np.load(path))
    assert found.keys() == expected.keys()
    assert found["texts"].tolist() == expected["texts"].tolist()
    assert all(expected["texts"])
    for name in found.keys() - {"texts"}:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=f"{name} on {backend}"
        )
        assert not name.startswith("gradient") or np.abs(found[name]).max() > 1e-6, name
