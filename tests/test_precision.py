"""`precision="auto"`: what is chosen, who hears of it, and that measuring leaves no trace."""

import json
import random
import shutil

import keras
import numpy as np
import pytest
from saved import assert_same_arrays, saved_arrays, saved_config
from seeding import fix_seed

from sat_keras.cli import program
from sat_keras.config.config import Config
from sat_keras.data.loaders import input_batches
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.datasets import load_dataset
from sat_keras.paper.captioner import Captioner
from sat_keras.training import fit as training
from sat_keras.training import precision
from sat_keras.training.checkpoint import seed_states
from sat_keras.training.folder import open_run, read_run
from sat_keras.training.precision import choose_precision, random_pictures, recorded_precision
from sat_keras.training.pretrained import make_encoder, read_description
from sat_keras.training.state import read_state

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_java")]


class Clock:
    """Seconds that pass only where a step says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def step(self, *seconds):
        """Returns a function whose calls take these seconds in turn, and the list of its calls."""
        calls = []

        def run():
            self.now += seconds[len(calls) % len(seconds)]
            calls.append(self.now)

        return run, calls


# The choice


@pytest.mark.parametrize(
    ("float32", "bfloat16", "expected"),
    [
        ([2.0], [1.0], "mixed_bfloat16"),
        ([1.0], [2.0], "float32"),
        ([1.0], [1.0], "float32"),
        # The first two of each compile: they do not count, however long they take.
        ([90.0, 90.0, *[2.0] * 5], [99.0, 99.0, *[1.0] * 5], "mixed_bfloat16"),
        ([9.0, 9.0, *[1.0] * 5], [0.1, 0.1, *[2.0] * 5], "float32"),
        # Nor does a step in which the machine did something else.
        ([1.0, 1.0, 60.0, 1.0, 1.0, 60.0, 1.0], [2.0], "float32"),
    ],
)
def test_the_faster_one_is_chosen(float32, bfloat16, expected):
    clock = Clock()
    (first, _), (second, _) = clock.step(*float32), clock.step(*bfloat16)
    found, reason = choose_precision({"float32": first, "mixed_bfloat16": second}, clock)
    assert found == expected
    assert reason.startswith(f"Precision {expected}: ")


def test_steps_are_timed_in_turns():
    clock = Clock()
    (first, of_first), (second, of_second) = clock.step(0.25), clock.step(0.5)
    _, reason = choose_precision({"float32": first, "mixed_bfloat16": second}, clock)
    assert "float32 250 ms, mixed_bfloat16 500 ms" in reason
    assert len(of_first) == len(of_second)
    in_turns = list(zip(of_first, of_second, strict=True))[2:]
    assert sorted(sum(in_turns, ())) == list(sum(in_turns, ()))


# The config


def test_presets_are_auto_where_they_were_bfloat16_and_read_the_same_cache():
    found = {name: getattr(Config, name)() for name in ("flickr8k", "self_critical")}
    for config in found.values():
        assert (config.precision, config.frozen_precision) == ("auto", "mixed_bfloat16")
    for name in ("tiny", "scenes", "finetune", "paper_coco"):
        assert getattr(Config, name)().precision == "float32"


@pytest.mark.parametrize("chosen", precision.CANDIDATES)
def test_the_cache_does_not_depend_on_the_choice(chosen):
    config = Config.flickr8k().with_precision(chosen)
    assert (config.precision, config.frozen_precision) == (chosen, "mixed_bfloat16")
    own = Config.flickr8k().replace(encoder_precision="float32").with_precision(chosen)
    assert own.frozen_precision == "float32"


@pytest.mark.parametrize("explicit", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_config_without_auto_is_what_it_was(explicit):
    """A precision that is named is also that of the cache, as in files that lack the field."""
    values = Config.flickr8k().replace(precision=explicit).to_dict()
    del values["encoder_precision"]
    config = Config.from_dict(values)
    assert (config.precision, config.frozen_precision) == (explicit, explicit)


# A training


CONFIG = Config.tiny().replace(
    feature_dim=128,
    dropout=0.3,
    embedding_dropout=0.2,
    ema_momentum=0.5,
    schedule="cosine",
    mirror=True,
    batch_size=10,
    max_length=3,
    beam_size=1,
)
KINDS = {
    "frozen": {},
    "whole": {"encoder_trainable": True, "group": "picture"},
    "in part": {"encoder_trainable": "block3_conv1", "group": "picture"},
    "hard": {"attention": "hard", "resize": "pad"},
    "no attention": {"system": "init-inject"},
    "cider": {"objective": "cider", "group": "picture", "caption_samples": 2, "max_length": 1},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    sizes = {"train": 4, "dev": 2, "test": 0}
    return load_dataset("scenes", tmp_path_factory.mktemp("data"), num_images=sizes)


@pytest.fixture
def choose(monkeypatch):
    """Returns a function that fixes the choice, for which each step runs once; it lists them."""
    chosen = []

    def fix(name):
        def choose_it(steps):
            clock = Clock()
            for step in steps.values():
                step()
            chosen.append(name)
            clocked = {other: clock.step(1.0 + (other != name))[0] for other in steps}
            return choose_precision(clocked, clock)

        monkeypatch.setattr(training, "choose_precision", choose_it)
        return chosen

    return fix


def train(config, table, folder, verbose=0):
    """Trains in a folder, whose caches are those of its neighbours; returns the log."""
    fix_seed(5)
    encoder = make_encoder(config, None, config.frozen_precision)
    start = None
    if config.objective == "cider":
        captions = table.loc[table["split"] == "train", "caption"]
        start = Captioner(config, Tokenizer.from_captions(captions, full_stop=True))
    features = folder.parent / "features"
    before = encoder.get_weights()
    try:
        return training.train_captioner(
            config, table, encoder, folder, features, start=start, verbose=verbose
        )
    finally:
        if config.encoder_trainable and config.precision == "auto":  # copies are measured
            for old, new in zip(before, encoder.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)


def at_the_first_step(config, table, folder):
    """Returns all that the numbers of a training depend on, just before its first step."""
    found = []

    def stop(captioner, batches, steps, placement, checkpoint, *arguments):
        numbers = [*captioner.variables, *captioner.optimizer.variables]
        numbers += [*seed_states(captioner), *checkpoint.copy.variables]
        batch = keras.tree.flatten(next(iter(batches(0))))
        found.append([keras.ops.convert_to_numpy(x) for x in [*numbers, *batch]])
        found.append((captioner.config, captioner.dtype_policy.name))
        found.append(random.getstate())  # of which Keras draws the seeds that are not given
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_fit", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, table, folder)
    return found


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_measuring_leaves_no_trace(kind, table, tmp_path, choose):
    """A training with "auto" starts as the one with the precision that was chosen."""
    chosen = "float32" if kind in ("frozen", "whole", "cider") else "mixed_bfloat16"
    auto = CONFIG.replace(precision="auto", **KINDS[kind])
    numbers, config, drawn = at_the_first_step(auto.with_precision(chosen), table, tmp_path / "one")
    assert choose(chosen) == []
    its_numbers, its_config, its_drawn = at_the_first_step(auto, table, tmp_path / "other")
    assert its_config == config == (auto.with_precision(chosen), chosen)
    assert its_drawn == drawn
    assert len(its_numbers) == len(numbers)
    for mine, its in zip(numbers, its_numbers, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert read_state(tmp_path / "other").precision == chosen
    if auto.encoder_trainable is not True:  # one cache serves both
        assert len(list((tmp_path / "features").iterdir())) == 1


@pytest.mark.integration
def test_a_training_with_auto_is_the_one_with_what_was_chosen(table, tmp_path, choose):
    """Bit for bit, to its log and its model."""
    auto = CONFIG.replace(precision="auto", epochs=1)
    choose("mixed_bfloat16")
    logs = [
        train(config, table, tmp_path / name).drop(columns="seconds")
        for name, config in (("one", auto.with_precision("mixed_bfloat16")), ("other", auto))
    ]
    assert logs[0].equals(logs[1])
    one, other = (tmp_path / name / "model.keras" for name in ("one", "other"))
    assert saved_config(one) == saved_config(other)
    assert_same_arrays(one, saved_arrays(other))


@pytest.mark.integration
def test_a_resumed_training_does_not_measure(table, tmp_path, choose, capsys):
    chosen = choose("mixed_bfloat16")
    config = CONFIG.replace(precision="auto")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_fit", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config, table, tmp_path / "out", verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Precision ")] == [
        "Precision mixed_bfloat16: the faster training step here "
        "(float32 2e+03 ms, mixed_bfloat16 1e+03 ms)."
    ]
    choose("float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_fit", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config, table, tmp_path / "out", verbose=2)
    assert chosen == ["mixed_bfloat16"]
    assert "weights, mixed_bfloat16" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["frozen", "whole", "in part", "hard"])
def test_random_pictures_have_the_shape_of_the_true_ones(kind, table, tmp_path):
    config = CONFIG.replace(**KINDS[kind])
    encoder = make_encoder(config, None)
    splits = {name: table[table["split"] == name][:1] for name in ("train", "dev")}
    true = training._source(splits, encoder, config, tmp_path, False, 0)
    drawn = random_pictures(config, encoder)
    image_ids = list(splits["dev"]["image_id"])
    assert drawn.input_name == true.input_name
    assert next(iter(input_batches(image_ids, drawn))).keys() == {
        *next(iter(input_batches(image_ids, true)))
    }
    mine, its = (input_batches(image_ids, source).element_spec for source in (drawn, true))
    for name, spec in mine.items():
        assert spec.dtype == its[name].dtype
        assert spec.shape[1:].is_compatible_with(its[name].shape[1:])


# The command line


def run(*words):
    """Runs a command; returns its exit code."""
    return program.main([str(word) for word in words])


def interrupt(*arguments):
    raise KeyboardInterrupt


OPTIONS = ("--dataset", "scenes", "--preset", "tiny", "--limit", "2", "--precision", "auto")
OPTIONS += ("--features", "features", "--epochs", "1", "--max-length", "3", "--beam-size", "1")


@pytest.mark.integration
def test_every_file_of_a_training_names_the_precision(tmp_path, monkeypatch, choose, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sat_keras.cli.train.draw_curves", lambda folder: None)
    chosen = choose("float32")
    assert run("train", *OPTIONS, "--out", "out") == 0
    assert capsys.readouterr().out.count("Precision float32: the faster") == 1
    config = read_description("out")["config"]
    assert (config.precision, config.frozen_precision) == ("float32", "mixed_bfloat16")
    assert read_run("out")["precision"] == "float32"
    # The same command again, and the evaluation, read it: one choice, and one cache.
    assert run("train", *OPTIONS, "--out", "out") == 0
    assert "is finished" in capsys.readouterr().out
    assert run("evaluate", "out", "--occlusion", "0") == 0
    assert json.loads((tmp_path / "out" / "results-dev.json").read_text())["training"][
        "precision"
    ] == "float32"  # fmt: skip
    assert chosen == ["float32"]
    assert len(list((tmp_path / "features").iterdir())) == 1
    # What another training has chosen is written before its first step.
    choose("mixed_bfloat16")
    monkeypatch.setattr(training, "_fit", interrupt)
    assert run("train", *OPTIONS, "--out", "out", "--overwrite") == 130
    assert chosen == ["float32", "mixed_bfloat16"]
    assert read_description("out")["config"].precision == "mixed_bfloat16"


@pytest.mark.integration
def test_a_training_from_before_auto_keeps_its_precision(tmp_path):
    """The same command, whose preset has become "auto", resumes a training of version 0.1.0."""
    old = Config.flickr8k().replace(precision="mixed_bfloat16")
    description = {
        "format": 1,
        "config": old.to_dict(),
        "encoder": {"weights": None, "fingerprint": "0", "in_model": False},
        "dataset": {},
        "start": {},
    }
    del description["config"]["encoder_precision"]
    open_run(tmp_path, description)
    found = recorded_precision(Config.flickr8k(), tmp_path)
    assert found == old
    assert not open_run(tmp_path, {**description, "config": found.to_dict()})
    # What is named wins, and an empty or deleted folder says nothing.
    explicit = Config.flickr8k().replace(precision="float32")
    assert recorded_precision(explicit, tmp_path) == explicit
    assert recorded_precision(Config.flickr8k(), tmp_path, overwrite=True) == Config.flickr8k()
    shutil.rmtree(tmp_path)
    assert recorded_precision(Config.flickr8k(), tmp_path) == Config.flickr8k()


def test_evaluation_has_no_auto(capsys):
    assert run("evaluate", "x", "--precision", "auto") != 0
    assert "--precision" in capsys.readouterr().err
