"""Comparisons of models with a known difference, and refusal of results of other pictures."""

import json

import numpy as np
import pytest

from sat_keras.cli import program as cli
from sat_keras.evaluation import PictureScores, compare_results, read_results

PICTURES = 200


def results(rouge_l, **others):
    """Returns results of a model with the given scores of each picture."""
    statistics = {
        name: np.reshape(v, (-1, 1)) for name, v in (("rouge_l", rouge_l), *others.items())
    }
    return {
        **{"dataset": "flickr8k", "split": "dev", "pictures": len(rouge_l), "references": "0123"},
        "scores": PictureScores(statistics).scores(),
        "picture_scores": PictureScores(statistics).encode(),
    }


@pytest.fixture
def drawn():
    """Scores of pictures with a large variance, and the generator."""
    generator = np.random.default_rng(0)
    return generator.normal(40, 20, PICTURES), generator


def test_a_small_difference_on_every_picture_is_real(drawn):
    scores, generator = drawn
    better = scores + 1 + generator.normal(0, 2, PICTURES)
    found = compare_results([results(scores)], [results(better)])["rouge_l"]
    assert found.first == pytest.approx(scores.mean(), rel=1e-5)
    assert found.second == pytest.approx(better.mean(), rel=1e-5)
    assert found.difference == pytest.approx((better - scores).mean(), rel=1e-4)
    error = (better - scores).std() / np.sqrt(PICTURES)
    assert found.low == pytest.approx(found.difference - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.difference + 1.96 * error, abs=0.1 * error)
    assert found.p_value < 0.001
    assert found.first_spread is None
    # By themselves, the intervals of both overlap widely.
    low, _ = PictureScores({"rouge_l": better[:, None]}).intervals()["coco"]["rouge_l"]
    assert low < scores.mean()


def test_the_same_difference_on_a_few_pictures_is_not(drawn):
    scores, generator = drawn
    other = scores + generator.normal(0, 20, PICTURES)
    other += scores.mean() + 1 - other.mean()
    found = compare_results([results(scores)], [results(other)])["rouge_l"]
    assert found.difference == pytest.approx(1, abs=1e-3)
    assert found.low < 0 < found.high
    assert found.p_value > 0.1


def test_chance_gives_small_p_values_as_often_as_they_say():
    generator = np.random.default_rng(1)
    p_values = []
    for _ in range(200):
        scores = generator.normal(size=(2, 60))
        sides = [[results(side)] for side in scores]
        p_values.append(compare_results(*sides, samples=400)["rouge_l"].p_value)
    assert np.mean(np.array(p_values) < 0.2) == pytest.approx(0.2, abs=0.07)


def test_of_seeds_the_mean_counts(drawn):
    scores, _ = drawn
    seeds = [results(scores + shift) for shift in (-1, 0, 4)]
    found = compare_results([results(scores)], seeds)["rouge_l"]
    assert found.difference == pytest.approx(1, abs=1e-4)
    assert found.second_spread == pytest.approx(np.std([-1, 0, 4], ddof=1), rel=1e-4)
    assert found.low == pytest.approx(found.high, abs=1e-3)  # the same on every picture


def test_only_scores_that_all_have_are_compared(drawn):
    scores, _ = drawn
    found = compare_results([results(scores, cider=scores)], [results(scores)])
    assert list(found) == ["rouge_l"]
    assert found["rouge_l"].p_value == 1
    with pytest.raises(ValueError, match="must be one of .* Received: protocol=.bleu."):
        compare_results([results(scores)], [results(scores)], "bleu")


def test_the_command_says_what_its_figures_are(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scores, _ = drawn
    (tmp_path / "a.json").write_text(json.dumps(results(scores, cider=scores, spice=scores)))
    (tmp_path / "b.json").write_text(json.dumps(results(scores)))
    assert cli.main(["compare", "a.json,a.json", "b.json"]) == 0
    output = capsys.readouterr().out
    assert output.endswith("Not compared, as not all results have them: cider, spice.\n")
    assert "±: standard deviation over a model's seeds" in output
    assert cli.main(["compare", "a.json", "a.json"]) == 0
    output = capsys.readouterr().out
    assert "Not compared" not in output
    assert "±" not in output  # one seed has no spread


@pytest.mark.parametrize(
    ("change", "received"),
    [
        ({"split": "test"}, "split dev in the first results, test in b.json"),
        ({"dataset": "scenes"}, "data set flickr8k in the first results, scenes in b.json"),
        ({"references": "4567"}, "references 0123 in the first results, 4567 in b.json"),
    ],
)
def test_results_of_other_pictures_are_refused(drawn, change, received):
    scores, _ = drawn
    with pytest.raises(ValueError, match=f"same pictures.* Received: {received}"):
        compare_results([results(scores)], [results(scores) | change | {"file": "b.json"}])


def test_other_numbers_of_pictures_are_refused(drawn):
    scores, _ = drawn
    with pytest.raises(ValueError, match="number of pictures 200 in the first results, 150 in"):
        compare_results([results(scores)], [results(scores[:150])])


def test_files_are_read(drawn, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results(drawn[0])))
    assert read_results(path) == results(drawn[0]) | {"file": str(path)}


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"", "must be a JSON file. Received: "),
        (b"\xff\xfe", "UTF-8. Received: "),
        (b"[1]", "without 'scores'"),
        (b'{"scores": {}, "references": ""}', "without 'picture_scores'"),
    ],
)
def test_other_files_are_refused(content, received, tmp_path):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"other.json .*{received}"):
        read_results(path)
