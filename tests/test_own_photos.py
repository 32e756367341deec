"""A folder of one's own photos, from the check to the captions: the commands of the docs' page."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sat_keras import Captioner, Config, Tokenizer, cli, load_dataset, load_pretrained
from sat_keras.cli import options, program
from sat_keras.training import make_encoder, save_pretrained

PRETRAINED = "flickr8k-soft-vgg16"
COLOURS = ("red", "lime", "blue", "white")


pytestmark = [
    pytest.mark.integration,
    # Where the captions file names no splits, which warns.
    pytest.mark.filterwarnings("ignore:.* names no splits:UserWarning"),
]


@pytest.fixture(autouse=True)
def no_curves(no_java, monkeypatch):
    monkeypatch.setattr("sat_keras.cli.train.draw_curves", lambda folder: None)


def draw_photos(folder, number=20, splits=None):
    """Draws photos of one colour each and writes two captions for each."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(number):
        colour = COLOURS[i % len(COLOURS)]
        Image.new("RGB", (20 + i, 16), colour).save(folder / f"{i:02}.jpg")
        for text in (f"A {colour} zeppelin.", f"There is a {colour} wall."):
            rows.append((f"{i:02}.jpg", text, *([splits[i]] if splits else [])))
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption", *(["split"] if splits else [])), *rows])
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20), "red").save("new_photo.jpg")
    return draw_photos(tmp_path / "my_photos")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A captioner of tiny sizes, whose frozen CNN is in its file."""
    encoder = make_encoder(Config.tiny(), None)
    config = Config.tiny().replace(
        grid_shape=encoder.grid_shape, feature_dim=encoder.feature_dim, max_length=3, beam_size=2
    )
    captioner = Captioner(config, Tokenizer.from_captions(["a red wall there is"]), encoder)
    folder = tmp_path_factory.mktemp("tiny") / "start"
    return save_pretrained(captioner, folder, encoder_weights=None)


def commands_of_the_page(repository):
    """All commands, also those within sentences, in order."""
    text = (repository / "docs" / "own-photos.md").read_text(encoding="utf-8")
    lines = re.findall(r"^sat-keras .*|`sat-keras export [^`]*`", text, re.MULTILINE)
    assert len(lines) == 7
    return [line.strip("`") for line in lines]


def run(line, **changes):
    """Runs a command of the page with a name in it replaced and options added."""
    words = shlex.split(line)[1:]
    extra = changes.pop(words[0], ())
    words = [changes.get(word.replace("-", "_"), word) for word in words]
    return cli.main([*words, *extra])


def test_the_pages_commands_train_a_captioner(photos, tiny, repository, capsys):
    changes = {
        "flickr8k_soft_vgg16": str(tiny),
        "train": ("--epochs", "1"),
        "evaluate": ("--occlusion", "0"),
    }
    for line in commands_of_the_page(repository):
        assert run(line, **dict(changes)) == 0, line
    output = capsys.readouterr()
    assert "names no splits, so the pictures are divided at random (seed 0): 16 train" in output.err
    assert "pictures  20 (16 train, 2 dev, 2 test)" in output.out
    assert "zeppelin" in output.out.partition("sizes")[0]  # a new word
    assert "new_photo.jpg: " in output.out
    assert json.loads(Path("outputs/mine/results-test.json").read_text())["dataset"] == "my_photos"
    mine, start = load_pretrained("outputs/mine"), load_pretrained(tiny)
    old = start.tokenizer.get_vocabulary()
    words = mine.tokenizer.get_vocabulary()
    assert words[: len(old)] == old
    assert set(words[len(old) :]) >= {"zeppelin", "blue"}
    for x, y in zip(mine.encoder.get_weights(), start.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)  # the start's CNN is used, though it is frozen


def test_the_pages_commands_train_the_committed_captioner(photos, shared, repository, capsys):
    weights = str(shared / "weights" / "vgg16_imagenet_notop_fp16.weights.h5")
    train = next(x for x in commands_of_the_page(repository) if x.startswith("sat-keras train"))
    short = ("--encoder-weights", weights, "--epochs", "1", "--no-mirror", "--limit", "1")
    short += ("--beam-size", "1", "--max-length", "3")
    assert run(train, train=short) == 0
    words = load_pretrained("outputs/mine", encoder=False).tokenizer.get_vocabulary()
    old = load_pretrained(PRETRAINED, encoder=False).tokenizer.get_vocabulary()
    assert words == [*old, "zeppelin"] or set(words[len(old) :]) <= {"zeppelin", "lime"}
    assert run("sat-keras caption new_photo.jpg --model outputs/mine") == 0
    assert "new_photo.jpg: " in capsys.readouterr().out


def test_a_kept_vocabulary_has_no_new_words(photos, tiny):
    command = f"sat-keras train --dataset my_photos --start {tiny} --out kept --vocabulary keep"
    assert run(command, train=("--epochs", "1", "--limit", "3", "--quiet")) == 0
    words = load_pretrained("kept").tokenizer.get_vocabulary()
    assert words == load_pretrained(tiny).tokenizer.get_vocabulary()


def test_a_vocabulary_without_a_start_is_a_mistake(photos, capsys):
    assert run("sat-keras train --dataset my_photos --out x --vocabulary keep") == 2
    assert "--start MODEL" in capsys.readouterr().err


def test_a_folder_takes_the_models_fields_of_its_start(photos):
    words = ["train", "--dataset", "my_photos", "--out", "x", "--epochs", "7"]
    arguments = program.make_parser().parse_args(words)
    start = Config.tiny().replace(epochs=99, min_count=5)
    config = options.make_config(arguments, start)
    assert (config.hidden_dim, config.encoder) == (start.hidden_dim, start.encoder)
    assert (config.epochs, config.min_count) == (7, 1)
    assert config.learning_rate == Config.finetune().learning_rate
    assert options.make_config(arguments).hidden_dim == Config.flickr8k().hidden_dim


@pytest.mark.parametrize("preset", [[], ["--preset", "self_critical"]])
def test_every_data_set_keeps_the_structure_of_its_start(preset):
    start = Config.flickr8k().replace(
        use_word_query=True, hidden_dim=24, encoder_layer="block5_conv2"
    )
    start = start.replace(dropout=0.9, attention="hard", penalty_weight=7.0, full_stop=False)

    def config(*more):
        words = ["train", "--dataset", "flickr8k", "--out", "x", *preset, *more]
        return options.make_config(program.make_parser().parse_args(words), start)

    kept = config()
    for name in (*Config.STRUCTURE, "full_stop"):
        assert getattr(kept, name) == getattr(start, name), name
    expected = Config.self_critical() if preset else Config.flickr8k()
    for name in ("dropout", "attention", "penalty_weight", "learning_rate"):
        assert getattr(kept, name) == getattr(expected, name), name
    assert not config("--no-use-word-query").use_word_query
    assert config("--encoder", "VGG19").encoder_layer is None


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "txt", "karpathy", "coco"])
def test_features_are_computed_of_every_form(form, photos):
    splits = ["train"] * 2 + ["dev", "test"]
    draw_photos(photos.parent / "own", 4, splits)
    table = pd.read_csv("own/captions.csv")
    (photos.parent / "own" / "captions.csv").unlink()
    write_captions(photos.parent / "own", table, form)
    command = ["features", "--dataset", "own", "--preset", "tiny", "--quiet", "--split", "train"]
    assert cli.main(command) == 0
    names = {"txt", "coco"}  # which name no splits: at random
    expected = load_dataset("own", only="train")["image_id"].nunique()
    assert expected == 2 or form in names
    assert len(list((photos.parent / "outputs/features/own").rglob("*.f16"))) == expected


def write_captions(folder, table, form):
    if form in ("csv", "tsv"):
        table.to_csv(folder / f"captions.{form}", sep={"csv": ",", "tsv": "\t"}[form], index=False)
    elif form == "jsonl":
        table.to_json(folder / "captions.jsonl", orient="records", lines=True)
    elif form == "txt":
        lines = [f"{row.image}\t{row.caption}" for row in table.itertuples()]
        (folder / "captions.txt").write_text("\n".join(lines))
    elif form == "karpathy":
        images = [
            {
                "filename": image,
                "split": part["split"].iloc[0].replace("dev", "val"),
                "sentences": [{"raw": text} for text in part["caption"]],
            }
            for image, part in table.groupby("image")
        ]
        (folder / "dataset_own.json").write_text(json.dumps({"images": images}))
    else:
        names = list(table["image"].unique())
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [
                {"image_id": names.index(row.image), "caption": row.caption}
                for row in table.itertuples()
            ],
        }
        (folder / "annotations.json").write_text(json.dumps(content))


def test_data_lists_broken_pictures_and_fails(photos, capsys):
    (photos / "03.jpg").write_bytes(b"\xff\xd8 no picture")
    assert cli.main(["data", "my_photos"]) == 1
    output = capsys.readouterr().out
    assert "broken    1 pictures" in output
    assert "03.jpg" in output
    assert cli.main(["data", "my_photos", "--json", "--model", PRETRAINED]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == {"train": 16, "dev": 2, "test": 2}
    assert list(found["broken"]) == ["my_photos/03.jpg"]
    assert found["new_words"]["zeppelin"] == 20


def test_data_names_photos_without_a_caption(photos, capsys):
    Image.new("RGB", (9, 9)).save(photos / "forgotten.png")
    assert cli.main(["data", "my_photos"]) == 0
    assert "unused    1 pictures without a caption" in (output := capsys.readouterr().out)
    assert "my_photos/forgotten.png" in output


def test_splits_of_a_folder_are_in_its_captions_file(photos, capsys):
    assert run("sat-keras train --dataset my_photos --out x --splits karpathy") == 2
    assert "leave the argument out. Received: --splits karpathy" in capsys.readouterr().err


def test_a_folder_with_the_name_of_a_data_set_can_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_photos(tmp_path / "scenes", 3)
    assert options.dataset("scenes") == "scenes"
    assert options.dataset("./scenes") == options.dataset("scenes/") == "./scenes"
    assert len(load_dataset("./scenes")) == 6


def test_a_folder_without_a_dev_split_is_an_error(photos, capsys):
    draw_photos(photos.parent / "two", 2)
    assert run("sat-keras train --dataset two --out x --preset tiny") == 2
    assert "no dev pictures; name their split" in capsys.readouterr().err
