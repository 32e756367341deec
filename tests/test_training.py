"""Callbacks and state of a training, interrupted trainings, and a whole one from pixels."""

import math
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from saved import assert_same_arrays, saved_arrays
from seeding import fix_seed
from tracing import functions_run_eagerly

from sat_keras.config.config import Config
from sat_keras.data.files import write_json
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.datasets import load_dataset
from sat_keras.paper.captioner import Captioner
from sat_keras.training import callbacks, checkpoint
from sat_keras.training import fit as training
from sat_keras.training.callbacks import CheckFirstLoss
from sat_keras.training.checkpoint import epochs_since_best, scores_of
from sat_keras.training.folder import open_run
from sat_keras.training.optimizer import make_optimizer
from sat_keras.training.pretrained import make_encoder
from sat_keras.training.signals import Terminated, sigterm_raises
from sat_keras.training.state import TrainingState, locked, read_state

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).resolve().parents[1]


# Early stopping


def stops_at(scores, patience):
    """Returns the epoch after which a training stops, and the epochs whose model is saved."""
    saved = []
    for epoch in range(len(scores)):
        since = epochs_since_best(scores[: epoch + 1])
        saved += [epoch] if since == 0 else []
        if since >= patience:
            return epoch, saved
    return None, saved


def test_only_better_epochs_are_saved():
    assert stops_at([0.1, 0.3, 0.2, 0.3, 0.4], patience=5) == (None, [0, 1, 4])


def test_training_stops_after_patience_epochs_without_a_better_score():
    assert stops_at([0.1, 0.3, 0.2, 0.2, 0.9], patience=2) == (3, [0, 1])


def test_no_epoch_is_not_a_reason_to_stop():
    assert epochs_since_best([]) == 0


# The state of a folder


def test_a_state_comes_back(tmp_path):
    state = TrainingState(epochs=1, log=[{"epoch": 0, "loss": 0.1}], seeds=[[3, 4]])
    state.write(tmp_path)
    assert read_state(tmp_path) == state
    assert read_state(tmp_path / "empty") == TrainingState()


@pytest.mark.parametrize("content", ["{", "[]", '{"unknown": 1}', '{"format": 99}'])
def test_a_damaged_state_is_named(content, tmp_path):
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(ValueError, match="state.json .*Received"):
        read_state(tmp_path)


@pytest.mark.parametrize("name", ["backup", "backup-previous"])
def test_a_backup_of_0_1_0_counts(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "training_metadata.json").write_text('{"epoch": 2, "batch": 0}')
    (tmp_path / "log.csv").write_text("epoch,dev_cider\n0,0.1\n1,0.2\n2,0.9\n")
    state = read_state(tmp_path)
    assert (state.epochs, state.finished) == (2, False)
    assert state.checkpoint == f"{name}/latest.weights.h5"
    assert scores_of(state, "dev_cider") == [0.1, 0.2]


def test_a_finished_training_of_0_1_0_is_finished(tmp_path):
    (tmp_path / "run.json").write_text('{"finished": true}')
    (tmp_path / "log.csv").write_text("epoch,dev_cider\n0,0.1\n")
    assert read_state(tmp_path) == TrainingState(
        epochs=1, finished=True, log=[{"epoch": 0, "dev_cider": 0.1}]
    )


@pytest.mark.integration
def test_two_processes_do_not_train_in_one_folder(tmp_path):
    program = (
        "import sys; from sat_keras.training.state import locked\nwith locked(sys.argv[1]): pass"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with locked(tmp_path):
        result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert "Another process trains" in result.stderr
    subprocess.run(command, check=True, cwd=REPOSITORY)


# SIGTERM


def test_sigterm_raises_and_the_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as raised, sigterm_raises():
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


# An interrupted training


@pytest.fixture(scope="module")
def options():
    """Every option of the presets that has a state."""
    return Config.tiny().replace(
        encoder_trainable=True,
        feature_dim=128,
        attention="hard",
        dropout=0.3,
        embedding_dropout=0.3,
        annotation_dropout=0.2,
        ema_momentum=0.7,
        schedule="cosine",
        mirror=True,
        group="picture",
        batch_size=15,  # two steps an epoch
        epochs=2,
        patience=2,
        beam_size=1,
        max_length=2,
    )


def train(config, table, folder, features=None):
    fix_seed(5)
    encoder = make_encoder(config, None)
    return training.train_captioner(config, table, encoder, folder, features, verbose=0)


# What a training that is killed at a moment leaves is its folder as it is then: before or after the
# given call of a function.
KILLS = {
    "second epoch": (callbacks.CheckFiniteLoss, "on_epoch_begin", 2, "before"),
    "dev scores": (callbacks.DevScores, "on_epoch_end", 2, "before"),
    "first checkpoint": (checkpoint, "save_weights", 1, "after"),
    "before the state": (checkpoint.TrainingState, "write", 3, "before"),
    "after the state": (checkpoint.TrainingState, "write", 2, "after"),
    "after the last epoch": (training, "finish", 1, "before"),
    "after the end": (checkpoint, "write_log", 2 + 1, "before"),
}


def copy_folder_at(patch, folder, copy, target, name, number, when):
    """Patches a function so that its call of this number copies the folder of the training."""
    original, calls = getattr(target, name), []

    def copying(*arguments, **options):
        calls.append(1)
        is_now = len(calls) == number
        if is_now and when == "before":
            shutil.copytree(folder, copy)
        result = original(*arguments, **options)
        if is_now and when == "after":
            shutil.copytree(folder, copy)
        return result

    patch.setattr(target, name, copying)


@pytest.fixture(scope="module")
def whole(options, table, tmp_path_factory):
    """The folder of an uninterrupted training, its log, its model, and its folder when killed."""
    folder, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        for moment, call in KILLS.items():
            copy_folder_at(patch, folder, killed / moment, *call)
        log = train(options, table, folder)
    return folder, log, saved_arrays(folder / "model.keras"), killed


def content(folder):
    """The files that a training reads when it resumes, by name."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return tuple(
        (name, path.read_bytes())
        for name, path in zip(names, paths, strict=True)
        if not name.startswith(f"{training.TENSORBOARD_FOLDER}/")
    )


@pytest.fixture(scope="module")
def resume(options, table):
    """Returns a function that resumes a training in a folder and returns the log and the folder.

    Of folders with the same content, which the next call cannot tell apart, one is resumed.
    """
    resumed = {}

    def run(folder):
        found = content(folder)
        if found not in resumed:
            resumed[found] = train(options, table, folder), folder
        return resumed[found]

    return run


@pytest.mark.integration
@pytest.mark.parametrize("moment", KILLS)
def test_an_interrupted_training_is_bit_for_bit_an_uninterrupted_one(moment, resume, whole):
    _, expected, expected_model, killed = whole
    assert not read_state(killed / moment).finished or moment == "after the end"
    log, folder = resume(killed / moment)
    pd.testing.assert_frame_equal(
        log.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True
    )
    assert_same_arrays(folder / "model.keras", expected_model)
    assert read_state(folder).finished
    assert not (folder / "backup").exists()


@pytest.mark.integration
def test_a_finished_training_is_not_repeated(options, table, whole):
    before = (whole[0] / "model.keras").stat().st_mtime_ns
    pd.testing.assert_frame_equal(train(options, table, whole[0]), whole[1])
    assert (whole[0] / "model.keras").stat().st_mtime_ns == before


@pytest.mark.integration
def test_a_log_that_cannot_be_written_does_no_harm(whole, tmp_path, capsys):
    state = read_state(whole[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "replacing", lambda path: (path / "no").read_text())
        checkpoint.write_log(state, tmp_path)
    assert "log.csv was not written" in capsys.readouterr().err


NAN_MESSAGE = r"Received: loss nan in epoch 2, step 1, the minibatch of train-\S+(, train-\S+){2}$"


@pytest.mark.integration
def test_a_loss_that_is_not_finite_names_the_step_and_can_be_mended(options, table, tmp_path):
    """The last epoch before it stays, and the next run may have another learning rate."""
    config = options.replace(schedule="constant", encoder_trainable=False)
    folder, features = tmp_path / "out", tmp_path / "features"
    with pytest.MonkeyPatch.context() as patch:
        calls = []

        def check(self, batch, logs=None):
            calls.append(batch)
            if calls.count(0) == 2:
                logs = {"loss": math.nan}
            original(self, batch, logs)

        original = callbacks.CheckFiniteLoss.on_train_batch_end
        patch.setattr(callbacks.CheckFiniteLoss, "on_train_batch_end", check)
        with pytest.raises(FloatingPointError, match=NAN_MESSAGE):
            train(config, table, folder, features)
    state = read_state(folder)
    assert (state.epochs, state.diverged) == (1, True)
    description = {"format": 1, "encoder": dict.fromkeys(("weights", "fingerprint", "in_model"))}
    description |= {"dataset": {}, "start": {}}
    write_json(folder / "config.json", {**description, "config": config.to_dict()})
    lower = config.replace(learning_rate=1e-5)
    with pytest.raises(ValueError, match="holds another training.*hidden_dim"):
        open_run(folder, {**description, "config": lower.replace(hidden_dim=4).to_dict()})
    assert not open_run(folder, {**description, "config": lower.to_dict()})
    rates = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            callbacks.DevScores,
            "on_train_begin",
            lambda self, logs=None: rates.append(float(self.model.optimizer.learning_rate)),
        )
        assert len(train(lower, table, folder, features)) == 2
    assert rates == [pytest.approx(1e-5)]
    assert not read_state(folder).diverged


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path):
    empty = types.SimpleNamespace(variables=[])
    model = types.SimpleNamespace(save_weights=lambda path: fail(), variables=[], optimizer=empty)

    def fail():
        raise OSError("Unable to synchronously create file")

    with pytest.raises(OSError, match=r"epoch-1.weights.h5 could not be written; make room"):
        checkpoint.save_weights(model, tmp_path / "backup" / "epoch-1.weights.h5")


def test_a_full_disk_is_named_before_annotation_vectors_are_computed(
    options, table, tmp_path, monkeypatch
):
    def fail(folder, needed):
        raise OSError(f"{folder} has no room for {needed} bytes")

    monkeypatch.setattr(checkpoint, "check_room", fail)
    monkeypatch.setattr(training, "extract_features", lambda *_, **__: pytest.fail("extracted"))
    with pytest.raises(OSError, match="no room for"):
        train(options.replace(encoder_trainable=False), table, tmp_path)


# The first loss


@pytest.mark.parametrize(("cross_entropy", "warns"), [(math.log(50), False), (9.0, True)])
def test_a_first_loss_far_from_chance_is_said(cross_entropy, warns, capsys):
    callback = callbacks.CheckFirstLoss()
    callback.set_model(
        types.SimpleNamespace(
            optimizer=types.SimpleNamespace(iterations=1),
            vocabulary_size=50,
        )
    )
    callback.on_train_batch_end(0, {"cross_entropy": cross_entropy})
    assert ("Warning" in capsys.readouterr().out) == warns


# The whole


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    sizes = {"train": 6, "dev": 3, "test": 0}
    return load_dataset("scenes", tmp_path_factory.mktemp("data"), num_images=sizes)


@pytest.mark.integration
@pytest.mark.graph
def test_a_training_from_pixels_trains_the_encoder_and_saves_it_in_float32(
    table, tmp_path, monkeypatch
):
    """The steps are traced; the search, which `test_search` traces, is not."""
    score = callbacks.DevScores.on_epoch_end

    def score_eagerly(*arguments):
        with functions_run_eagerly(True):
            score(*arguments)

    monkeypatch.setattr(callbacks.DevScores, "on_epoch_end", score_eagerly)
    config = Config.tiny().replace(
        encoder_trainable=True,
        feature_dim=128,
        precision="mixed_bfloat16",
        group="picture",
        ema_momentum=0.5,
        epochs=1,
        beam_size=1,
        max_length=4,
    )
    encoder = make_encoder(config, None, config.precision)
    before = [w.copy() for w in encoder.get_weights()]
    log = training.train_captioner(config, table, encoder, tmp_path, verbose=0)
    assert len(log) == 1
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.dtype_policy.name == model.encoder.dtype_policy.name == "float32"
    for saved, trained in zip(model.encoder.get_weights(), encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(saved, trained)
    changed = [
        not np.array_equal(old, new) for old, new in zip(before, encoder.get_weights(), strict=True)
    ]
    assert all(changed)


@pytest.fixture(scope="module")
def start(table):
    """A captioner with soft attention that another training may start from."""
    config = Config.tiny().replace(encoder_trainable=True, feature_dim=128)
    train = table[table["split"] == "train"]
    tokenizer = Tokenizer.from_captions(train["caption"], full_stop=True)
    fix_seed(5)
    return Captioner(config, tokenizer, make_encoder(config, None))


@pytest.fixture
def started(table, tmp_path, monkeypatch):
    """Begins a training from a captioner; returns the one that would be trained."""
    models = []

    def fit(model, *_, callbacks, **__):
        models.append(model)
        # Its first loss is that of a model that has learned.
        assert not any(isinstance(x, CheckFirstLoss) for x in callbacks)

    monkeypatch.setattr(Captioner, "fit", fit)

    def begin(start, **changes):
        config = start.config.replace(**changes)
        encoder = make_encoder(config, None)
        training.train_captioner(config, table, encoder, tmp_path, start=start, verbose=0)
        return models[0]

    return begin


def test_a_training_starts_from_the_weights_of_another_captioner(start, started):
    model = started(start, attention="hard", dropout=0.3)
    assert model.config.attention == "hard"
    for part in ("decoder", "encoder"):
        mine, its = (getattr(x, part).get_weights() for x in (model, start))
        for x, y in zip(mine, its, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("name", "mine", "its"),
    [("hidden_dim", 5, 8), ("use_word_query", True, False), ("tie_embeddings", True, False)],
)
def test_a_training_does_not_start_from_other_sizes(start, started, name, mine, its):
    """The message names what differs, and nothing else."""
    message = rf"Expected {name}={mine}, \d+ words\. Received: {name}={its}, \d+ words"
    with pytest.raises(ValueError, match=message):
        started(start, **{name: mine})


def test_a_training_does_not_start_from_other_words_or_without_an_encoder(start, started):
    other = Captioner(start.config, Tokenizer.from_captions(["a b c"]), start.encoder)
    message = r"Expected \d+ words, word 5 is '\.'\. Received: \d+ words, word 5 is 'b'$"
    with pytest.raises(ValueError, match=message):
        started(other)
    with pytest.raises(ValueError, match=r"Received: start.encoder=None"):
        started(Captioner(start.config, start.tokenizer))


@pytest.mark.parametrize("split", ["train", "dev"])
def test_an_empty_split_is_an_error(table, split, tmp_path):
    rest = table[table["split"] != split]
    with pytest.raises(ValueError, match=f"{split} split is empty"):
        training.train_captioner(Config.tiny(), rest, None, tmp_path)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
def test_optimizers_are_those_of_the_config(optimizer):
    config = Config.tiny().replace(
        optimizer=optimizer, schedule="cosine", learning_rate=0.5, epochs=4, ema_momentum=0.9
    )
    made = make_optimizer(config, steps_per_epoch=10)
    assert made.name == optimizer
    assert made.global_clipnorm == config.clip_norm
    assert made.use_ema
    assert made.ema_momentum == 0.9
    rate = made._learning_rate
    assert float(rate(0)) == pytest.approx(0.5)
    assert float(rate(20)) == pytest.approx(0.25)
    assert float(rate(40)) == pytest.approx(0.0, abs=1e-7)
