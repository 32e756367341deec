"""Data sets, each as one pandas table with a row for every caption.

The columns are `image` (path of the picture's file), `image_id`, `caption` (raw text) and `split`
("train", "dev" or "test"). `load_dataset` loads any of them by name.
"""

import difflib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from sat_keras.datasets import scenes
from sat_keras.datasets.boxes import load_boxes
from sat_keras.datasets.coco import load_coco
from sat_keras.datasets.flickr import load_flickr8k, load_flickr30k
from sat_keras.datasets.folder import describe_dataset, from_table, load_folder
from sat_keras.datasets.phrases import load_phrases
from sat_keras.datasets.scenes import (
    caption_accuracy,
    draw_scenes,
    load_objects,
    load_scenes,
    words_to_boxes,
)
from sat_keras.datasets.tables import check_split

__all__ = [
    "DATASETS",
    "caption_accuracy",
    "describe_dataset",
    "draw_scenes",
    "from_table",
    "load_boxes",
    "load_coco",
    "load_dataset",
    "load_flickr8k",
    "load_flickr30k",
    "load_folder",
    "load_objects",
    "load_phrases",
    "load_scenes",
    "words_to_boxes",
]

_LOADERS: dict[str, Callable[..., pd.DataFrame]] = {
    "flickr8k": load_flickr8k,
    "flickr30k": load_flickr30k,
    "coco2014": functools.partial(load_coco, year=2014),
    "coco2017": functools.partial(load_coco, year=2017),
}
DATASETS = ("scenes", *_LOADERS)
# File name patterns by which a data set's own folder is told from the one above it.
_SIGNS = {
    "flickr8k": ("captions.txt", "Flickr8k*", "Flicker8k*", "dataset_flickr8k.json"),
    "flickr30k": ("captions.txt", "flickr30k*", "results*", "dataset_flickr30k.json"),
    "coco2014": ("*2014", "*2014.zip", "annotations", "dataset_coco.json"),
    "coco2017": ("*2017", "*2017.zip", "annotations", "dataset_coco.json"),
}


def load_dataset(
    name: str,
    data_dir: str | os.PathLike = "data",
    *,
    download: bool = True,
    splits: str | os.PathLike | None = None,
    only: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    num_images: Mapping[str, int] | None = None,
    image_size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """Loads a data set by name; draws, unpacks or downloads it first where necessary.

    Args:
        name: One of `DATASETS`: "scenes", "flickr8k", "flickr30k", "coco2014", "coco2017"; or the
            path of a folder of your own, see `load_folder`.
        data_dir: The data set's own folder or the one above it (`data` for `data/flickr8k`).
            Scenes are drawn into `<data_dir>/scenes/`, each set in a folder of its own.
        download: Boolean, whether missing archives may be downloaded.
        splits: `None` for the official splits, "karpathy" for those of Karpathy and Li, or the path
            of such a split file. Not for scenes and folders of your own.
        only: "train", "dev" or "test" to load that split alone. A split without pictures is then
            an error.
        cache_dir: Folder to unpack and download into. Defaults to the data set's folder or, where
            that is write-protected, to `data/<name>` in the working directory. Not for scenes.
        num_images: Pictures of each split; scenes only, see `draw_scenes`.
        image_size: Integer, width and height in pixels; scenes only.
        seed: Integer, seed of the scenes, or of the split of a folder of your own.

    Returns:
        `pandas.DataFrame` with the columns `image`, `image_id`, `caption`, `split`, one row a
        caption. `load_objects(captions)` returns the objects of drawn scenes.

    Raises:
        ValueError: If an argument is out of range or a file cannot be read.
        FileNotFoundError: If a file is missing. The message says where to get it and to put it.

    Example:
    ```python
    captions = load_dataset("scenes")
    objects = load_objects(captions)
    ```

    Reference:
        Notebook `01_preprocessing`.
    """
    check_split(only)
    if name not in DATASETS:
        if Path(name).is_dir():
            if splits is not None:
                raise ValueError(
                    "The captions file of a folder of your own names its splits, in a column "
                    f"`split`; leave the argument out. Received: splits={str(splits)!r}"
                )
            return load_folder(name, only, seed)
        near = difflib.get_close_matches(name, DATASETS, n=1)
        raise ValueError(
            f"Expected name to be one of {', '.join(DATASETS)}, or the path of a folder of your "
            f"own{f'; did you mean {near[0]!r}' if near else ''}. Received: {name!r}"
        )
    if name == "scenes":
        if splits is not None:
            raise ValueError(f"Scenes have one division only. Received: splits={splits!r}")
        return _draw_or_load_scenes(data_dir, only, num_images, image_size, seed)
    return _LOADERS[name](
        _own_folder(name, data_dir),
        splits=splits,
        only=only,
        cache_dir=cache_dir,
        download=download,
    )


def _draw_or_load_scenes(
    data_dir: str | os.PathLike,
    only: str | None,
    num_images: Mapping[str, int] | None,
    image_size: int,
    seed: int,
) -> pd.DataFrame:
    counts = scenes.NUM_IMAGES if num_images is None else num_images
    counted = "-".join(str(counts.get(split, 0)) for split in scenes.SPLITS)
    folder = Path(data_dir) / "scenes" / f"{counted}-{image_size}px-seed{seed}"
    captions, _ = draw_scenes(folder, num_images, image_size, seed)
    if only is None:
        return captions
    if not (captions["split"] == only).any():
        raise FileNotFoundError(
            f"The scenes have no {only} split; draw some with num_images={{'{only}': 300}}. "
            f"Received: num_images={dict(counts)}"
        )
    return captions[captions["split"] == only].reset_index(drop=True)


def _own_folder(name: str, data_dir: str | os.PathLike) -> Path:
    """Returns `data_dir` if it is the data set's own folder, else the sub-folder of that name."""
    data_dir = Path(data_dir)
    below = data_dir / name
    if below.is_dir():
        return below
    is_own = data_dir.name == name or any(any(data_dir.glob(sign)) for sign in _SIGNS[name])
    return data_dir if is_own else below
