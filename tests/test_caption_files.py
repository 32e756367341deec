"""Files of captions and references, good and bad."""

import json

import pytest

from sat_keras.evaluation.caption_files import read_candidates, read_references


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


def test_candidates_are_no_object(write):
    with pytest.raises(ValueError, match="expected a list of captions.* Received: {"):
        read_candidates(write({"1": "a dog"}))
