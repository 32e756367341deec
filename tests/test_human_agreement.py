"""The protocol on a small archive, the command, and the published figures."""

import itertools
import json

import numpy as np
import pytest

from benchmarks.human_agreement import PUBLISHED, human_agreement, main
from benchmarks.judgements import load_judgements

CAPTIONS = {
    "a.jpg": ["a dog runs", "the dog runs on sand", "a dog on the beach"],
    "b.jpg": ["two boys play", "boys with a ball", "two boys play football"],
    "c.jpg": ["a cat sleeps", "the cat", "a white cat on a bed"],
}


@pytest.fixture
def folder(tmp_path):
    """The text archive's files, unpacked, with three captions a picture."""
    lines = [f"{i}#{n}\t{text}" for i, texts in CAPTIONS.items() for n, text in enumerate(texts)]
    (tmp_path / "Flickr8k.token.txt").write_text("\n".join(lines))
    (tmp_path / "ExpertAnnotations.txt").write_text(
        "a.jpg\ta.jpg#1\t4\t4\t4\n"  # its own: left out
        "a.jpg\tb.jpg#0\t1\t1\t2\n"
        "b.jpg\tc.jpg#2\t1\t2\t1\n"
        "c.jpg\ta.jpg#2\t2\t2\t3\n"
    )
    (tmp_path / "CrowdFlowerAnnotations.txt").write_text(
        "a.jpg\ta.jpg#0\t1\t3\t0\na.jpg\tb.jpg#0\t0\t0\t3\nb.jpg\ta.jpg#0\t0.333\t1\t2\n"
    )
    return tmp_path


def by_definition(scores, ratings, variant):
    """Kendall's tau from all pairs."""
    pairs = list(itertools.combinations(range(len(scores)), 2))
    signs = [(np.sign(scores[i] - scores[j]), np.sign(ratings[i] - ratings[j])) for i, j in pairs]
    excess = sum(a * b for a, b in signs)
    if variant == "c":
        m = min(len(set(scores)), len(set(ratings)))
        return 2 * excess / (len(scores) ** 2 * (m - 1) / m)
    return excess / (sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)) ** 0.5


def test_judgements_are_read(folder):
    table, captions = load_judgements(folder, "expert")
    assert captions == CAPTIONS
    assert table["ratings"].tolist() == [[4, 4, 4], [1, 1, 2], [1, 2, 1], [2, 2, 3]]
    assert table["image"].iloc[3] == "c.jpg"
    assert table["caption_of"].iloc[3] == "a.jpg"
    assert table["caption"].iloc[3] == "a dog on the beach"
    (folder / "data").mkdir()
    (folder / "data" / "flickr8k").symlink_to(folder, target_is_directory=True)
    table, _ = load_judgements(folder / "data", "crowd")
    assert table["ratings"].tolist() == [[1], [0], [0.333]]
    with pytest.raises(ValueError, match="expert, crowd. Received: judges='all'"):
        load_judgements(folder, "all")


@pytest.mark.parametrize(
    "line",
    [
        "a.jpg\tb.jpg#0\t1\t1",
        "z.jpg\tb.jpg#0\t1\t1\t1",
        "a.jpg\tb.jpg#9\t1\t1\t1",
        "a.jpg\tb.jpg#0\tx\t1\t1",
        "a.jpg\tb.jpg\t1\t1\t1",
        "a.jpg b.jpg",
    ],
)
def test_malformed_lines_are_refused(folder, line):
    with (folder / "ExpertAnnotations.txt").open("a") as file:
        file.write(line)
    with pytest.raises(ValueError, match="ExpertAnnotations.txt, line 5: expected .* Received: "):
        load_judgements(folder, "expert")


def test_protocol(folder, monkeypatch):
    asked = {}

    def score(candidates, references, metrics):
        asked.update(candidates=candidates, references=references)

        class Scores:
            def each(self):
                return {"rouge_l": np.arange(len(candidates))}

        return Scores()

    monkeypatch.setattr("benchmarks.human_agreement.score_tokens", score)
    found = human_agreement(folder, "expert")
    assert (found["pairs"], found["judgements"], found["variant"]) == (3, 9, "c")
    assert found["tau"]["rouge_l"] == pytest.approx(
        100 * by_definition([0, 0, 0, 1, 1, 1, 2, 2, 2], [1, 1, 2, 1, 2, 1, 2, 2, 3], "c")
    )
    assert [len(references) for references in asked["references"]] == [3, 3, 3]
    assert asked["candidates"][0] == ["two", "boys", "play"]

    found = human_agreement(folder, "crowd")
    assert (found["pairs"], found["judgements"], found["variant"]) == (3, 3, "b")
    assert found["tau"]["rouge_l"] == pytest.approx(
        100 * by_definition([0, 1, 2], [1, 0, 0.333], "b")
    )
    # Without the one that was judged, also for the other caption that was judged with the picture.
    for references in asked["references"][:2]:
        assert [" ".join(tokens) for tokens in references] == CAPTIONS["a.jpg"][1:]
    assert len(asked["references"][2]) == 3


def test_command_writes_and_prints_the_figures(folder, monkeypatch, capsys):
    monkeypatch.setattr(
        "benchmarks.human_agreement.available_metrics", lambda: (("bleu",), ["METEOR is left out"])
    )
    main(["--data-dir", str(folder), "--out", str(folder / "new" / "agreement.json")])
    output = capsys.readouterr().out
    assert output.startswith("METEOR is left out\nexpert: 9 judgements, Kendall's tau-c x 100\n")
    assert "(published 32.3)\n" in output
    results = json.loads((folder / "new" / "agreement.json").read_text())
    assert results["command"] == "python -m benchmarks.human_agreement"
    assert {"seconds", "hardware", "versions"} < set(results)
    for judges in PUBLISHED:
        assert results[judges] == human_agreement(folder, judges, ["bleu"])


@pytest.mark.integration
def test_experts_agree_with_the_metrics_as_published(flickr8k_text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # to unpack into, where the archive's folder cannot be written
    found = human_agreement(flickr8k_text, "expert")
    assert found["judgements"] == 16_992
    assert {"bleu1", "bleu4", "rouge_l", "cider"} <= set(found["tau"])
    for name, published in PUBLISHED["expert"].items():
        if name in found["tau"]:
            assert found["tau"][name] == pytest.approx(published, abs=0.1), name
