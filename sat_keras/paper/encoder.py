"""Pictures to annotation vectors (section 3.1.1): a CNN with its preprocessing."""

from typing import Any

import keras
from keras import ops

from sat_keras.cnn.picture_cnn import PictureCNN


@keras.saving.register_keras_serializable(package="sat_keras")
class ImageEncoder(PictureCNN):
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

    def build(self, input_shape: Any) -> None:
        # __init__ has built the CNN, whose grid is needed before the first picture comes.
        self.built = True

    def call(self, images: Any, training: bool = False) -> Any:
        images = ops.cast(self.resize_images(images), "float32")
        if self.preprocess is not None:
            images = self.preprocess(images + 0.0)  # a copy: some families work in place
        is_training = bool(training) and self.trainable and self.split_layer is None
        features = self.cnn(images, training=is_training)
        # (batch_size, rows, columns, feature_dim) -> (batch_size, num_regions, feature_dim)
        features = ops.reshape(features, (-1, self.num_regions, self.feature_dim))
        return ops.cast(features, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.num_regions, self.feature_dim)
