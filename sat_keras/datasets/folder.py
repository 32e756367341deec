"""Data sets of one's own: a folder of photos with a captions file, or a table."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sat_keras.backend.progress import track
from sat_keras.data.images import load_image
from sat_keras.datasets.tables import (
    SPLITS,
    caption_table,
    check_split,
    read_karpathy,
    seeded_splits,
)

# Other names of the columns, in captions files of Kaggle and others.
_COLUMNS = {
    **dict.fromkeys(("image_name", "file_name", "filename", "file", "path", "photo"), "image"),
    **dict.fromkeys(("captions", "comment", "text", "sentence"), "caption"),
}
_SPLITS = {
    **{split: split for split in SPLITS},
    **{"val": "dev", "valid": "dev", "validation": "dev", "restval": "train", "training": "train"},
}
_FORMS = (
    "captions.csv, .tsv or .txt with a header `image,caption`, captions.jsonl with a mapping a "
    "line, captions.txt with lines `photo.jpg<TAB>caption`, or Karpathy's or COCO's JSON"
)


def from_table(
    table: pd.DataFrame, folder: str | os.PathLike = ".", seed: int = 0, only: str | None = None
) -> pd.DataFrame:
    """Makes a captions table from one's own table of pictures and captions.

    Args:
        table: `pandas.DataFrame` with one row a caption and the columns `image` (path, relative to
            `folder` or to a folder below it) and `caption` (a string, or a list of strings), and
            optionally `image_id` (defaults to the path) and `split` ("train", "dev", "test").
        folder: Path of the folder with the pictures.
        seed: Integer, seed of the split where there is no column `split`: 80 % of the pictures are
            for training, 10 % each for dev and test.
        only: "train", "dev" or "test" to keep that split alone.

    Returns:
        `pandas.DataFrame` with the columns `image`, `image_id`, `caption` and `split`, one row a
        caption. Captions whose picture is missing are left out with a warning.

    Raises:
        ValueError: If a column is missing, or a caption or a split is invalid.
        FileNotFoundError: If no picture exists.

    Example:
    >>> photos = pd.DataFrame({"image": ["a.jpg"], "caption": ["a dog runs"], "split": ["train"]})
    >>> captions = from_table(photos, "my_photos")
    """
    check_split(only)
    table = table.rename(columns={name: str(name).strip().lower() for name in table.columns})
    missing = {"image", "caption"} - set(table.columns)
    table = table.rename(columns={k: v for k, v in _COLUMNS.items() if v in missing})
    if not {"image", "caption"} <= set(table.columns):
        raise ValueError(
            "The table must have the columns `image` and `caption`. "
            f"Received: columns {', '.join(map(str, table.columns)) or 'none'}"
        )
    if table.empty:
        raise ValueError("The table must have at least one caption. Received: 0 rows")
    table = table.explode("caption")
    images = [os.fspath(image) for image in table["image"]]
    ids = [str(each) for each in table["image_id"]] if "image_id" in table else images
    if "split" in table:
        splits = [_split_of(split) for split in table["split"]]
    else:
        split_of = seeded_splits(ids, seed)
        splits = [split_of[each] for each in ids]
    paths = _find_pictures(Path(folder), images)
    captions = [_caption_of(caption) for caption in table["caption"]]
    rows = zip((paths[image] for image in images), ids, captions, splits, strict=True)
    return caption_table(rows, "The data set", only)


def load_folder(folder: str | os.PathLike, only: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Loads a folder of photos with a captions file as a captions table.

    The captions file lies in the folder. It is one of

    - `captions.csv` or `captions.tsv` with the columns `image` and `caption`, and optionally
      `image_id` and `split`;
    - `captions.jsonl`, a mapping with these keys a line, whose caption may be a list;
    - `captions.txt`, such a CSV file (as on Kaggle), or lines `photo.jpg<TAB>caption` (a number
      after the name, as in `photo.jpg#0`, is ignored);
    - a JSON file of Karpathy's form ("images" with "sentences") or of COCO's ("images" and
      "annotations").

    Args:
        folder: Path of the folder. Photos lie in it or in folders below.
        only: "train", "dev" or "test" to load that split alone.
        seed: Integer, seed of the split where the file names none, see `from_table`.

    Returns:
        `pandas.DataFrame` as of `from_table`.

    Raises:
        FileNotFoundError: If there is no captions file or no picture.
        ValueError: If a file cannot be read. The message names it.

    Example:
    >>> captions = load_folder("my_photos")
    """
    path = captions_file(folder)
    found = read_captions_file(path)
    table = from_table(found, folder, seed)
    if "split" not in {str(name).strip().lower() for name in found.columns}:
        counts = table.groupby("split")["image"].nunique()
        parts = ", ".join(f"{counts[split]} {split}" for split in SPLITS if split in counts)
        warnings.warn(
            f"{path} names no splits, so the pictures are divided at random (seed {seed}): {parts}",
            stacklevel=2,
        )
    if only is None or (table["split"] == only).any():
        return table if only is None else table[table["split"] == only].reset_index(drop=True)
    raise ValueError(
        f"The data set has no {only} pictures; name their split in the column `split` of the "
        f"captions file, or add pictures: three or more are divided at random. Received: {path}"
    )


def describe_dataset(table: pd.DataFrame) -> dict[str, Any]:
    """Counts what a captions table holds, and decodes every picture to find broken files.

    Args:
        table: Captions table, as `load_dataset` returns it.

    Returns:
        Dictionary of plain values: `pictures` and `captions` (numbers by split), `words` (number of
        words, of distinct words, and the shortest and longest caption in words), `sizes` (smallest,
        median and largest picture by area, `[width, height]`), and `broken` (messages by path).

    Example:
    >>> describe_dataset(load_dataset("my_photos"))["pictures"]
    {'train': 16, 'dev': 2, 'test': 2}
    """
    from sat_keras.data.tokenizer import normalize

    by_split = table.groupby("split")
    splits = [split for split in SPLITS if split in by_split.groups]
    captions = [text.split() for text in normalize(table["caption"].tolist())]
    lengths = [len(words) for words in captions]
    paths = list(dict.fromkeys(table["image"]))
    checked: dict[str, list[int] | str] = {}
    with ThreadPoolExecutor() as pool, track(len(paths), "Pictures") as bar:
        for path, size in zip(paths, pool.map(_size_or_error, paths), strict=True):
            checked[path] = size
            bar.update(1)
    sizes = sorted((size for size in checked.values() if isinstance(size, list)), key=np.prod)
    return {
        "pictures": {split: int(by_split["image"].nunique()[split]) for split in splits},
        "captions": {split: int(by_split.size()[split]) for split in splits},
        "words": {
            "total": sum(lengths),
            "distinct": len({word for words in captions for word in words}),
            "shortest": min(lengths, default=0),
            "longest": max(lengths, default=0),
        },
        "sizes": {
            "smallest": sizes[0] if sizes else None,
            "median": sizes[len(sizes) // 2] if sizes else None,
            "largest": sizes[-1] if sizes else None,
        },
        "broken": {path: error for path, error in checked.items() if isinstance(error, str)},
    }


def read_captions_file(path: str | os.PathLike) -> pd.DataFrame:
    """Reads a captions file of any of the forms of `load_folder`.

    Args:
        path: Path of the file.

    Returns:
        `pandas.DataFrame` with the file's columns.

    Raises:
        ValueError: If the file cannot be read. The message names it.
    """
    path = Path(path)
    try:
        if path.suffix == ".jsonl":
            return pd.DataFrame([json.loads(line) for line in _lines(path)])
        if path.suffix == ".json":
            return _read_json(path)
        first = next(_lines(path), "")
        if path.suffix == ".txt" and "\t" in first and not first.lower().startswith("image"):
            pairs = [line.split("\t", 1) for line in _lines(path)]
            table = pd.DataFrame(pairs, columns=["image", "caption"])
            return table.assign(image=table["image"].str.replace(r"#\d+$", "", regex=True))
        separator = "\t" if "\t" in first else "|" if "|" in first else ","
        return pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            skipinitialspace=True,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"The captions file {path} cannot be read; expected {_FORMS}. "
            f"Received: {type(error).__name__}: {str(error)[:200]}"
        ) from error


def captions_file(folder: str | os.PathLike) -> Path:
    """Returns the path of a folder's captions file, see `load_folder`.

    Args:
        folder: Path of the folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    folder = Path(folder)
    named = [folder / f"captions{suffix}" for suffix in (".csv", ".tsv", ".jsonl", ".txt")]
    others = sorted(folder.glob("*.json"))
    preferred = [path for path in others if path.name.startswith(("dataset", "captions"))]
    for path in (*named, *preferred, *others):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"The folder has no captions file; expected {_FORMS}. Received: {str(folder)!r}"
    )


def _read_json(path: Path) -> pd.DataFrame:
    """Reads Karpathy's or COCO's JSON."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if "annotations" in content:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        rows = [
            {"image": names[note["image_id"]], "image_id": str(note["image_id"]), **note}
            for note in content["annotations"]
        ]
        return pd.DataFrame(rows)[["image", "image_id", "caption"]]
    rows = [
        {
            "image": os.path.join(picture["filepath"] or "", picture["filename"]),
            "caption": caption,
            "split": picture["split"],
        }
        for picture in read_karpathy(path)
        for caption in picture["captions"]
    ]
    return pd.DataFrame(rows)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        yield from (line.strip() for line in file if line.strip())


def _find_pictures(folder: Path, names: list[str]) -> Mapping[str, str]:
    """Returns the paths of pictures in the folder or, by relative path or name, below it."""
    missing = [name for name in dict.fromkeys(names) if not (folder / name).is_file()]
    found = {name: str(folder / name) for name in dict.fromkeys(names)}
    if missing:
        by_name = {path.name: str(path) for path in folder.rglob("*") if path.is_file()}
        found.update(
            {name: by_name[Path(name).name] for name in missing if Path(name).name in by_name}
        )
    return found


def _split_of(split: Any) -> str:
    if str(split).strip().lower() not in _SPLITS:
        raise ValueError(
            'Expected the column `split` to hold "train", "dev" and "test". '
            f"Received: split={split!r}"
        )
    return _SPLITS[str(split).strip().lower()]


def _caption_of(caption: Any) -> str:
    if not isinstance(caption, str):
        raise ValueError(f"A caption must be a string. Received: {caption!r}")
    return caption.strip()


def _size_or_error(path: str) -> list[int] | str:
    try:
        height, width = load_image(path).shape[:2]
    except (OSError, ValueError) as error:
        return str(error)
    return [width, height]
