"""The benchmark of hard attention's variance: problem, measurements and committed results."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from tracing import functions_run_eagerly

from benchmarks import variance
from benchmarks.gradient_noise import gradient_samples
from sat_keras.data.tokenizer import END_ID, START_ID

RESULTS = Path(__file__).resolve().parents[1] / "results" / "hard-variance.json"


def test_words_are_the_colours_of_the_marked_regions():
    pictures = variance.problem(20)
    annotations, words = pictures["annotations"], pictures["targets"][:, 0]
    marks, colours = np.split(annotations, [variance.MARKS], axis=-1)
    np.testing.assert_array_equal(marks.sum(axis=1), 1)  # each mark once
    assert marks.sum(axis=-1).max() == 1  # in regions of their own
    np.testing.assert_array_equal(colours.sum(axis=-1), 1)
    named = np.einsum("prm,prc->pmc", marks, colours).argmax(-1)
    np.testing.assert_array_equal(words[:, :-1] - variance.FIRST_WORD, named)
    np.testing.assert_array_equal(words[:, -1], END_ID)
    np.testing.assert_array_equal(pictures["token_ids"][:, 0, 1:], words[:, :-1])
    np.testing.assert_array_equal(pictures["token_ids"][:, 0, 0], START_ID)
    assert len(np.unique(marks.argmax(axis=1))) == 9  # anywhere


def traced(*args, **kwargs):
    """Many steps of one model; the other models take too few to be worth it."""
    with functions_run_eagerly(False):
        return gradient_samples(*args, **kwargs)


@pytest.mark.integration
def test_measurements_can_be_drawn(monkeypatch):
    monkeypatch.setattr(variance, "SETTINGS", [(0.0, "average", 5)])
    monkeypatch.setattr(variance, "gradient_samples", traced)
    results = variance.measure(draws=3, halfway=1, steps=2, every=1, seeds=2)
    json.dumps(results)
    (found,), (curve,) = results["variances"], results["curves"]
    assert (found["mixing"], found["baseline"], found["samples"]) == (0.0, "average", 5)
    assert found["variance"] > 0
    losses = np.array(curve["losses"])
    assert losses.shape == (2, 3)
    assert (losses[0] != losses[1]).all()
    assert abs(losses[:, 0] - np.log(variance.CONFIG.vocabulary_size)).max() < 0.3
    figure = variance.draw_figure(results)
    _, labels = figure.axes[1].get_legend_handles_labels()
    assert labels == ["N = 5, with baseline"]
    (line,) = figure.axes[1].get_lines()
    np.testing.assert_allclose(line.get_ydata(), losses.mean(axis=0))
    plt.close(figure)


@pytest.fixture(scope="module")
def committed():
    """The committed variances by mixing, baseline and samples."""
    results = json.loads(RESULTS.read_text())
    assert results["command"] == "python -m benchmarks.variance"
    keys = ("mixing", "baseline", "samples")
    return {tuple(row[key] for key in keys): row["variance"] for row in results["variances"]}


def test_committed_variances_fall_with_samples_and_baseline(committed):
    assert set(committed) == set(variance.SETTINGS)
    for mixing in variance.MIXING:
        for baseline in variance.BASELINES:
            one, five, ten = (committed[mixing, baseline, n] for n in variance.SAMPLES)
            assert one > five > ten
            if not mixing:  # the coins, one a picture, are not tossed for each sample
                assert 5 * five == pytest.approx(one, rel=0.25)
                assert 10 * ten == pytest.approx(one, rel=0.25)
        for n in variance.SAMPLES:
            assert committed[mixing, "average", n] < committed[mixing, "none", n]
