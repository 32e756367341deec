"""What commands print beside their results: no log lines of libraries, and help at once."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from sat_keras.cli import compare, quiet
from sat_keras.cli.caption import _print_sentences
from sat_keras.cli.errors import printable, sentence
from sat_keras.evaluation import PROTOCOLS

LOG_LINES = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795898929.314823    3729 port.cc:153] oneDNN custom operations are on.",
    "E0000 00:00:1795899585.890130   11999 cuda_platform.cc:52] failed call to cuInit: INTERNAL",
)


def run(repository, folder, *words):
    """Runs a command in a process of its own, without the variables that the tests set."""
    hidden = ("TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES", "MPLBACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [sys.executable, "-m", "sat_keras", *words],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.integration
def test_a_caption_is_all_that_is_printed(repository, tmp_path):
    """TensorFlow is loaded, finds no GPU, and compiles."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.png")
    done = run(repository, tmp_path, "caption", "photo.png", "--model", "scenes-soft", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("photo.png: ")


@pytest.mark.integration
def test_words_are_counted_without_log_lines(repository, tmp_path):
    """tensorflow-text is loaded too."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("image,caption,split\na.png,A red square.,train\n")
    done = run(repository, tmp_path, "data", ".")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3, of them 3 different" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "--datset", "x"]])
def test_help_and_mistakes_import_nothing_heavy(repository, words):
    """They take 0.2 s; importing TensorFlow takes seconds."""
    program = (
        "import sys; from sat_keras.cli.program import main\n"
        f"try: main({words})\n"
        "except SystemExit: pass\n"
        "heavy = {'keras', 'tensorflow', 'matplotlib', 'pandas', 'numpy', 'PIL'}\n"
        "print(heavy & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_protocols_are_those_of_the_evaluation():
    assert compare.PROTOCOLS == PROTOCOLS


def test_only_log_lines_are_dropped(capfd):
    with quiet._without_log_lines():
        for line in (*LOG_LINES, "Illegal instruction", *LOG_LINES):
            os.write(2, f"{line}\n".encode())
    assert capfd.readouterr().err == "Illegal instruction\n"


def test_an_error_during_the_import_leaves_stderr_as_it_was(capfd):
    with contextlib.suppress(ImportError), quiet._without_log_lines():
        os.write(2, b"cause\n")
        raise ImportError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "cause\nafter\n"


# Clears the screen, sets the title, a link, bold as one character, a line break, no UTF-8.
HOSTILE = "a\x1b[2J\x1b]0;t\x07\x1b]8;;x\x1b\\\x9b1m\nphoto.jpg: a dog\udcff\x7f.jpg"


@pytest.mark.parametrize("sentences", [["a cat"], ["a cat", "a dog"]])
def test_the_name_of_a_file_cannot_steer_the_terminal(sentences, capsys):
    _print_sentences(HOSTILE, sentences)
    found = capsys.readouterr().out
    assert len(found.splitlines()) == (1 if len(sentences) == 1 else 3)
    assert all(line.isprintable() for line in found.splitlines())
    for error in (ValueError(f"Received: {HOSTILE}"), OSError(2, "No such file", HOSTILE)):
        assert sentence(error).isprintable()


def test_escaped_control_characters_are_those_of_json():
    assert json.loads(f'"{printable(HOSTILE[5:9])}"') == HOSTILE[5:9]
    assert printable("été 犬 🐕.jpg") == "été 犬 🐕.jpg"
