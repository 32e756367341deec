"""COCO captions, 2014 and 2017."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from sat_keras.datasets.download import Archive, DataFolder
from sat_keras.datasets.tables import caption_table, check_split, karpathy_pictures

_SERVER = "http://images.cocodataset.org"
_SIZES = {
    "train2014": "13 GB",
    "val2014": "6 GB",
    "train2017": "18 GB",
    "val2017": "1 GB",
    "annotations_trainval2014": "241 MB",
    "annotations_trainval2017": "241 MB",
}
_PART_OF_SPLIT = {"train": "train", "dev": "val"}


def load_coco(
    data_dir: str | os.PathLike = "data/coco2014",
    year: int = 2014,
    splits: str | os.PathLike | None = None,
    only: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    download: bool = True,
) -> pd.DataFrame:
    """Loads COCO captions: 123,287 photos with at least five captions each.

    `annotations_trainval<year>.zip`, `train<year>.zip` and `val<year>.zip` are used from
    `data_dir`, packed or unpacked, and downloaded (20 GB) only if they are not there; with `only`,
    pictures that are not needed are not asked for.

    Args:
        data_dir: Folder with the archives or what was in them.
        year: 2014 (the paper's: 82,783 + 40,504 pictures) or 2017 (118,287 + 5,000; the same
            pictures, divided otherwise).
        splits: `None` for the official division, whose validation pictures are the split "dev" and
            whose test captions are not public; "karpathy" for `dataset_coco.json` (113,287 /
            5,000 / 5,000, "restval" counted as train) from `data_dir` (or downloaded); or the path
            of such a file.
        only: "train", "dev" or "test" to load that split alone. `None` loads all.
        cache_dir: Folder to unpack and download into. Defaults to `data_dir` or, where that is
            write-protected, to `data/coco<year>` in the working directory.
        download: Whether missing archives may be downloaded.

    Returns:
        DataFrame with one row a caption: `image` (path), `image_id` (COCO's number, as str),
        `caption`, `split`. Captions whose picture is missing are left out with a warning.

    Raises:
        FileNotFoundError: If a file is missing, or the wanted splits have no
            picture.
        ValueError: If an argument is out of range, an archive is damaged or a file cannot be read.

    Example:
    ```python
    captions = load_coco("data/coco2014", splits="karpathy")
    ```

    Reference:
        Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", 2015.
    """
    check_split(only)
    if year not in (2014, 2017):
        raise ValueError(f"Expected year to be 2014 or 2017. Received: year={year!r}")
    if splits is None and only == "test":
        raise ValueError(
            "The captions of COCO's official test split are not public; choose splits='karpathy'. "
            "Received: splits=None, only='test'"
        )
    folder = DataFolder(data_dir, f"coco{year}", cache_dir, download)
    if splits is None:
        rows = list(_official_rows(folder, year, only))
    else:
        pictures = karpathy_pictures(splits, folder, "dataset_coco.json")
        wanted = [picture for picture in pictures if only in (None, picture["split"])]
        rows = list(_karpathy_rows(wanted, folder, year))
    return caption_table(rows, f"COCO {year}", only)


def _official_rows(
    folder: DataFolder, year: int, only: str | None
) -> Iterator[tuple[Path, str, str, str]]:
    for split, part in _PART_OF_SPLIT.items():
        if only not in (None, split):
            continue
        annotations = _archive(f"annotations_trainval{year}", "annotations")
        path = folder.require((f"captions_{part}{year}.json",), annotations)
        names, captions = _read_annotations(path)
        images = _images(folder, f"{part}{year}")
        for image_id, caption in captions:
            yield images / names[image_id], str(image_id), caption, split


def _read_annotations(path: Path) -> tuple[dict[int, str], list[tuple[int, str]]]:
    """Returns file names by image id, and (image id, caption) pairs sorted by image id."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        captions = [(note["image_id"], note["caption"].strip()) for note in content["annotations"]]
        unknown = [image_id for image_id, _ in captions if image_id not in names]
        if unknown:
            raise ValueError(f"a caption of the unknown image {unknown[0]}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"The file {path} is no COCO captions file: expected JSON with 'images' (id, "
            "file_name) and 'annotations' (image_id, caption). Delete it and get it again from "
            f"{_SERVER}. Received: {type(error).__name__}: {error}"
        ) from error
    return names, sorted(captions, key=lambda pair: pair[0])  # the file mixes the images' captions


def _karpathy_rows(
    pictures: list[dict], folder: DataFolder, year: int
) -> Iterator[tuple[Path, str, str, str]]:
    if year == 2014:
        places = [(picture["filepath"], picture["filename"]) for picture in pictures]
    else:  # 2017 has the same pictures under shorter names, and only it knows in which folder
        names = [f"{picture['cocoid']:012d}.jpg" for picture in pictures]
        in_val = set(os.listdir(_images(folder, "val2017")))
        places = [("val2017" if name in in_val else "train2017", name) for name in names]
    images = {part: _images(folder, part) for part in dict.fromkeys(part for part, _ in places)}
    for picture, (part, name) in zip(pictures, places, strict=True):
        for caption in picture["captions"]:
            yield images[part] / name, str(picture["cocoid"]), caption, picture["split"]


def _images(folder: DataFolder, part: str) -> Path:
    return folder.require((part,), _archive(part, "zips"))


def _archive(stem: str, server_folder: str) -> Archive:
    """Returns an archive of COCO's server, which publishes no checksums."""
    name = f"{stem}.zip"
    return Archive(name=name, size=_SIZES[stem], urls=(f"{_SERVER}/{server_folder}/{name}",))
