"""Training on two devices: the same weights as on one, on virtual devices of the CPU.

The number of devices is settled when a backend starts, so each runs in a process of its own. A
backend that is not installed is skipped.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras.backend.devices import Devices
from sat_keras.config.config import Config
from sat_keras.data.loaders import pad_rows
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.training.fit import ShowCaption, compile_captioner, train_captioner

TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "red", "circle"])
# Two devices cannot share 5 rows evenly.
ROWS, BATCH, EPOCHS = 20, 5, 2
# A norm that the gradients exceed.
CONFIG = Config.tiny().replace(clip_norm=0.1, ema_momentum=0.9, label_smoothing=0.1)

SCRIPT = """
import sys
if sys.argv[1] == "tensorflow":
    import tensorflow as tf
    cpu, = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy, test_devices
assert test_devices.keras.backend.backend() == sys.argv[1]
for number in 1, 2:
    numpy.savez(f"{sys.argv[2]}/{number}.npz", **test_devices.trained(number))
test_devices.train_with_everything_random()
"""


def batches():
    import tensorflow as tf

    generator = np.random.default_rng(0)
    annotations = generator.normal(size=(ROWS, 4, 8)).astype("float32")
    token_ids = generator.integers(3, 7, (ROWS, 2, 5)).astype("int32")
    weight = np.ones((ROWS, 2, 4), "float32")
    weight[::3, 1, 2:] = 0  # shorter captions
    weight[::4, 1] = 0  # and pictures with one caption
    x = {"annotations": annotations, "token_ids": token_ids[..., :-1]}
    return tf.data.Dataset.from_tensor_slices((x, token_ids[..., 1:], weight)).batch(BATCH)


def train(config, number):
    """A captioner and its losses after 8 steps, with a caption after every epoch."""
    keras.utils.set_random_seed(7)
    devices = Devices(number)
    with devices.building():
        captioner = Captioner(config, TOKENIZER)
        compile_captioner(captioner, len(batches()), devices)
    with devices.training():
        picture = {"annotations": np.ones((1, 4, 8), "float32")}
        log = captioner.fit(
            pad_rows(batches(), number),
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[ShowCaption(picture, ["a red circle"])],
        )
    assert copies(captioner.decoder.embedding.embeddings) == number
    return captioner, log.history


def copies(variable):
    """The number of devices that have a weight."""
    if keras.backend.backend() == "jax":
        return len(variable.value.sharding.device_set)
    return len(getattr(variable.value, "values", [variable]))


def trained(number):
    """Weights, their moving averages and the losses, as NumPy arrays by name."""
    captioner, losses = train(CONFIG, number)
    found = {variable.path: ops.convert_to_numpy(variable) for variable in captioner.weights}
    for i, variable in enumerate(captioner.optimizer.variables):
        found[f"{i} of the optimizer"] = ops.convert_to_numpy(variable)
    return found | {name: np.array(values) for name, values in losses.items() if name != "loss"}


def train_with_everything_random():
    """Dropout and drawn regions differ from copy to copy; the weights must not."""
    options = {"dropout": 0.5, "embedding_dropout": 0.5, "annotation_dropout": 0.5}
    captioner, losses = train(CONFIG.replace(attention="hard", **options), 2)
    assert np.isfinite(losses["loss"]).all()
    if keras.backend.backend() == "tensorflow":
        for variable in captioner.trainable_variables:
            first, second = variable.value.values
            np.testing.assert_array_equal(first.numpy(), second.numpy(), variable.path)


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_learn_what_one_does(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder = Path(__file__).resolve().parent
    search_path = os.pathsep.join(map(str, [folder, folder.parent, *filter(None, sys.path)]))
    environment = {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": search_path,
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
    }
    subprocess.run(
        [sys.executable, "-c", SCRIPT, backend, str(tmp_path)],
        env={**os.environ, **environment},
        check=True,
        timeout=1200,
    )
    one, two = (dict(np.load(tmp_path / f"{number}.npz")) for number in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-5, err_msg=name)


def test_rows_are_filled_up_with_such_that_count_nothing():
    padded = list(pad_rows(batches(), 4).as_numpy_iterator())
    assert [len(y) for _, y, _ in padded] == [8] * 4
    for (x, y, weight), (xs, ys, weights) in zip(
        batches().as_numpy_iterator(), padded, strict=True
    ):
        for before, after in ((x["annotations"], xs["annotations"]), (y, ys), (weight, weights)):
            np.testing.assert_array_equal(after[: len(before)], before)
        assert not weights[len(y) :].any()
    assert pad_rows(batches(), 4).cardinality() == 4


def test_devices_must_be_there():
    with pytest.raises(ValueError, match=r"must lie in \[1, 1\].* Received: 9 devices"):
        Devices(9)


def test_an_encoder_is_trained_on_one_device(tmp_path):
    config = Config.tiny().replace(encoder_trainable=True)
    with pytest.raises(ValueError, match=r"one device\. Received: 2 devices"):
        train_captioner(config, None, None, tmp_path, devices=2)
