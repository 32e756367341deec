"""Vision towers as CNNs: their patch tokens on a grid, from pictures of 0..255.

A vision transformer divides a picture into patches and returns a token for each, row by row, with
class and register tokens before them. The patch tokens are its annotation vectors.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras

HUB_PREFIX = "keras_hub:"
# Mean and standard deviation of the pixels, of 0 to 1, that the towers of a family were trained on.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PIXELS = {
    "CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "DINO": _IMAGENET,
}
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def patch_grid(
    tower: keras.Model,
    mean: Sequence[float] = _HALF[0],
    std: Sequence[float] = _HALF[1],
) -> keras.Model:
    """Returns a model from pictures to the grid of a vision tower's patch tokens.

    Args:
        tower: `keras.Model` from normalised pictures `(batch_size, size, size, 3)` to tokens
            `(batch_size, tokens, feature_dim)`. The last tokens are those of a square of patches;
            fewer than a row of tokens before them are left out.
        mean, std: Mean and standard deviation of the pixels, of 0 to 1, that the tower was trained
            on, for each channel.

    Returns:
        `keras.Model` from pictures of 0..255 to `(batch_size, rows, columns, feature_dim)`, which
        `sat_keras.ImageEncoder` takes. It shares the tower's weights.

    Raises:
        ValueError: If the tower's output is not a sequence of tokens.

    Example:

    >>> tower = keras_hub.models.ViTBackbone.from_preset("vit_base_patch16_224_imagenet")
    >>> encoder = ImageEncoder(patch_grid(tower), resize="squash")

    Reference:
        [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929).
    """
    shape = getattr(tower.output, "shape", None)
    if shape is None or len(shape) != 3 or None in shape[1:]:
        raise ValueError(
            "A vision tower must return tokens, `(batch_size, tokens, feature_dim)`: cut it before "
            "its pooling, at the layer of the last tokens. "
            f"Received: {tower.name}, whose output has shape {shape}"
        )
    side = math.isqrt(shape[1])
    (given,) = tower.inputs
    images = keras.Input(given.shape[1:], name="images")
    scale = [1 / (255 * x) for x in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    pixels = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalize")(images)
    tokens = tower({"images": pixels} if isinstance(tower.input, dict) else pixels)
    # Counted from the end: KerasHub declares a class token of SigLIP's that is not there.
    patches = tokens[:, -(side**2) :]
    grid = keras.layers.Reshape((side, side, shape[2]), name="grid")(patches)
    return keras.Model(images, grid, name=tower.name)


def hub_tower(preset: str, weights: Any) -> keras.Model:
    """Returns the vision tower of a KerasHub preset, see `patch_grid`.

    Args:
        preset: Name or folder of a preset: CLIP, SigLIP, DINOv2, DINOv3 or ViT.
        weights: `"imagenet"` for the preset's weights, another value for random ones.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If the preset cannot be read, or has no tower of patch tokens.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            "A vision tower by name needs KerasHub: `pip install sat_keras[hub]`. "
            f"Received: cnn={HUB_PREFIX + preset!r}"
        ) from error
    try:
        backbone = keras_hub.models.Backbone.from_preset(preset, load_weights=weights == "imagenet")
    except Exception as error:  # KerasHub and Kaggle's client raise many kinds
        raise ValueError(
            "KerasHub cannot read this preset; see https://keras.io/keras_hub/presets. "
            f"Received: cnn={HUB_PREFIX + preset!r} ({str(error).strip().splitlines()[0]})"
        ) from error
    family = type(backbone).__name__
    tower = getattr(backbone, "vision_encoder", backbone)
    if len(getattr(tower.output, "shape", ())) == 2:
        tower = before_pooling(tower)
    mean, std = next((pixels for name, pixels in _PIXELS.items() if name in family), _HALF)
    return patch_grid(tower, mean, std)


def before_pooling(tower: keras.Model) -> keras.Model:
    """Returns a tower that pools its tokens, such as SigLIP's, up to its last layer of tokens.

    Args:
        tower: `keras.Model` from pictures to one vector each.
    """
    tokens = [
        layer.output
        for layer in tower.layers
        if len(getattr(getattr(layer, "output", None), "shape", ())) == 3
    ]
    return keras.Model(tower.input, tokens[-1], name=tower.name)
