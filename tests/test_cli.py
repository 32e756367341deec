"""The command line in process, on a handful of tiny drawn scenes."""

import argparse
import contextlib
import dataclasses
import errno
import functools
import io
import json
import math
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sat_keras import cli
from sat_keras.cli import options, program
from sat_keras.cli.errors import sentence
from sat_keras.cli.files import check_target
from sat_keras.cli.train import draw_curves
from sat_keras.config.config import Config
from sat_keras.datasets import load_dataset
from sat_keras.evaluation import PictureScores, score_captions
from sat_keras.training import fit as training
from sat_keras.training import pretrained

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_java")]

PICTURES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    """What the commands write by default goes to the temporary folder too, but for the curves.

    The fixture `trained` draws them.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sat_keras.cli.train.draw_curves", lambda folder: None)


def train_command(out, *options, epochs=2):
    """Two epochs with averaged weights, whose dev scores differ from the trained weights'."""
    return [
        *("train", "--dataset", "scenes", "--preset", "tiny", "--limit", str(PICTURES)),
        *("--out", str(out), "--ema-momentum", "0.5", "--learning-rate", "0.05"),
        *("--beam-size", "2", "--max-length", "4", "--batch-size", "10", "--epochs", str(epochs)),
        *options,
    ]


@pytest.fixture(scope="module")
def trained(folder, no_java):
    """The folder of a training that ran without interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(train_command("trained")) == 0
    return folder / "trained"


def error_of(command, capsys):
    """The sentence that a command fails with, after checking that it is nothing but that."""
    assert cli.main([str(word) for word in command]) == 2
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 1, lines
    assert lines[0].startswith("sat-keras: error: ")
    assert "Traceback" not in lines[0]
    return lines[0]


# Training


def test_training_leaves_model_log_curves_and_how_it_came_about(trained):
    of_others = {"tensorboard", "results-dev.json"}  # evaluations of other tests write the latter
    assert {path.name for path in trained.iterdir()} - of_others == {
        *("config.json", "run.json", "log.csv", "curves.png", "model.keras", "state.json", ".lock")
    }
    config = json.loads((trained / "config.json").read_text())
    assert Config.from_dict(config["config"]).epochs == 2
    assert config["config"]["feature_dim"] == 128  # the encoder's, not the preset's
    assert config["dataset"]["name"] == "scenes"
    run = json.loads((trained / "run.json").read_text())
    assert run["finished"]
    assert run["command"].startswith("sat-keras train --dataset scenes --preset tiny")
    assert run["seconds"] > 0
    assert run["epochs"] == 2
    assert "cores" in run["hardware"]
    assert {"keras", "sat_keras", "python"} <= set(run["versions"])
    log = pd.read_csv(trained / "log.csv")
    assert log["epoch"].tolist() == [0, 1]
    assert {"loss", "cross_entropy", "penalty", "dev_bleu4", "dev_cider"} <= set(log.columns)


def test_a_stopped_training_goes_on_as_if_it_had_not_been(trained, folder, monkeypatch, capsys):
    command = train_command("stopped")

    def stop(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.CheckFirstLoss, "on_epoch_begin", stop, raising=False)
        assert cli.main(command) == 130
    assert "same command" in capsys.readouterr().err
    assert (folder / "stopped" / "model.keras").is_file()  # usable
    assert not json.loads((folder / "stopped" / "run.json").read_text())["finished"]
    assert cli.main(command) == 0
    logs = [pd.read_csv(path / "log.csv") for path in (trained, folder / "stopped")]
    pd.testing.assert_frame_equal(*(log.drop(columns="seconds") for log in logs), rtol=1e-4)
    assert not (folder / "stopped" / "backup").exists()


def test_a_finished_training_is_not_done_again(trained, capsys):
    before = (trained / "model.keras").stat().st_mtime_ns
    assert cli.main(train_command("trained")) == 0
    assert "--overwrite" in capsys.readouterr().out
    assert (trained / "model.keras").stat().st_mtime_ns == before


def test_another_training_in_the_folder_is_refused_and_kept(trained, capsys):
    before = (trained / "config.json").read_bytes()
    message = error_of(train_command("trained", "--hidden-dim", "5"), capsys)
    assert "hidden_dim 8 there, 5 here" in message
    assert "--overwrite" in message
    assert (trained / "config.json").read_bytes() == before


def test_a_folder_with_files_of_something_else_is_refused(folder, capsys):
    (folder / "foreign").mkdir()
    (folder / "foreign" / "model.keras").write_text("precious")
    assert "foreign" in error_of(train_command("foreign"), capsys)
    assert (folder / "foreign" / "model.keras").read_text() == "precious"


# Evaluation


@pytest.fixture(scope="module")
def results(trained, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = ["evaluate", "trained", "--out", "results.json", "--captions", "captions.json"]
        command += ["--occlusion", "3"]
        assert cli.main(command) == 0
    return json.loads((folder / "results.json").read_text())


def test_results_say_what_was_measured_and_how(results):
    assert set(results) >= {
        *("dataset", "split", "encoder", "attention", "beam", "seed", "command", "config"),
        *("seconds", "hardware", "scores", "pictures", "versions", "length_penalty"),
        *("caption_statistics", "scenes", "attention_scores"),
    }
    assert (results["dataset"], results["split"], results["beam"]) == ("scenes", "dev", 2)
    assert results["pictures"] == PICTURES
    names = {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"}
    for part in ("scores", "intervals"):
        assert {name: set(scores) for name, scores in results[part].items()} == {
            "coco": names,
            "paper": names,
        }
    for name, (low, high) in results["intervals"]["coco"].items():
        assert low <= results["scores"]["coco"][name] <= high
    found = PictureScores.decode(results["picture_scores"])
    assert found.scores()["paper"] == pytest.approx(results["scores"]["paper"], rel=1e-6)
    assert len(results["references"]) == 16
    assert " && sat-keras evaluate trained" in results["command"]


def test_evaluation_finds_the_score_that_chose_the_checkpoint(results, trained):
    """From pixels, in a new model read from disk, with the averaged weights."""
    log = pd.read_csv(trained / "log.csv")
    assert results["scores"]["coco"]["cider"] == pytest.approx(log["dev_cider"].max(), rel=1e-3)


def test_results_on_scenes_tell_attention_from_uniform_attention(results):
    scenes, attention = results["scenes"], results["attention_scores"]
    assert 0 <= scenes["content_word_accuracy"] <= 100
    assert scenes["object_words"] == attention["object_words"]
    if scenes["object_words"]:
        assert 0 < scenes["attention_mass_uniform"] < 100
        assert scenes["pointing_accuracy"] == attention["pointing_accuracy"]


@pytest.fixture(scope="module")
def wordy(trained, folder):
    """Results of captions that have words, however little the model has learned, from stdout."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        command = ["evaluate", "trained", "--length-penalty", "9", "--out", "wordy.json"]
        command += ["--occlusion", "3", "--ranking", "2"]
        assert cli.main([*command, "--json", "--report", "report"]) == 0
    return json.loads(out.getvalue())


def test_an_ensemble_of_a_captioner_with_itself_has_its_scores(trained, wordy, capsys):
    command = ["evaluate", "trained", "--with", "trained", "--length-penalty", "9"]
    assert cli.main([*command, "--occlusion", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["members"], wordy["members"]) == (2, 1)
    assert found["scores"]["coco"] == pytest.approx(wordy["scores"]["coco"], rel=1e-6)
    assert found["parameters"] == 2 * wordy["parameters"]


def test_json_on_stdout_is_the_results_file(wordy, folder):
    assert json.loads((folder / "wordy.json").read_text()) == wordy


def test_report_shows_every_caption(wordy, folder):
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    for number in range(PICTURES):
        assert f'"id": "dev-{number:05d}"' in page


def test_results_have_scores_of_attention_with_intervals(wordy):
    attention, (rows, columns) = wordy["attention_scores"], wordy["config"]["grid_shape"]
    assert attention["occlusion_pictures"] == 3
    assert attention["entropy_uniform"] == pytest.approx(math.log(rows * columns))
    assert attention["words"] == wordy["caption_statistics"]["mean_length"] * PICTURES > 0
    names = {"entropy", "coverage", "gate", "sameness", "occlusion_attended", "faithfulness"}
    names |= {"deletion", "insertion_random", "rank_correlation", "recall_1"}
    assert attention["ranked_pictures"] == 2
    assert 1 <= attention["median_rank"] <= 2
    curves = attention["curves"]
    assert {len(values) for values in curves.values()} == {len(curves["share"])}
    assert names <= set(attention["intervals"])
    for name, (low, high) in attention["intervals"].items():
        assert low <= attention[name] + 1e-9
        assert attention[name] <= high + 1e-9
    assert 0 < attention["coverage"] <= 100


def test_captions_are_written_for_every_picture(results, folder):
    captions = json.loads((folder / "captions.json").read_text())
    assert [entry["image_id"] for entry in captions] == [f"dev-{n:05d}" for n in range(PICTURES)]
    assert all(isinstance(entry["caption"], str) for entry in captions)


def hard_command(start):
    return train_command("hard", "--attention", "hard", "--start", start, "--quiet", epochs=1)


@pytest.fixture(scope="module")
def hard(trained, folder):
    """What a training of hard attention that starts from soft attention prints with --quiet."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        patch.setattr("sat_keras.cli.train.draw_curves", lambda folder: None)
        assert cli.main(hard_command("trained")) == 0
    return out.getvalue()


def test_hard_attention_is_trained_and_evaluated_in_any_context(hard, folder, capsys):
    log = pd.read_csv(folder / "hard" / "log.csv")
    assert {"entropy", "baseline"} <= set(log.columns)
    command = ["evaluate", "hard", "--context", "argmax", "--out", "hard.json", "--occlusion", "0"]
    assert cli.main(command) == 0
    results = json.loads((folder / "hard.json").read_text())
    assert (results["attention"], results["context"]) == ("hard", "argmax")
    assert cli.main(["caption", "--model", "hard", "--split", "dev", "--limit", "1"]) == 0
    capsys.readouterr()


def test_hard_attention_starts_from_soft_attention(hard, folder, capsys):
    assert json.loads((folder / "hard" / "config.json").read_text())["start"] == {
        "start": "trained"
    }
    assert "nowhere" in error_of(hard_command("nowhere"), capsys)
    assert "start 'trained' there, 'hard' here" in error_of(hard_command("hard"), capsys)


def test_soft_attention_in_another_context_is_a_mistake(trained, capsys):
    assert "argmax" in error_of(["evaluate", "trained", "--context", "argmax"], capsys)


def test_a_model_is_compared_with_itself_and_with_a_baseline(results, folder, capsys):
    command = ["baseline", "random", "--dataset", "scenes", "--preset", "tiny", "--limit"]
    assert cli.main([*command, str(PICTURES), "--out", "random.json"]) == 0
    capsys.readouterr()
    assert cli.main(["compare", "results.json", "results.json"]) == 0
    output = capsys.readouterr().out
    assert "Not significant: bleu1, bleu2, bleu3, bleu4, rouge_l, cider." in output
    assert (
        cli.main(["compare", "results.json", "random.json,random.json", "--protocol", "paper"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["A: results.json", "B: random.json, random.json"]
    baseline = json.loads((folder / "random.json").read_text())
    for line in lines[3:9]:
        name, first, second, _, spread, difference, *_ = line.split()
        assert float(first) == pytest.approx(results["scores"]["paper"][name], abs=0.006)
        assert float(second) == pytest.approx(baseline["scores"]["paper"][name], abs=0.006)
        assert float(spread) == 0
        assert float(difference) == pytest.approx(float(second) - float(first), abs=0.02)


def test_results_of_another_split_do_not_compare(results, folder, capsys):
    (folder / "other.json").write_text(json.dumps(results | {"split": "test"}))
    message = error_of(["compare", "results.json", "other.json"], capsys)
    assert "split dev in results.json, test in other.json" in message
    assert "nowhere.json" in error_of(["compare", "results.json", "nowhere.json"], capsys)
    message = error_of(["compare", "results.json,", "results.json"], capsys)
    assert "joined by one comma each. Received: 'results.json,'" in message


def test_captions_of_a_file_are_scored(folder, capsys):
    references = {"1": ["a dog runs on sand", "a dog"], "2": ["two boys"], "3": ["a cat"]}
    (folder / "references.json").write_text(json.dumps(references))
    captions = [{"image_id": 1, "caption": "a dog on sand"}, {"image_id": 2, "caption": ""}]
    (folder / "own.json").write_text(json.dumps(captions))
    message = error_of(["score", "own.json", "references.json"], capsys)
    assert "1 image ids without a candidate, the first one '3'" in message
    command = ["score", "own.json", "references.json", "--subset", "--out", "scores/own.json"]
    assert cli.main(command) == 0
    output = capsys.readouterr().out
    assert "meteor is left out" in output
    assert "2 captions of 2.0 words, 4 different words, 0.0 % repeated" in output
    results = json.loads((folder / "scores" / "own.json").read_text())
    expected = score_captions(
        {"1": "a dog on sand", "2": ""}, {key: references[key] for key in "12"}
    )
    assert results["scores"] == expected
    assert cli.main(["compare", "scores/own.json", "scores/own.json"]) == 0
    captions[1]["image_id"] = 1
    (folder / "own.json").write_text(json.dumps(captions))
    message = error_of(["score", "own.json", "references.json", "--subset"], capsys)
    assert "1 image ids more than once, the first one '1'" in message
    (folder / "own.json").write_bytes(b"\xe9")
    assert "UTF-8" in error_of(["score", "own.json", "references.json"], capsys)


# Baselines


@pytest.mark.parametrize("name", ["random", "nearest", "consensus"])
def test_baselines_give_train_captions(name, folder):
    command = ["baseline", name, "--dataset", "scenes", "--preset", "tiny", "--limit", "3"]
    command += ["--features", "baseline-cache", "--out", f"{name}.json"]
    command += ["--captions", f"{name}-captions.json", "--neighbours", "2"]
    assert cli.main([*command, "--agreeing", "2", "4"]) == 0
    table = load_dataset("scenes", "data", only="train", num_images={"train": 3, "dev": 3})
    found = json.loads((folder / f"{name}-captions.json").read_text())
    assert [entry["image_id"] for entry in found] == [f"dev-{n:05d}" for n in range(3)]
    assert {entry["caption"] for entry in found} <= set(table["caption"])
    results = json.loads((folder / f"{name}.json").read_text())
    assert (results["baseline"], results["pictures"]) == (name, 3)
    assert results["encoder"] == (None if name == "random" else "scenes")
    tried = results["config"].pop("tried", [])
    assert [(setting["neighbours"], setting["agreeing"]) for setting in tried] == (
        [(2, 2), (2, 4)] if name == "consensus" else []
    )
    best = max(tried, key=lambda setting: setting["cider"], default={})
    assert results["config"] == {
        "seed": 0,
        **{key: best[key] for key in ("neighbours", "agreeing") if best},
    }
    if tried:
        assert results["scores"]["coco"]["cider"] == pytest.approx(best["cider"], abs=1e-4)
    assert set(results["intervals"]["coco"]) == set(results["scores"]["coco"])


def test_people_are_scored_against_each_other(folder, capsys):
    command = ["baseline", "people", "--dataset", "scenes", "--limit", "3", "--out", "people.json"]
    assert cli.main([*command, "--captions", "people-captions.json"]) == 0
    assert "% no train caption" in capsys.readouterr().out
    table = load_dataset("scenes", "data", only="dev", num_images={"train": 3, "dev": 3})
    found = json.loads((folder / "people-captions.json").read_text())
    written = set(zip(table["image_id"], table["caption"], strict=True))
    assert {(entry["image_id"], entry["caption"]) for entry in found} <= written
    results = json.loads((folder / "people.json").read_text())
    assert (results["pictures"], results["encoder"]) == (3, None)


# Captions


def test_photos_are_captioned_and_broken_ones_named(trained, folder, capsys):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    for name, size in (("photo.png", (40, 30)), ("other/photo.png", (20, 50))):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, "red").save(folder / name)
    photos = ["photo.png", "broken.jpg", "nowhere.jpg", "other/photo.png"]
    code = cli.main(["caption", *photos, "--model", "trained", "--out", "figures"])
    output = capsys.readouterr()
    assert code == 1
    assert ["broken.jpg" in line or "nowhere.jpg" in line for line in output.err.splitlines()] == [
        True,
        True,
    ]
    for photo, figure in (("photo.png", "photo.png"), ("other/photo.png", "photo-2.png")):
        assert f"{photo}: " in output.out
        assert output.out.index(f"{photo}: ") < output.out.index(f"attention: figures/{figure}")
        with Image.open(folder / "figures" / figure) as image:
            assert image.format == "PNG"
            assert image.info["Description"]


def test_pictures_of_a_split_are_captioned(trained, folder, capsys):
    command = ["caption", "--model", "trained", "--split", "test", "--limit", "1", "--out", "split"]
    assert cli.main(command) == 0
    assert [path.name for path in (folder / "split").iterdir()] == ["test-00000.png"]


def test_an_exported_captioner_brings_its_own_encoder(trained, folder, capsys):
    """The scenes' CNN is nowhere else, so that it must go along: then the captions are the same."""
    assert cli.main(["export", "trained", "shared"]) == 0
    assert sorted(path.name for path in (folder / "shared").iterdir()) == [
        "captioner.weights.h5",
        "config.json",
    ]
    capsys.readouterr()
    told = []
    for model in ("trained", "shared"):
        options = ("--dataset", "scenes", "--split", "dev", "--limit", str(PICTURES))
        assert cli.main(["caption", "--model", model, *options]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


# Features


def test_features_are_computed_once_and_a_broken_picture_is_named(folder, capsys):
    command = ["features", "--dataset", "scenes", "--preset", "tiny", "--limit", "3"]
    command += ["--data-dir", "features-data", "--out", "cache"]
    assert cli.main(command) == 0
    assert "6 pictures" in capsys.readouterr().out
    shards = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.f16")}
    assert cli.main(command) == 0
    assert len(shards) == 6
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.f16")} == shards
    capsys.readouterr()
    (picture,) = (folder / "features-data").rglob("dev-00001.png")
    picture.write_bytes(picture.read_bytes()[:100])
    assert "dev-00001.png" in error_of(command, capsys)


# Mistakes


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ([], "COMMAND"),
        (["learn"], "learn"),
        (["train", "--out", "x"], "--dataset"),
        (["train", "--dataset", "flickr9k", "--out", "x"], "'flickr9k'; did you mean flickr8k?"),
        (["evalute"], "'evalute'; did you mean evaluate?"),
        (train_command("x", "--no-such-option"), "--no-such-option"),
        (train_command("x", "--hiden-dim=3"), "--hiden-dim; did you mean --hidden-dim?"),
        (train_command("x", "--no-such-option"), "see `sat-keras train --help`"),
        (train_command("x", "--hidden-dim", "many"), "many"),
        (train_command("x", "--hidden-dim", "0"), "--hidden-dim: must be a whole number, 1 or"),
        (train_command("x", "--dropout", "1.5"), "--dropout: must be a share"),
        (train_command("x", "--out", "y"), "--out must be given once"),
        (["train", "--dataset", "scenes", "--out", ""], "--out"),
        (["caption", "a.png", "--out", ""], "--out"),
        (["caption", "a.png", "--model", "a", "--model", "b"], "--model must be given once"),
        (["caption", "a.png", "--json", "--csv"], "--csv"),
        (["caption", "a.png", "-n", "0"], "--num-results: must be a whole number, 1 or more"),
        (train_command("x", "--limit", "0"), "--limit"),
        (train_command("x", "--precision", "float7"), "float7"),
        (train_command("x", "--grid-shape", "3", "3"), "--grid-shape"),
        (train_command("x", "--encoder", "VGG61", "--encoder-weights", "none"), "VGG61"),
        (train_command("x", "--encoder-weights", "no.weights.h5"), "no.weights.h5"),
        (train_command("x", "--splits", "karpathy"), "karpathy"),
        (["evaluate", "no-such-model"], "no-such-model"),
        (["evaluate", "no-such-model", "--occlusion", "-1"], "--occlusion"),
        (["caption", "photo.png", "--model", "no-such-model"], "no-such-model"),
    ],
)
def test_mistakes_end_in_one_sentence_and_write_nothing(command, named, folder, capsys):
    assert named in error_of(command, capsys)
    assert not (folder / "x").exists()


def test_a_file_as_the_output_folder_is_refused(folder, capsys):
    (folder / "taken").write_text("precious")
    assert "taken" in error_of(train_command("taken"), capsys)
    assert (folder / "taken").read_text() == "precious"


@pytest.fixture(scope="module")
def load_once():
    """Loads a model when it is first named: captioning leaves it as it is."""
    return functools.cache(pretrained.load_pretrained)


@pytest.fixture
def camera(tmp_path, monkeypatch, load_once):
    """A working directory with a photo in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "load_pretrained", load_once)
    Image.new("RGB", (40, 30), "red").save("camera.png")
    return tmp_path / "camera.png"


def caption_command(trained, *words):
    return ["caption", *words, "--model", str(trained)]


def test_a_photo_is_never_replaced_by_its_figure(trained, camera, capsys):
    before = camera.read_bytes()
    for _ in range(2):
        assert cli.main(caption_command(trained, "camera.png", "--out", ".")) == 0
    assert camera.read_bytes() == before
    figures = {path.name for path in camera.parent.iterdir()} - {"camera.png"}
    assert figures == {"camera-2.png", "camera-3.png"}


def test_figures_are_drawn_only_where_asked(trained, camera, capsys):
    assert cli.main(caption_command(trained, "camera.png")) == 0
    assert capsys.readouterr().out.startswith("camera.png: ")
    assert [path.name for path in camera.parent.iterdir()] == ["camera.png"]


def test_sentences_come_before_figures_that_cannot_be_written(trained, camera, capsys, monkeypatch):
    def fail(figure, path, description):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("sat_keras.plots.save_figure", fail)
    assert cli.main(caption_command(trained, "camera.png", "--out", "figures")) == 1
    output = capsys.readouterr()
    assert output.out.startswith("camera.png: ")
    (line,) = output.err.splitlines()
    assert "no space left on device" in line
    assert "[Errno" not in line
    assert "figures/camera.png" in line


@pytest.mark.parametrize("reason", ["a file", "no permission", "no room"])
def test_what_cannot_be_written_is_said_before_any_work(
    reason, trained, camera, capsys, monkeypatch
):
    """Nothing is loaded: no model, no data set, no encoder."""
    number = {"no permission": errno.EROFS, "no room": errno.ENOSPC}.get(reason)
    Path("folder").touch() if reason == "a file" else Path("folder").mkdir()

    def fail(dir, **options):
        raise OSError(number, os.strerror(number))

    if number:
        monkeypatch.setattr("tempfile.TemporaryFile", fail)
    for name in ("evaluate.load_splits", "train.load_splits", "features.load_splits"):
        monkeypatch.setattr(f"sat_keras.cli.{name}", lambda *_, **__: pytest.fail("loaded data"))
    monkeypatch.setattr(pretrained, "load_pretrained", lambda *_, **__: pytest.fail("loaded it"))
    commands = [
        caption_command(trained, "camera.png", "--out", "folder/figures"),
        ["evaluate", str(trained), "--out", "folder/results.json"],
        ["evaluate", str(trained), "--report", "folder/report"],
        ["export", str(trained), "folder/captioner"],
        ["export", str(trained), "folder/captioner", "--format", "onnx"],
        train_command("folder/run"),
        ["features", "--dataset", "scenes", "--out", "folder/features"],
    ]
    for command in commands:
        line = error_of(command, capsys)
        assert "folder" in line
        assert "[Errno" not in line
        if number:
            assert os.strerror(number).lower() in line.lower()


def test_a_folder_of_photos_is_captioned_in_every_format(trained, camera, capsys):
    Image.new("RGB", (20, 50), "blue").save("another.jpg")
    (camera.parent / "notes.txt").write_text("no picture")
    photos = ["another.jpg", "camera.png"]
    command = caption_command(trained, ".", "-n", "2", "--quiet")
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == [f"{photo}:" for photo in photos]
    assert [line[:5] for line in lines[1:3]] == ["  1. ", "  2. "]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["image"], row["rank"]) for row in found] == [
        (photo, rank) for photo in photos for rank in (1, 2)
    ]
    assert [row["caption"] for row in found[:2]] == [line[5:] for line in lines[1:3]]
    assert cli.main([*command, "--csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False)
    assert table.to_dict("records") == found
    assert cli.main(caption_command(trained, ".", "--json")) == 0
    best = json.loads(capsys.readouterr().out)
    assert best == [row for row in found if row["rank"] == 1]


def test_more_sentences_than_beams_are_a_mistake(trained, camera, capsys):
    message = error_of(caption_command(trained, "camera.png", "-n", "3"), capsys)
    assert "--beam-size" in message
    assert message.endswith("Received: -n 3")


def test_a_folder_without_pictures_is_a_mistake(trained, tmp_path, capsys):
    assert str(tmp_path) in error_of(caption_command(trained, tmp_path), capsys)


# Files of others


def test_files_of_others_are_not_replaced_by_results(results, wordy, folder, capsys):
    own = folder / "precious.json"
    own.write_text('[{"image_id": 1, "caption": "mine"}]')
    (folder / "page").mkdir(exist_ok=True)
    (folder / "page" / "index.html").write_text("<p>mine</p>")
    baseline = ["baseline", "random", "--dataset", "scenes", "--limit", "2"]
    score = ["score", "precious.json", "precious.json"]
    for command in (
        ["evaluate", "trained", "--out", "precious.json"],
        ["evaluate", "trained", "--captions", "precious.json"],
        ["evaluate", "trained", "--report", "page"],
        [*baseline, "--out", "precious.json"],
        [*baseline, "--captions", "precious.json"],
        [*score, "--out", "precious.json"],
    ):
        assert f"{command[-2]} names a file that exists" in error_of(command, capsys)
    assert "mine" in own.read_text()
    assert "mine" in (folder / "page" / "index.html").read_text()
    assert "must name a file" in error_of([*score, "--out", "page"], capsys)
    assert "is a file" in error_of([*score, "--out", "precious.json/x.json"], capsys)
    for path in ("results.json", "report/index.html"):  # this program's own
        check_target("--out", folder / path)
    check_target("--out", own, overwrite=True)


def test_export_replaces_nothing_but_an_exported_captioner(trained, folder, capsys):
    (folder / "site").mkdir()
    (folder / "site" / "config.json").write_text("{}")
    for target in ("trained", "site", "site/config.json"):
        assert (
            f"Received: the file {target}"
            in (message := error_of(["export", "trained", target], capsys))
            or f"Received: {target}" in message
        )
    assert (folder / "site" / "config.json").read_text() == "{}"


def test_captioning_nothing_is_a_mistake(trained, capsys):
    assert "PHOTO" in error_of(["caption", "--model", "trained"], capsys)


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(FileNotFoundError, match="no-such-model"):
        cli.main(["evaluate", "no-such-model", "--debug"])


def test_error_sentences_name_options_and_paths():
    arguments = argparse.Namespace(allow_truncated=False, beam_size=3)
    error = ValueError("read them with `allow_truncated=True`, or lower `beam_size`, not `x=1`")
    expected = "read them with --allow-truncated, or lower --beam-size, not `x=1`"
    assert sentence(error, arguments) == expected
    assert sentence(OSError(2, "No such file or directory", "a.json")) == (
        "The path cannot be used (no such file or directory); check it and its permissions. "
        "Received: 'a.json'"
    )
    assert "KeyError" in sentence(KeyError("x"))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Soft only; train with attention='hard'.", "Soft only; train with --attention hard."),
        ("Received: splits='karpathy', x=3", "Received: --splits karpathy, x=3"),
        ("choose another `out`, or `overwrite=True`", "choose another --out, or --overwrite"),
        ("draw 2 or more (`attention_samples`)", "draw 2 or more (--attention-samples)"),
        ("Received: cnn='VGG61', mirror=False", "Received: --encoder VGG61, --no-mirror"),
        ("pass `weights=None`, not `layers`", "pass --encoder-weights none, not `layers`"),
        ("<urlopen error [Errno -2] Name not known>", "<urlopen error Name not known>"),
        (
            "Exception encountered when calling Search.call().\n\n\x1b[1mNo `beam_size`.\x1b[0m\n\n"
            "Arguments received by Search.call():\n  inputs={}",
            "No --beam-size.",
        ),
    ],
)
def test_errors_of_the_library_name_options(message, expected):
    arguments = program.make_parser().parse_args(train_command("x"))
    assert sentence(ValueError(message), arguments) == expected


def test_no_option_is_named_in_errors_of_the_library(repository):
    """Except as part of a command: they are raised in Python too."""
    for path in (repository / "sat_keras").rglob("*.py"):
        if "cli" in path.parts:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            named = re.search(r"(?<![-<\w])--[a-z][a-z-]+", line)
            assert not named or "`" in line or "nvidia-smi" in line or "--query" in line, line


# Options of the config


CHOICES = {name: options.choices_of(name) for name in options.FIELDS if options.choices_of(name)}
VALUES = {
    bool: st.booleans(),
    int: st.integers(1, 99),
    float: st.floats(0, 0.875).map(lambda x: round(x, 3)),
    str: st.from_regex("[A-Za-z][a-z0-9_]{0,9}", fullmatch=True).filter(lambda x: x != "none"),
    tuple[int, int]: st.tuples(st.integers(1, 20), st.integers(1, 20)),
}


def values_of(name, hint):
    """Possible values of a field of the config."""
    if name in CHOICES:
        return st.sampled_from(CHOICES[name])
    kinds = [kind for kind in typing.get_args(hint) if kind in VALUES]
    if type(None) in typing.get_args(hint):
        return st.none() | VALUES[kinds[0]]
    return VALUES[hint] if hint in VALUES else st.one_of([VALUES[kind] for kind in kinds])


HINTS = {
    name: hint for name, hint in typing.get_type_hints(Config).items() if name in options.FIELDS
}
PARSER = functools.cache(program.make_parser)  # for many command lines
CHANGES = st.fixed_dictionaries(
    {}, optional={name: values_of(name, hint) for name, hint in HINTS.items()}
)


def as_options(changes):
    for name, value in changes.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif isinstance(value, tuple):
            yield from (f"--{flag}", *map(str, value))
        else:
            yield from (f"--{flag}", "none" if value is None else str(value))


@settings(max_examples=30)
@given(changes=CHANGES)
def test_every_field_of_the_config_is_an_option(changes):
    command = ["train", "--dataset", "flickr8k", "--out", "x", *as_options(changes)]
    config = options.make_config(PARSER().parse_args(command))
    expected = dataclasses.asdict(Config.flickr8k()) | changes
    if changes.get("encoder", "VGG16") != "VGG16":  # another CNN: its own layer and picture size
        expected |= {"image_size": 64 if changes["encoder"] == "scenes" else 224} | changes
    if isinstance(changes.get("encoder_trainable"), str):
        expected |= {"group": "picture"} | changes
    assert dataclasses.asdict(config) == expected


@settings(max_examples=30)
@given(text=st.text(min_size=1))
def test_no_text_makes_a_number_option_fail_otherwise_than_by_a_sentence(text):
    command = ["train", "--dataset", "flickr8k", "--out", "x", f"--hidden-dim={text}"]
    try:
        config = options.make_config(PARSER().parse_args(command))
    except ValueError as error:
        assert "hidden" in str(error)  # noqa: PT017 - most texts are no number, some are
    else:
        assert config.hidden_dim == int(text)


def test_help_names_every_option_with_what_it_does_and_its_default(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "--help"])
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in HINTS:
        assert f"--{name.replace('_', '-')}" in text
    sizes = [f"{name} {getattr(Config, name)().hidden_dim}" for name in options.PRESETS]
    assert f"Size of the LSTM's hidden and cell state (default: {', '.join(sizes)})" in text


def test_train_help_begins_with_examples_and_ten_options(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    beginning = text.partition("other options:")[0]
    assert beginning.count("  sat-keras train --dataset") == 2
    assert len(re.findall(r"^  --[a-z-]+ ", beginning, re.MULTILINE)) == 10
    assert text.count("--epochs N") == 1


# Around it all


def test_help_needs_no_keras(repository):
    """It comes at once."""
    program = (
        "import sys; from sat_keras.cli.program import main\n"
        "try: main(['--help'])\n"
        "finally: assert {'keras', 'tensorflow', 'matplotlib'}.isdisjoint(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True
    )
    assert "train" in done.stdout
    assert done.stderr == ""


def test_a_reader_that_has_gone_is_no_error(repository):
    """As in `sat-keras score --help | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    program = (
        "import sys; from sat_keras.cli.program import main; sys.exit(main(['score', '--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_curves_that_cannot_be_drawn_are_a_warning(trained, folder, monkeypatch, capsys):
    """In a folder of its own, whose training is over."""
    (folder / "drawn").mkdir()
    (folder / "drawn" / "log.csv").write_bytes((trained / "log.csv").read_bytes())
    draw_curves(folder / "drawn")
    assert (folder / "drawn" / "curves.png").is_file()

    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("sat_keras.plots.style.save_figure", fail)
    draw_curves(folder / "drawn")
    assert capsys.readouterr().err == "sat-keras: warning: curves.png was not drawn (no fonts)\n"


def test_quiet_prints_results_only(hard, capsys):
    command = ["features", "--dataset", "scenes", "--preset", "tiny", "--limit", "2", "--quiet"]
    assert cli.main([*command, "--data-dir", "quiet-data", "--out", "quiet-cache"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert hard.startswith("Best of 1 epochs")


def test_every_long_phase_shows_its_progress_unless_quiet(trained, monkeypatch, capsys):
    for name in ("DELAY", "LINE_INTERVAL"):
        monkeypatch.setattr(f"sat_keras.backend.progress.{name}", 0.0)
    command = ["evaluate", "trained", "--occlusion", "2", "--out", "progress.json"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().err.splitlines()
    phases = {line.partition(":")[0] for line in lines}
    assert phases == {"Search", "Attention", "Occlusion", "Bootstrap"}  # METEOR is left out here
    assert all(line.endswith(" left") for line in lines)
    assert cli.main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_the_program_ends_with_the_commands_exit_code(repository):
    done = subprocess.run(
        [sys.executable, "-m", "sat_keras", "evalute"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "sat-keras: error: " in done.stderr
