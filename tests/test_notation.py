"""The sheet docs/notation.md: it agrees with code and diagram, and its PDF is one page."""

import re
from pathlib import Path

import keras
import pytest

from sat_keras import AttentionDecoder, Config
from sat_keras.captioning.presets import pretrained_folder, read_description

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHEET = (DOCS / "notation.md").read_text(encoding="utf-8")
SIZES = {"L": 3, "D": 5, "K": 7, "m": 11, "n": 13, "d": 17}  # no product of two is a third
ROWS = [
    [cell.strip() for cell in row.split("|")[1:-1]] for row in SHEET.splitlines() if row[:1] == "|"
]


def weights():
    """Yields the rows of the table of weights: shape, and the names of its layers."""
    (start,) = (i for i, row in enumerate(ROWS) if row[0] == "weight")
    for row in ROWS[start + 2 :]:
        yield row[1], re.findall("`(.*?)`", row[2])
        yield row[4], re.findall("`(.*?)`", row[5])


def test_weights_have_the_shapes_of_the_decoder():
    decoder = AttentionDecoder(*(SIZES[name] for name in "Kmnd"))
    decoder(keras.ops.ones((1, 1, 2), "int32"), keras.ops.ones((1, SIZES["L"], SIZES["D"])))
    listed = set()
    for shape, names in weights():
        sides = [
            int(number or 1) * (SIZES[letter] if letter else 1)
            for number, letter in re.findall(r"(\d*)([A-Za-z]?)(?: \\times |\$$)", shape)
        ]
        for name in names:
            layer = decoder
            for part in name.split("."):
                layer = getattr(layer, part)
            assert tuple(layer.weights[0].shape) == tuple(sides[::-1]), name
            listed.add(layer.weights[0].path)
    matrices = {weight.path for weight in decoder.weights if len(weight.shape) == 2}
    assert listed == matrices


@pytest.mark.parametrize("preset", ["flickr8k-soft-vgg16", "scenes-soft"])
def test_sizes_are_those_of_the_presets(preset):
    head = ROWS[0]
    column = head.index(f"`{preset}`")
    found = {row[0].strip("$"): int(row[column]) for row in ROWS[2:9]}
    description = read_description(pretrained_folder(preset))
    config = description["config"]
    assert found == {
        "L": config.num_regions,
        "D": config.feature_dim,
        "K": len(description["vocabulary"]),
        "m": config.embedding_dim,
        "n": config.hidden_dim,
        "d": config.attention_dim,
        "C": config.max_length + 1,
    }


def test_named_options_are_options():
    names = {row[-1] for row in ROWS[2:9]} | set(re.findall("`(penalty_\\w+|use_\\w+)`", SHEET))
    for name in names:
        assert hasattr(Config(), re.sub("`|, .*", "", name)), name


def test_every_equation_of_the_diagram_is_on_the_sheet():
    diagram = (DOCS / "model.svg").read_text(encoding="utf-8")
    numbers = set(map(int, re.findall(r"\((\d+)\)", diagram)))
    numbers.update(
        *(range(int(a), int(b) + 1) for a, b in re.findall(r"\((\d+)\)–\((\d+)\)", diagram))
    )
    assert numbers == set(range(1, 15))
    listed = set(map(int, re.findall(r"\((\d+)\)", SHEET)))
    listed.update(
        *(range(int(a), int(b) + 1) for a, b in re.findall(r"\((\d+)\) to \((\d+)\)", SHEET))
    )
    assert listed == numbers


def test_the_pdf_is_one_page_of_this_sheet(monkeypatch):
    """`python docs/sheet.py` prints it, after a change of notation.md or model.svg too."""
    pytest.importorskip("mistune")
    monkeypatch.syspath_prepend(str(DOCS))
    import sheet

    content = sheet.PDF.read_bytes()
    assert f"/Title ({sheet.title()})".encode() in content
    assert len(re.findall(rb"/Type /Page\b", content)) == 1
