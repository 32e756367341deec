"""Pictures to annotation vectors (section 3.1.1): a CNN with its preprocessing."""

import os
from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.cnn import applications
from sat_keras.cnn.resize import PictureResize
from sat_keras.cnn.split import split

# The paper's grid is 14 x 14, before VGG's last pooling.
_DEFAULT_LAYERS = {"VGG19": "block5_conv4", "VGG16": "block5_conv3"}


@keras.saving.register_keras_serializable(package="sat_keras")
class ImageEncoder(keras.Layer):
    """Encodes RGB pictures into annotation vectors, one for each region of a grid.

    1. The picture is resized (`PictureResize`).
    2. Its pixels are preprocessed as those that the CNN was trained on.
    3. The CNN computes a feature map, `(rows, columns, feature_dim)`.
    4. The map is flattened row by row: `a = {a_1, ..., a_L}`, `L = rows * columns`.

    The CNN is frozen by default: its weights are not trained and its batch normalisation runs in
    inference mode. With `trainable=True` it is fine-tuned; with the name of a layer only the part
    from this layer on is, the `head`, and the output of the layers below can be cached: that of
    `make_stem`. A saved model holds the weights, so that loading one downloads nothing.

    Args:
        cnn: Name of a `keras.applications` CNN such as `"VGG19"`, `"scenes"` for the small CNN of
            `scene_cnn`, `"keras_hub:"` and the preset of a vision tower (see `patch_grid`), or a
            `keras.Model` of your own from pictures in 0..255 to a grid (used without copying).
        layer: Name of the CNN's layer whose outputs are the annotation vectors. Defaults to the
            paper's `block5_conv4` for VGG19, to `block5_conv3` for VGG16, and to the last
            convolutional grid for all others.
        weights: `"imagenet"` (downloaded by Keras), the path of a weights file for the CNN
            without its top, or `None` for random weights. Your own model keeps its weights unless
            a path is given; `"scenes"` has no ImageNet weights.
        resize: `"crop"`, `"squash"` or `"pad"`, see `PictureResize`. With `"pad"`, pass
            `region_mask` beside the annotation vectors, so that attention leaves the padding out.
        image_size: Integer, height and width in pixels of what the CNN sees. Defaults to 224, to
            64 for `"scenes"`, and to the input size of your own model where that is fixed.
        trainable: Boolean, whether the CNN's weights are trained; or the name of the first layer
            that is trained, with batch normalisation in inference mode.
        **kwargs: Arguments of `keras.Layer`. A `dtype` such as `"mixed_bfloat16"` is also the
            named CNN's; your own model keeps its dtype.

    Call arguments:
        images: RGB pictures of any size, `uint8` or floating point in 0..255, of shape
            `(batch_size, height, width, 3)`.
        training: Boolean, of no effect on a frozen CNN.

    Returns:
        Tensor of shape `(batch_size, num_regions, feature_dim)` in the compute dtype.

    Raises:
        ValueError: If a name is unknown (the message has near ones), the weights do not fit, the
            layer's output is not a grid, or the CNN cannot be cut at the layer of `trainable`.
        FileNotFoundError: If the weights file does not exist.
        ConnectionError: If Keras cannot download the ImageNet weights.

    Example:
    >>> encoder = ImageEncoder("VGG19", weights=None)
    >>> encoder.grid_shape, encoder.num_regions, encoder.feature_dim
    ((14, 14), 196, 512)
    >>> encoder(np.zeros((2, 375, 500, 3), "uint8")).shape
    (2, 196, 512)

    Reference:
        Xu et al. 2015, section 3.1.1. Notebook `02_encoder_and_attention`.
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
            full, self._preprocess = cnn, None
            applications.load_weights(
                full, weights if weights != "imagenet" else None, self.cnn_name
            )
        else:
            with applications.building(self.dtype_policy):
                full, self._preprocess = applications.build_cnn(cnn, weights, self.image_size)
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

    def build(self, input_shape: Any) -> None:
        # __init__ has built the CNN, whose grid is needed before the first picture comes.
        self.built = True

    def call(self, images: Any, training: bool = False) -> Any:
        images = ops.cast(self.resize_images(images), "float32")
        if self._preprocess is not None:
            images = self._preprocess(images + 0.0)  # a copy: some families work in place
        is_training = bool(training) and self.trainable and self.split_layer is None
        features = self.cnn(images, training=is_training)
        # (batch_size, rows, columns, feature_dim) -> (batch_size, num_regions, feature_dim)
        features = ops.reshape(features, (-1, self.num_regions, self.feature_dim))
        return ops.cast(features, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.num_regions, self.feature_dim)

    def make_stem(self) -> "ImageEncoder":
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
        stem = ImageEncoder(
            frozen,
            resize=self.resize,
            image_size=self.image_size,
            dtype=self.dtype_policy,
            name="stem",
        )
        stem.cnn_name, stem._preprocess = self.cnn_name, self._preprocess
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
    def from_config(cls, config: dict[str, Any]) -> "ImageEncoder":
        config = dict(config)
        if isinstance(config["cnn"], dict):
            config["cnn"] = keras.saving.deserialize_keras_object(config["cnn"])
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**config)
