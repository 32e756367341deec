"""Small inputs after public bug reports, in `cases/` of the shared folder: each comes out right.

A case has a README with what is right. Scripts of it that name modules of version 0.1.0 get the new
names.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sat_keras import cli
from sat_keras.evaluation import available_metrics, ptb_tokenize, score_captions

pytestmark = pytest.mark.usefixtures("no_java")

RENAMED = {"sat_keras.visualization": "sat_keras.plots", "sat_keras.ptb": "sat_keras.evaluation"}


@pytest.fixture
def case(shared, tmp_path, monkeypatch):
    """Copies a case to a folder that may be written to, and works there."""

    def enter(name):
        source = shared / "cases" / name
        if not source.is_dir():
            pytest.skip(f"needs the case {name} in the shared folder")
        shutil.copytree(source, tmp_path / name, copy_function=shutil.copyfile)
        for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        for script in (tmp_path / name).glob("*.py"):
            text = script.read_text(encoding="utf-8")
            for old, new in RENAMED.items():
                text = text.replace(old, new)
            script.write_text(text, encoding="utf-8")
        monkeypatch.chdir(tmp_path / name)

    return enter


def scores_of(capsys, *files):
    assert cli.main(["score", *files, "--out", "scores.json"]) == 0
    capsys.readouterr()
    return json.loads(Path("scores.json").read_text())["scores"]["coco"]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_01_kaggles_flickr8k_is_read_with_a_split_of_its_own(case, split, capsys):
    case("01-kaggle-flickr8k")
    command = ["baseline", "random", "--dataset", "flickr8k", "--data-dir", "data"]
    assert cli.main([*command, "--split", split, "--out", "o.json"]) == 0
    assert json.loads(Path("o.json").read_text())["pictures"] == 1
    assert "divided" in capsys.readouterr().err  # and says so


def test_10_words_of_hindi_stay_whole(case, capsys):
    case("10-hindi-captions-shredded")
    found = scores_of(capsys, "captions.json", "references.json")
    assert found["bleu1"] == pytest.approx(28.6, abs=0.05)  # the toolkit's
    for entry in json.loads(Path("captions.json").read_text(encoding="utf-8")):
        assert ptb_tokenize(entry["caption"]) == entry["caption"].split()


def test_10_words_of_hindi_are_the_toolkits(case, capsys):
    case("10-hindi-captions-shredded")
    pytest.importorskip("pycocoevalcap")
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    runpy.run_path("compare.py")
    said = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines()[-4:][:2])
    product = [float(x) for x in re.findall(r": ([\d.]+)", said["product"])]
    toolkit = [float(x) for x in re.findall(r"(\d+\.\d+)", said["toolkit"])]
    assert product[:4] == pytest.approx(toolkit[:4], abs=0.011)


def test_12_int8_keeps_the_captions(case, capsys):
    case("12-int8-quantize")
    runpy.run_path("run.py")
    float32, int8 = capsys.readouterr().out.strip().splitlines()
    captions = [re.findall(r"\('([^']*)'", line) for line in (float32, int8)]
    assert captions[0] == captions[1] != []
    ranges = [
        [float(x) for x in re.search(r"logits (\S+) to (\S+)", line).groups()]
        for line in (float32, int8)
    ]
    np.testing.assert_allclose(ranges[0], ranges[1], atol=0.03)


def test_13_a_model_without_an_encoder_needs_a_signature(case):
    """Without an encoder there are no pixels to take; tests/test_export.py has the rest."""
    case("13-export-without-signature")
    with pytest.raises(ValueError, match="input_signature"):
        runpy.run_path("run.py")


@pytest.mark.integration
def test_14_float64_captions(case, repository):
    """In a process of its own: the float type is Keras's for the whole process."""
    case("14-float64")
    done = subprocess.run(
        [sys.executable, "run.py"],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Caption(" in done.stdout


@pytest.mark.parametrize(
    ("name", "files", "candidates", "references"),
    [
        (
            "15-clipscore-dict-candidates",
            ("captions.json", "references.json"),
            {"p1": "a cat on a mat", "p2": "a boat near the shore"},
            {"p1": ["a cat lies on a mat"], "p2": ["a small boat is near the shore"]},
        ),
        (
            "17-text-line-files",
            ("hyp.txt", "ref1.txt"),
            {1: "a cat on a mat", 2: "a boat near the shore"},
            {1: ["a cat lies on a mat"], 2: ["a small boat is near the shore"]},
        ),
    ],
)
def test_files_that_people_score_are_read(case, capsys, name, files, candidates, references):
    case(name)
    assert scores_of(capsys, *files) == pytest.approx(
        score_captions(candidates, references)["coco"]
    )


def test_16_karpathys_file_gives_the_references_of_its_test_split(case, capsys):
    case("16-karpathy-as-references")
    images = json.loads(Path("dataset_x.json").read_text())["images"]
    truth = [x["raw"] for x in next(i for i in images if i["split"] == "test")["sentences"]]
    found = scores_of(capsys, "captions.json", "dataset_x.json")
    assert found == pytest.approx(score_captions({1: "a cat on a mat"}, {1: truth})["coco"])


def test_19_pictures_are_upright_whatever_matplotlibrc_says(case):
    case("19-image-origin-lower")
    import matplotlib

    with matplotlib.rc_context():
        runpy.run_path("run.py")
    with Image.open("origin.png") as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    photo = np.flatnonzero((pixels.min(axis=-1) > 250).any(axis=1))
    first_row = np.flatnonzero(red.any(axis=1)).min()
    left = np.flatnonzero(red[first_row])[0]
    below = pixels[first_row:, left]
    is_red = (below[:, 0] > 150) & (below[:, 1] < 60)
    height = int(is_red.sum())
    assert is_red[:height].all()  # a band, and white below it
    assert (below[height + 1 : 3 * height] > 200).all()
    assert len(photo) > 0


def test_metrics_without_java_are_those_of_the_cases():
    assert available_metrics()[0] == ("bleu", "rouge_l", "cider")
