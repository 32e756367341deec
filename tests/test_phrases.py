"""Phrases of Flickr30k Entities and attention on them, against cases computed by hand."""

import zipfile

import numpy as np
import pandas as pd
import pytest
from keras import ops
from PIL import Image

import sat_keras.analysis.forced as forced
from sat_keras.analysis import force_captions, score_phrases
from sat_keras.analysis.phrases import (
    generated_phrases,
    normalize_sentences,
    phrase_statistics,
    reference_phrases,
    resize_phrases,
)
from sat_keras.captioning.caption import Caption
from sat_keras.cnn.resize import PictureResize
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.datasets.phrases import Phrase, load_phrases
from sat_keras.paper.captioner import Captioner

ANNOTATION = """<annotation><size><width>30</width><height>30</height></size>
<object><name>1</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>10</ymax></bndbox>
</object><object><name>1</name><name>2</name>
<bndbox><xmin>11</xmin><ymin>1</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>
<object><name>3</name><scene>1</scene></object><object><name>4</name><nobox>1</nobox></object>
</annotation>"""
SENTENCES = """[/EN#1/people Two people 's dogs] sit by [/EN#3/scene the sea] .
[/EN#2/animals/other A big dog] sees [/EN#0/notvisual nothing] and [/EN#4/other it] .
No phrase here .
"""


@pytest.fixture(params=["folder", "archive"])
def entities(request, tmp_path):
    """A picture of Entities, as a folder and as an archive."""
    files = {"Annotations/7.xml": ANNOTATION, "Sentences/7.txt": SENTENCES}
    files["Annotations/8.xml"] = ANNOTATION  # its sentences are missing
    files["Sentences/9.txt"] = SENTENCES
    if request.param == "folder":
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path
    with zipfile.ZipFile(tmp_path / "annotations.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return tmp_path


def test_phrases_have_words_types_and_boxes(entities):
    first, second, third = load_phrases(entities, ["7_abc", "8_missing", "9_missing", "10"])
    assert first.image_id == "7_abc"
    assert first.size == (30, 30)
    assert first.text == "Two people 's dogs sit by the sea ."
    assert first.phrases == [
        Phrase(0, 4, "Two people 's dogs", "people", [(0, 0, 10, 10), (10, 0, 30, 20)]),
        Phrase(6, 8, "the sea", "scene", []),
    ]
    assert [(p.text, p.type, p.boxes) for p in second.phrases] == [
        ("A big dog", "animals", [(10, 0, 30, 20)]),
        ("nothing", "notvisual", []),
        ("it", "other", []),
    ]
    assert third.phrases == []


def test_reference_captions_find_their_sentence(entities):
    sentences = normalize_sentences(load_phrases(entities, ["7_abc"]))
    assert sentences[0].words == ["two", "people", "'s", "dogs", "sit", "by", "the", "sea"]
    assert [(p.start, p.end) for p in sentences[0].phrases] == [(0, 4), (6, 8)]
    found = reference_phrases(
        [
            ("7_abc", ["two", "people", "'s", "dogs", "sit", "by", "the", "sea"]),
            ("7_abc", ["two", "people"]),
            ("other", ["two", "people", "'s", "dogs", "sit", "by", "the", "sea"]),
        ],
        sentences,
    )
    assert [len(phrases) for phrases in found] == [2, 0, 0]


def test_generated_captions_find_phrases_by_their_exact_words(entities):
    sentences = normalize_sentences(load_phrases(entities, ["7_abc"]))
    words = ["near", "the", "sea", "a", "big", "dog", "and", "a", "dog"]
    (found,) = generated_phrases([("7_abc", words)], sentences)
    assert [(p.start, p.end, p.type) for p in found] == [(1, 3, "scene"), (3, 6, "animals")]


def test_boxes_follow_the_resized_picture():
    phrase = Phrase(0, 1, "dog", "animals", [(0, 0, 10, 10)])
    outside = Phrase(1, 2, "cat", "animals", [])
    # The file is half as high as the original, and its middle third is seen.
    (found,) = resize_phrases([phrase, outside], (30, 60), (30, 30), PictureResize(30, "squash"))
    assert found.boxes == [(0, 0, 10, 5)]


def test_correctness_is_the_best_word_of_each_phrase():
    """On 3 x 3 cells of 10 pixels."""
    first, second, third = np.zeros((3, 3, 3))
    first[0] = [0.5, 0.3, 0.2]
    second[0] = [0.2, 0.4, 0.4]
    third[2, 2] = 1.0
    maps = np.stack([first, second, third])
    phrases = [
        Phrase(0, 2, "a dog", "animals", [(0, 0, 10, 10), (10, 0, 15, 10)]),
        Phrase(2, 3, "grass", "scene", [(0, 0, 10, 10)]),  # mass 0: left out
    ]
    found = phrase_statistics([maps, maps[:1]], [phrases, []], (30, 30))
    # 0.5 + half of 0.3, against 0.2 + half of 0.4
    np.testing.assert_allclose(found["phrase_mass"], [[0.65, 1], [0, 0]])
    np.testing.assert_allclose(found["phrase_mass_uniform"], [[1.5 / 9, 1], [0, 0]])
    np.testing.assert_allclose(found["phrase_mass:animals"], [[0.65, 1], [0, 0]])
    assert "phrase_mass:scene" not in found
    # The mean of the captions' mean maps is 0.367 and 0.267 in the first two cells.
    mean = (maps.mean(axis=0) + first) / 2
    np.testing.assert_allclose(
        found["phrase_mass_mean_map"][0, 0], mean[0, 0] + mean[0, 1] / 2, rtol=1e-6
    )
    # The boxes cover a sixth of the picture: a medium size.
    for base in ("", "_uniform", "_centre", "_mean_map"):
        for suffix in (":animals", ":medium"):
            np.testing.assert_array_equal(
                found[f"phrase_mass{base}{suffix}"], found[f"phrase_mass{base}"]
            )
    assert len(found) == 12


def test_phrases_count_by_the_size_of_their_boxes_last():
    """On 3 x 3 cells of 10 pixels: shares of 1/36, 1/3 and 1/9."""
    maps = np.stack([np.full((3, 3), 1 / 9), np.eye(3) / 3, np.eye(3)[::-1] / 3])
    phrases = [
        Phrase(0, 1, "hand", "bodyparts", [(0, 0, 5, 5)]),
        Phrase(1, 2, "grass", "scene", [(0, 0, 30, 10)]),
        Phrase(2, 3, "dog", "animals", [(10, 10, 20, 20)]),
    ]
    found = phrase_statistics([maps], [phrases], (30, 30))
    masses = {"small": 1 / 36, "medium": 1 / 3, "large": 1 / 3}
    for size, mass in masses.items():
        np.testing.assert_allclose(found[f"phrase_mass:{size}"], [[mass, 1]])
    assert [name for name in found if name.startswith("phrase_mass:")] == [
        *("phrase_mass:bodyparts", "phrase_mass:scene", "phrase_mass:animals"),
        *("phrase_mass:small", "phrase_mass:medium", "phrase_mass:large"),
    ]


def test_official_sentences_are_read(shared):
    sentences = load_phrases(shared / "flickr8k", ["1000268201_693b08cb0e"])
    assert len(sentences) == 5
    words = normalize_sentences(sentences)[0].words
    assert " ".join(words).startswith("a child in a pink dress is climbing up a set of stairs")


# Forced decoding


@pytest.fixture(scope="module")
def captioner():
    tokenizer = Tokenizer.from_captions(["two people 's dogs sit by the sea", "a big dog"])
    config = Config.tiny().replace(grid_shape=(3, 3), feature_dim=4, image_size=30, resize="squash")
    return Captioner(config, tokenizer)


class Annotations:
    """Stands in for a feature cache: random annotation vectors for every image id."""

    def __init__(self, image_ids):
        generator = np.random.default_rng(0)
        self.of = {i: generator.normal(size=(9, 4)).astype("float32") for i in image_ids}

    def batch(self, image_ids):
        return np.stack([self.of[image_id] for image_id in image_ids])


@pytest.fixture
def source(monkeypatch):
    def batches(image_ids, source, size):
        for start in range(0, len(image_ids), size):
            yield {"annotations": source.batch(image_ids[start : start + size])}

    monkeypatch.setattr(forced, "input_batches", batches)
    monkeypatch.setattr(forced, "_BATCH", 1)
    return Annotations(["7_abc", "8_def", "9_ghi"])


def test_forced_captions_have_the_probability_and_attention_of_teacher_forcing(captioner, source):
    long = "two dogs sit by the sea " * 2  # more steps than the others are padded to
    captions = {"9_ghi": [long], "7_abc": ["A big dog", "two unknownword"], "8_def": ["the sea"]}
    captions["0_none"] = []
    found = force_captions(captioner, source, captions)
    assert list(found) == list(captions)
    assert [len(found[image_id]) for image_id in captions] == [1, 2, 1, 0]
    assert force_captions(captioner, source, {"0_none": []}) == {"0_none": []}
    assert found["7_abc"][1].words == ["two", "<unk>"]
    for image_id, sentences in captions.items():
        for sentence, caption in zip(sentences, found[image_id], strict=True):
            (ids,) = captioner.tokenizer([sentence]).to_list()
            inputs = {
                "annotations": source.batch([image_id]),
                "token_ids": np.array([[ids[:-1]]], "int32"),
            }
            outputs = {k: ops.convert_to_numpy(x) for k, x in captioner(inputs).items()}
            logits = outputs["logits"][0, 0]
            log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            expected = sum(row[token] for row, token in zip(log_p, ids[1:], strict=True))
            assert caption.log_probability == pytest.approx(expected, abs=1e-4)
            maps = outputs["attention_weights"][0, 0, :-1].reshape(-1, 3, 3)
            np.testing.assert_allclose(caption.attention, maps, atol=1e-6)
            np.testing.assert_allclose(caption.gate, outputs["gate"][0, 0, :-1], atol=1e-6)


def test_phrases_of_generated_and_reference_captions_are_scored(
    captioner, source, entities, tmp_path
):
    Image.new("RGB", (60, 30)).save(tmp_path / "7.png")
    table = pd.DataFrame(
        {
            "image_id": ["7_abc"] * 2,
            "image": [str(tmp_path / "7.png")] * 2,
            "caption": ["Two people's dogs sit by the sea.", "Something else"],
        }
    )
    attention = np.zeros((3, 3, 3))
    attention[:, 0, 1] = 0.75  # of the right half of a box that covers the middle and right column
    attention[:, 2, 0] = 0.25
    caption = Caption("a big dog", ["a", "big", "dog"], attention, np.ones(3), -1.0)
    sentences = load_phrases(entities, ["7_abc"])
    found = score_phrases(captioner, source, {"7_abc": caption}, table, sentences)
    assert found["generated"]["phrases"] == 1
    assert found["generated"]["phrase_mass"] == pytest.approx(75)
    assert found["generated"]["phrase_mass_uniform"] == pytest.approx(100 * 4 / 9)
    assert found["references"]["captions"] == 50
    assert found["references"]["phrases"] == 1
    assert found["references"]["phrase_mass_uniform:people"] == pytest.approx(100 * 5 / 9)
