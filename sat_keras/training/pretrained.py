"""Loading and saving captioners in folders, see `sat_keras.captioning.presets`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sat_keras.baselines.systems import system_of
from sat_keras.captioning.ensemble import Ensemble
from sat_keras.captioning.model import CaptionModel
from sat_keras.captioning.presets import (
    CONFIG_FILE,
    FORMAT,
    MODEL_FILE,
    copy_captioner,
    copy_encoder,
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
    "copy_encoder",
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
    name_or_folder: str | os.PathLike | Sequence[str | os.PathLike],
    encoder_weights: str | os.PathLike | None = None,
    encoder: bool = True,
    dtype: str = "float32",
) -> Any:
    """Loads a trained captioner of any system, as `CaptionModel.from_preset` of its class.

    Args:
        name_or_folder: As of `CaptionModel.from_preset`, or a sequence of them, whose captioners
            become an `Ensemble`. The first brings the encoder.
        encoder_weights, encoder, dtype: As of `CaptionModel.from_preset`.

    Returns:
        A `CaptionModel`, such as a `Captioner`.

    Raises:
        FileNotFoundError, ConnectionError: As `CaptionModel.from_preset`.
        ValueError: As `CaptionModel.from_preset`, or if the captioners of a sequence do not fit
            together.

    Example:

    >>> captioner = load_pretrained("flickr8k-soft-vgg16")
    >>> captioner.generate("photo.jpg")
    'two dogs run through the grass'

    Reference:
        Notebook `07_flickr8k`.
    """
    if not isinstance(name_or_folder, (str, os.PathLike)):
        names = list(name_or_folder)
        return Ensemble(
            [
                load_pretrained(name, encoder_weights, encoder and i == 0, dtype)
                for i, name in enumerate(names)
            ]
        )
    config = read_description(pretrained_folder(name_or_folder))["config"]
    return system_of(config).from_preset(name_or_folder, encoder_weights, encoder, dtype)


def save_pretrained(
    captioner: CaptionModel,
    folder: str | os.PathLike,
    encoder_weights: str | None = "imagenet",
    training: dict[str, Any] | None = None,
) -> Path:
    """Saves a captioner in the form that is shared: `CaptionModel.save_to_preset`.

    Args:
        captioner: The `CaptionModel`.
        folder, encoder_weights, training: As of `CaptionModel.save_to_preset`.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ValueError: As `CaptionModel.save_to_preset`.

    Example:

    >>> save_pretrained(captioner, "pretrained/mine")
    >>> load_pretrained("pretrained/mine")
    """
    return captioner.save_to_preset(folder, encoder_weights, training)
