"""`sat-keras table1` on two scenes, and the commands that it would run on Flickr8k."""

import json

import pytest

from sat_keras import cli
from sat_keras.baselines import reranking
from sat_keras.baselines.systems import SYSTEMS
from sat_keras.cli import table1, train
from sat_keras.cli.program import make_parser

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("table1")


@pytest.fixture(scope="module", autouse=True)
def quick(folder, no_java):
    """Runs in the folder, without curves; models that have learned little end no sentence."""
    short = {"scenes": (*table1.TRAINING["scenes"], "--max-length", "3")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(table1, "TRAINING", table1.TRAINING | short)
        patch.setattr("sat_keras.cli.train.draw_curves", lambda folder: None)
        yield


def make(*options):
    command = ["table1", "--dataset", "scenes", "--limit", "2", "--epochs", "1"]
    return cli.main([*command, "--folder", "rows", "--out", "table.json", *options, "--debug"])


@pytest.fixture(scope="module")
def made(folder, quick):
    """The table of soft attention and init-inject."""
    assert make("--only", "init-inject") == 0
    return json.loads((folder / "table.json").read_text())


def test_rows_have_scores_cost_and_the_difference_to_soft_attention(made):
    assert list(made["rows"]) == ["init-inject", "soft"]
    assert (made["dataset"], made["split"], made["pictures"]) == ("scenes", "test", 2)
    row, soft = made["rows"]["init-inject"], made["rows"]["soft"]
    assert row["training_seconds"] > 0
    assert 0 < row["parameters"] < soft["parameters"]
    for protocol in ("coco", "paper"):
        assert set(row["intervals"][protocol]) == set(row["scores"][protocol])
        difference = row["against_soft"][protocol]["cider"]["difference"]
        ciders = [x["scores"][protocol]["cider"] for x in (row, soft)]
        assert difference == pytest.approx(ciders[0] - ciders[1], abs=1e-5)
    assert "against_soft" not in soft
    first, second = row["command"].split(" && ")
    assert "train --system init-inject" in first
    assert "evaluate rows/init-inject" in second


def test_a_second_call_makes_what_is_missing(made, folder, monkeypatch, capsys):
    (folder / "rows" / "init-inject" / "results-test.json").unlink()  # as after a kill
    commands = []
    run = table1._run
    monkeypatch.setattr(table1, "_run", lambda words: (commands.append(words[:2]), run(words)))
    assert make("--only", "init-inject", "--only", "embedding") == 0
    assert [words[0] for words in commands] == ["baseline", "train", "evaluate"]
    assert "is finished" in capsys.readouterr().out  # not trained again
    rows = json.loads((folder / "table.json").read_text())["rows"]
    assert list(rows) == ["embedding", "init-inject", "soft"]
    assert rows["init-inject"]["scores"] == made["rows"]["init-inject"]["scores"]
    assert rows["embedding"]["parameters"] > 0

    commands.clear()
    assert make("--only", "embedding") == 0
    assert commands == []


def test_templates_need_detectors(folder, capsys):
    command = ["baseline", "templates", "--dataset", "scenes", "--preset", "tiny", "--limit", "3"]
    assert cli.main(command) == 2
    assert "--detectors" in capsys.readouterr().err


@pytest.fixture(scope="module")
def of_detectors(folder, quick):
    """The rows that read word detectors."""
    command = ["table1", "--dataset", "scenes", "--limit", "2", "--epochs", "1"]
    for name in ("templates", "maximum-entropy", "reranked"):
        command += ["--only", name]
    assert cli.main([*command, "--folder", "others", "--out", "others.json"]) == 0
    return json.loads((folder / "others.json").read_text())["rows"]


def test_templates_and_reranked_sentences_are_those_of_a_trained_captioner(folder, of_detectors):
    for name in ("templates", "reranked"):
        assert of_detectors[name]["parameters"] > 0
        assert of_detectors[name]["training_seconds"] > 0
    settings = json.loads((folder / "others/reranked/results-test.json").read_text())["config"]
    assert list(settings["weights"]) == list(reranking.FEATURES)
    assert settings["tuning_pictures"] == 2


def test_word_detectors_point_at_the_words_that_attention_points_at(of_detectors):
    maps = of_detectors["maximum-entropy"]["word_maps"]
    assert list(maps) == ["detectors", "scenes-soft", "scenes-hard"]
    assert len({each["words"] for each in maps.values()}) == 1
    soft, detectors = maps["scenes-soft"], maps["detectors"]
    difference = soft["attention_mass"] - detectors["attention_mass"]
    assert soft["difference"]["attention_mass"] == pytest.approx(difference)


def test_pointing_needs_word_detectors(made, folder, capsys):
    command = ["evaluate", "rows/init-inject", "--pointing", "scenes-soft", "--out", "x.json"]
    assert cli.main([*command, "--occlusion", "0"]) == 2
    assert "maximum-entropy. Received: rows/init-inject" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", table1.PRETRAINED)
def test_every_row_is_made_by_commands_that_exist(dataset, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(table1, "_run", commands.append)
    arguments = make_parser().parse_args(
        ["table1", "--dataset", dataset, "--encoder-weights", "vgg16.h5", "--data-dir", "d"]
    )
    for name in table1.ROWS:
        table1.Commands(arguments, tmp_path).make(name, tmp_path / "results.json")
    seen = set()
    for command in commands:
        parsed = make_parser().parse_args([str(word) for word in command])
        assert (parsed.dataset, parsed.data_dir) == (dataset, "d")
        if parsed.run is train.run:
            seen.add(parsed.system)
            assert parsed.encoder_weights == "vgg16.h5"
    assert seen == set(SYSTEMS) - {"show-attend-tell"}
    searches = [words for words in commands if words[0] == "evaluate"]
    assert len({tuple(words[words.index("--beam-size") :][:4]) for words in searches}) == 1
