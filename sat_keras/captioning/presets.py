"""Loading captioning models from folders, and saving them in the small form that is shared.

A `config.json` holds the captioner's config and describes its encoder. In a training's folder the
weights are in `model.keras`. In the shared form, written by `save_preset`, `config.json` also
holds the vocabulary and the weights' checksum, and the weights are in float16: those of the decoder
in `decoder.weights.h5`, or with a CNN that was trained, of both in `captioner.weights.h5`. Of a CNN
that was trained in part these are the trained layers. Frozen layers that `config.json` can name are
not saved; Keras downloads their weights, or a file has them.
"""

import difflib
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from sat_keras.cnn.split import copy_head
from sat_keras.config.config import Config
from sat_keras.data.files import (
    check_room,
    check_sum,
    compress_hdf5,
    hdf5_size,
    read_json,
    replacing,
    sha256,
    write_json,
)
from sat_keras.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sat_keras.captioning.model import CaptionModel

FORMAT = 1
CONFIG_FILE = "config.json"
MODEL_FILE = "model.keras"
WEIGHTS_FILE = "decoder.weights.h5"
WHOLE_FILE = "captioner.weights.h5"  # with the encoder, or the layers of it that were trained

_PACKAGE = Path(__file__).resolve().parents[1]
# In an installed wheel the folder lies in the package, in a checkout beside it.
_FOLDERS = (_PACKAGE / "pretrained", _PACKAGE.parent / "pretrained")


def pretrained_names() -> list[str]:
    """Returns the names of the captioners that come with this package.

    Returns:
        Sorted list of names for `from_preset` and `load_pretrained`.
    """
    return sorted({path.parent.name for top in _FOLDERS for path in top.glob(f"*/{CONFIG_FILE}")})


def pretrained_folder(name_or_folder: str | os.PathLike) -> Path:
    """Returns the folder of a captioner.

    Args:
        name_or_folder: One of `pretrained_names()`, the path of a folder with a `config.json`, or
            the path of a `model.keras` in such a folder.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        FileNotFoundError: If there is none. The message lists similar names.
    """
    path = Path(name_or_folder)
    if path.name == MODEL_FILE:
        path = path.parent
    is_name = path.name == os.fspath(name_or_folder)
    candidates = [path, *((top / path for top in _FOLDERS) if is_name else ())]
    for candidate in candidates:
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    names = pretrained_names()
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or names
    raise FileNotFoundError(
        f"Expected the folder of a trained captioner, with {CONFIG_FILE} in it, or the name of a "
        f"pretrained one ({', '.join(near) or 'there is none here'}); train one with "
        f"`sat-keras train`. Received: {os.fspath(name_or_folder)!r}"
    )


def read_description(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads the `config.json` of a captioner's folder.

    Args:
        folder: The folder's path.

    Returns:
        Dictionary of `config` (a `Config`), `encoder` (dictionary of `weights`, `fingerprint` and
        `in_model`), `training` (how it was trained; may be empty), `vocabulary` (list of words, or
        `None` where the model's file has it) and, of a training, `dataset`.

    Raises:
        ValueError: If the file is damaged or of another version.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        description = read_json(path)
        version = description["format"]
        if version == FORMAT:
            config = Config.from_dict(description["config"])
            encoder = {key: description["encoder"][key] for key in _ENCODER_KEYS}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The file {path} is damaged or of another version; get the folder again, train again, "
            "or use the version of sat_keras that wrote it. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"The file {path} is of another version; use the version of sat_keras that wrote it, "
            f"or train again. Received: format {version!r}, expected {FORMAT}"
        )
    defaults: dict[str, Any] = {"training": {}, "vocabulary": None}
    return {**defaults, **description, "config": config, "encoder": encoder}


_ENCODER_KEYS = ("weights", "fingerprint", "in_model")


def describe_encoder(
    encoder: Any, weights: str | os.PathLike | None, in_model: bool
) -> dict[str, Any]:
    """Describes an encoder for `config.json`.

    Args:
        encoder: The `ImageEncoder`.
        weights: Argument of `CaptionModel.make_encoder`: `"imagenet"`, a file's path or `None`.
        in_model: Boolean, whether the model's file contains it.

    Returns:
        Dictionary of JSON values.
    """
    if weights not in (None, "imagenet"):
        weights = os.path.abspath(weights)
    return {"weights": weights, "fingerprint": encoder.fingerprint(), "in_model": in_model}


def copy_encoder(encoder: Any, dtype: str) -> Any:
    """Copies an encoder with its weights, in another precision.

    Args:
        encoder: `ImageEncoder`.
        dtype: The copy's dtype policy.
    """
    copy = type(encoder).from_config({**encoder.get_config(), "dtype": dtype})
    copy.set_weights(encoder.get_weights())
    return copy


def copy_captioner(captioner: Any, encoder: Any, dtype: str) -> Any:
    """Copies a captioner, with another encoder and in another precision.

    Args:
        captioner: The `CaptionModel`.
        encoder: `ImageEncoder` of the copy, itself copied if its precision is another one, or
            `None` for a copy that works on annotation vectors or, with a head, on cached features.
            Its head takes the weights of the captioner's.
        dtype: The copy's dtype policy.

    Returns:
        A model of the same class that is not compiled, with the same weights.
    """
    if encoder is not None and encoder.dtype_policy.name != dtype:
        encoder = copy_encoder(encoder, dtype)
    options = {name: getattr(captioner, name) for name in captioner.option_names}
    if encoder is None and captioner.head is not None:
        options["head"] = copy_head(captioner.head, dtype)
    copy = type(captioner)(captioner.config, captioner.tokenizer, encoder, dtype=dtype, **options)
    copy.copy_weights(captioner)
    if copy.head is not None and captioner.head is not None:
        copy.head.set_weights(captioner.head.get_weights())
    return copy


def load_preset(
    cls: "type[CaptionModel]",
    name_or_folder: str | os.PathLike,
    encoder_weights: str | os.PathLike | None = None,
    encoder: bool = True,
    dtype: str = "float32",
) -> Any:
    """Loads a trained captioner.

    Args:
        cls: Class of the captioner.
        name_or_folder, encoder_weights, encoder, dtype: As of `CaptionModel.from_preset`.

    Returns:
        An instance of `cls`.
    """
    folder = pretrained_folder(name_or_folder)
    description = read_description(folder)
    captioner = _load_weights(cls, folder, description)
    if encoder and not description["encoder"]["in_model"]:
        weights = encoder_weights or description["encoder"]["weights"]
        cnn = cls.make_encoder(captioner.config, weights, dtype)
        return copy_captioner(captioner, cnn, dtype)
    if captioner.dtype_policy.name != dtype:
        return copy_captioner(captioner, captioner.encoder, dtype)
    return captioner


def save_preset(
    captioner: Any,
    folder: str | os.PathLike,
    encoder_weights: str | None = "imagenet",
    training: dict[str, Any] | None = None,
) -> Path:
    """Saves a captioner in float16, without a frozen CNN that Keras can download.

    Args:
        captioner: A `CaptionModel` with a tokenizer.
        folder, encoder_weights, training: As of `CaptionModel.save_to_preset`.

    Returns:
        `pathlib.Path` of the folder.
    """
    if captioner.tokenizer is None:
        raise ValueError("The captioner must have a `tokenizer`. Received: tokenizer=None")
    encoder = captioner.encoder
    in_model = captioner.config.encoder_trainable is True or encoder_weights is None
    if in_model and encoder is None:
        raise ValueError(
            "A captioner whose encoder was trained cannot be saved without it: give it the encoder "
            "of its training. Received: encoder=None"
        )
    folder = Path(folder).resolve()
    name = _weights_file(captioner.config, in_model)
    with replacing(folder) as partial:
        if folder.is_dir():  # keeps files of other names, such as a README
            ignored = shutil.ignore_patterns(WHOLE_FILE, WEIGHTS_FILE)
            shutil.copytree(folder, partial, ignore=ignored)
        partial.mkdir(exist_ok=True)
        half = copy_captioner(captioner, encoder if in_model else None, "float16")
        check_room(partial, hdf5_size(half.variables))
        half.save_weights(partial / name)
        compress_hdf5(partial / name)
        description = {
            "format": FORMAT,
            "config": captioner.config.to_dict(),
            "encoder": {
                "weights": None if in_model else encoder_weights,
                "fingerprint": encoder.fingerprint() if encoder else None,
                "in_model": in_model,
            },
            "training": training or {},
            "vocabulary": captioner.tokenizer.get_vocabulary(),
            "sha256": {name: sha256(partial / name)},
        }
        write_json(partial / CONFIG_FILE, description, checksum=True)
    return folder


def save_model(captioner: "CaptionModel", path: str | os.PathLike) -> None:
    """Saves a captioner as a `.keras` file, atomically.

    Args:
        captioner: A `CaptionModel` that is not compiled: the optimizer's state would be saved too.
        path: Path of the file.
    """
    with replacing(path) as partial:
        captioner.save(partial)


def _load_weights(cls: "type[CaptionModel]", folder: Path, description: dict[str, Any]) -> Any:
    """Returns the captioner of a folder, with its encoder only if the folder has it."""
    vocabulary = description["vocabulary"]
    in_model = description["encoder"]["in_model"]
    path = folder / _weights_file(description["config"], in_model)
    if vocabulary is None:
        path = folder / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"The file {path} is missing: the training was stopped before its first epoch was "
            "over, or the folder is incomplete; go on with the same `sat-keras train` command, or "
            f"get the folder again. Received: {folder}"
        )
    check_sum(path, description.get("sha256", {}).get(path.name))
    try:
        if vocabulary is None:
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        config = description["config"]
        options = {}
        if in_model or config.split_layer:
            encoder = cls.make_encoder(config, weights=None)
            options = {"encoder": encoder} if in_model else {"head": encoder.head}
        captioner = cls(config, Tokenizer(vocabulary, config.full_stop), **options)
        captioner.load_weights(path)
        return captioner
    except (ValueError, TypeError, KeyError, OSError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"The file {path} is damaged or of another version; get it again, train again, or use "
            f"the version of sat_keras that wrote it. Received: {_root_cause(error)}"
        ) from error


def _weights_file(config: Config, in_model: bool) -> str:
    """Returns the name of the weights file of the shared form."""
    return WHOLE_FILE if in_model or config.split_layer else WEIGHTS_FILE


def _root_cause(error: BaseException) -> str:
    """Extracts the root cause from a Keras deserialization error."""
    message = str(error).rpartition("Exception encountered: ")[2]
    return " ".join(message.split())[:300]
