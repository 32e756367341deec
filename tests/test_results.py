"""The README's numbers are those of the results files, which a command wrote."""

import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = sorted((REPOSITORY / "results").glob("*.json"))
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


@pytest.fixture(params=RESULTS, ids=lambda path: path.stem)
def results(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def rows(results):
    """The README's table rows of a results file."""
    for protocol, scores in results["scores"].items():
        bleu = " | ".join(f"{scores[f'bleu{n}']:.1f}" for n in range(1, 5))
        yield (
            f"| {results['dataset']} {results['split']} | {results['encoder']} | "
            f"{results['attention']} | `{protocol}` | {results['beam']} | {bleu} | "
            f"{scores['cider']:.3f} |"
        )


def test_results_say_how_they_came_about(results):
    assert not [key for key in KEYS if key not in results]
    assert results["command"].startswith("sat-keras ")
    for scores in results["scores"].values():
        assert 0 < scores["bleu4"] < scores["bleu1"] < 100


def test_readme_shows_them(results):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert not [row for row in rows(results) if row not in readme]


def test_there_are_results():
    assert "flickr8k-soft-vgg16" in [path.stem for path in RESULTS]
