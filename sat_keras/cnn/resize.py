"""Pictures of any size to the square that a CNN takes."""

import keras
import numpy as np

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
                "width, 3)`: read files with `sat_keras.data.images.load_image`, and repeat a grey "
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
