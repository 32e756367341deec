"""What commands read: the data set's captions table, encoder weights, search options, versions."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sat_keras.cli.options import DATASETS, flag
from sat_keras.config.config import Config


def with_encoder_sizes(config: Config, encoder: Any, arguments: argparse.Namespace) -> Config:
    """Returns the config with the grid and feature size of its encoder.

    Raises:
        ValueError: If the command line asks for another size.
    """
    sizes = {"grid_shape": tuple(encoder.grid_shape), "feature_dim": encoder.feature_dim}
    for name, size in sizes.items():
        asked = getattr(arguments, name, size)
        if (tuple(asked) if name == "grid_shape" else asked) != size:
            raise ValueError(
                f"{flag(name)} must be what the encoder {config.encoder} gives, {size}; leave the "
                f"option out. Received: {asked}"
            )
    return config.replace(**sizes)


def encoder_weights(
    arguments: argparse.Namespace, config: Config, origin: Mapping[str, Any] | None = None
) -> str | None:
    """Returns `"imagenet"`, a path, or `None` for random weights, the default of `scenes`.

    Args:
        arguments: Parsed arguments.
        config: The `Config`.
        origin: Optional description of the encoder of the captioner to start from. Weights that a
            file holds are the default.
    """
    weights = arguments.encoder_weights
    if weights is None:
        of_origin = origin and not origin["in_model"] and origin["weights"]
        return None if config.encoder == "scenes" else of_origin or "imagenet"
    return None if weights == "none" else weights


def default_features(dataset_name: str) -> Path:
    """Returns the default folder of a data set's feature cache."""
    return Path("outputs", "features", label(dataset_name))


def label(dataset_name: str) -> str:
    """Returns a data set's name in results and file names: of a folder, the folder's own name."""
    return dataset_name if dataset_name in DATASETS else Path(dataset_name).resolve().name


def dataset_of(
    arguments: argparse.Namespace, description: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the data set to load: the command line's, else the one of the training.

    Args:
        arguments: Parsed arguments.
        description: Optional description of a captioner, see `read_description`.

    Returns:
        Dictionary of `name`, `limit`, `data_dir`, `splits` and `features`.
    """
    recorded = (description or {}).get("dataset", {})
    name = arguments.dataset or recorded.get("name")
    if name is None:
        raise ValueError(
            f"A pretrained captioner needs a data set: add --dataset {{{','.join(DATASETS)}}}, or "
            f"a folder with photos and captions. Received: {arguments.model}"
        )
    if name != recorded.get("name"):
        recorded = {}
    dataset = {"name": name, "limit": recorded.get("limit", arguments.limit)}
    for key, default in (("data_dir", "data"), ("splits", None)):
        given = getattr(arguments, key)
        dataset[key] = recorded.get(key, default) if given is None else given
    features = recorded.get("features")
    return {**dataset, "features": features if features and Path(features).is_dir() else None}


def load_splits(dataset: Mapping[str, Any], splits: Sequence[str], limit: int | None = None) -> Any:
    """Loads the captions table of some splits, of the first `limit` pictures of each.

    Args:
        dataset: Dictionary of `dataset_of`.
        splits: Names of the splits.
        limit: Number of pictures, by default the data set's.
    """
    import pandas as pd

    from sat_keras.datasets import load_dataset, scenes

    num_images = None
    if dataset["name"] == "scenes" and dataset["limit"]:  # draws no more than needed
        sizes = scenes.NUM_IMAGES.items()
        num_images = {name: min(dataset["limit"], size) for name, size in sizes}
    limit = limit or dataset["limit"]
    tables = []
    for split in splits:
        table = load_dataset(
            dataset["name"],
            dataset["data_dir"],
            splits=dataset["splits"],
            only=split,
            num_images=num_images,
        )
        tables.append(table[table["image_id"].isin(table["image_id"].unique()[:limit])])
    return pd.concat(tables, ignore_index=True)


def entities_of(dataset: Mapping[str, Any], boxes: Sequence[str] | None) -> Path | None:
    """Returns where Flickr30k Entities is, among `--boxes` or in the data folder; or `None`.

    Args:
        dataset: Dictionary of `dataset_of`.
        boxes: What `--boxes` names, or `None`.
    """
    from sat_keras.datasets.boxes import open_entities

    if not dataset["name"].startswith("flickr"):
        return None
    folder = Path(dataset["data_dir"])
    for place in map(Path, boxes or (folder, folder / dataset["name"])):
        try:
            if place.exists():
                open_entities(place)
                return place
        except FileNotFoundError:
            continue
    return None


def objects_of(dataset: Mapping[str, Any], table: Any, boxes: Sequence[str] | None) -> Any:
    """Returns a table of the pictures' objects, or `None` if they are not known.

    Args:
        dataset: Dictionary of `dataset_of`.
        table: Captions table of the pictures.
        boxes: What `--boxes` names, or `None`.

    Raises:
        ValueError: If what `--boxes` names has none of these pictures.
    """
    from sat_keras.datasets import load_boxes, load_objects

    if dataset["name"] == "scenes":
        return load_objects(table)
    entities = entities_of(dataset, boxes)
    if not (boxes or entities):
        return None
    objects = load_boxes(boxes or [str(entities)], set(table["image_id"]))
    if objects.empty and not boxes:
        return None
    if objects.empty:
        raise ValueError(
            "Expected the boxes of these pictures: name the files of this data set's split. "
            f"Received: --boxes {' '.join(boxes or ())}, none of {table['image_id'].iloc[0]}"
        )
    return objects


def words_to_boxes_of(dataset_name: str) -> Any:
    """Returns the function that finds the boxes of a caption's words in a data set's objects."""
    from sat_keras.datasets import boxes, scenes

    return scenes.words_to_boxes if dataset_name == "scenes" else boxes.words_to_boxes


def search_options(arguments: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Returns beam size, length penalty and context: the command line's, else the config's."""
    names = ("beam_size", "length_penalty", "context")
    asked = {name: getattr(arguments, name) for name in names}
    return {
        name: getattr(config, name) if value is None else value for name, value in asked.items()
    }
