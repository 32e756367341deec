"""METEOR against pycocoevalcap and recorded counts, SPICE with a fake program."""

import shutil
import sys

import numpy as np
import pytest

from sat_keras.backend import progress
from sat_keras.evaluation import java as java_metrics
from sat_keras.evaluation.java import meteor_of_sums, meteor_statistics, spice, unavailable

CANDIDATES = [
    "a dog runs on the beach",
    "the dog is running",
    "a group of kids plays with the ball",
    "two men",
    "zzqq",
]
REFERENCES = [
    ["a dog runs on the beach", "dogs"],
    ["a hound runs along the shore", "the brown dog was running quickly"],
    ["several children are playing football", "a ball is thrown by the group of children"],
    ["a man and another man stand outside", "men in two hats"],
    ["nothing of the kind", "not at all"],
]
# METEOR's counts for the first, the second and the last candidate.
COUNTS = [
    "6 6 3 3 3 3 3 3 0 0 0 0 0 0 0 0 0 0 0 0 1 6 6",
    "4 6 2 2 2 2 1 1 0 0 0 1 0 1 0 0 0 0 0 0 3 4 4",
    "1 4 0 2 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
]


def tokens_of(texts):
    return [text.split() for text in texts]


@pytest.fixture(scope="module")
def theirs():
    """pycocoevalcap's METEOR of the corpus and of each picture."""
    if unavailable("meteor"):
        pytest.skip(unavailable("meteor"))
    from pycocoevalcap.meteor.meteor import Meteor

    truths = dict(enumerate(REFERENCES))
    results = {i: [text] for i, text in enumerate(CANDIDATES)}
    corpus, each = Meteor().compute_score(truths, results)
    return 100 * corpus, 100 * np.array(each)


@pytest.mark.integration
def test_meteor_equals_the_toolkits(theirs):
    candidates = [*tokens_of(CANDIDATES), [], []]
    references = [*map(tokens_of, REFERENCES), [["a", "dog"], []], [[]]]
    statistics = meteor_statistics(candidates, references)
    corpus, each = theirs
    np.testing.assert_allclose(meteor_of_sums(statistics[:-2]), each, atol=1e-6)
    assert meteor_of_sums(statistics[:-2].sum(axis=0)) == pytest.approx(corpus, abs=1e-6)
    np.testing.assert_array_equal(meteor_of_sums(statistics[-2:]), 0)  # the empty ones
    assert 0 < meteor_of_sums(statistics.sum(axis=0)) < corpus


@pytest.fixture
def counted(monkeypatch):
    """Replaces METEOR's program by its recorded counts and returns the lines it receives."""
    asked = []

    def answer(lines):
        asked.extend(lines)
        return np.array([line.split() for line in COUNTS], dtype="float64")

    monkeypatch.setattr(java_metrics, "_run_meteor", answer)
    return asked


def test_meteor_by_hand(counted):
    candidates = [["a", "dog"], ["the", "dog"], []]
    references = [[["a", "dog"]], [["the", "dog"], [], ["dogs"]], [[]]]
    same, other, nothing = meteor_of_sums(meteor_statistics(candidates, references))
    assert counted == [
        "SCORE ||| a dog ||| a dog",
        "SCORE ||| the dog ||| dogs ||| the dog",
        "SCORE ||| . ||| ",
    ]
    assert same == pytest.approx(100)
    assert nothing == 0
    # 2 content words, 1 function word; of the reference 1 more by its stem and 1 by a synonym.
    matched = 0.75 * 2 + 0.25
    reference_matched = matched + 0.25 * 0.6 + 0.75 * 0.8
    precision, recall = matched / (0.75 * 2 + 0.25 * 2), reference_matched / (0.75 * 4 + 0.25 * 2)
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    assert other == pytest.approx(100 * mean * (1 - 0.6 * (3 / 4) ** 0.2))


def test_unavailable_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "Java is not installed" in unavailable("meteor")
    monkeypatch.setattr(java_metrics, "_toolkit", lambda: None)
    assert "pycocoevalcap is not installed" in unavailable("meteor")
    assert 'pip install "pycocoevalcap>=1.2"' in unavailable("spice")
    with pytest.raises(RuntimeError, match="pycocoevalcap is not installed.* Received: .*'meteor'"):
        meteor_statistics([["a"]], [[["a"]]])


@pytest.fixture
def java(monkeypatch, tmp_path):
    """Creates a toolkit with SPICE's files; returns a function that writes a fake `java`."""
    monkeypatch.setattr(java_metrics, "_toolkit", lambda: tmp_path)
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    for name in java_metrics._PARSER:
        (tmp_path / "spice" / "lib" / name).touch()

    def make(version, script=""):
        program = tmp_path / "java"
        program.write_text(
            f"#!{sys.executable}\nimport json, sys\nif '-version' in sys.argv:\n"
            f"    sys.exit(print('openjdk version \"{version}\"', file=sys.stderr))\n{script}"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return make


def test_spice_runs_where_its_files_are_and_downloads_nothing(java, tmp_path):
    java("11.0.2")
    assert unavailable("spice") is None
    parser = tmp_path / "spice" / "lib" / java_metrics._PARSER[1]
    parser.unlink()
    assert "384 MB" in unavailable("spice")
    assert str(parser.parent) in unavailable("spice")
    with pytest.raises(RuntimeError, match="384 MB.* Received: the metric 'spice'"):
        spice([["a"]], [[["a"]]])


@pytest.mark.parametrize("version", ["1.8.0_312", "14.0.2", "15", "17.0.15", "21-ea"])
def test_spice_needs_an_old_java(java, version):
    java(version)
    is_old = version in ("1.8.0_312", "14.0.2")
    assert (unavailable("spice") is None) == is_old
    assert is_old or f"and Java {version[:2]} is installed" in unavailable("spice")


# Reads the toolkit's input and writes SPICE's output, with the pictures in reverse order.
SPICE_PROGRAM = """
asked = json.load(open(sys.argv[4]))
f = {"a dog": 0.4, "a boy": None}
assert {p["test"]: p["refs"] for p in asked} == {"a dog": ["a dog", "dogs"], "a boy": ["a cat"]}
found = [{"image_id": p["image_id"], "scores": {"All": {"f": f[p["test"]]}}} for p in asked]
json.dump(found[::-1], open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


def test_spice_reads_what_the_program_writes(java, monkeypatch, tmp_path):
    toolkit = pytest.importorskip("pycocoevalcap.spice.spice")
    monkeypatch.setattr(toolkit, "get_stanford_models", lambda: None)
    monkeypatch.setattr(toolkit, "__file__", str(tmp_path / "spice" / "spice.py"))  # writes there
    java("1.8.0_312", SPICE_PROGRAM)
    candidates = [["a", "dog"], [], ["a", "boy"]]
    references = [[["a", "dog"], ["dogs"]], [["a"]], [["a", "cat"]]]
    np.testing.assert_allclose(spice(candidates, references), [40, 0, 0])
    np.testing.assert_array_equal(spice([[]], [[["a"]]]), [0])
    java("1.8.0_312", "sys.exit(1)")
    with pytest.raises(RuntimeError, match="SPICE failed; .* 8 GB .* Received: .*exit status 1"):
        spice(candidates, references)


def test_progress_counts_meteors_answers(monkeypatch, tmp_path, capsys):
    (tmp_path / "meteor").mkdir()
    program = tmp_path / "java"
    script = f"for line in sys.stdin:\n    print({COUNTS[0]!r}, flush=True)\n"
    program.write_text(f"#!{sys.executable}\nimport sys\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java_metrics, "_toolkit", lambda: tmp_path)
    for name in ("DELAY", "LINE_INTERVAL"):
        monkeypatch.setattr(progress, name, 0.0)
    with progress.show_progress():
        meteor_statistics([["a"]] * 3, [[["a"]]] * 3)
    assert "METEOR: 100 %, 3 of 3 pictures" in capsys.readouterr().err


def test_failure_of_the_program_is_reported(monkeypatch, tmp_path):
    (tmp_path / "meteor").mkdir()
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho out of memory >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java_metrics, "_toolkit", lambda: tmp_path)
    with pytest.raises(RuntimeError, match="METEOR failed; .* Received: out of memory"):
        meteor_statistics([["a"]], [[["a"]]])
