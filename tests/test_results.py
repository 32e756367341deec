"""The tables of results show what the results files say; a command wrote those."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from sat_keras.evaluation.statistics import PictureScores, interval, resample

REPOSITORY = Path(__file__).resolve().parents[1]
KEYS = (
    "dataset",
    "split",
    "encoder",
    "attention",
    "beam",
    "seed",
    "command",
    "config",
    "seconds",
    "hardware",
    "scores",
)

spec = importlib.util.spec_from_file_location("tables", REPOSITORY / "docs" / "results_table.py")
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)
EVERYTHING = tables.read_results()
RESULTS = {name: found for name, found in EVERYTHING.items() if tables.is_evaluation(found)}


@pytest.fixture(params=RESULTS)
def name(request):
    return request.param


@pytest.fixture
def results(name):
    return RESULTS[name]


def test_results_say_how_they_came_about(results):
    assert not [key for key in KEYS if key not in results]
    assert results["command"].startswith("sat-keras ")


def test_scores_are_within_their_intervals(results):
    assert "bleu4" in results["scores"]["coco"]
    for protocol, scores in results["scores"].items():
        if "bleu4" in scores:  # older results have none by the authors' protocol
            assert 0 < scores["bleu4"] < scores["bleu1"] < 100
        assert {"meteor", "rouge_l", "cider"} <= set(scores) == set(results["intervals"][protocol])
        for name, (low, high) in results["intervals"][protocol].items():
            assert 0 <= low < scores[name] < high


@pytest.fixture(scope="module")
def intervals():
    """The intervals of every file's scores, `{file: {score: ends}}`, as `intervals` computes them.

    Files of equally many pictures share their draws, which take longer than the scores.
    """
    found = {}
    statistics = {name: PictureScores.decode(x["picture_scores"]) for name, x in RESULTS.items()}
    for number in {pictures.pictures for pictures in statistics.values()}:
        group = [name for name, pictures in statistics.items() if pictures.pictures == number]
        draws = resample(
            lambda weights, group=group: np.concatenate(
                [statistics[name].array(weights, ["coco"]) for name in group], axis=-1
            ),
            number,
        )
        ends = iter(interval(draws).T.tolist())
        for name in group:
            found[name] = {key: next(ends) for _, key in statistics[name].keys(["coco"])}
        assert not list(ends)
    name = min(found)
    for key, ends in statistics[name].intervals(["coco"])["coco"].items():
        assert found[name][key] == pytest.approx(ends)
    return found


@pytest.mark.integration
def test_scores_and_intervals_are_those_of_the_pictures(name, results, intervals):
    """The statistics that comparisons use say the same."""
    pictures = PictureScores.decode(results["picture_scores"])
    assert pictures.pictures == results["pictures"]
    for protocol, scores in pictures.scores().items():
        assert results["scores"][protocol] == pytest.approx(scores, abs=1e-4)
    for key, ends in intervals[name].items():
        assert results["intervals"]["coco"][key] == pytest.approx(ends, abs=1e-3)


def test_results_are_small(results):
    assert len(results["picture_scores"]) < 100_000


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda path: path.parent.name)
def test_tables_are_those_of_the_files(page):
    assert page.read_text(encoding="utf-8") == tables.with_tables(page)


def test_all_results_are_shown():
    text = tables.PAGES[1].read_text(encoding="utf-8")
    shown = re.findall(r"^\| \[([^\]]*)\]\(.*\.json\) \|", text, re.MULTILINE)
    assert set(shown) == set(RESULTS)
    first_page = tables.PAGES[0].read_text(encoding="utf-8")
    assert f"{RESULTS['flickr8k-soft-vgg16-test']['scores']['coco']['bleu4']:.1f}" in first_page


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_test_and_dev_scores_are_of_the_same_model(kind):
    dev, test = (RESULTS[f"flickr8k-{kind}-vgg16{end}"] for end in ("", "-test"))
    assert (dev["split"], test["split"]) == ("dev", "test")
    for key in ("config", "beam", "length_penalty", "context", "seed"):
        assert dev[key] == test[key]
    assert dev["training"]["best"] == test["training"]["best"]


def test_metrics_agree_with_people_as_published():
    found = EVERYTHING["human-agreement"]
    assert " agreement " in found["command"] or "human_agreement" in found["command"]
    assert found["expert"]["judgements"] == 16_992
    assert found["crowd"]["judgements"] == 47_830
    for judges, tolerance in (("expert", 0.1), ("crowd", 0.5)):
        for name, published in found[judges]["published"].items():
            assert found[judges]["tau"][name] == pytest.approx(published, abs=tolerance)


def test_a_cell_has_the_score_and_its_interval():
    made = {
        "split": "dev",
        "scores": {"coco": {"bleu4": 20.61, "cider": 0.5076}},
        "intervals": {"coco": {"bleu4": [19.5, 21.66], "cider": [0.48, 0.54]}},
    }
    *_, row = tables.table({"x": made}, "results/").splitlines()
    assert row == (
        "| [x](results/x.json) | dev | 20.6<br><sub>19.5–21.7</sub> | "
        "0.508<br><sub>0.480–0.540</sub> |"
    )


def test_summary_has_one_row_a_model_and_the_best_system_without_attention():
    def scores(bleu4, cider=0.5, by_paper=None):
        return {"scores": {"coco": {"bleu4": bleu4, "cider": cider}, "paper": by_paper or {}}}

    by_paper = {"bleu1": 66, "bleu2": 45.04, "bleu3": 31, "bleu4": 21}
    rows = {"nic": scores(16, 0.3), "soft": scores(20, 0.6), "init": scores(19, 0.4, by_paper)}
    rows = {name: {**row, "title": name.upper()} for name, row in rows.items()}
    shown = {
        "a": {"split": "dev", **scores(20.91, by_paper=by_paper)},
        "a-test": {"split": "test", **scores(21.75)},
        "b": {"split": "test", **scores(74.3, by_paper=by_paper)},
        "table1": {"split": "dev", "rows": rows},
    }
    bleu = "66.0 / 45.0 / 31.0 / 21.0"
    assert tables.summary_table(shown, "f/").splitlines()[2:6] == [
        f"| `a`: [test](f/a-test.json), [dev](f/a.json) | – | 21.8 (20.9) | – | 0.500 (0.500) "
        f"| – ({bleu}) |",
        f"| `b`: [test](f/b.json) | – | 74.3 | – | 0.500 | {bleu} |",
        f"| best without attention, INIT: [dev](f/table1.json) | – | – (19.0) | – | – (0.400) "
        f"| – ({bleu}) |",
        "| the paper, soft attention, VGG19 | – | – | – | – | 67 / 44.8 / 29.9 / 19.5 |",
    ]


def test_word_maps_show_the_difference_to_the_detectors():
    def scores(value, **more):
        ends = {"pointing_accuracy": [value - 1, value + 1], "attention_mass": [9, 11]}
        measures = {"pointing_accuracy": value, "attention_mass": 10, "attention_mass_uniform": 5}
        return {"words": 1234, **measures, "intervals": ends, **more}

    soft = scores(
        60,
        difference={"pointing_accuracy": -2.0},
        difference_intervals={"pointing_accuracy": [-3, 0.5]},
    )
    rows = {"nic": {}, "entropy": {"word_maps": {"detectors": scores(62), "soft": soft}}}
    *_, first, second = tables.word_maps_table(
        {"x": {"dataset": "scenes", "rows": rows}}
    ).splitlines()
    mass = "10.0<br><sub>9.0–11.0; uniform 5.0</sub>"
    assert first == f"| scenes | detectors | 1,234 | 62.0<br><sub>61.0–63.0</sub> | {mass} | – |"
    assert second == (
        f"| scenes | soft | 1,234 | 60.0<br><sub>59.0–61.0</sub> | {mass} "
        "| -2.0<br><sub>-3.0 to +0.5</sub> |"
    )


def test_an_unknown_kind_of_table_is_an_error(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- sumary: scenes-soft -->\n<!-- end of sumary -->\n")
    with pytest.raises(ValueError, match=r"kind of table.*Received: sumary: scenes-soft"):
        tables.with_tables(page)


def test_table_of_attention():
    scores = {
        **{"entropy": 3.267, "entropy_uniform": 4.159, "pointing_accuracy": 63.95},
        "intervals": {"entropy": [3.253, 3.281]},
    }
    shown = {"soft": {"attention_scores": scores}, "hard": {"attention_scores": {"intervals": {}}}}
    assert tables.attention_table({**shown, "baseline": {}}).splitlines() == [
        "|  | soft | hard |",
        "| --- | --- | --- |",
        "| entropy of a map, nats | 3.27<br><sub>3.25–3.28; uniform 4.16</sub> | – |",
        "| pointing accuracy, % | 64.0 | – |",
    ]


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda path: path.parent.name)
def test_what_is_said_of_the_scenes_is_in_the_file(page):
    text = " ".join(page.read_text(encoding="utf-8").split())
    scenes = RESULTS["scenes-soft"]["scenes"]
    for name in ("content_word_accuracy", "pointing_accuracy", "pointing_accuracy_uniform"):
        assert f"{scenes[name]:.1f} %" in text


def test_tables_of_agreement_and_of_settings():
    tau = {"tau": {"bleu1": 32.32, "bleu2": 32.51}, "variant": "c", "published": {"bleu1": 32.3}}
    assert tables.agreement_table({"x": {"expert": tau, "seconds": 3}}).splitlines() == [
        "| metric | expert, tau-c | published |",
        "| --- | --- | --- |",
        "| BLEU-1 | 32.3 | 32.3 |",
        "| BLEU-2 | 32.5 | – |",
    ]
    tried = [
        {"neighbours": k, "agreeing": m, "cider": k / 100 + m / 1000}
        for k in (30, 5)
        for m in (2, 1)
    ]
    assert tables.tried_table({"x": {"config": {"tried": tried}}}).splitlines() == [
        "| k | m = 1 | m = 2 |",
        "| --- | --- | --- |",
        "| 5 | 0.051 | 0.052 |",
        "| 30 | 0.301 | 0.302 |",
    ]
