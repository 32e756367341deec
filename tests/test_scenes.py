import itertools
import re
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sat_keras.datasets import load_objects, scenes
from sat_keras.datasets.scene_pictures import paint_object, shape_outline
from sat_keras.datasets.scenes import (
    COLOURS,
    CONTENT_WORDS,
    HELD_OUT_PAIRS,
    RELATIONS,
    SHAPES,
    SIZES,
    caption_accuracy,
    draw_scenes,
    load_scenes,
    relation_between,
    words_to_boxes,
)

NUM_IMAGES = {"train": 40, "dev": 4, "test": 36}
IMAGE_SIZE = 48


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(folder, captions, objects) of one small set."""
    folder = tmp_path_factory.mktemp("drawn") / "scenes"
    return folder, *draw_scenes(folder, NUM_IMAGES, IMAGE_SIZE, seed=7)


def thing(name, box, size="small", background="plain"):
    colour, shape = name.split()
    sides = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    return {"colour": colour, "shape": shape, "size": size, "background": background, **sides}


# A red circle and, to its right, a blue circle with a large red star below it.
RED_CIRCLE = thing("red circle", (2, 4, 12, 14))
BLUE_CIRCLE = thing("blue circle", (40, 4, 50, 14))
RED_STAR = thing("red star", (35, 35, 57, 57), size="large")
SCENE = [RED_CIRCLE, BLUE_CIRCLE, RED_STAR]
BOXES = [(2, 4, 12, 14), (40, 4, 50, 14), (35, 35, 57, 57)]


class TestDrawnSet:
    def test_tables(self, drawn):
        _, captions, objects = drawn
        assert list(captions.columns) == ["image", "image_id", "caption", "split"]
        pictures = captions.drop_duplicates("image_id")
        assert pictures["split"].value_counts().to_dict() == NUM_IMAGES
        assert (captions.groupby("image_id")["caption"].nunique() == 5).all()
        num_objects = objects.groupby("image_id").size()
        assert set(num_objects.index) == set(pictures["image_id"])
        assert set(num_objects) == {1, 2, 3}
        assert (objects["name"] == objects["colour"] + " " + objects["shape"]).all()

    def test_pictures(self, drawn):
        for path in drawn[1]["image"].unique():
            with Image.open(path) as picture:
                assert (picture.format, picture.mode) == ("PNG", "RGB")
                assert picture.size == (IMAGE_SIZE, IMAGE_SIZE)
                assert np.asarray(picture).std() > 2  # something is on it

    def test_objects_are_apart_inside_and_of_clear_size(self, drawn):
        objects = drawn[2]
        assert (objects[["x0", "y0"]].to_numpy() >= 0).all()
        assert (objects[["x1", "y1"]].to_numpy() <= IMAGE_SIZE).all()
        longest = np.maximum(objects["x1"] - objects["x0"], objects["y1"] - objects["y0"])
        small, large = (longest[objects["size"] == size] for size in SIZES)
        assert small.min() >= IMAGE_SIZE / 6
        assert large.min() >= 1.3 * small.max()
        for _, group in objects.groupby("image_id"):
            for a, b in itertools.combinations(group.to_dict("records"), 2):
                apart_x = a["x1"] <= b["x0"] or b["x1"] <= a["x0"]
                assert apart_x or a["y1"] <= b["y0"] or b["y1"] <= a["y0"]
                assert a["name"] != b["name"]

    def test_held_out_pairs_are_in_the_test_split_only(self, drawn):
        objects = drawn[2]
        split = objects["image_id"].str.split("-").str[0]
        held_out = {f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS}
        assert held_out.isdisjoint(objects["name"][split != "test"])
        assert held_out <= set(objects["name"][split == "test"])
        train = objects[split == "train"]
        assert set(train["colour"]) == set(COLOURS)
        assert set(train["shape"]) == set(SHAPES)

    def test_captions_are_true(self, drawn):
        """Against the boxes' edges and the attributes, read by patterns, not by the parser."""
        _, captions, objects = drawn
        noun = rf"(?:({'|'.join(SIZES)}) )?(({'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)}))"
        relation = rf"(?:to the )?({'|'.join(RELATIONS)})"
        forward = re.compile(rf"{noun}(?: is| sits)? {relation} (?:an?|the) {noun}")
        inverted = re.compile(rf"^{relation} an? {noun} is an? {noun}")
        for image_id, group in captions.groupby("image_id"):
            by_name = objects[objects["image_id"] == image_id].set_index("name")
            for caption in group["caption"]:
                text = caption.lower()
                assert not re.search(r"\b(a [aeiou]|an [^aeiou])", text)
                for size, name, _ in re.findall(noun, text):
                    assert size in ("", by_name.loc[name, "size"])
                if len(by_name) == 1:
                    continue
                if match := inverted.match(text):
                    said, reference, subject = match[1], match[3], match[6]
                else:
                    match = forward.search(text)
                    said, reference, subject = match[4], match[6], match[2]
                a, b = by_name.loc[subject], by_name.loc[reference]
                edges = {
                    "left of": (a.x1, b.x0),
                    "right of": (b.x1, a.x0),
                    "above": (a.y1, b.y0),
                    "below": (b.y1, a.y0),
                }
                assert edges[said][0] <= edges[said][1], caption

    def test_captions_are_exact_by_their_own_score(self, drawn):
        _, captions, objects = drawn
        for image_id, group in captions.groupby("image_id"):
            rows = objects[objects["image_id"] == image_id]
            for caption in group["caption"]:
                num_correct, num_content_words = caption_accuracy(caption, rows)
                assert num_correct == num_content_words >= 2

    def test_nouns_of_captions_are_found(self, drawn):
        _, captions, objects = drawn
        for image_id, group in captions.groupby("image_id"):
            rows = objects[objects["image_id"] == image_id]
            for caption in group["caption"]:
                words = caption.lower().split()
                boxes = words_to_boxes(words, rows)
                for word, box in zip(words, boxes, strict=True):
                    is_noun = word.strip(string.punctuation) in SHAPES
                    assert (box is not None) == is_noun
                named = {
                    rows["name"][(rows[["x0", "y0", "x1", "y1"]] == list(box)).all(axis=1)].item()
                    for box in boxes
                    if box
                }
                assert named >= {name for name in rows["name"] if name in caption.lower()}


class TestFiles:
    def test_seed_decides(self, tmp_path, drawn):
        folder, captions, objects = drawn
        fewer = draw_scenes(tmp_path / "a", {"train": 3}, IMAGE_SIZE, seed=7)
        first = captions["split"].eq("train") & captions["image_id"].le("train-00002")
        assert list(fewer[0]["caption"]) == list(captions["caption"][first])
        assert fewer[1].equals(objects[: len(fewer[1])])
        for path in (tmp_path / "a" / "images").iterdir():
            assert path.read_bytes() == (folder / "images" / path.name).read_bytes()
        other = draw_scenes(tmp_path / "b", {"train": 3}, IMAGE_SIZE, seed=8)
        assert list(other[0]["caption"]) != list(fewer[0]["caption"])

    def test_same_set_is_reused(self, drawn):
        folder, captions, objects = drawn
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        again = draw_scenes(folder, NUM_IMAGES, IMAGE_SIZE, seed=7)
        assert again[0].equals(captions)
        assert again[1].equals(objects)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_another_set_is_not_overwritten(self, drawn):
        with pytest.raises(ValueError, match=r"already holds .*'seed': 7.*another folder"):
            draw_scenes(drawn[0], NUM_IMAGES, IMAGE_SIZE, seed=8)

    def test_foreign_files_are_not_overwritten(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(ValueError, match="files that are no drawn scenes"):
            draw_scenes(tmp_path, {"train": 1})
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_interrupted_drawing_leaves_nothing(self, tmp_path, monkeypatch):
        calls = itertools.count()

        def stop_at_the_third(picture):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return to_image(picture)

        to_image = scenes.to_image
        monkeypatch.setattr(scenes, "to_image", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            draw_scenes(tmp_path / "scenes", {"train": 5})
        assert list(tmp_path.iterdir()) == []

    def test_missing_picture(self, tmp_path):
        captions, _ = draw_scenes(tmp_path / "scenes", {"train": 2}, IMAGE_SIZE)
        (tmp_path / "scenes" / "images" / "train-00001.png").unlink()
        with pytest.raises(FileNotFoundError, match=r"1 pictures .*train-00001\.png\. Delete"):
            load_scenes(tmp_path / "scenes")
        with pytest.raises(FileNotFoundError, match="draw one with"):
            load_scenes(tmp_path)
        assert len(captions) == 10

    def test_objects_of_some_captions(self, drawn):
        _, captions, objects = drawn
        dev = load_objects(captions[captions["split"] == "dev"])
        expected = objects[objects["image_id"].str.startswith("dev")]
        assert dev.equals(expected.reset_index(drop=True))

    @pytest.mark.parametrize(
        "arguments",
        [
            {"num_images": {"validation": 3}},
            {"num_images": {"train": -1}},
            {"image_size": 16},
            {"seed": -1},
        ],
    )
    def test_bad_arguments(self, tmp_path, arguments):
        with pytest.raises(ValueError, match=f"Received: {next(iter(arguments))}="):
            draw_scenes(tmp_path, **arguments)


class TestShapes:
    @given(
        st.sampled_from(SHAPES),
        st.floats(-1, 1),
        st.floats(9, 20),
        st.tuples(*[st.floats(22, 26)] * 2),
    )
    def test_box_is_where_the_pixels_are(self, shape, turn, diameter, centre):
        canvas = np.full((48, 48, 3), 0.5)
        polygons, extent = shape_outline(shape, turn)
        rng = np.random.default_rng(0)
        x0, y0, x1, y1 = paint_object(canvas, polygons, "red", np.array(centre), diameter, rng)
        assert extent.max() == pytest.approx(1)
        painted = (canvas != 0.5).any(axis=-1)
        assert not painted[:y0].any()
        assert not painted[y1:].any()
        assert not painted[:, :x0].any()
        assert not painted[:, x1:].any()
        rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
        # A border pixel may be touched by less than the antialiasing resolves.
        assert max(rows[0] - y0, columns[0] - x0, y1 - 1 - rows[-1], x1 - 1 - columns[-1]) <= 1

    def test_shapes_differ(self):
        def mask(shape):
            canvas = np.zeros((12, 12, 3))
            paint_object(
                canvas,
                shape_outline(shape, 0)[0],
                "red",
                np.array([6, 6]),
                11,
                np.random.default_rng(0),
            )
            return canvas[..., 0] > 0.3

        for a, b in itertools.combinations(SHAPES, 2):
            assert (mask(a) != mask(b)).sum() >= 8, (a, b)


class TestRelation:
    boxes = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 20)] * 2)

    @given(boxes, boxes)
    def test_converse(self, a, b):
        a, b = (thing("red circle", (x, y, x + w, y + h)) for x, y, w, h in (a, b))
        converse = dict(zip((*RELATIONS, None), np.array([*RELATIONS, None])[[1, 0, 3, 2, 4]]))  # noqa: B905
        assert relation_between(b, a) == converse[relation_between(a, b)]

    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ((30, 10, 40, 20), "left of"),
            ((30, 16, 40, 26), "left of"),
            ((30, 25, 40, 35), None),  # too oblique
            ((8, 30, 18, 40), "above"),
            ((0, 0, 9, 8), None),  # overlaps neither axis clearly
            ((15, 10, 25, 20), None),  # boxes overlap
        ],
    )
    def test_of_a_box_in_the_upper_left(self, box, expected):
        assert relation_between(thing("red circle", (10, 10, 20, 20)), thing("red star", box)) == (
            expected
        )


class TestCaptionAccuracy:
    @pytest.mark.parametrize(
        ("caption", "num_correct", "num_content_words"),
        [
            ("A small red circle is left of a blue circle.", 6, 6),
            ("a blue circle is left of a red circle", 4, 5),
            ("to the right of a red circle is a small blue circle", 6, 6),
            ("a red star below a blue circle and right of a red circle", 7, 8),
            ("a blue circle is above a red star and to the right of a red circle", 8, 8),
            ("the red star is large", 3, 3),
            ("the red star is small", 2, 3),
            ("a star that is large and red", 3, 3),
            ("three shapes on a plain background", 2, 2),
            ("two shapes on a striped background", 0, 2),
            ("a red circle and a red circle", 3, 4),  # the second can be the blue one at best
            ("a green square", 0, 2),
            ("a circle a circle a circle a circle", 2, 4),  # there are two circles
            ("above", 0, 1),
            ("a red circle left of", 2, 3),
            ("a red circle left of a large red", 5, 5),  # the noun was not said, not a wrong one
            ("there is something", 0, 0),
            ("", 0, 0),
        ],
    )
    def test_by_hand(self, caption, num_correct, num_content_words):
        scene = SCENE
        if caption == "a red circle left of a large red":
            scene = [RED_CIRCLE, thing("red star", (40, 4, 60, 14), size="large")]
        assert caption_accuracy(caption, scene) == (num_correct, num_content_words)

    @given(
        st.lists(
            st.tuples(*map(st.sampled_from, (SIZES, COLOURS[:3], SHAPES[:3]))),
            min_size=1,
            max_size=4,
        )
    )
    def test_best_assignment(self, mentions):
        """Without relations it is the best matching of noun phrases to objects."""

        def best(left, objects):
            if not left:
                return 0
            scores = [best(left[1:], objects)]  # the phrase names nothing
            for i, candidate in enumerate(objects):
                values = (candidate["size"], candidate["colour"], candidate["shape"])
                same = sum(a == b for a, b in zip(left[0], values, strict=True))
                scores.append(same + best(left[1:], objects[:i] + objects[i + 1 :]))
            return max(scores)

        caption = " and ".join(f"a {' '.join(mention)}" for mention in mentions)
        assert caption_accuracy(caption, SCENE) == (best(mentions, SCENE), 3 * len(mentions))

    @given(
        st.lists(
            st.sampled_from([*sorted(CONTENT_WORDS), "a", "the", "is", "and", "of", "x"]),
            max_size=14,
        )
    )
    def test_any_words(self, words):
        num_correct, num_content_words = caption_accuracy(" ".join(words), SCENE)
        assert 0 <= num_correct <= num_content_words
        assert num_content_words == sum(word in CONTENT_WORDS for word in words)
        boxes = words_to_boxes(words, SCENE)
        for word, box in zip(words, boxes, strict=True):
            assert box is None or SCENE[BOXES.index(box)]["shape"] == word


class TestWordsToBoxes:
    @pytest.mark.parametrize(
        ("caption", "named"),
        [
            ("the star", [2]),
            ("a red circle left of a blue circle", [0, 1]),
            ("a circle", [None]),  # two circles
            ("a circle above a star", [1, 2]),  # the relation tells which
            ("a circle is left of a circle", [0, 1]),
            ("a blue star", [2]),  # a wrong colour, but the only star
            ("a square", [None]),
        ],
    )
    def test_by_hand(self, caption, named):
        words = caption.split()
        boxes = words_to_boxes(words, SCENE)
        nouns = [box for word, box in zip(words, boxes, strict=True) if word in SHAPES]
        assert nouns == [None if i is None else BOXES[i] for i in named]
        assert all(
            box is None for word, box in zip(words, boxes, strict=True) if word not in SHAPES
        )
