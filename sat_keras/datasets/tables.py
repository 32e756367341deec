"""The captions table that every data set becomes, and Karpathy's split files."""

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
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
# COCO's "restval" pictures are validation pictures that are commonly used for training.
_KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}


def check_split(only: str | None) -> None:
    """Raises a `ValueError` unless `only` is the name of a split or `None`."""
    if only is not None and only not in SPLITS:
        raise ValueError(
            f'Expected only to be "train", "dev", "test" or None. Received: only={only!r}'
        )


def seeded_splits(image_ids: Iterable[str], seed: int = 0) -> dict[str, str]:
    """Divides pictures at random: 80 % for training, 10 % each for dev and test.

    Args:
        image_ids: Image ids. They may repeat, and their order does not matter.
        seed: Integer.

    Returns:
        Dictionary from image id to split. Three pictures or more give one to each split at least.
    """
    ids = sorted(set(image_ids))
    part = max(1, round(len(ids) / 10)) if len(ids) > 2 else 0
    split_of = dict.fromkeys(ids, "train")
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(ids))[: 2 * part]):
        split_of[ids[index]] = "dev" if number < part else "test"
    return split_of


def caption_table(
    rows: Iterable[tuple[str | os.PathLike, str, str, str]], name: str, only: str | None = None
) -> pd.DataFrame:
    """Makes a captions table from rows, without those whose picture is missing.

    Args:
        rows: Tuples (path of the picture, image id, caption, split), one a caption.
        name: Name of the data set, for messages.
        only: Optional name of the split to keep.

    Returns:
        `pandas.DataFrame` with the string columns `image`, `image_id`, `caption` and `split`, one
        row a caption. Splits come in the order train, dev, test, and rows in the order given.

    Raises:
        ValueError: If a caption is empty.
        FileNotFoundError: If no picture of the wanted splits exists.
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
    """Leaves out missing pictures, with one warning that counts them by split."""
    there: set[str] = set()
    for folder in {os.path.dirname(path) for path in table["image"]}:
        if os.path.isdir(folder or "."):
            there.update(os.path.join(folder, file) for file in os.listdir(folder or "."))
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
    """Reads a split file of Karpathy and Li (such as `dataset_flickr8k.json`).

    Args:
        path: Path of the JSON file.

    Returns:
        List of dictionaries, one a picture: `filename`, `split` ("train", "dev" or "test"; COCO's
        "restval" counts as "train"), `captions` (list of strings), and for COCO `filepath` (folder)
        and `cocoid`, else `None`.

    Raises:
        ValueError: If the file is no such split file.

    Reference:
        Karpathy and Li 2015, "Deep Visual-Semantic Alignments for Generating Image Descriptions".
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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"The file {path} is no split file of Karpathy's: expected JSON with a list 'images' "
            "of entries with 'filename', 'split' and 'sentences'. Get it again from "
            f"{KARPATHY.urls[0]}. Received: {type(error).__name__}: {error}"
        ) from error


def karpathy_pictures(splits: str | os.PathLike, folder: DataFolder, file_name: str) -> list[dict]:
    """Reads the split file that the argument `splits` of a loader asks for.

    Args:
        splits: "karpathy" to find `file_name` in the folder or download it, or a file's path.
        folder: Folder of the data set.
        file_name: Name such as "dataset_flickr8k.json".

    Returns:
        List as of `read_karpathy`.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if splits == "karpathy":
        return read_karpathy(folder.require((file_name,), KARPATHY))
    if not Path(splits).is_file():
        raise FileNotFoundError(
            'Expected splits to be None, "karpathy" or the path of a split file. '
            f"Received: splits={str(splits)!r}"
        )
    return read_karpathy(splits)
