"""Loading and saving the paper's captioner in folders, see `sat_keras.captioning.presets`."""

import os
from pathlib import Path
from typing import Any

from sat_keras.captioning.presets import (
    CONFIG_FILE,
    FORMAT,
    MODEL_FILE,
    copy_captioner,
    describe_encoder,
    pretrained_folder,
    pretrained_names,
    read_description,
    save_model,
)
from sat_keras.paper.captioner import Captioner

__all__ = [
    "CONFIG_FILE",
    "FORMAT",
    "MODEL_FILE",
    "copy_captioner",
    "describe_encoder",
    "load_pretrained",
    "make_encoder",
    "pretrained_folder",
    "pretrained_names",
    "read_description",
    "save_model",
    "save_pretrained",
]

make_encoder = Captioner.make_encoder


def load_pretrained(
    name_or_folder: str | os.PathLike,
    encoder_weights: str | os.PathLike | None = None,
    encoder: bool = True,
    dtype: str = "float32",
) -> Captioner:
    """Loads a trained captioner: `Captioner.from_preset`.

    Args:
        name_or_folder, encoder_weights, encoder, dtype: As of `Captioner.from_preset`.

    Returns:
        A `Captioner`.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: As `Captioner.from_preset`.

    Example:

    >>> captioner = load_pretrained("flickr8k-soft-vgg16")
    >>> captioner.generate("photo.jpg")
    'two dogs run through the grass'

    Reference:
        Notebook `07_flickr8k`.
    """
    return Captioner.from_preset(name_or_folder, encoder_weights, encoder, dtype)


def save_pretrained(
    captioner: Captioner,
    folder: str | os.PathLike,
    encoder_weights: str | None = "imagenet",
    training: dict[str, Any] | None = None,
) -> Path:
    """Saves a captioner in the form that is shared: `Captioner.save_to_preset`.

    Args:
        captioner: The `Captioner`.
        folder, encoder_weights, training: As of `Captioner.save_to_preset`.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ValueError: As `Captioner.save_to_preset`.

    Example:

    >>> save_pretrained(captioner, "pretrained/mine")
    >>> load_pretrained("pretrained/mine")
    """
    return captioner.save_to_preset(folder, encoder_weights, training)
