"""Cutting a CNN in two: frozen layers, whose output can be cached, and layers that are trained."""

import difflib
from typing import Any

import keras

_NEAR = 3  # names in an error


def split(cnn: keras.Model, layer: str, name: str) -> tuple[keras.Model, keras.Model]:
    """Cuts a CNN in two below a layer.

    Everything that the output depends on must pass through the input of this layer. In a residual
    network that is so for the first layer of a block, whose input the shortcut reads too.

    Args:
        cnn: CNN from pictures to a feature map.
        layer: Name of the first layer of the upper part.
        name: The CNN's name, for errors.

    Returns:
        Tuple of the stem, from pictures to the feature map that is this layer's input, and the
        head, from there to the CNN's output. Both share the CNN's layers.

    Raises:
        ValueError: If there is no such layer, or the CNN cannot be cut there. The message names
            layers where it can.

    Example:
    >>> stem, head = split(vgg16, "block5_conv1", "VGG16")
    >>> head.input_shape
    (None, 14, 14, 512)
    """
    names = [each.name for each in cnn.layers]
    if layer not in names:
        raise ValueError(
            f"{name} has no such layer to train from; near ones are "
            f"{', '.join(_near_names(cnn, layer))}. Received: layer={layer!r}"
        )
    if not _is_cut(cnn, layer):
        position = names.index(layer)
        others = [*names[:position][::-1], *names[position + 1 :]]  # the nearest one below first
        # One without weights may have a number in its name that differs from build to build.
        works = (x for x in others if cnn.get_layer(x).weights and _is_cut(cnn, x))
        remedy = f"choose {found}" if (found := next(works, None)) else "train all of it, by True"
        raise ValueError(
            f"{name} cannot be cut below this layer: its input must be one feature map of the CNN "
            f"on which all of the output depends, and not through a branch around it; {remedy}. "
            f"Received: layer={layer!r}"
        )
    (tensor,) = keras.tree.flatten(cnn.get_layer(layer).input)
    stem = keras.Model(cnn.input, tensor, name=f"{cnn.name}_stem")
    return stem, keras.Model(tensor, cnn.output, name=f"{cnn.name}_head")


def copy_head(head: keras.Model, dtype: str) -> keras.Model:
    """Copies a head with its weights, in another precision.

    Args:
        head: A model of `split`.
        dtype: The copy's dtype policy.
    """

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        is_layer = isinstance(layer, keras.Layer)  # or a function of `keras.ops`
        return type(layer).from_config({**config, "dtype": dtype} if is_layer else config)

    copy = keras.models.clone_model(head, clone_function=clone)
    copy.set_weights(head.get_weights())
    return copy


def _is_cut(cnn: keras.Model, layer: str) -> bool:
    """Returns whether all of a CNN's output depends on it through the input of a layer."""
    inputs = keras.tree.flatten(cnn.get_layer(layer).input)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or None in inputs[0].shape[1:]:
        return False
    producers = {id(x): each for each in cnn.operations for x in keras.tree.flatten(each.output)}
    cut, seen, has_weights = inputs[0], set(), False
    left = list(cnn.outputs)
    while left:
        tensor = left.pop()
        operation = producers[id(tensor)]
        if isinstance(operation, keras.layers.InputLayer):
            return False
        if tensor is cut or operation in seen:
            continue
        seen.add(operation)
        has_weights = has_weights or bool(getattr(operation, "weights", ()))
        left += keras.tree.flatten(operation.input)
    return has_weights


def _near_names(cnn: keras.Model, layer: str) -> list[str]:
    """Returns names of layers with weights that are close to a wrong one."""
    names = [each.name for each in cnn.layers if each.weights]
    return difflib.get_close_matches(layer, names, n=_NEAR, cutoff=0.3) or names[-_NEAR:]
