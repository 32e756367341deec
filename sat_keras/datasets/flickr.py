"""Flickr8k and Flickr30k.

Irregularities of the official files, and how they are handled:

- captions of `2258277193_586949ec62.jpg.1`, which is no picture, and of the 92 Flickr8k pictures
  in no split are left out;
- trailing blanks and empty lines in the split lists are ignored, as is a picture listed twice;
- `2851198725_37b6027625.jpg` and `3050606344_af711c726c.jpg` (both in train) are one picture under
  two names with ten captions: both are kept, as everybody's scores rest on 6,000 pictures;
- `1798209205_77dbf525b0.jpg` (train) is damaged in its lower half and kept;
- one line of the `results.csv` that goes round for Flickr30k lacks its second `|` and is read.
"""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from sat_keras.datasets.download import Archive, DataFolder
from sat_keras.datasets.folder import read_captions_file
from sat_keras.datasets.tables import (
    KARPATHY,
    SPLITS,
    caption_table,
    check_split,
    karpathy_pictures,
    read_karpathy,
    seeded_splits,
)

_FLICKR8K_MIRRORS = (
    "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/",
    "http://nlp.cs.illinois.edu/HockenmaierGroup/Framing_Image_Description/",
)
FLICKR8K_TEXT = Archive(
    name="Flickr8k_text.zip",
    size="2 MB",
    urls=tuple(f"{mirror}Flickr8k_text.zip" for mirror in _FLICKR8K_MIRRORS),
    md5="bf6c1abcb8e4a833b7f922104de18627",
)
FLICKR8K_IMAGES = Archive(
    name="Flickr8k_Dataset.zip",
    size="1.1 GB",
    urls=tuple(f"{mirror}Flickr8k_Dataset.zip" for mirror in _FLICKR8K_MIRRORS),
    md5="f18a1e2920de5bd84dae7cf08ec78978",
)
FLICKR30K_IMAGES = Archive(
    name="flickr30k-images.tar.gz",
    size="4.1 GB",
    page="https://shannon.cs.illinois.edu/DenotationGraph/ (a form to fill in)",
    other_names=("flickr30k-images.tar", "flickr30k_images.zip", "flickr30k-images.zip"),
)

_IMAGES_8K = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")  # sic: Flicker
_IMAGES_30K = ("flickr30k-images", "flickr30k_images", "Images", "images")
_KAGGLE = "captions.txt"
_TOKENS_30K = ("results_20130124.token", "results.csv")

_TOKEN_LINE = re.compile(r"(?P<image>[^\t]+)#(?P<number>\d+)\t\s*(?P<caption>\S.*)")
_CSV_LINE = re.compile(r"(?P<image>[^|]+?)\s*\|\s*(?P<number>\d+)\s*\|?\s*(?P<caption>\S.*)")
_CSV_HEADER = "image_name"


def load_flickr8k(
    data_dir: str | os.PathLike = "data/flickr8k",
    splits: str | os.PathLike | None = None,
    only: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    download: bool = True,
) -> pd.DataFrame:
    """Loads Flickr8k: 8,000 photos with five captions each, 6,000 / 1,000 / 1,000 in the splits.

    The official archives `Flickr8k_Dataset.zip` and `Flickr8k_text.zip` are used from `data_dir`,
    packed or unpacked, and downloaded only if they are not there. Kaggle's `Images/` and
    `captions.txt` are read as well, with the split lists in `data_dir` or, where there are none, a
    seeded split of 80/10/10.

    Args:
        data_dir: Folder with the archives or what was in them.
        splits: `None` for the official split lists, "karpathy" for `dataset_flickr8k.json` from
            `data_dir` (or downloaded), or the path of such a file.
        only: "train", "dev" or "test" to load that split alone. `None` loads all.
        cache_dir: Folder to unpack and download into. Defaults to `data_dir` or, where that is
            write-protected, to `data/flickr8k` in the working directory.
        download: Whether missing archives may be downloaded.

    Returns:
        DataFrame with one row a caption: `image` (path), `image_id` (file name without suffix),
        `caption`, `split`. Captions whose picture is missing are left out with a warning.

    Raises:
        FileNotFoundError: If a file is missing, or the wanted splits have no
            picture.
        ValueError: If an archive is damaged or a line of a caption file cannot be read.

    Example:
    ```python
    captions = load_flickr8k("data/flickr8k", only="dev")
    ```

    Reference:
        Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task", 2013.
    """
    check_split(only)
    folder = DataFolder(data_dir, "flickr8k", cache_dir, download)
    images = folder.require(_IMAGES_8K, FLICKR8K_IMAGES)
    if splits is not None:
        pictures = karpathy_pictures(splits, folder, "dataset_flickr8k.json")
        return caption_table(_karpathy_rows(pictures, images), "Flickr8k", only)
    kaggle = folder.find(_KAGGLE)
    if kaggle and folder.find_or_unpack(("Flickr8k.token.txt",), FLICKR8K_TEXT) is None:
        return _load_kaggle(kaggle, images, folder, "flickr8k", only)
    token_file = folder.require(("Flickr8k.token.txt",), FLICKR8K_TEXT)
    captions = read_captions(token_file)
    split_of: dict[str, str] = {}
    rows, uncaptioned = [], []
    for split in SPLITS:
        path = token_file.parent / f"Flickr_8k.{split}Images.txt"
        for image in _read_split_list(path):
            if split_of.setdefault(image, split) != split:
                raise ValueError(
                    f"The picture {image} is listed as {split_of[image]} and, in {path}, as "
                    f"{split}; delete one of the two lines. Received: {image}"
                )
            if image not in captions:
                uncaptioned.append(image)
            rows += [
                (images / image, Path(image).stem, text, split) for text in captions.get(image, ())
            ]
    if uncaptioned:
        warnings.warn(
            f"Flickr8k: {len(uncaptioned)} listed pictures have no caption in {token_file} and are "
            f"left out, the first is {uncaptioned[0]}.",
            stacklevel=2,
        )
    return caption_table(rows, "Flickr8k", only)


def load_flickr30k(
    data_dir: str | os.PathLike = "data/flickr30k",
    splits: str | os.PathLike | None = "karpathy",
    only: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    download: bool = True,
) -> pd.DataFrame:
    """Loads Flickr30k: 31,014 photos with five captions each, 29,000 / 1,014 / 1,000 in the splits.

    Flickr30k has no official split; everybody uses Karpathy's. The captions are read from
    `results_20130124.token` or `results.csv` where one of them is in `data_dir`, and from the
    split file otherwise. The pictures have to be put into `data_dir` by hand: their owners ask for
    a form to be filled in.

    Args:
        data_dir: Folder with `flickr30k-images.tar.gz` or the unpacked `flickr30k-images`.
        splits: "karpathy" (or None, which means the same) for `dataset_flickr30k.json` from
            `data_dir` (or downloaded), or the path of such a file.
        only: "train", "dev" or "test" to load that split alone. `None` loads all.
        cache_dir: Folder to unpack and download into. Defaults to `data_dir` or, where that is
            write-protected, to `data/flickr30k` in the working directory.
        download: Whether the split file may be downloaded.

    Returns:
        DataFrame as of `load_flickr8k`.

    Raises:
        FileNotFoundError: If a file is missing, or the wanted splits have no
            picture.
        ValueError: If an archive is damaged or a line of a caption file cannot be read.

    Reference:
        Young, Lai, Hodosh and Hockenmaier, "From image descriptions to visual denotations", 2014.
    """
    check_split(only)
    folder = DataFolder(data_dir, "flickr30k", cache_dir, download)
    images = folder.require(_IMAGES_30K, FLICKR30K_IMAGES)
    kaggle = folder.find(_KAGGLE)
    if kaggle and splits in (None, "karpathy"):
        return _load_kaggle(kaggle, images, folder, "flickr30k", only)
    pictures = karpathy_pictures(splits or "karpathy", folder, "dataset_flickr30k.json")
    token_file = folder.find(*_TOKENS_30K)
    if token_file:
        captions = read_captions(token_file)
        pictures = [
            {**picture, "captions": captions.get(picture["filename"], picture["captions"])}
            for picture in pictures
        ]
    return caption_table(_karpathy_rows(pictures, images), "Flickr30k", only)


def _load_kaggle(
    captions: Path, images: Path, folder: DataFolder, name: str, only: str | None
) -> pd.DataFrame:
    """Loads Kaggle's captions.txt with the split lists in the folder, else a seeded split."""
    table = read_captions_file(captions)
    image, caption = ("image_name" if "image_name" in table else "image"), table.columns[-1]
    if image not in table:
        raise ValueError(
            f"The file {captions} must have the header `image,caption` or "
            f"`image_name,comment_number,comment`. Received: {', '.join(table.columns)}"
        )
    split_of = _local_splits(folder, name)
    if split_of is None:
        split_of = seeded_splits(table[image])
        warnings.warn(
            f"{name}: there are no split lists beside {captions}, so the pictures are divided "
            "80/10/10 at random (seed 0). For scores that compare with published ones, put "
            f"dataset_{name}.json of {KARPATHY.name} ({KARPATHY.urls[0]}) into {folder.data_dir}.",
            stacklevel=3,
        )
    rows = [
        (images / file, Path(file).stem, text.strip(), split_of[file])
        for file, text in zip(table[image], table[caption], strict=True)
        if file in split_of and text.strip()
    ]
    return caption_table(rows, name.capitalize(), only)


def _local_splits(folder: DataFolder, name: str) -> dict[str, str] | None:
    """Returns the split of each picture file by the official lists or Karpathy's, if there."""
    found = {split: folder.find(f"Flickr_8k.{split}Images.txt") for split in SPLITS}
    lists = {split: path for split, path in found.items() if path is not None}
    if name == "flickr8k" and len(lists) == len(SPLITS):
        return {file: split for split, path in lists.items() for file in _read_split_list(path)}
    path = folder.find_or_unpack((f"dataset_{name}.json",), KARPATHY)
    return (
        None
        if path is None
        else {entry["filename"]: entry["split"] for entry in read_karpathy(path)}
    )


def read_captions(path: str | os.PathLike) -> dict[str, list[str]]:
    r"""Reads a caption file of Flickr8k or Flickr30k.

    Args:
        path: A file of lines `picture.jpg#0<TAB>caption`, or a `.csv` file of lines
            `picture.jpg| 0| caption`. Empty lines and the csv's header are passed over.

    Returns:
        {picture's file name: list of raw captions, in the file's order}.

    Raises:
        ValueError: If a line cannot be read; the message names file, line and remedy.
    """
    is_csv = Path(path).suffix == ".csv"
    pattern = _CSV_LINE if is_csv else _TOKEN_LINE
    form = "picture.jpg| 0| caption" if is_csv else "picture.jpg#0<TAB>caption"
    captions: dict[str, list[str]] = {}
    for number, line in numbered_lines(path):
        if is_csv and number == 1 and line.startswith(_CSV_HEADER):
            continue
        match = pattern.fullmatch(line)
        if not match:
            raise ValueError(
                f"{path}, line {number}: expected '{form}'; correct or delete this line. "
                f"Received: {line!r}"
            )
        captions.setdefault(match["image"].strip(), []).append(match["caption"])
    return captions


def _read_split_list(path: Path) -> list[str]:
    """Returns the picture names of a split, each once."""
    if not path.exists():
        raise FileNotFoundError(
            f"The split list {path.name} is missing; get {FLICKR8K_TEXT.name} from "
            f"{FLICKR8K_TEXT.urls[0]} and put its files into {path.parent}. Received: no {path}"
        )
    return list(dict.fromkeys(line for _, line in numbered_lines(path)))


def numbered_lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """Yields the lines of a UTF-8 file that are not blank, stripped, with their numbers from 1."""
    for number, raw in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: expected UTF-8 text; correct or delete this line. "
                f"Received: {raw!r}"
            ) from error
        if line:
            yield number, line


def _karpathy_rows(pictures: list[dict], images: Path) -> Iterator[tuple[Path, str, str, str]]:
    for picture in pictures:
        name = picture["filename"]
        for caption in picture["captions"]:
            yield images / name, Path(name).stem, caption, picture["split"]
