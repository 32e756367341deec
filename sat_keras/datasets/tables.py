"""The one table every data set is given as, and Karpathy's split files, which many share."""

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from sat_keras.datasets.download import Archive, DataFolder

SPLITS = ("train", "dev", "test")
COLUMNS = ("image", "image_id", "caption", "split")

KARPATHY = Archive(
    name="caption_datasets.zip",
    size="36 MB",
    urls=(
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        "http://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        "https://huggingface.co/datasets/gpantaz/karpathy_split/resolve/main/caption_datasets.zip",
    ),
    md5=None,  # the authors published none
)
# COCO's "restval" pictures are validation pictures that everybody trains on.
_KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}


def check_split(only: str | None) -> None:
    """Raise a ValueError unless `only` is a split's name or None."""
    if only is not None and only not in SPLITS:
        raise ValueError(
            f'Expected only to be "train", "dev", "test" or None. Received: only={only!r}'
        )


def caption_table(
    rows: Iterable[tuple[str | os.PathLike, str, str, str]], name: str, only: str | None = None
) -> pd.DataFrame:
    """Make the table of a data set out of its rows, without those whose picture is missing.

    Args:
        rows: (path of the picture, image id, caption, split) for every caption.
        name: the data set's name, for messages.
        only: one split to keep, or None for all.

    Returns:
        DataFrame with the str columns `image`, `image_id`, `caption` and `split`, one row a
        caption; splits in the order train, dev, test, otherwise in the order given.

    Raises:
        ValueError: a caption is empty.
        FileNotFoundError: no picture of the wanted splits is there.
    """
    wanted = [(str(path), *rest) for path, *rest in rows if only in (None, rest[-1])]
    table = pd.DataFrame(wanted, columns=COLUMNS, dtype=str)
    empty = table[table["caption"].str.strip() == ""]
    if len(empty):
        raise ValueError(
            f"{name} has an empty caption of the picture {empty['image'].iloc[0]}; write the "
            f"caption or delete its entry. Received: {empty['caption'].iloc[0]!r}"
        )
    table = _keep_existing(table, name, only)
    order = table["split"].map(SPLITS.index)
    return table.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def _keep_existing(table: pd.DataFrame, name: str, only: str | None) -> pd.DataFrame:
    """Leave out missing pictures with one warning that counts them by split."""
    there = set()
    for folder in {os.path.dirname(path) for path in table["image"]}:
        if os.path.isdir(folder):
            there.update(os.path.join(folder, file) for file in os.listdir(folder))
    exists = table["image"].isin(there)
    pictures = table.assign(exists=exists).drop_duplicates("image")
    counts = pictures.groupby("split")["exists"].agg(["size", "sum"])
    sizes = [(split, *counts.loc[split]) for split in SPLITS if split in counts.index]
    missing = [
        f"{size - found} of the {size} {split} pictures"
        for split, size, found in sizes
        if found < size
    ]
    if not exists.any():
        folders = sorted({os.path.dirname(path) for path in table["image"]})
        raise FileNotFoundError(
            f"{name} has no picture for {f'its {only} split' if only else 'any split'}; put the "
            f"pictures into {' and '.join(folders) or 'the data folder'}. "
            f"Received: {', '.join(missing) or 'no listed picture'} missing"
        )
    if missing:
        warnings.warn(
            f"{name}: {' and '.join(missing)} are missing; their captions are left out.",
            stacklevel=4,  # the caller of the data set's loader
        )
    return table[exists]


def read_karpathy(path: str | os.PathLike) -> list[dict]:
    """Read a split file of Karpathy and Li (`dataset_flickr8k.json` and its like).

    Args:
        path: the JSON file.

    Returns:
        List of mappings, one a picture: `filename`, `split` ("train", "dev" or "test"; COCO's
        "restval" counts as "train"), `captions` (list of str), and for COCO `filepath` (folder)
        and `cocoid`, else None.

    Raises:
        ValueError: the file is no such split file.

    Reference:
        Karpathy and Li, "Deep Visual-Semantic Alignments for Generating Image Descriptions".
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))["images"]
        return [
            {
                "filename": entry["filename"],
                "split": _KARPATHY_SPLITS[entry["split"]],
                "captions": [sentence["raw"].strip() for sentence in entry["sentences"]],
                "filepath": entry.get("filepath"),
                "cocoid": entry.get("cocoid"),
            }
            for entry in entries
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The file {path} is no split file of Karpathy's: expected JSON with a list 'images' "
            "of entries with 'filename', 'split' and 'sentences'. Get it again from "
            f"{KARPATHY.urls[0]}. Received: {type(error).__name__}: {error}"
        ) from error


def karpathy_pictures(splits: str | os.PathLike, folder: DataFolder, file_name: str) -> list[dict]:
    """Read the split file that the argument `splits` of a loader asks for.

    Args:
        splits: "karpathy" to find `file_name` in the folder or download it, or a file's path.
        folder: the data set's folder.
        file_name: such as "dataset_flickr8k.json".

    Returns:
        As `read_karpathy`.
    """
    if splits == "karpathy":
        return read_karpathy(folder.require((file_name,), KARPATHY))
    if not Path(splits).is_file():
        raise FileNotFoundError(
            'Expected splits to be None, "karpathy" or the path of a split file. '
            f"Received: splits={str(splits)!r}"
        )
    return read_karpathy(splits)
