"""Pictures to annotation vectors: the CNN of Show, Attend and Tell with its preprocessing."""

import contextlib
import difflib
import hashlib
import inspect
import json
import os
import warnings

import keras
import numpy as np
from keras import ops

SCENES = "scenes"

# The paper's grid is 14 x 14, before VGG's last pooling. Other CNNs: their last convolutional grid.
_DEFAULT_LAYERS = {"VGG19": "block5_conv4", "VGG16": "block5_conv3"}
_DEFAULT_IMAGE_SIZE = 224
_SCENES_IMAGE_SIZE = 64
_CROP_FROM = 256 / 224  # the paper's code: shorter side to 256, of which the centre 224


@keras.saving.register_keras_serializable(package="sat_keras")
class PictureResize(keras.layers.Resizing):
    """Brings pictures of any size to `image_size` x `image_size` pixels.

    - `"crop"`, the paper's: the shorter side becomes `256 / 224 * image_size` with the aspect
      ratio kept, and the centre is cut out.
    - `"squash"`: both sides become `image_size`, the aspect ratio is lost and no pixel is.

    Interpolation is bilinear with half-pixel centres and antialiased (a triangle filter as wide
    as the reduction, Pillow's `BILINEAR`), so that reducing a photo does not alias. Scaled sides
    are rounded to the nearest pixel; when an odd number of pixels is cut off, the crop lies half a
    pixel towards the top left.

    A picture that already is `image_size` x `image_size` counts as resized and passes unchanged,
    bit for bit, under both policies: resizing twice is resizing once. The loaders can therefore
    use this very object inside `tf.data` (it runs there on every Keras backend) to batch pictures
    of different sizes, and `ImageEncoder` will not crop them again.

    Args:
        image_size: Integer, height and width of the result in pixels.
        resize: `"crop"` or `"squash"`.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        images: RGB pictures, `uint8` or floating point in 0..255, of shape
            `(height, width, 3)` or `(batch_size, height, width, 3)`.

    Returns:
        Tensor of shape `(image_size, image_size, 3)` or
        `(batch_size, image_size, image_size, 3)`. `uint8` stays `uint8` (rounded to the nearest
        grey level); floating point becomes `float32`.

    Raises:
        ValueError: If `resize` is unknown, `image_size` is not a positive integer, or `images`
            are not RGB.

    Example:
    >>> photo = np.zeros((375, 500, 3), "uint8")
    >>> PictureResize(224)(photo).shape
    (224, 224, 3)

    Reference:
        Xu et al. 2015, section 4.3, and the preprocessing of their published code.
        Notebook `01_preprocessing`.
    """

    def __init__(self, image_size, resize="crop", **kwargs):
        if not isinstance(image_size, int) or image_size < 1:
            raise ValueError(
                "`image_size` must be a positive integer, a number of pixels. "
                f"Received: image_size={image_size!r}"
            )
        if resize not in ("crop", "squash"):
            raise ValueError(f"`resize` must be 'crop' or 'squash'. Received: resize={resize!r}")
        super().__init__(height=image_size, width=image_size, **kwargs)
        self.image_size = image_size
        self.resize = resize

    @property
    def compute_dtype(self):
        # In a TensorFlow graph Keras casts a preprocessing layer's input to this dtype, outside of
        # one it does not, so that pictures would be rounded to grey levels in the one place only.
        # None leaves them as they come.
        return None

    def call(self, images, **kwargs):
        images = self.backend.convert_to_tensor(images)
        shape = self.backend.shape(images)
        if len(shape) not in (3, 4) or shape[-1] != 3:
            raise ValueError(
                "Pictures must be RGB, of shape `(height, width, 3)` or `(batch_size, height, "
                "width, 3)`: read files with `sat_keras.images.load_image`, and repeat a grey "
                f"picture's channel three times. Received: shape={tuple(images.shape)}"
            )
        height, width = shape[-3], shape[-2]
        size = self.image_size
        if isinstance(height, int) and isinstance(width, int) and height == width == size:
            return self._restore_dtype(images, images)
        scaled = self._scaled_sides(height, width)
        resized = self.backend.image.resize(
            self.backend.cast(images, "float32"),
            scaled,
            interpolation="bilinear",
            antialias=True,
            data_format="channels_last",
        )
        top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        resized = resized[..., top : top + size, left : left + size, :]
        # Gives the result a static shape also where the picture's was unknown.
        leading = (-1,) if len(shape) == 4 else ()
        resized = self.backend.numpy.reshape(resized, (*leading, size, size, 3))
        return self._restore_dtype(resized, images)

    def resize_boxes(self, boxes, height, width):
        """Maps boxes in a picture to where they lie after it was resized.

        Args:
            boxes: Array of shape `(boxes, 4)`, `x0, y0, x1, y1` in pixels of the picture, x right,
                y down.
            height: Integer, the picture's height in pixels.
            width: Integer, the picture's width in pixels.

        Returns:
            Float array of shape `(boxes, 4)`, in pixels of the resized picture. Boxes are cut off
            where the picture is: one that lies outside has `x0 == x1` or `y0 == y1`.

        Example:
        >>> PictureResize(224).resize_boxes([[0, 0, 500, 375]], height=375, width=500)
        array([[  0.,   0., 224., 224.]])
        """
        size, boxes = self.image_size, np.asarray(boxes, "float64")
        is_resized = height == width == size
        rows, columns = (size, size) if is_resized else self._scaled_sides(height, width)
        left, top = (columns - size) // 2, (rows - size) // 2
        scale = columns / width, rows / height
        resized = boxes * np.tile(scale, 2) - np.tile((left, top), 2)
        return np.clip(resized, 0, size)

    def _scaled_sides(self, height, width):
        """Sides before the centre is cut out: integers, or integer tensors in a graph."""
        size = self.image_size
        if self.resize == "squash":
            return size, size
        shorter = round(size * _CROP_FROM)
        if isinstance(height, int) and isinstance(width, int):
            side = min(height, width)
        else:
            numpy = self.backend.numpy
            is_resized = numpy.logical_and(numpy.equal(height, size), numpy.equal(width, size))
            shorter = numpy.where(is_resized, size, shorter)
            side = numpy.minimum(height, width)
        # Rounded to the nearest integer, halves upwards.
        return tuple((2 * x * shorter + side) // (2 * side) for x in (height, width))

    def _restore_dtype(self, resized, images):
        dtype = keras.backend.standardize_dtype(images.dtype)
        if "float" in dtype:
            return self.backend.cast(resized, "float32")
        if dtype != keras.backend.standardize_dtype(resized.dtype):
            resized = self.backend.numpy.clip(self.backend.numpy.round(resized), 0, 255)
        return self.backend.cast(resized, "uint8")

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-3], self.image_size, self.image_size, 3)

    def compute_output_spec(self, images, **kwargs):
        dtype = keras.backend.standardize_dtype(images.dtype)
        return keras.KerasTensor(
            self.compute_output_shape(images.shape),
            dtype="float32" if "float" in dtype else "uint8",
        )

    def get_config(self):
        base_config = keras.Layer.get_config(self)
        return {**base_config, "image_size": self.image_size, "resize": self.resize}


@keras.saving.register_keras_serializable(package="sat_keras")
class CoordinateChannels(keras.Layer):
    """Appends each grid cell's position to its features, so that position words can be learnt.

    A convolution sees the same wherever it looks. Two more channels, the row and the column of
    the cell's centre from -1 (top, left) to 1 (bottom, right), tell it where that is.

    Args:
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        features: Tensor of shape `(batch_size, rows, columns, channels)`, rows and columns known.

    Returns:
        Tensor of shape `(batch_size, rows, columns, channels + 2)`.

    Example:
    >>> CoordinateChannels()(np.zeros((1, 2, 2, 3), "float32"))[0, :, :, 3:].shape
    (2, 2, 2)

    Reference:
        Liu et al. 2018, "An intriguing failing of convolutional neural networks and the CoordConv
        solution".
    """

    def call(self, features):
        rows, columns = features.shape[1:3]
        y, x = (np.linspace(-1, 1, 2 * n + 1)[1::2] for n in (rows, columns))
        grid = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)[None]  # (1, rows, columns, 2)
        grid = ops.convert_to_tensor(grid, dtype=features.dtype)
        batch_size = ops.shape(features)[0]
        grid = ops.broadcast_to(grid, (batch_size, rows, columns, 2))
        return ops.concatenate([features, grid], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 2)


def scene_cnn(image_size=_SCENES_IMAGE_SIZE, filters=(32, 64, 96), feature_dim=128):
    """A small CNN for drawn scenes, to be trained from scratch.

    Every block of `filters` is a convolution of stride 2 and one of stride 1, each followed by
    normalisation and ReLU (the first block has no second convolution, for speed; the last one's is
    1 x 1) and a last 1 x 1 convolution, and each cell's position is appended. Three blocks make a
    grid of `image_size / 8` cells a side, each of which sees 23 x 23 pixels: about as much
    as an object of 12 to 27 pixels. With more, a cell beside the object would tell as much about it
    as the cell on it, and attention would have no reason to point.

    Args:
        image_size: Integer, height and width of the pictures in pixels.
        filters: Sequence of integers, the channels of each block.
        feature_dim: Integer, size of an annotation vector.

    Returns:
        `keras.Model` from pictures `(batch_size, image_size, image_size, 3)` in 0..255 to
        annotation vectors on a grid, `(batch_size, rows, columns, feature_dim)`.

    Example:
    >>> scene_cnn(64).output_shape
    (None, 8, 8, 128)
    """
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for block, channels in enumerate(filters, start=1):
        for position in (1,) if block == 1 else (1, 2):
            name = f"block{block}_conv{position}"
            strides = 2 if position == 1 else 1
            size = 1 if position == 2 and block == len(filters) else 3
            x = keras.layers.Conv2D(
                channels, size, strides, padding="same", use_bias=False, name=name
            )(x)
            # Momentum 0.9: the running statistics settle within the first, short epoch.
            x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.Conv2D(feature_dim - 2, 1, activation="relu", name="features")(x)
    # Last, as they are: the context then holds the place that attention looks at.
    x = CoordinateChannels(name="annotations")(x)
    return keras.Model(inputs, x, name="scene_cnn")


@keras.saving.register_keras_serializable(package="sat_keras")
class ImageEncoder(keras.Layer):
    """Encodes RGB pictures into annotation vectors, one for each region of a grid.

    1. The picture is resized (`PictureResize`).
    2. Its pixels are preprocessed as the CNN was trained: nobody can forget to do it.
    3. The CNN computes a feature map, `(rows, columns, feature_dim)`.
    4. The map is flattened row by row: `a = {a_1, ..., a_L}`, `L = rows * columns`.

    The CNN is frozen by default: its weights are not trained and its batch normalisation runs in
    inference mode. With `trainable=True` it is fine-tuned.

    A saved model rebuilds the architecture and reads the weights from its own file, so that
    `get_config` leaves `weights` out and no download happens on loading.

    Args:
        cnn: Name of a `keras.applications` CNN such as `"VGG19"`, `"scenes"` for the small CNN of
            `scene_cnn`, or a `keras.Model` of your own from pictures in 0..255 to a grid (used as
            it is, not copied).
        layer: Name of the CNN's layer whose output are the annotation vectors. Defaults to the
            paper's `block5_conv4` for VGG19, `block5_conv3` for VGG16, and the CNN's output
            without its top (its last convolutional grid) for all others.
        weights: `"imagenet"` (downloaded by Keras), the path of a weights file for the CNN
            without its top, or `None` for random weights. Your own model keeps its weights unless
            a path is given; `"scenes"` has no ImageNet weights.
        resize: `"crop"` (shorter side to 256/224 of `image_size`, then the centre) or `"squash"`.
        image_size: Integer, height and width in pixels of what the CNN sees. Defaults to 224, to
            64 for `"scenes"`, and to the input size of your own model where that is fixed.
        trainable: Boolean, whether the CNN's weights are trained.
        **kwargs: Arguments of `keras.Layer`. A `dtype` such as `"mixed_bfloat16"` is also the
            named CNN's; your own model keeps its dtype.

    Call arguments:
        images: RGB pictures of any size, `uint8` or floating point in 0..255, of shape
            `(batch_size, height, width, 3)`.
        training: Boolean, of no effect on a frozen CNN.

    Returns:
        Tensor of shape `(batch_size, num_regions, feature_dim)` in the compute dtype.

    Raises:
        ValueError: If a name is unknown (the message has near ones), the weights do not fit, or
            the layer's output is not a grid.
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
        cnn="VGG19",
        layer=None,
        weights="imagenet",
        resize="crop",
        image_size=None,
        trainable=False,
        **kwargs,
    ):
        # No autocast: a float picture in half precision would lose grey levels before the mean is
        # subtracted. The CNN's own layers cast.
        super().__init__(trainable=trainable, autocast=False, **kwargs)
        self.cnn_name = cnn.name if isinstance(cnn, keras.Model) else cnn
        self.image_size = image_size or _default_image_size(cnn)
        self.resize = resize
        self.resize_images = PictureResize(self.image_size, resize, name="resize")
        self._is_own = isinstance(cnn, keras.Model)
        if self._is_own:
            full, self._preprocess = cnn, None
            _load_weights(full, weights if weights != "imagenet" else None, self.cnn_name)
        else:
            with _building(self.dtype_policy):
                full, self._preprocess = _build_cnn(cnn, weights, self.image_size)
        self.layer = layer or _DEFAULT_LAYERS.get(self.cnn_name)
        self.cnn = _cut(full, self.layer, self.cnn_name)
        self._grid = _grid_of(self.cnn, self.image_size, self.cnn_name, self.layer)
        if not trainable:
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

    def build(self, input_shape):
        # The CNN is built in __init__, so that its sizes are known before any picture is.
        self.built = True

    def call(self, images, training=False):
        images = ops.cast(self.resize_images(images), "float32")
        if self._preprocess is not None:
            # A new tensor, as Keras's functions may work in place.
            images = self._preprocess(images + 0.0)
        features = self.cnn(images, training=bool(training) and self.trainable)
        # (batch_size, rows, columns, feature_dim) -> (batch_size, num_regions, feature_dim)
        features = ops.reshape(features, (-1, self.num_regions, self.feature_dim))
        return ops.cast(features, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_regions, self.feature_dim)

    def describe(self) -> str:
        """The encoder in one line: CNN, layer, resize policy, size and precision."""
        layer = self.layer or "output"
        return (
            f"{self.cnn_name} {layer}, {self.resize} {self.image_size} px, {self.compute_dtype}, "
            f"fingerprint {self.fingerprint()}"
        )

    def fingerprint(self) -> str:
        """Short hash of all that the annotation vectors depend on, beside the picture.

        These are the CNN's architecture and layer, the resize policy and size, the compute dtype
        and every byte of the weights. Two encoders with one fingerprint give the same features.

        Returns:
            String of 12 hexadecimal digits.

        Example:
        >>> encoder = ImageEncoder("VGG16", weights=None)
        >>> len(encoder.fingerprint())
        12
        """
        architecture = _architecture(self.cnn) if self._is_own else self.cnn_name
        settings = [architecture, self.layer, self.resize, self.image_size, self.compute_dtype]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for weight in self.cnn.weights:
            value = np.ascontiguousarray(ops.convert_to_numpy(weight))
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
        return digest.hexdigest()[:12]

    def get_config(self):
        base_config = super().get_config()
        cnn = keras.saving.serialize_keras_object(self.cnn) if self._is_own else self.cnn_name
        config = {
            "cnn": cnn,
            "layer": self.layer,
            "weights": None,
            "resize": self.resize,
            "image_size": self.image_size,
        }
        return {**base_config, **config}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config["cnn"], dict):
            config["cnn"] = keras.saving.deserialize_keras_object(config["cnn"])
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**config)


@contextlib.contextmanager
def _building(dtype_policy):
    """Lets CNNs that take no `dtype` be built in one, and with channels last."""
    policy, data_format = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy(dtype_policy)
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(data_format)


def _default_image_size(cnn):
    if cnn == SCENES:
        return _SCENES_IMAGE_SIZE
    if not isinstance(cnn, keras.Model):
        return _DEFAULT_IMAGE_SIZE
    shape = getattr(cnn, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise ValueError(
            "Your own CNN must have one input, square RGB pictures of shape "
            f"`(batch_size, size, size, 3)`. Received: a model with input_shape={shape}"
        )
    return shape[1] or _DEFAULT_IMAGE_SIZE


def _applications():
    """The CNNs of `keras.applications` by name."""
    return {
        name: value
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and callable(value)
    }


def _build_cnn(name, weights, image_size):
    """Returns the CNN called `name` without its top, and its family's preprocessing."""
    if name == SCENES:
        if weights == "imagenet":
            raise ValueError(
                "The scenes CNN has no ImageNet weights: pass `weights=None, trainable=True` to "
                "train it from scratch, or a weights file. Received: weights='imagenet'"
            )
        model = scene_cnn(image_size)
        _load_weights(model, weights, name)
        return model, None
    builders = _applications()
    if name not in builders:
        near = difflib.get_close_matches(str(name), builders, n=3, cutoff=0.5) or sorted(builders)
        raise ValueError(
            f"`cnn` must be a CNN of `keras.applications` such as {', '.join(near)}; or "
            f"{SCENES!r}; or a `keras.Model`. Received: cnn={name!r}"
        )
    model = _download(builders[name], name, weights, image_size)
    _load_weights(model, weights if weights != "imagenet" else None, name)
    return model, inspect.getmodule(builders[name]).preprocess_input


def _download(builder, name, weights, image_size):
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
            "network and pass the file as `weights` (`--encoder-weights`), or `None` for random "
            f"ones. Received: {_first_line(error)}"
        ) from error


def _load_weights(model, path, name):
    """Loads a weights file into the whole CNN, or says in a sentence why it cannot."""
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
    except Exception as error:  # the many ways in which h5py and Keras say that a file is no fit
        raise ValueError(
            f"This weights file does not fit {name} without its top; pass the file of "
            f"`keras.applications.{name}(include_top=False)`, named *.weights.h5 or *.h5. "
            f"Received: weights={path!r} ({_first_line(error)})"
        ) from error


def _first_line(error):
    return str(error).strip().split("\n")[0][:200]


def _cut(model, layer, name):
    """The part of a CNN from its input to the output of `layer`."""
    if layer is None:
        return model
    names = [each.name for each in model.layers]
    if layer not in names:
        near = difflib.get_close_matches(layer, names, n=3, cutoff=0.3) or names[-3:]
        raise ValueError(
            f"{name} has no such layer; near ones are {', '.join(near)}. Received: layer={layer!r}"
        )
    return keras.Model(model.input, model.get_layer(layer).output, name=model.name)


def _grid_of(model, image_size, name, layer):
    """Rows, columns and channels of a CNN's output."""
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


def _architecture(model):
    """What a model's layers are, without the names that Keras numbers anew in each session."""

    def strip(value):
        if isinstance(value, dict):
            names = {"name", "inbound_nodes", "input_layers", "output_layers", "trainable"}
            return {key: strip(item) for key, item in value.items() if key not in names}
        return [strip(item) for item in value] if isinstance(value, (list, tuple)) else value

    return [[type(layer).__name__, strip(layer.get_config())] for layer in model.layers]
