"""Training's callbacks one by one, and a whole training from pixels."""

import math
import types

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.datasets import load_dataset
from sat_keras.paper.captioner import Captioner
from sat_keras.training import fit as training
from sat_keras.training.pretrained import make_encoder


class Weights:
    """Stands for a decoder: one number that can be read and set."""

    def __init__(self, value):
        self.value = value

    def get_weights(self):
        return [self.value]

    def set_weights(self, weights):
        (self.value,) = weights


def fake_model(value=0):
    model = types.SimpleNamespace(decoder=Weights(value), encoder=None, stop_training=False)
    model.copy_weights = lambda other: model.decoder.set_weights(other.decoder.get_weights())
    return model


@pytest.fixture
def saved(monkeypatch):
    """What `KeepBest` saves, in place of files."""
    values = []
    monkeypatch.setattr(
        training, "save_model", lambda copy, path: values.append(copy.decoder.value)
    )
    return values


def keep_best(scores, patience, past=(), losses=None):
    """Runs `KeepBest` over epochs; the model's weight is the epoch's number."""
    callback = training.KeepBest(fake_model(), "model.keras", "score", patience, past)
    model = fake_model()
    callback.set_model(model)
    for epoch, score in enumerate(scores, start=len(past)):
        model.decoder.value = epoch
        loss = 1.0 if losses is None else losses[epoch - len(past)]
        callback.on_epoch_end(epoch, {"score": score, "loss": loss})
        if model.stop_training:
            return epoch
    return None


# The best checkpoint and early stopping


def test_only_better_epochs_are_saved(saved):
    keep_best([0.1, 0.3, 0.2, 0.3, 0.4], patience=5)
    assert saved == [0, 1, 4]


def test_training_stops_after_patience_epochs_without_a_better_score(saved):
    assert keep_best([0.1, 0.3, 0.2, 0.2, 0.9], patience=2) == 3
    assert saved == [0, 1]


def test_an_epoch_of_a_loss_that_is_not_finite_is_never_the_best(saved):
    keep_best([0.1, 0.9], patience=5, losses=[1.0, math.nan])
    assert saved == [0]


@given(
    scores=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=1, max_size=8),
    cut=st.integers(0, 8),
    patience=st.integers(1, 4),
)
def test_a_resumed_training_keeps_and_stops_as_one_in_a_piece(scores, cut, patience):
    with pytest.MonkeyPatch.context() as patch:
        saved = []
        patch.setattr(training, "save_model", lambda copy, _: saved.append(copy.decoder.value))
        stopped = keep_best(scores, patience)
        cut = min(cut, len(scores) if stopped is None else stopped)
        whole = [epoch for epoch in saved if epoch >= cut]
        saved.clear()
        assert keep_best(scores[cut:], patience, past=scores[:cut]) == stopped
        assert saved == whole


# The log


def test_the_log_goes_on_after_the_epochs_that_count(tmp_path):
    path = tmp_path / "log.csv"
    for past_epochs, losses in ((0, [3.0, 2.0, 9.0]), (2, [1.0])):  # the third epoch anew
        log = training.EpochLog(path, training.read_log(path, past_epochs))
        for epoch, loss in enumerate(losses, start=past_epochs):
            log.on_epoch_begin(epoch)
            log.on_epoch_end(epoch, {"loss": loss})
    table = pd.read_csv(path)
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["loss"].tolist() == [3.0, 2.0, 1.0]
    assert (table["seconds"] >= 0).all()
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_log_that_is_not_there_has_no_epochs(tmp_path):
    assert training.read_log(tmp_path / "log.csv").empty


# The backup


@pytest.fixture
def backed_up(tmp_path):
    """A model of one weight, and a function that backs it up after an epoch."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")

    def back_up(epoch):
        model.set_weights([np.full((1, 1), float(epoch))])
        backup = training.Backup(tmp_path / "backup")
        backup.set_model(model)
        backup.on_epoch_end(epoch)
        return backup

    return model, back_up


def restored(model, folder):
    backup = training.Backup(folder)
    backup.set_model(model)
    backup.on_train_begin()
    return backup.epochs_done, model.get_weights()[0].item()


def test_a_backup_is_restored_with_its_number_of_epochs(backed_up, tmp_path):
    model, back_up = backed_up
    assert training.Backup(tmp_path / "backup").epochs_done == 0
    back_up(0)
    back_up(1)
    model.set_weights([np.full((1, 1), -1.0)])
    assert restored(model, tmp_path / "backup") == (2, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]


def test_a_kill_while_a_backup_is_written_leaves_the_one_before(backed_up, tmp_path, monkeypatch):
    model, back_up = backed_up
    back_up(0)

    def killed(filepath, overwrite):
        with open(filepath, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "save_weights", killed)
        with pytest.raises(KeyboardInterrupt):
            back_up(1)
    assert restored(model, tmp_path / "backup") == (1, 0.0)


# The first loss


@pytest.mark.parametrize(("cross_entropy", "warns"), [(math.log(50), False), (9.0, True)])
def test_a_first_loss_far_from_chance_is_said(cross_entropy, warns, capsys):
    callback = training.CheckFirstLoss()
    callback.set_model(
        types.SimpleNamespace(
            optimizer=types.SimpleNamespace(iterations=1),
            decoder=types.SimpleNamespace(vocabulary_size=50),
        )
    )
    callback.on_train_batch_end(0, {"cross_entropy": cross_entropy})
    assert ("Warning" in capsys.readouterr().out) == warns


# The whole


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    sizes = {"train": 6, "dev": 3, "test": 0}
    return load_dataset("scenes", tmp_path_factory.mktemp("data"), num_images=sizes)


def test_a_training_from_pixels_trains_the_encoder_and_saves_it_in_float32(table, tmp_path):
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
    tokenizer = Tokenizer.from_captions(table[table["split"] == "train"]["caption"])
    keras.utils.set_random_seed(5)
    return Captioner(config, tokenizer, make_encoder(config, None))


@pytest.fixture
def started(table, tmp_path, monkeypatch):
    """Begins a training from a captioner; returns the one that would be trained."""
    models = []

    def fit(model, *_, callbacks, **__):
        models.append(model)
        # Its first loss is that of a model that has learned.
        assert not any(isinstance(callback, training.CheckFirstLoss) for callback in callbacks)

    monkeypatch.setattr(training.Captioner, "fit", fit)
    monkeypatch.setattr(training, "_check_finite", lambda *_: None)

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


@pytest.mark.parametrize("changes", [{"hidden_dim": 5}, {"use_word_query": True}])
def test_a_training_does_not_start_from_other_sizes(start, started, changes):
    with pytest.raises(ValueError, match=r"same words and sizes.*Received: .*hidden_dim=8"):
        started(start, **changes)


def test_a_training_does_not_start_from_other_words_or_without_an_encoder(start, started):
    other = Captioner(start.config, Tokenizer.from_captions(["a b c"]), start.encoder)
    with pytest.raises(ValueError, match="same words and sizes"):
        started(other)
    with pytest.raises(ValueError, match=r"Received: start.encoder=None"):
        started(Captioner(start.config, start.tokenizer))


def test_a_loss_that_is_not_finite_is_an_error(table, tmp_path, monkeypatch):
    monkeypatch.setattr(training.Captioner, "fit", lambda *_, callbacks, **__: fail(callbacks))

    def fail(callbacks):
        (log,) = (c for c in callbacks if isinstance(c, training.EpochLog))
        log.on_epoch_begin(0)
        log.on_epoch_end(0, {"loss": math.nan})

    config = Config.tiny().replace(encoder_trainable=True, feature_dim=128)
    encoder = make_encoder(config, None)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        training.train_captioner(config, table, encoder, tmp_path, verbose=0)


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
    made = training.make_optimizer(config, steps_per_epoch=10)
    assert type(made).__name__.lower() == optimizer
    assert made.global_clipnorm == config.clip_norm
    assert made.use_ema
    assert made.ema_momentum == 0.9
    rate = made._learning_rate
    assert float(rate(0)) == pytest.approx(0.5)
    assert float(rate(20)) == pytest.approx(0.25)
    assert float(rate(40)) == pytest.approx(0.0, abs=1e-7)
