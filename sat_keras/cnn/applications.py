"""The CNNs of `keras.applications` by name: built, cut at a layer, with weights."""

import contextlib
import difflib
import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from sat_keras.cnn.scenes import SCENES, SCENES_IMAGE_SIZE, scene_cnn
from sat_keras.cnn.towers import HUB_PREFIX, hub_tower

_DEFAULT_IMAGE_SIZE = 224


@contextlib.contextmanager
def building(dtype_policy: Any) -> Iterator[None]:
    """Builds CNNs that take no `dtype` in this dtype policy, and with channels last."""
    policy, data_format = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy(dtype_policy)
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(data_format)


def default_image_size(cnn: str | keras.Model) -> int:
    """Returns the height and width in pixels that a CNN takes unless told otherwise."""
    if cnn == SCENES:
        return SCENES_IMAGE_SIZE
    if not isinstance(cnn, keras.Model):
        return _DEFAULT_IMAGE_SIZE
    shape = getattr(cnn, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise ValueError(
            "Your own CNN must have one input, square RGB pictures of shape "
            f"`(batch_size, size, size, 3)`. Received: a model with input_shape={shape}"
        )
    return shape[1] or _DEFAULT_IMAGE_SIZE


def _applications() -> dict[str, Callable]:
    """Returns the CNNs of `keras.applications` by name."""
    return {
        name: value
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and callable(value)
    }


def build_cnn(
    name: str, weights: str | os.PathLike | None, image_size: int
) -> tuple[keras.Model, Callable | None]:
    """Returns the CNN called `name` without its top, and its family's preprocessing."""
    if name == SCENES:
        if weights == "imagenet":
            raise ValueError(
                "The scenes CNN has no ImageNet weights: pass `weights=None, trainable=True` to "
                "train it from scratch, or a weights file. Received: weights='imagenet'"
            )
        model = scene_cnn(image_size)
        load_weights(model, weights, name)
        return model, None
    if str(name).startswith(HUB_PREFIX):
        return hub_tower(name.removeprefix(HUB_PREFIX), weights), None
    builders = _applications()
    if name not in builders:
        near = difflib.get_close_matches(str(name), builders, n=3, cutoff=0.5) or sorted(builders)
        raise ValueError(
            f"`cnn` must be a CNN of `keras.applications` such as {', '.join(near)}; or "
            f"{SCENES!r}; or {HUB_PREFIX!r} and a preset; or a `keras.Model`. "
            f"Received: cnn={name!r}"
        )
    model = _download(builders[name], name, weights, image_size)
    load_weights(model, weights if weights != "imagenet" else None, name)
    return model, vars(inspect.getmodule(builders[name]))["preprocess_input"]


def _download(
    builder: Callable, name: str, weights: str | os.PathLike | None, image_size: int
) -> keras.Model:
    """Builds a CNN of `keras.applications`, with its ImageNet weights if asked for."""
    weights = "imagenet" if weights == "imagenet" else None
    arguments = {"include_top": False, "input_shape": (image_size, image_size, 3)}
    try:
        return builder(weights=weights, **arguments)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if "URL fetch failure" not in str(error):
            raise ValueError(
                f"{name} cannot be built for pictures of {image_size} x {image_size} pixels; try "
                f"another `image_size`. Received: {_first_line(error)}"
            ) from error
        raise ConnectionError(
            f"Could not download the ImageNet weights of {name}; download them where there is a "
            "network and pass the file as `weights`, or `None` for random "
            f"ones. Received: {_first_line(error)}"
        ) from error


def load_weights(model: keras.Model, path: str | os.PathLike | None, name: str) -> None:
    """Loads a weights file into the whole CNN, unless `path` is `None`."""
    if path is None:
        return
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no weights file for {name} at this path; pass 'imagenet' to download "
            f"weights or None for random ones. Received: weights={path!r}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of each layer before it raises
            model.load_weights(path)
    except Exception as error:  # h5py and Keras raise many kinds for a file that does not fit
        raise ValueError(
            f"This weights file does not fit {name} without its top; pass the file of "
            f"`keras.applications.{name}(include_top=False)`, named *.weights.h5 or *.h5. "
            f"Received: weights={path!r} ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


def cut(model: keras.Model, layer: str | None, name: str) -> keras.Model:
    """Returns the part of a CNN from its input to the output of `layer`."""
    if layer is None:
        return model
    names = [each.name for each in model.layers]
    if layer not in names:
        near = difflib.get_close_matches(layer, names, n=3, cutoff=0.3) or names[-3:]
        raise ValueError(
            f"{name} has no such layer; near ones are {', '.join(near)}. Received: layer={layer!r}"
        )
    return keras.Model(model.input, model.get_layer(layer).output, name=model.name)


def grid_of(
    model: keras.Model, image_size: int, name: str, layer: str | None
) -> tuple[int, int, int]:
    """Returns rows, columns and channels of a CNN's output."""
    try:
        shape = model.compute_output_shape((1, image_size, image_size, 3))
    except Exception as error:
        raise ValueError(
            f"{name} does not take RGB pictures of {image_size} x {image_size} pixels; pass the "
            f"`image_size` it was built for, {model.input_shape}. "
            f"Received: image_size={image_size}"
        ) from error
    fixed = model.input_shape[1:3]
    if any(side not in (None, image_size) for side in fixed):
        raise ValueError(
            f"{name} was built for pictures of {fixed} pixels. Received: image_size={image_size}"
        )
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "The annotation vectors must lie on a grid, `(batch_size, rows, columns, feature_dim)`:"
            f" choose a convolutional layer of {name} with `layer`. "
            f"Received: layer={layer!r}, whose output has shape {shape}"
        )
    return tuple(shape[1:])


def architecture(model: keras.Model) -> list:
    """Returns the layers' types and settings, without the names that Keras numbers by session."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            names = {"name", "inbound_nodes", "input_layers", "output_layers", "trainable"}
            return {key: strip(item) for key, item in value.items() if key not in names}
        return [strip(item) for item in value] if isinstance(value, (list, tuple)) else value

    return [[type(layer).__name__, strip(layer.get_config())] for layer in model.layers]


def fingerprint(settings: list, weights: Iterable[Any]) -> str:
    """Returns 12 hexadecimal digits, a hash of JSON settings and of every byte of the weights."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for weight in weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:12]
