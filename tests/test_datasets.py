import hashlib
import json
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sat_keras.datasets import (
    DATASETS,
    load_coco,
    load_dataset,
    load_flickr8k,
    load_flickr30k,
    load_objects,
)
from sat_keras.datasets.download import Archive, fetch, unpack
from sat_keras.datasets.flickr import read_captions

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
        assert "answered with something else than an archive" in message
        assert list((tmp_path / "data").iterdir()) == []

    def test_unpack_twice(self, tmp_path, mirror):
        path = tmp_path / "mirror" / "tiny.zip"
        folder = unpack(path, tmp_path)
        before = tree(folder)
        assert unpack(path, tmp_path) == folder
        assert tree(folder) == before
        assert (folder / "1.txt").read_text() == "one"


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
