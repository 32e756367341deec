"""Progress of long phases: silent by default, a bar on a terminal, lines in a pipe."""

import sys

import pytest

from sat_keras.backend import progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)


def run(total=4):
    with progress.track(total, "Occlusion") as bar:
        for _ in range(total):
            bar.update(1)


def test_the_library_is_silent(capsys):
    run()
    with progress.show_progress(), progress.show_progress(False):
        run()
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_whole_lines_on_stderr(capsys):
    with progress.show_progress():
        run()
    output = capsys.readouterr()
    assert output.out == ""
    assert "\r" not in output.err
    lines = output.err.splitlines()
    assert lines[-1].startswith("Occlusion: 100 %, 4 of 4 pictures")
    assert all(line.endswith(" left") for line in lines)


def test_a_pipe_gets_a_line_every_few_seconds_only(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 60.0)
    with progress.show_progress():
        run(1000)
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_a_terminal_gets_a_bar_that_is_removed(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.show_progress():
        run()
    output = capsys.readouterr()
    assert output.out == ""
    assert "|" in output.err
    assert output.err.endswith("\r")


def test_a_short_phase_shows_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 60.0)
    with progress.show_progress():
        run()
    assert capsys.readouterr().err == ""


def test_a_training_shows_the_search_of_its_dev_pictures(capsys):
    from sat_keras.training.callbacks import DevScores

    class Search:
        def predict(self, images, verbose, callbacks):
            for batch in range(2):  # of about 33 pictures
                callbacks[0].on_predict_batch_end(batch)
            return {}

    class Model:
        def read(self, found):
            return [Caption()] * 65

    class Caption:
        text = "a dog"

    scores = DevScores([None] * 2, {str(i): ["a dog runs"] for i in range(65)})
    scores.search = Search()
    scores.set_model(Model())
    with progress.show_progress():
        scores.on_epoch_end(0, {})
    shown = capsys.readouterr().err
    assert "Search of dev pictures: 51 %, 33 of 65 pictures" in shown
    assert "65 of 65" in shown
