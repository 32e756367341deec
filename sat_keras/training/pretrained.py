"""Trained captioners in folders: what a training leaves, and the small form that is shared.

Both kinds of folder have a `config.json` with the captioner's config and its encoder's description.
A training's has the weights in a `model.keras`; the shared kind, made by `save_pretrained`, has the
vocabulary in the `config.json` and the weights in float16: the decoder's in a
`decoder.weights.h5`, or those of the decoder and of the CNN that was trained with it in a
`captioner.weights.h5`. A frozen CNN that `config.json` can name is in none of them: its weights are
Keras's to download or a file's to read.
"""

import difflib
import json
import os
import tempfile
import zipfile
from pathlib import Path

import keras

from sat_keras.config.config import Config
from sat_keras.data.files import write_json
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.encoder import ImageEncoder

FORMAT = 1
CONFIG_FILE = "config.json"
MODEL_FILE = "model.keras"
WEIGHTS_FILE = "decoder.weights.h5"
WHOLE_FILE = "captioner.weights.h5"  # with the encoder

_PACKAGE = Path(__file__).resolve().parents[1]
# In an installed wheel the folder lies in the package, in a checkout beside it.
_FOLDERS = (_PACKAGE / "pretrained", _PACKAGE.parent / "pretrained")


def pretrained_names():
    """List the captioners that come with this package.

    Returns:
        Sorted list of names for `load_pretrained`.
    """
    return sorted({path.parent.name for top in _FOLDERS for path in top.glob(f"*/{CONFIG_FILE}")})


def pretrained_folder(name_or_folder):
    """Find the folder of a captioner.

    Args:
        name_or_folder: One of `pretrained_names()`, the path of a folder with a `config.json`, or
            the path of a `model.keras` in such a folder.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        FileNotFoundError: If there is none, with the names that there are.
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


def read_description(folder):
    """Read the `config.json` of a captioner's folder.

    Args:
        folder: The folder's path.

    Returns:
        Dictionary of `config` (a `Config`), `encoder` (dictionary of `weights`, `fingerprint` and
        `in_model`), `training` (how it was trained; may be empty), `vocabulary` (list of words, or
        `None` where the model's file has it) and, of a training, `dataset`.

    Raises:
        ValueError: If the file is damaged or another version's.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format"]
        if version == FORMAT:
            config = Config.from_dict(description["config"])
            encoder = {key: description["encoder"][key] for key in _ENCODER_KEYS}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The file {path} is damaged or another version's; get the folder again, train again, "
            "or use the version of sat_keras that wrote it. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"The file {path} is another version's; use the version of sat_keras that wrote it, "
            f"or train again. Received: format {version!r}, expected {FORMAT}"
        )
    defaults = {"training": {}, "vocabulary": None}
    return {**defaults, **description, "config": config, "encoder": encoder}


_ENCODER_KEYS = ("weights", "fingerprint", "in_model")


def describe_encoder(encoder, weights, in_model):
    """Describe an encoder so that `config.json` can name it.

    Args:
        encoder: The `ImageEncoder`.
        weights: What it was made with: `"imagenet"`, a file's path or `None`.
        in_model: Boolean, whether the model's file contains it.

    Returns:
        Dictionary of values that JSON knows.
    """
    if weights not in (None, "imagenet"):
        weights = os.path.abspath(weights)
    return {"weights": weights, "fingerprint": encoder.fingerprint(), "in_model": in_model}


def make_encoder(config, weights, dtype="float32"):
    """Make the image encoder of a config.

    Args:
        config: A `Config`.
        weights: `"imagenet"`, the path of a weights file, or `None` for random weights.
        dtype: Its dtype policy.

    Returns:
        An `ImageEncoder`.
    """
    return ImageEncoder(
        config.encoder,
        layer=config.encoder_layer,
        weights=weights,
        resize=config.resize,
        image_size=config.image_size,
        trainable=config.encoder_trainable,
        dtype=dtype,
        name="encoder",
    )


def copy_captioner(captioner, encoder, dtype):
    """Copy a captioner, with another encoder and in another precision.

    Args:
        captioner: The `Captioner`.
        encoder: The copy's `ImageEncoder`, which is copied too unless it has that precision, or
            `None` for a copy that works on annotation vectors.
        dtype: The copy's dtype policy.

    Returns:
        A `Captioner` that is not compiled, with the same weights.
    """
    if encoder is not None and encoder.dtype_policy.name != dtype:
        settings, weights = encoder.get_config(), encoder.get_weights()
        encoder = ImageEncoder.from_config({**settings, "dtype": dtype})
        encoder.set_weights(weights)
    copy = Captioner(captioner.config, captioner.tokenizer, encoder, dtype=dtype)
    copy.copy_weights(captioner)
    return copy


def load_pretrained(name_or_folder, encoder_weights=None, encoder=True, dtype="float32"):
    """Load a trained captioner, ready to caption.

    Args:
        name_or_folder: One of `pretrained_names()` such as `"flickr8k-soft-vgg16"`, or the folder
            that a training or `save_pretrained` wrote.
        encoder_weights: Weights of its frozen CNN: `"imagenet"` for Keras's download, the path of a
            weights file, or `None` for those it was trained with (`"imagenet"` for the captioners
            that come with this package). Of no effect where the encoder was trained as well.
        encoder: Boolean, `False` leaves out a frozen CNN, for use with cached annotation vectors:
            nothing is downloaded.
        dtype: Dtype policy to compute in, whatever it was trained in.

    Returns:
        A `Captioner`.

    Raises:
        FileNotFoundError: If there is no such captioner or no such weights file.
        ValueError: If a file is damaged or another version's, or the weights do not fit.
        ConnectionError: If Keras cannot download the CNN's weights.

    Example:

    >>> captioner = load_pretrained("flickr8k-soft-vgg16")
    >>> captioner.caption([sat_keras.load_image("photo.jpg")])[0].text
    'two dogs run through the grass'

    Reference:
        Notebook `07_flickr8k`.
    """
    folder = pretrained_folder(name_or_folder)
    description = read_description(folder)
    captioner = _load_weights(folder, description)
    if encoder and not description["encoder"]["in_model"]:
        weights = encoder_weights or description["encoder"]["weights"]
        cnn = make_encoder(captioner.config, weights, dtype)
        return copy_captioner(captioner, cnn, dtype)
    if captioner.dtype_policy.name != dtype:
        return copy_captioner(captioner, captioner.encoder, dtype)
    return captioner


def save_pretrained(captioner, folder, encoder_weights="imagenet", training=None):
    """Save a captioner in the form that is shared: in float16, without a CNN that others have.

    Args:
        captioner: A `Captioner` with a tokenizer. One that works on annotation vectors need not
            have an encoder.
        folder: Where to write `config.json` and the weights; made if it does not exist.
        encoder_weights: `"imagenet"`, the weights of the frozen CNN that whoever loads it takes by
            default, or `None` to save the encoder as well. One that was trained always is.
        training: Optional dictionary of how it was trained, for `config.json`.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ValueError: If there is no tokenizer, or no encoder although it is to be saved.

    Example:

    >>> save_pretrained(captioner, "pretrained/mine")
    >>> load_pretrained("pretrained/mine")
    """
    if captioner.tokenizer is None:
        raise ValueError("Sentences need a tokenizer: none to save. Received: tokenizer=None")
    encoder = captioner.encoder
    in_model = captioner.config.encoder_trainable or encoder_weights is None
    if in_model and encoder is None:
        raise ValueError(
            "A captioner whose encoder was trained cannot be saved without it: give it the encoder "
            "of its training. Received: encoder=None"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    half = copy_captioner(captioner, encoder if in_model else None, "float16")
    half.save_weights(folder / (WHOLE_FILE if in_model else WEIGHTS_FILE), overwrite=True)
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
    }
    write_json(folder / CONFIG_FILE, description)
    return folder


def save_model(captioner, path):
    """Save a captioner as a `.keras` file that appears when it is complete.

    Args:
        captioner: A `Captioner` that is not compiled (the optimizer's state would be saved too).
        path: The file's path.
    """
    path = Path(path)
    # Within the same folder, so that the renaming cannot fail half-way.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as partial:
        captioner.save(Path(partial) / path.name)
        os.replace(Path(partial) / path.name, path)


def _load_weights(folder, description):
    """The captioner of a folder, with its encoder only if the folder has it."""
    vocabulary = description["vocabulary"]
    in_model = description["encoder"]["in_model"]
    path = folder / (WHOLE_FILE if in_model else WEIGHTS_FILE)
    if vocabulary is None:
        path = folder / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"The file {path} is missing: the training was stopped before its first epoch was "
            "over, or the folder is incomplete; go on with the same `sat-keras train` command, or "
            f"get the folder again. Received: {folder}"
        )
    try:
        if vocabulary is None:
            return keras.saving.load_model(path, compile=False)
        config = description["config"]
        encoder = make_encoder(config, weights=None) if in_model else None
        captioner = Captioner(config, Tokenizer(vocabulary), encoder)
        captioner.load_weights(path)
        return captioner
    except (ValueError, TypeError, KeyError, OSError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"The file {path} is damaged or another version's; get it again, train again, or use "
            f"the version of sat_keras that wrote it. Received: {_innermost(error)}"
        ) from error


def _innermost(error):
    """What is the matter, out of Keras's long message about what could not be deserialized."""
    message = str(error).rpartition("Exception encountered: ")[2]
    return " ".join(message.split())[:300]
