import hashlib
import io
import json
import shutil
import tarfile
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sat_keras.datasets import (
    DATASETS,
    describe_dataset,
    from_table,
    load_coco,
    load_dataset,
    load_flickr8k,
    load_flickr30k,
    load_objects,
)
from sat_keras.datasets.download import Archive, fetch, unpack
from sat_keras.datasets.flickr import read_captions
from sat_keras.datasets.tables import seeded_splits

SPLIT_LISTS = {"train": ["1_a.jpg", "2_b.jpg"], "dev": ["3_c.jpg"], "test": ["4_d.jpg"]}
PICTURES = [name for names in SPLIT_LISTS.values() for name in names]


def write_zip(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def flickr8k_text(**changes):
    """The members of Flickr8k_text.zip for four pictures with two captions each."""
    tokens = [f"{name}#{i}\tCaption {i} of {name} .\n" for name in PICTURES for i in range(2)]
    lists = {
        f"Flickr_8k.{split}Images.txt": "".join(f"{name}\n" for name in names)
        for split, names in SPLIT_LISTS.items()
    }
    return {"Flickr8k.token.txt": "".join(tokens), **lists, **changes}


def flickr8k_zips(folder, pictures=PICTURES, **changes):
    """Both archives; returns the folder."""
    members = {f"Flicker8k_Dataset/{name}": b"pixels" for name in pictures}
    members["__MACOSX/Flicker8k_Dataset/._1_a.jpg"] = b"resource fork"
    write_zip(folder / "Flickr8k_Dataset.zip", members)
    write_zip(folder / "Flickr8k_text.zip", flickr8k_text(**changes))
    return folder


def karpathy_json(path, pictures):
    """A split file of (name, split, further fields) entries with two captions each."""
    images = [
        {
            "filename": name,
            "split": split,
            "sentences": [{"raw": f"Sentence {i} of {name}. "} for i in range(2)],
            **fields,
        }
        for name, split, fields in pictures
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "dataset": "tiny"}))
    return path


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def write_protected():
    """A function that takes a folder's write permission until the test is over."""
    folders = []

    def protect(folder):
        folders.append(folder)
        folder.chmod(0o555)

    yield protect
    for folder in folders:
        folder.chmod(0o755)


class TestFlickr8k:
    def test_table(self, tmp_path):
        table = load_flickr8k(flickr8k_zips(tmp_path))
        assert list(table.columns) == ["image", "image_id", "caption", "split"]
        assert list(table["split"]) == ["train"] * 4 + ["dev"] * 2 + ["test"] * 2
        assert table["image_id"][0] == "1_a"
        assert table["caption"][1] == "Caption 1 of 1_a.jpg ."
        assert all(Path(path).read_bytes() == b"pixels" for path in table["image"])
        assert not list(tmp_path.rglob("__MACOSX"))

    def test_unpacks_once(self, tmp_path, capsys):
        first = load_flickr8k(flickr8k_zips(tmp_path))
        before = tree(tmp_path)
        assert "Unpacking" in capsys.readouterr().out
        assert load_flickr8k(tmp_path).equals(first)
        assert tree(tmp_path) == before
        assert capsys.readouterr().out == ""

    def test_another_archive_is_unpacked_anew(self, tmp_path):
        with pytest.warns(UserWarning, match="1 of the 1 test pictures"):
            load_flickr8k(flickr8k_zips(tmp_path, PICTURES[:3]))
        assert set(load_flickr8k(flickr8k_zips(tmp_path))["split"]) == {"train", "dev", "test"}
        unpacked = {path.name for path in tmp_path.iterdir() if path.is_dir()}
        assert unpacked == {"Flickr8k_Dataset.zip.unpacked", "Flickr8k_text.zip.unpacked"}

    def test_unpacked_archive_may_be_deleted(self, tmp_path):
        first = load_flickr8k(flickr8k_zips(tmp_path))
        for archive in tmp_path.glob("*.zip"):
            archive.unlink()
        assert load_flickr8k(tmp_path, download=False).equals(first)

    @pytest.mark.parametrize(
        ("images", "text"),
        [
            ("Flicker8k_Dataset", "."),
            ("Flickr8k_Dataset/Flicker8k_Dataset", "Flickr8k_text"),
            ("Images", "text"),
            ("Flicker8k_Dataset/Flicker8k_Dataset", "Flickr8k_text"),
        ],
    )
    def test_unpacked_by_hand(self, tmp_path, images, text):
        for name in PICTURES:
            (tmp_path / images).mkdir(parents=True, exist_ok=True)
            (tmp_path / images / name).touch()
        for name, content in flickr8k_text().items():
            (tmp_path / text).mkdir(exist_ok=True)
            (tmp_path / text / name).write_text(content)
        before = tree(tmp_path)
        table = load_flickr8k(tmp_path, download=False)
        assert len(table) == 8
        assert Path(table["image"][0]).parent == tmp_path / images
        assert tree(tmp_path) == before

    def test_write_protected_folder(self, tmp_path, monkeypatch, write_protected):
        archives = flickr8k_zips(tmp_path / "archives")
        before = tree(archives)
        write_protected(archives)
        monkeypatch.chdir(tmp_path)
        assert len(load_flickr8k(archives)) == 8
        assert (tmp_path / "data/flickr8k/Flickr8k_Dataset.zip.unpacked").is_dir()
        assert len(load_flickr8k(archives, cache_dir=tmp_path / "cache")) == 8
        assert (tmp_path / "cache/Flickr8k_Dataset.zip.unpacked").is_dir()
        assert tree(archives) == before

    def test_official_flaws(self, tmp_path):
        text = flickr8k_text()
        text["Flickr8k.token.txt"] += "\n9_z.jpg.1#0\ta caption without a picture\n\n"
        text["Flickr_8k.trainImages.txt"] = "1_a.jpg \n\n2_b.jpg\t\r\n1_a.jpg\n  \n"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = load_flickr8k(flickr8k_zips(tmp_path, **text))
        assert list(table["image_id"]) == [name[:3] for name in PICTURES for _ in range(2)]

    def test_missing_pictures(self, tmp_path):
        flickr8k_zips(tmp_path, ["1_a.jpg", "3_c.jpg"])
        expected = "Flickr8k: 1 of the 2 train pictures and 1 of the 1 test pictures are missing"
        with pytest.warns(UserWarning, match=expected) as record:
            table = load_flickr8k(tmp_path)
        assert set(table["image_id"]) == {"1_a", "3_c"}
        assert [warning.filename for warning in record] == [__file__]
        with pytest.raises(FileNotFoundError, match=r"no picture for its test split.*1 of the 1"):
            load_flickr8k(tmp_path, only="test")
        assert set(load_flickr8k(tmp_path, only="dev")["split"]) == {"dev"}

    def test_no_picture_at_all(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no picture for any split; put the pictures"):
            load_flickr8k(flickr8k_zips(tmp_path, ["other.jpg"]))

    def test_picture_without_captions(self, tmp_path):
        text = flickr8k_text()
        text["Flickr8k.token.txt"] = text["Flickr8k.token.txt"].replace("2_b.jpg#", "5_e.jpg#")
        with pytest.warns(UserWarning, match=r"1 listed pictures have no caption .* 2_b\.jpg"):
            table = load_flickr8k(flickr8k_zips(tmp_path, **text))
        assert len(table) == 6

    def test_picture_in_two_splits(self, tmp_path):
        flickr8k_zips(tmp_path, **{"Flickr_8k.testImages.txt": "1_a.jpg\n"})
        with pytest.raises(ValueError, match=r"1_a\.jpg is listed as train and, in .*as test"):
            load_flickr8k(tmp_path)

    def test_missing_split_list(self, tmp_path):
        text = flickr8k_text()
        del text["Flickr_8k.devImages.txt"]
        flickr8k_zips(tmp_path)
        write_zip(tmp_path / "Flickr8k_text.zip", text)
        with pytest.raises(FileNotFoundError, match=r"devImages\.txt is missing; get Flickr8k_tex"):
            load_flickr8k(tmp_path)

    @pytest.mark.parametrize("damage", ["cut", "no archive"])
    def test_damaged_archive(self, tmp_path, damage):
        archive = flickr8k_zips(tmp_path) / "Flickr8k_Dataset.zip"
        archive.write_bytes(archive.read_bytes()[:200] if damage == "cut" else b"<html>")
        with pytest.raises(ValueError, match=r"Flickr8k_Dataset\.zip is damaged .* get it again"):
            load_flickr8k(tmp_path)
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]

    def test_archive_of_something_else(self, tmp_path):
        write_zip(flickr8k_zips(tmp_path) / "Flickr8k_Dataset.zip", {"cats/1.jpg": b""})
        with pytest.raises(ValueError, match=r"Expected Flicker8k_Dataset .*Received: .*'cats'"):
            load_flickr8k(tmp_path)

    def test_karpathy_splits(self, tmp_path):
        flickr8k_zips(tmp_path)
        entries = [("1_a.jpg", "test", {}), ("2_b.jpg", "train", {}), ("3_c.jpg", "val", {})]
        path = karpathy_json(tmp_path / "karpathy" / "dataset_flickr8k.json", entries)
        table = load_flickr8k(tmp_path, splits="karpathy", download=False)
        assert list(table["image_id"]) == ["2_b"] * 2 + ["3_c"] * 2 + ["1_a"] * 2
        assert list(table["split"]) == ["train"] * 2 + ["dev"] * 2 + ["test"] * 2
        assert table["caption"][0] == "Sentence 0 of 2_b.jpg."
        assert load_flickr8k(tmp_path, splits=path).equals(table)
        write_zip(tmp_path / "caption_datasets.zip", {path.name: path.read_text()})
        path.unlink()
        assert load_flickr8k(tmp_path, splits="karpathy", download=False).equals(table)

    @pytest.mark.parametrize(
        "content", ["not JSON", "[]", '{"images": [{"filename": "1_a.jpg", "split": "x"}]}']
    )
    def test_bad_karpathy_file(self, tmp_path, content):
        path = flickr8k_zips(tmp_path) / "splits.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"splits\.json is no split file of Karpathy's"):
            load_flickr8k(tmp_path, splits=path)
        with pytest.raises(FileNotFoundError, match="Expected splits to be None"):
            load_flickr8k(tmp_path, splits=tmp_path / "none.json")

    def test_empty_caption(self, tmp_path):
        path = karpathy_json(flickr8k_zips(tmp_path) / "splits.json", [("1_a.jpg", "train", {})])
        path.write_text(path.read_text().replace("Sentence 1 of 1_a.jpg.", ""))
        with pytest.raises(ValueError, match=r"empty caption of the picture .*1_a\.jpg"):
            load_flickr8k(tmp_path, splits=path)

    def test_real_archive(self, shared, tmp_path):
        folder = shared / "flickr8k"
        before = tree(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the test pictures may be missing
            table = load_flickr8k(folder, cache_dir=tmp_path)
        num_pictures = table.groupby("split")["image_id"].nunique()
        num_captions = table.groupby("split").size()
        assert (num_pictures["train"], num_captions["train"]) == (6000, 30000)
        assert (num_pictures["dev"], num_captions["dev"]) == (1000, 5000)
        twins = ["2851198725_37b6027625", "3050606344_af711c726c"]
        assert set(table["split"][table["image_id"].isin(twins)]) == {"train"}
        assert tree(folder) == before


class TestReadCaptions:
    names = st.from_regex(r"[0-9]{1,10}_[0-9a-f]{1,10}\.jpg", fullmatch=True)
    texts = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1)
    captions = st.dictionaries(
        names, st.lists(texts.map(str.strip).filter(bool), min_size=1, max_size=3), max_size=3
    )

    @given(captions)
    def test_token_file(self, tmp_path_factory, captions):
        path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
        lines = [
            f"{n}#{i}\t{text}" for n, texts in captions.items() for i, text in enumerate(texts)
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
        assert read_captions(path) == captions

    def test_csv_file(self, tmp_path):
        path = tmp_path / "results.csv"
        path.write_text(
            "\ufeffimage_name| comment_number| comment\n"
            "1.jpg| 0| Two men | one dog .\n"
            "1.jpg| 1   A dog runs across the grass .\n"  # flawed as in the file that goes round
            "2.jpg| 0| 3 men .\n",
            encoding="utf-8",
        )
        expected = {
            "1.jpg": ["Two men | one dog .", "A dog runs across the grass ."],
            "2.jpg": ["3 men ."],
        }
        assert read_captions(path) == expected

    @pytest.mark.parametrize(
        "line", ["1.jpg a caption", "1.jpg#0 a caption", "1.jpg#0\t", "#0\ta caption", "1.jpg#x\ta"]
    )
    def test_bad_line(self, tmp_path, line):
        path = tmp_path / "Flickr8k.token.txt"
        path.write_text(f"1.jpg#0\tGood .\n\n{line}\n")
        with pytest.raises(ValueError, match=r"token\.txt, line 3: .*correct or delete this line"):
            read_captions(path)

    def test_not_utf8(self, tmp_path):
        path = tmp_path / "Flickr8k.token.txt"
        path.write_bytes(b"1.jpg#0\tGood .\n1.jpg#1\tA caf\xe9 .\n")
        with pytest.raises(ValueError, match=r"line 2: expected UTF-8 text.*caf\\xe9"):
            read_captions(path)


class TestFlickr30k:
    entries = (("1.jpg", "train", {}), ("2.jpg", "val", {}), ("3.jpg", "test", {}))

    @pytest.mark.parametrize("packed", [True, False])
    def test_table(self, tmp_path, packed):
        images = tmp_path / "flickr30k-images"
        images.mkdir()
        for name, *_ in self.entries:
            (images / name).write_bytes(b"pixels")
        if packed:
            with tarfile.open(tmp_path / "flickr30k-images.tar.gz", "w:gz") as archive:
                archive.add(images, images.name)
            for path in images.iterdir():
                path.unlink()
            images.rmdir()
        karpathy_json(tmp_path / "dataset_flickr30k.json", self.entries)
        table = load_flickr30k(tmp_path, download=False)
        assert list(table["split"]) == ["train"] * 2 + ["dev"] * 2 + ["test"] * 2
        assert Path(table["image"][0]).read_bytes() == b"pixels"
        assert table["caption"][0] == "Sentence 0 of 1.jpg."
        (tmp_path / "results_20130124.token").write_text("1.jpg#0\tFrom the token file .\n")
        table = load_flickr30k(tmp_path, splits=None, download=False)
        assert table["caption"][0] == "From the token file ."
        assert len(table) == 5

    def test_missing_pictures_say_where_to_get_them(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"flickr30k-images\.tar\.gz .*DenotationGraph"):
            load_flickr30k(tmp_path)


def coco_zips(folder, year, parts=("train", "val")):
    """COCO's archives with picture 1 in train, 2 and 3 in val, and mixed captions."""
    prefix = {"train": "COCO_train2014_", "val": "COCO_val2014_"} if year == 2014 else {}
    ids = {"train": (1,), "val": (2, 3)}
    annotations = {}
    for part in ids:
        names = {i: f"{prefix.get(part, '')}{i:012d}.jpg" for i in ids[part]}
        if part in parts:
            pictures = {f"{part}{year}/{name}": b"pixels" for name in names.values()}
            write_zip(folder / f"{part}{year}.zip", pictures)
        notes = [{"image_id": i, "caption": f"Note {k} on {i}.\n"} for k in range(2) for i in names]
        images = [{"id": i, "file_name": name} for i, name in names.items()]
        content = json.dumps({"images": images, "annotations": notes})
        annotations[f"annotations/captions_{part}{year}.json"] = content
    write_zip(folder / f"annotations_trainval{year}.zip", annotations)
    return folder


class TestCoco:
    @pytest.mark.parametrize("year", [2014, 2017])
    def test_official_splits(self, tmp_path, year):
        table = load_coco(coco_zips(tmp_path, year), year, download=False)
        assert list(table["image_id"]) == ["1", "1", "2", "2", "3", "3"]
        assert list(table["split"]) == ["train"] * 2 + ["dev"] * 4
        assert list(table["caption"][:3]) == ["Note 0 on 1.", "Note 1 on 1.", "Note 0 on 2."]
        assert all(Path(path).read_bytes() == b"pixels" for path in table["image"])

    @pytest.mark.parametrize("year", [2014, 2017])
    def test_karpathy_splits(self, tmp_path, year):
        coco_zips(tmp_path, year)
        entries = [
            (
                f"COCO_{part}2014_{i:012d}.jpg",
                split,
                {"filepath": f"{part}2014", "cocoid": i},
            )
            for i, part, split in ((1, "train", "train"), (2, "val", "restval"), (3, "val", "test"))
        ]
        karpathy_json(tmp_path / "dataset_coco.json", entries)
        table = load_coco(tmp_path, year, splits="karpathy", download=False)
        assert list(table["image_id"]) == ["1", "1", "2", "2", "3", "3"]
        assert list(table["split"]) == ["train"] * 4 + ["test"] * 2
        assert all(Path(path).read_bytes() == b"pixels" for path in table["image"])

    def test_only_what_a_split_needs(self, tmp_path):
        coco_zips(tmp_path, 2014, parts=("val",))
        assert set(load_coco(tmp_path, only="dev", download=False)["split"]) == {"dev"}
        with pytest.raises(FileNotFoundError, match=r"train2014\.zip \(13 GB\) is missing"):
            load_coco(tmp_path, download=False)

    def test_test_captions_are_not_public(self, tmp_path):
        with pytest.raises(ValueError, match="choose splits='karpathy'"):
            load_coco(tmp_path, only="test")

    def test_bad_year(self, tmp_path):
        with pytest.raises(ValueError, match="Received: year=2015"):
            load_coco(tmp_path, year=2015)

    @pytest.mark.parametrize(
        "content", ["{", "[]", '{"images": [], "annotations": [{"image_id": 1, "caption": "a"}]}']
    )
    def test_bad_captions_file(self, tmp_path, content):
        coco_zips(tmp_path, 2014)
        (tmp_path / "captions_train2014.json").write_text(content)
        with pytest.raises(ValueError, match=r"captions_train2014\.json is no COCO captions file"):
            load_coco(tmp_path, download=False)


class TestFetch:
    @pytest.fixture
    def mirror(self, tmp_path):
        """Archive's bytes on a mirror, as a file: URL, and their checksum."""
        path = write_zip(tmp_path / "mirror" / "tiny.zip", {"1.txt": "one"})
        return path.as_uri(), hashlib.md5(path.read_bytes()).hexdigest()

    def test_next_mirror(self, tmp_path, mirror):
        url, md5 = mirror
        wrong = write_zip(tmp_path / "wrong" / "tiny.zip", {"1.txt": "changed"}).as_uri()
        nowhere = (tmp_path / "nowhere" / "tiny.zip").as_uri()
        archive = Archive("tiny.zip", "1 kB", urls=(nowhere, wrong, url), md5=md5)
        path = fetch(archive, tmp_path / "data")
        assert zipfile.ZipFile(path).read("1.txt") == b"one"
        assert list((tmp_path / "data").iterdir()) == [path]

    def test_no_mirror(self, tmp_path):
        page = tmp_path / "page.html"
        page.write_text("<html>This file has moved</html>")
        nowhere = (tmp_path / "nowhere" / "tiny.zip").as_uri()
        archive = Archive("tiny.zip", "1 kB", urls=(nowhere, page.as_uri()))
        with pytest.raises(FileNotFoundError) as caught:
            fetch(archive, tmp_path / "data")
        message = str(caught.value)
        assert message.startswith("The file tiny.zip (1 kB) is missing. Get it from file://")
        assert all(url in message for url in archive.urls)
        assert f"into the folder {tmp_path / 'data'}. Received: " in message
        assert "did not serve an archive" in message
        assert list((tmp_path / "data").iterdir()) == []

    def test_unpack_twice(self, tmp_path, mirror):
        path = tmp_path / "mirror" / "tiny.zip"
        folder = unpack(path, tmp_path)
        before = tree(folder)
        assert unpack(path, tmp_path) == folder
        assert tree(folder) == before
        assert (folder / "1.txt").read_text() == "one"


KAGGLE = "image,caption\n" + "".join(
    f'{name},"Caption {i}, of {name} ."\n' for name in PICTURES for i in range(2)
)


def kaggle_folder(folder, captions=KAGGLE, pictures=PICTURES):
    (folder / "Images").mkdir(parents=True)
    for number, name in enumerate(pictures):
        Image.new("RGB", (4 + number, 5)).save(folder / "Images" / name)
    (folder / "captions.txt").write_text(captions)
    return folder


class TestKaggle:
    @pytest.mark.parametrize("name", ["flickr8k", "flickr30k"])
    def test_without_split_lists_a_seeded_split_is_drawn_and_said(self, tmp_path, name):
        captions = KAGGLE
        if name == "flickr30k":
            lines = [f"{file}, {i}, Caption of {file} ." for file in PICTURES for i in range(2)]
            captions = "\n".join(["image_name, comment_number, comment", *lines])
        kaggle_folder(tmp_path / name, captions)
        with pytest.warns(UserWarning, match=rf"{name}: .*80/10/10.*dataset_{name}\.json"):
            table = load_dataset(name, tmp_path, download=False)
        assert sorted(table["split"].value_counts().items()) == [
            ("dev", 2),
            ("test", 2),
            ("train", 4),
        ]
        assert set(table["image_id"]) == {Path(file).stem for file in PICTURES}
        assert table["caption"].str.startswith("Caption ").all()

    @pytest.mark.parametrize("name", ["flickr8k", "flickr30k"])
    def test_karpathys_splits_are_used_where_they_are(self, tmp_path, name):
        folder = kaggle_folder(tmp_path / name)
        entries = [("1_a.jpg", "test", {}), ("2_b.jpg", "train", {})]
        karpathy_json(folder / f"dataset_{name}.json", entries)
        table = load_dataset(name, tmp_path, download=False)
        split_of = dict(zip(table["image_id"], table["split"], strict=True))
        assert split_of == {"1_a": "test", "2_b": "train"}
        assert table["caption"].str.startswith("Caption ").all()

    def test_official_lists_are_used_where_they_are(self, tmp_path):
        folder = kaggle_folder(tmp_path / "flickr8k")
        for split, names in SPLIT_LISTS.items():
            (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names))
        table = load_dataset("flickr8k", tmp_path, download=False)
        assert table["split"].tolist() == ["train"] * 4 + ["dev"] * 2 + ["test"] * 2

    def test_the_official_captions_come_first(self, tmp_path):
        folder = kaggle_folder(tmp_path / "flickr8k")
        write_zip(folder / "Flickr8k_text.zip", flickr8k_text())
        assert load_dataset("flickr8k", tmp_path, download=False)["caption"][0] == (
            "Caption 0 of 1_a.jpg ."
        )

    def test_another_header_is_named(self, tmp_path):
        kaggle_folder(tmp_path / "flickr8k", "name;text\n1;2\n")
        with pytest.raises(ValueError, match=r"captions\.txt must have the header.*Received"):
            load_dataset("flickr8k", tmp_path, download=False)


ROWS = [(name, f"caption {i} of {name}") for name in PICTURES for i in range(2)]


def as_csv(folder, separator=","):
    lines = [separator.join(row) for row in [("image", "caption"), *ROWS]]
    suffix = "csv" if separator == "," else "tsv"
    (folder / f"captions.{suffix}").write_text("\n".join(lines), encoding="utf-8-sig")


def as_jsonl(folder):
    entries = [
        {"file_name": name, "captions": [text for file, text in ROWS if file == name]}
        for name in PICTURES
    ]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, entries)))


def as_lines(folder):
    lines = [f"{name}#{number % 2}\t{text}" for number, (name, text) in enumerate(ROWS)]
    (folder / "captions.txt").write_text("\n".join(lines))


def as_coco(folder):
    images = [{"id": i, "file_name": name} for i, name in enumerate(PICTURES)]
    notes = [{"image_id": PICTURES.index(name), "caption": text} for name, text in ROWS]
    (folder / "my.json").write_text(json.dumps({"images": images, "annotations": notes}))


FORMS = [as_csv, lambda folder: as_csv(folder, "\t"), as_jsonl, as_lines, as_coco]


NO_TEXT = {"filename": "a", "split": "train", "sentences": [{"raw": 1}]}


class TestOwnData:
    @pytest.mark.parametrize("write", FORMS)
    def test_folders_in_every_form(self, tmp_path, write):
        folder = kaggle_folder(tmp_path)
        (folder / "captions.txt").unlink()
        write(folder)
        table = load_dataset(str(folder))
        found = zip(table["image"].map(lambda path: Path(path).name), table["caption"], strict=True)
        assert sorted(found) == sorted(ROWS)
        pictures = table.groupby("split")["image_id"].nunique().to_dict()
        assert pictures == {"train": 2, "dev": 1, "test": 1}
        assert (table.groupby("image_id")["split"].nunique() == 1).all()
        assert load_dataset(str(folder)).equals(table)
        dev = table[table["split"] == "dev"].reset_index(drop=True)
        assert load_dataset(str(folder), only="dev").equals(dev)

    def test_karpathys_form_has_its_splits(self, tmp_path):
        folder = kaggle_folder(tmp_path)
        (folder / "captions.txt").unlink()
        karpathy_json(folder / "mine.json", [("1_a.jpg", "train", {}), ("2_b.jpg", "val", {})])
        assert load_dataset(str(folder))["split"].tolist() == ["train"] * 2 + ["dev"] * 2

    def test_a_table_with_splits(self, tmp_path):
        folder = kaggle_folder(tmp_path)
        table = pd.DataFrame(
            {
                "image": ["Images/1_a.jpg", "2_b.jpg"],
                "caption": [["a dog", "two dogs "], "a cat"],
                "Split": ["train", "validation"],
                "image_id": [7, 8],
            }
        )
        found = from_table(table, folder)
        assert found["caption"].tolist() == ["a dog", "two dogs", "a cat"]
        assert found["image_id"].tolist() == ["7", "7", "8"]
        assert found["split"].tolist() == ["train", "train", "dev"]
        assert found["image"].tolist()[0] == str(folder / "Images/1_a.jpg")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"caption": [1.5, "a"]}, "must be a string. Received: 1.5"),
            ({"caption": ["", "a"]}, "empty caption"),
            ({"split": ["train", "holdout"]}, "Received: split='holdout'"),
        ],
    )
    def test_bad_tables_are_named(self, tmp_path, change, message):
        table = pd.DataFrame({"image": PICTURES[:2], "caption": ["a", "b"], **change})
        with pytest.raises(ValueError, match=message):
            from_table(table, kaggle_folder(tmp_path))

    def test_missing_columns_and_rows_are_named(self, tmp_path):
        with pytest.raises(ValueError, match="columns `image` and `caption`. Received: .*words"):
            from_table(pd.DataFrame({"image": ["a"], "words": ["b"]}))
        with pytest.raises(ValueError, match="Received: 0 rows"):
            from_table(pd.DataFrame({"image": [], "caption": []}))
        with pytest.raises(FileNotFoundError, match=r"no captions file; expected captions\.csv"):
            load_dataset(str(tmp_path))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("captions.jsonl", "{"),
            ("captions.jsonl", "[1]"),
            ("my.json", "[" * 10**5),
            ("my.json", '{"images": 1, "annotations": []}'),
            (
                "my.json",
                '{"images": [{"filename": "a", "split": "train", "sentences": [{"raw": 1}]}]}',
            ),
            ("captions.csv", ""),
        ],
    )
    def test_broken_captions_files_are_named(self, tmp_path, name, content):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match="Received: "):
            load_dataset(str(tmp_path))

    def test_description(self, tmp_path):
        folder = kaggle_folder(tmp_path)
        (folder / "Images" / "3_c.jpg").write_bytes(b"no picture")
        found = describe_dataset(load_dataset(str(folder)))
        assert found["pictures"] == {"train": 2, "dev": 1, "test": 1}
        assert found["captions"] == {"train": 4, "dev": 2, "test": 2}
        assert found["sizes"] == {"smallest": [4, 5], "median": [5, 5], "largest": [7, 5]}
        assert (found["words"]["shortest"], found["words"]["longest"]) == (5, 5)
        ((path, message),) = found["broken"].items()
        assert path.endswith("3_c.jpg")
        assert "not a picture" in message

    def test_seeded_splits(self):
        ids = [str(i) for i in range(100)]
        splits = seeded_splits(ids)
        assert splits == seeded_splits(ids[::-1])
        assert splits != seeded_splits(ids, seed=1)
        assert Counter(splits.values()) == {"train": 80, "dev": 10, "test": 10}
        assert Counter(seeded_splits("abc").values()) == {"train": 1, "dev": 1, "test": 1}
        assert seeded_splits("ab") == {"a": "train", "b": "train"}

    def test_unknown_names_get_a_hint(self):
        with pytest.raises(ValueError, match="did you mean 'flickr8k'.*Received: 'flickr8'"):
            load_dataset("flickr8")


class TestHostileArchives:
    def test_a_zip_bomb(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("big", bytes(5 << 20))
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo("big")
            member.size = 5 << 20
            archive.addfile(member, io.BytesIO(bytes(member.size)))
        for name in ("a.zip", "a.tar.gz"):
            with pytest.raises(ValueError, match="100 times larger.*Received"):
                unpack(tmp_path / name, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []

    def test_damage_encryption_and_unknown_compression(self, tmp_path):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", b"hello" * 100)
        whole = path.read_bytes()
        start, entry = 30 + len("a"), whole.index(b"PK\x01\x02")
        for place, byte, message in (
            (start, 0xFF, "is damaged or incomplete"),
            (entry + 8, 1, "unpack it by hand.*encrypted"),
            (entry + 10, 99, "unpack it by hand"),
        ):
            data = bytearray(whole)
            data[place] = byte
            if "encrypted" in message:
                data[6] = byte
            path.write_bytes(data)
            with pytest.raises(ValueError, match=f"(?s){message}.*"):
                unpack(path, tmp_path / "out")

    @pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
    def test_any_flipped_bit_of_a_compressed_archive_is_found(self, tmp_path, kind):
        """`tarfile` stops before the checksum at the end of the stream."""
        path, random = tmp_path / f"a.{kind}", np.random.default_rng(0)
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            for name in ("a", "b"):
                member = tarfile.TarInfo(name)
                member.size = 600
                archive.addfile(member, io.BytesIO(random.bytes(member.size)))
        whole = path.read_bytes()
        expected = [(unpack(path, tmp_path / "out") / name).read_bytes() for name in ("a", "b")]
        for bit in random.integers(8 * len(whole), size=100):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            shutil.rmtree(tmp_path / "out")
            try:
                folder = unpack(path, tmp_path / "out")
            except ValueError:
                continue
            assert [(folder / name).read_bytes() for name in ("a", "b")] == expected

    def test_a_damaged_header_is_not_the_end_of_an_archive(self, tmp_path):
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            for name in ("a", "b"):
                member = tarfile.TarInfo(name)
                member.size = 512
                archive.addfile(member, io.BytesIO(b"x" * 512))
        data = bytearray(path.read_bytes())
        data[1024 + 3] ^= 1  # the name of b
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is damaged or incomplete"):
            unpack(path, tmp_path / "out")

    def test_names_that_are_too_long(self, tmp_path):
        write_zip(tmp_path / "a.zip", {"a" * 300: b""})
        with pytest.raises(OSError, match=r"a\.zip cannot be unpacked.*names.*File name too long"):
            unpack(tmp_path / "a.zip", tmp_path / "out")


class TestLoadDataset:
    def test_own_folder_or_the_one_above(self, tmp_path):
        flickr8k_zips(tmp_path / "flickr8k")
        above = load_dataset("flickr8k", tmp_path, download=False)
        own = load_dataset("flickr8k", tmp_path / "flickr8k", download=False)
        assert above.equals(own)
        flickr8k_zips(tmp_path / "photos")
        assert len(load_dataset("flickr8k", tmp_path / "photos", download=False)) == 8

    @pytest.mark.parametrize("name", DATASETS[1:])
    def test_missing_files_are_named_with_their_place(self, tmp_path, name):
        place = tmp_path / name
        with pytest.raises(FileNotFoundError, match=f"into the folder {place}. Received: download"):
            load_dataset(name, tmp_path, download=False)
        assert list(tmp_path.iterdir()) == []

    def test_coco(self, tmp_path):
        coco_zips(tmp_path / "coco2017", 2017)
        assert len(load_dataset("coco2017", tmp_path, download=False, only="dev")) == 4

    def test_scenes(self, tmp_path):
        counts = {"train": 2, "dev": 1}
        table = load_dataset("scenes", tmp_path, num_images=counts, image_size=48, seed=1)
        assert table.groupby("split")["image_id"].nunique().to_dict() == counts
        assert set(load_objects(table)["image_id"]) == set(table["image_id"])
        dev = load_dataset("scenes", tmp_path, num_images=counts, image_size=48, seed=1, only="dev")
        assert dev.equals(table[table["split"] == "dev"].reset_index(drop=True))
        other = load_dataset("scenes", tmp_path, num_images=counts, image_size=48, seed=2)
        assert set(other["image"]).isdisjoint(table["image"])
        with pytest.raises(FileNotFoundError, match="The scenes have no test split"):
            load_dataset("scenes", tmp_path, num_images=counts, image_size=48, only="test")

    def test_bad_arguments(self, tmp_path):
        with pytest.raises(ValueError, match="one of scenes, flickr8k.*Received: 'mnist'"):
            load_dataset("mnist", tmp_path)
        with pytest.raises(ValueError, match="Received: only='validation'"):
            load_dataset("flickr8k", tmp_path, only="validation")
        with pytest.raises(ValueError, match="one division only"):
            load_dataset("scenes", tmp_path, splits="karpathy")
