"""A CNN with its preprocessing as a layer: which part of it runs, which part of it trains."""

import os
from typing import Any

import keras
import numpy as np

from sat_keras.cnn import applications
from sat_keras.cnn.resize import PictureResize
from sat_keras.cnn.split import split

# The paper's grid is 14 x 14, before VGG's last pooling.
_DEFAULT_LAYERS = {"VGG19": "block5_conv4", "VGG16": "block5_conv3"}


class PictureCNN(keras.Layer):
    """Holds a CNN up to one of its layers, with the resizing and preprocessing of its pictures.

    `sat_keras.paper.ImageEncoder` is the subclass that computes annotation vectors with it, and
    describes the arguments and errors.

    Args:
        cnn, layer, weights, resize, image_size, trainable: As of `ImageEncoder`.
        **kwargs: Arguments of `keras.Layer`.

    Attributes:
        resize_images: The `PictureResize`.
        preprocess: Function from pixels in 0..255 to what the CNN was trained on, or `None`.
        cnn: `keras.Model` from preprocessed pictures to the feature map.
        split_layer: Name of the first layer that is trained, or `None`.
        head: `keras.Model` of the layers from `split_layer` on, or `None`.
    """

    def __init__(
        self,
        cnn: str | keras.Model = "VGG19",
        layer: str | None = None,
        weights: str | os.PathLike | None = "imagenet",
        resize: str = "crop",
        image_size: int | None = None,
        trainable: bool | str = False,
        **kwargs: Any,
    ):
        # No autocast: half precision would round grey levels before the mean is subtracted. The
        # CNN's layers cast.
        super().__init__(trainable=bool(trainable), autocast=False, **kwargs)
        self.cnn_name = cnn.name if isinstance(cnn, keras.Model) else cnn
        self.image_size = image_size or applications.default_image_size(cnn)
        self.resize = resize
        self.resize_images = PictureResize(self.image_size, resize, name="resize")
        self._is_own = isinstance(cnn, keras.Model)
        if self._is_own:
            full, self.preprocess = cnn, None
            applications.load_weights(
                full, weights if weights != "imagenet" else None, self.cnn_name
            )
        else:
            with applications.building(self.dtype_policy):
                full, self.preprocess = applications.build_cnn(cnn, weights, self.image_size)
        self.layer = layer or _DEFAULT_LAYERS.get(self.cnn_name)
        self.cnn = applications.cut(full, self.layer, self.cnn_name)
        self._grid = applications.grid_of(self.cnn, self.image_size, self.cnn_name, self.layer)
        self.split_layer = trainable if isinstance(trainable, str) else None
        self.head: keras.Model | None = None
        if self.split_layer:
            frozen, self.head = split(self.cnn, self.split_layer, self.cnn_name)
            frozen.trainable = False
        elif not trainable:
            self.cnn.trainable = False

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns of the grid of regions."""
        return self._grid[:2]

    @property
    def num_regions(self) -> int:
        """Number of annotation vectors of a picture, rows times columns."""
        return self._grid[0] * self._grid[1]

    @property
    def feature_dim(self) -> int:
        """Size of an annotation vector."""
        return self._grid[2]

    def region_mask(self, height: int, width: int, mirror: bool = False) -> np.ndarray:
        """Returns which regions lie on a picture, and not on the padding of `resize="pad"`.

        Args:
            height, width: Integers, the picture's size in pixels.
            mirror: Boolean, whether the resized picture is flipped from left to right.

        Returns:
            Boolean array of shape `(num_regions,)`: the `mask` of `Captioner`, for one picture.
        """
        mask = self.resize_images.region_mask(height, width, self.grid_shape)
        return (mask[:, ::-1] if mirror else mask).reshape(-1)

    def make_stem(self) -> Any:
        """Returns the frozen encoder of the layers below the `head`, whose output can be cached.

        It shares the CNN's layers. Its fingerprint is that of all the cached output depends on.

        Raises:
            ValueError: If `trainable` is not the name of a layer, or regions of padding cannot be
                told by the grid of the stem.
        """
        if self.split_layer is None:
            raise ValueError(
                "A stem needs an encoder that is trained in part: give it the name of a layer as "
                f"`trainable`. Received: trainable={self.trainable}"
            )
        frozen, _ = split(self.cnn, self.split_layer, self.cnn_name)
        stem = type(self)(
            frozen,
            resize=self.resize,
            image_size=self.image_size,
            dtype=self.dtype_policy,
            name="stem",
        )
        stem.cnn_name, stem.preprocess = self.cnn_name, self.preprocess
        stem._is_own = self._is_own
        stem.layer = f"below_{self.split_layer}"
        if self.resize == "pad" and stem.grid_shape != self.grid_shape:
            raise ValueError(
                "With padded pictures the cached output must have the grid of the annotation "
                'vectors: choose another layer as `trainable`, or the `resize` "crop" or "squash". '
                f"Received: grids {stem.grid_shape} and {self.grid_shape}"
            )
        return stem

    def describe(self) -> str:
        """Returns a line with CNN, layer, resize policy, size, precision and fingerprint."""
        layer = self.layer or "output"
        return (
            f"{self.cnn_name} {layer}, {self.resize} {self.image_size} px, {self.compute_dtype}, "
            f"fingerprint {self.fingerprint()}"
        )

    def fingerprint(self) -> str:
        """Returns a hash, 12 hexadecimal digits, of all that the annotation vectors depend on.

        These are the CNN's architecture and layer, the resize policy and size, the compute dtype
        and all weights. Encoders with equal fingerprints compute equal annotation vectors.
        """
        cnn = applications.architecture(self.cnn) if self._is_own else self.cnn_name
        settings = [cnn, self.layer, self.resize, self.image_size, self.compute_dtype]
        return applications.fingerprint(settings, self.cnn.weights)

    def get_config(self) -> dict[str, Any]:
        cnn = keras.saving.serialize_keras_object(self.cnn) if self._is_own else self.cnn_name
        names = "layer", "resize", "image_size"
        options = {name: getattr(self, name) for name in names}
        options["trainable"] = self.split_layer or self.trainable
        return {**super().get_config(), "cnn": cnn, "weights": None, **options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        if isinstance(config["cnn"], dict):
            config["cnn"] = keras.saving.deserialize_keras_object(config["cnn"])
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**config)
