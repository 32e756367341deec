"""Trainings with the options of the presets, stopped anywhere: resumed bit for bit."""

import os
import signal

import pandas as pd
import pytest
from saved import assert_same_arrays, saved_arrays
from seeding import fix_seed

from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.datasets import load_dataset
from sat_keras.paper.captioner import Captioner
from sat_keras.training import callbacks
from sat_keras.training import fit as training
from sat_keras.training.pretrained import make_encoder
from sat_keras.training.signals import Terminated
from sat_keras.training.state import read_state

pytestmark = pytest.mark.integration

SIZES = {"vocabulary_size": None, "embedding_dim": 6, "hidden_dim": 8, "attention_dim": 4}
SIZES |= {"batch_size": 10, "epochs": 2, "max_length": 3, "beam_size": 1}
# Smaller and shorter, with every option that has a state or draws numbers.
PRESETS = {
    "scenes": Config.scenes().replace(image_size=16, grid_shape=(2, 2), **SIZES),
    "flickr8k": Config.flickr8k().replace(
        encoder="scenes", image_size=16, grid_shape=(2, 2), feature_dim=128, min_count=1,
        precision="mixed_bfloat16",  # what "auto" finds may differ from one training to the next
        **{**SIZES, "embedding_dim": 8},
    ),
}  # fmt: skip
PRESETS["fine-tuned"] = PRESETS["flickr8k"].replace(
    encoder_trainable="block3_conv1", encoder_learning_rate=1e-4, encoder_warmup=1, group="picture"
)

# Its picture vector is standardised by moments of the initial CNN.
PRESETS["init-inject"] = PRESETS["scenes"].replace(system="init-inject")
PRESETS["self-critical"] = PRESETS["flickr8k"].replace(
    objective="cider", group="picture", caption_samples=2, cross_entropy_weight=0.1
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    sizes = {"train": 4, "dev": 2, "test": 0}
    return load_dataset("scenes", tmp_path_factory.mktemp("data"), num_images=sizes)


@pytest.fixture(scope="module", params=PRESETS)
def train(request, table, tmp_path_factory):
    """Returns a function that trains in a folder."""
    config, features = PRESETS[request.param], tmp_path_factory.mktemp("features")

    def run(folder):
        fix_seed(5)
        encoder = make_encoder(config, None)
        start = None
        if config.objective == "cider":
            train = table[table["split"] == "train"]
            start = Captioner(config, Tokenizer.from_captions(train["caption"], full_stop=True))
        options = {"start": start, "verbose": 0}
        return training.train_captioner(config, table, encoder, folder, features, **options)

    return run


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """An uninterrupted training: its log and what its model's file holds."""
    folder = tmp_path_factory.mktemp("whole")
    return train(folder), saved_arrays(folder / "model.keras")


def signals_at(steps, number):
    """Sends a signal in each of these steps, counted over all calls."""
    calls, original = [], callbacks.CheckFiniteLoss.on_train_batch_end

    def check(self, batch, logs=None):
        original(self, batch, logs)
        calls.append(batch)
        if len(calls) in steps:
            os.kill(os.getpid(), number)

    return check


def test_a_stopped_training_resumes_in_the_middle_bit_for_bit(train, whole, tmp_path, monkeypatch):
    steps = 4 * 5 // 10  # of an epoch
    stops = {1, steps, steps + 1}  # the first and the last step of an epoch, and in the next
    check = signals_at(stops, signal.SIGTERM)
    monkeypatch.setattr(callbacks.CheckFiniteLoss, "on_train_batch_end", check)
    found = []
    for _ in stops:
        with pytest.raises(Terminated):
            train(tmp_path)
        state = read_state(tmp_path)
        found.append(state.epochs * steps + state.step)
    assert found == sorted(stops)  # not a step was lost
    log = train(tmp_path)
    expected, model = whole
    pd.testing.assert_frame_equal(
        log.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True
    )
    assert_same_arrays(tmp_path / "model.keras", model)
