"""Boxes of objects, read from small files in the official formats."""

import json
import shutil
import zipfile

import pandas as pd
import pytest

from sat_keras.datasets.boxes import load_boxes, words_to_boxes

ANNOTATION = """<annotation>
  <filename>1000092795.jpg</filename>
  <size><width>333</width><height>500</height><depth>3</depth></size>
  <object>
    <name>1</name>
    <bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
  </object>
  <object>
    <name>1</name>
    <name>2</name>
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>333</xmax><ymax>500</ymax></bndbox>
  </object>
  <object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object>
</annotation>"""
SENTENCES = """[/EN#1/people Two young guys] with [/EN#2/bodyparts/other shaggy hair] .
[/EN#1/people Two men] in [/EN#3/scene the yard] see [/EN#0/notvisual it] .
[/EN#1/people Two men] stand .
"""
INSTANCES = {
    "images": [{"id": 42, "file_name": "42.jpg", "width": 640, "height": 480}],
    "categories": [{"id": 1, "name": "person"}, {"id": 58, "name": "hot dog"}],
    "annotations": [
        {"image_id": 42, "category_id": 1, "bbox": [10.5, 20, 100, 50.25], "iscrowd": 0},
        {"image_id": 42, "category_id": 1, "bbox": [0, 0, 640, 480], "iscrowd": 1},
        {"image_id": 42, "category_id": 58, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"image_id": 42, "category_id": 58, "bbox": [1, 2, 0, 4], "iscrowd": 0},
    ],
}


@pytest.fixture
def entities(tmp_path):
    """A folder of Flickr30k Entities with one picture."""
    for name, ending, text in (
        ("Annotations", "xml", ANNOTATION),
        ("Sentences", "txt", SENTENCES),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"1000092795.{ending}").write_text(text)
    return tmp_path


def write_instances(folder, **changes):
    path = folder / "instances_val2014.json"
    path.write_text(json.dumps({**INSTANCES, **changes}))
    return path


def test_flickr30k_entities(entities):
    table = load_boxes([entities])
    small, whole = (9, 19, 30, 40), (0, 0, 333, 500)
    rows = [
        *(("guy", "Two young guys", box) for box in (small, whole)),
        ("hair", "shaggy hair", whole),
        *(("man", "Two men", box) for box in (small, whole)),
    ]
    expected = [("1000092795", name, phrase, *box, 333, 500) for name, phrase, box in rows]
    assert list(table.itertuples(index=False, name=None)) == expected
    assert load_boxes([entities], ["another"]).empty


def test_flickr8k_ids_find_their_boxes(entities):
    table = load_boxes([entities], ["1000092795_693b08cb0e", "7_1"])
    assert set(table["image_id"]) == {"1000092795_693b08cb0e"}
    both = load_boxes([entities], ["1000092795_693b08cb0e", "1000092795"])
    assert len(both) == 2 * len(table)


@pytest.mark.parametrize("inner", ["", "annotations/"])
@pytest.mark.parametrize("name", ["Flickr30kEntities_annotations.zip", "annotations.zip"])
def test_packed_entities_are_unpacked_ones(entities, tmp_path_factory, name, inner):
    folder = tmp_path_factory.mktemp("data")
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path in entities.glob("*/*"):
            archive.write(path, f"{inner}{path.parent.name}/{path.name}")
    expected = load_boxes([entities])
    for place in (folder, folder / name):
        pd.testing.assert_frame_equal(load_boxes([place]), expected)


def test_entities_are_found_unpacked_in_a_data_folder(entities, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(entities, folder / "Flickr30kEntities")
    pd.testing.assert_frame_equal(load_boxes([folder]), load_boxes([entities]))


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "annotations.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"annotations.zip is damaged.*Received"):
        load_boxes([tmp_path])


def test_flickr8k_pictures_have_boxes(shared):
    table = load_boxes([shared / "flickr8k"], ["1000268201_693b08cb0e"])
    assert set(table["image_id"]) == {"1000268201_693b08cb0e"}
    assert "girl" in set(table["name"])


def test_coco_instances(tmp_path):
    table = load_boxes([write_instances(tmp_path)], ["42"])
    assert list(table.itertuples(index=False, name=None)) == [
        ("42", "person", "person", 10.5, 20, 110.5, 70.25, 640, 480),
        ("42", "person", "person", 0, 0, 640, 480, 640, 480),
        ("42", "hot dog", "hot dog", 1, 2, 4, 6, 640, 480),
    ]
    assert load_boxes([tmp_path / "instances_val2014.json"], ["43"]).empty


def test_words_name_boxes(entities):
    boxes = words_to_boxes(
        ["a", "man", "and", "a", "guy", "with", "a", "hat"], load_boxes([entities])
    )
    both = [(9, 19, 30, 40), (0, 0, 333, 500)]
    assert boxes == [None, both, None, None, both, None, None, None]


NAMED = pd.DataFrame(
    [
        {"name": name, "x0": i, "y0": i, "x1": i + 1, "y1": i + 1}
        for i, name in enumerate(("dog", "person", "hot dog", "bus", "dining table", "sheep"))
    ]
)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("two dogs", {1: 0}),
        ("Dog,", {0: 0}),
        ("two women with puppies", {1: 1, 3: 0}),
        ("a hot dog", {2: 2}),
        ("hot dogs", {1: 2}),
        ("buses and a bus", {0: 3, 3: 3}),
        ("a dining table", {2: 4}),
        ("table", {0: 4}),
        ("sheep and lambs", {0: 5, 2: 5}),
        ("the grass", {}),
        ("", {}),
    ],
)
def test_words_name_objects_in_other_forms(words, named):
    boxes = words_to_boxes(words.split(), NAMED)
    assert len(boxes) == len(words.split())
    assert {i: box[0][0] for i, box in enumerate(boxes) if box} == named


def test_a_hot_dog_is_no_dog():
    assert words_to_boxes(["hot", "dog"], NAMED[NAMED["name"] == "dog"]) == [None, None]


def test_mistakes_are_named(entities, tmp_path):
    with pytest.raises(FileNotFoundError, match="Received: .*nowhere"):
        load_boxes([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match="annotations.zip. Received: "):
        load_boxes([entities / "Sentences"])
    for text, received in (("{}", "KeyError: 'images'"), ("<html>", "JSONDecodeError")):
        (tmp_path / "instances_val2014.json").write_text(text)
        with pytest.raises(ValueError, match=f"instances_val2014.json .* Received: {received}"):
            load_boxes([tmp_path / "instances_val2014.json"])
    (annotation,) = entities.glob("Annotations/*")
    for text in ("<annotation>", "<annotation/>", ANNOTATION.replace("<xmin>10</xmin>", "")):
        annotation.write_text(text)
        with pytest.raises(ValueError, match="1000092795.xml .* Received: "):
            load_boxes([entities])
    annotation.write_text(ANNOTATION)
    (entities / "Sentences" / "1000092795.txt").unlink()
    with pytest.raises(FileNotFoundError, match="1000092795.txt"):
        load_boxes([entities])
