"""Files of captions and references: every format, and errors that name the entry."""

import json

import pandas as pd
import pytest

from sat_keras.evaluation import read_candidates, read_references, score_captions


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "captions.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write_file


LIST = [
    {"image_id": 7, "caption": "a dog"},
    {"image_id": "8", "caption": ""},
    {"image_id": 7, "caption": "dogs"},
]


def test_candidates(write):
    assert read_candidates(write(LIST)) == [("7", "a dog"), ("8", ""), ("7", "dogs")]
    assert read_candidates(write(b"\xef\xbb\xbf[]")) == []


@pytest.mark.parametrize(
    "content", [LIST, {"annotations": LIST, "images": [1]}, {"7": ["a dog", "dogs"], "8": [""]}]
)
def test_references_in_every_form(write, content):
    assert read_references(write(content)) == {"7": ["a dog", "dogs"], "8": [""]}


@pytest.mark.parametrize("read", [read_candidates, read_references])
@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"", "expected a JSON file in UTF-8. Received: "),
        (json.dumps(LIST).encode("utf-16"), "expected a JSON file in UTF-8"),
        (
            '[{"image_id": 1, "caption": "a"}, {"image_id": 2, "caption": "caf\u00e9"}]'.encode(
                "latin-1"
            ),
            "expected UTF-8.* Received: 1 captions that are not, the first one of '2': 'caf",
        ),
        ([{"image_id": 3, "caption": "half a \ud83d"}], "Received: 1 captions .* one of '3'"),
        (3, "Received: 3"),
        ([LIST[0], 5, 6], "Received: 2 entries without, the first is number 2: 5"),
        ([{"image_id": 1}], 'Received: 1 entries .* number 1: {"image_id": 1}'),
        ([{"image_id": None, "caption": "a"}], "Received: 1 entries"),
        ([{"image_id": True, "caption": "a"}], "Received: 1 entries"),
        ([{"image_id": 1, "caption": None}], "Received: 1 entries"),
    ],
)
def test_bad_files(write, read, content, received):
    with pytest.raises(ValueError, match=f"(?s)captions.json: expected.*{received}|{received}"):
        read(write(content))


def test_bad_references(write):
    with pytest.raises(ValueError, match="2 pictures without, the first '2': \"a dog\""):
        read_references(write({"1": ["a"], "2": "a dog", "3": [None]}))
    with pytest.raises(ValueError, match="2 image ids more than once, the first one '1'"):
        read_references(write(b'{"1": ["a"], "2": ["b"], "1": ["c"], "2": ["d"]}'))
    with pytest.raises(ValueError, match="2 captions that are not, the first one of '2': 'caf"):
        read_references(write('{"1": ["a"], "2": ["b", "caf\u00e9", "\u00e9"]}'.encode("latin-1")))


def test_candidates_have_one_caption(write):
    with pytest.raises(ValueError, match=r"one caption to score. Received: 2 .* first '2': \[\]"):
        read_candidates(write({"1": "a", "2": [], "3": ["a", "b"]}))
    with pytest.raises(ValueError, match="1 pictures without, the first '2': 5"):
        read_candidates(write({"1": "a", "2": 5}))


ONE_EACH = [("7", "a dog"), ("8", "a cat, sleeping")]
FORMS = {
    "dictionary.json": json.dumps(dict(ONE_EACH)),
    "lists.json": json.dumps({i: [text] for i, text in ONE_EACH}),
    "toolkit.json": json.dumps({i: [{"image_id": i, "caption": t}] for i, t in ONE_EACH}),
    "coco.json": json.dumps(
        {"annotations": [{"image_id": int(i), "caption": t} for i, t in ONE_EACH]}
    ),
    "lines.jsonl": '{"image_id": 7, "caption": "a dog"}\n\n'
    '{"image_id": "8", "caption": "a cat, sleeping"}\r\n',
    "table.csv": 'image,caption\n7,a dog\n8,"a cat, sleeping"\n',
    "table.tsv": "image_id\tcaption\n7\ta dog\n8\ta cat, sleeping\n",
    "kaggle.csv": 'image_name,comment_number,comment\n7,0,a dog\n8,0,"a cat, sleeping"\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_candidates_in_every_form(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name], newline="")
    assert read_candidates(tmp_path / name) == ONE_EACH


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"dictionary.json"}))
def test_one_reference_each_in_every_form(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name], newline="")
    assert read_references(tmp_path / name) == {i: [text] for i, text in ONE_EACH}


def test_parquet_tables(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "captions.parquet"
    pd.DataFrame(ONE_EACH, columns=["image", "caption"]).to_parquet(path)
    assert read_candidates(path) == ONE_EACH


def test_lines_of_text(tmp_path):
    for name, text in (("hyp", "a\n\nc\n"), ("ref1", "x\r\ny\r\nz"), ("ref2", "u\nv\nw\n")):
        (tmp_path / f"{name}.txt").write_bytes(text.encode())
    assert read_candidates(tmp_path / "hyp.txt") == [("1", "a"), ("2", ""), ("3", "c")]
    references = read_references(tmp_path / "ref1.txt", tmp_path / "ref2.txt")
    assert references == {"1": ["x", "u"], "2": ["y", "v"], "3": ["z", "w"]}


KARPATHY = {
    "images": [
        {
            "filename": "p1.jpg",
            "cocoid": 1,
            "split": "test",
            "sentences": [{"raw": "a"}, {"raw": "b"}],
        },
        {"filename": "p2.jpg", "split": "test", "sentences": [{"raw": "c"}]},
        {"filename": "p3.jpg", "split": "val", "sentences": [{"raw": "d"}]},
    ]
}


def test_karpathys_references(write):
    assert read_references(write(KARPATHY)) == {"1": ["a", "b"], "p2.jpg": ["c"]}
    assert read_references(write(KARPATHY), split="val") == {"p3.jpg": ["d"]}
    with pytest.raises(
        ValueError, match=r"the split 'dev'. Received: the splits \['test', 'val'\]"
    ):
        read_references(write(KARPATHY), split="dev")


@pytest.mark.parametrize(
    "image",
    [
        {"sentences": [{"raw": 5}], "filename": "a.jpg"},
        {"sentences": [{"raw": None}], "filename": "a.jpg"},
        {"sentences": ["a"], "filename": "a.jpg"},
        {"sentences": 3, "filename": "a.jpg"},
        {"sentences": [{"raw": "a"}]},
        {"sentences": [{"raw": "a"}], "cocoid": True},
    ],
)
def test_bad_karpathy_files(write, image):
    with pytest.raises(ValueError, match='captions.json: .* "raw". Received: image number 4'):
        read_references(write({"images": [*KARPATHY["images"], {**image, "split": "test"}]}))


@pytest.mark.parametrize("read", [read_candidates, read_references])
@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000])
def test_deep_json_is_refused(write, read, deep):
    with pytest.raises(
        ValueError, match="captions.json: expected JSON .* Received: a deeply nested"
    ):
        read(write(deep))


def test_tables_without_captions(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("image,label\n1,2\n")
    with pytest.raises(ValueError, match=r"Received: the columns \['image', 'label'\]"):
        read_candidates(path)
    path.write_bytes("image,caption\n1,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ValueError, match="table.csv: expected a table of captions in UTF-8"):
        read_candidates(path)
    path.write_text("")
    with pytest.raises(ValueError, match="table.csv: expected a table of captions"):
        read_candidates(path)


def test_bad_line_is_named(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text('{"image_id": 1, "caption": "a"}\n{"image_id"\n')
    with pytest.raises(ValueError, match="captions.jsonl, line 2: expected a JSON"):
        read_candidates(path)


@pytest.mark.parametrize(
    ("case", "references"),
    [
        ("15-clipscore-dict-candidates", "references.json"),
        ("16-karpathy-as-references", "dataset_x.json"),
        ("17-text-line-files", "ref1.txt"),
    ],
)
def test_files_that_people_score(shared, case, references):
    folder = shared / "cases" / case
    captions = folder / ("hyp.txt" if case.startswith("17") else "captions.json")
    scores = score_captions(read_candidates(captions), read_references(folder / references))["coco"]
    assert scores["bleu1"] > 50
