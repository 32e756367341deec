"""Pictures of any size to the square that a CNN takes."""

from typing import Any

import keras
import numpy as np

_CROP_FROM = 256 / 224  # the paper's code: shorter side to 256, of which the centre 224
# ImageNet's mean colour, RGB: close to zero after every preprocessing of `keras.applications`.
PADDING = (124, 117, 104)
RESIZE = ("crop", "squash", "pad")


@keras.saving.register_keras_serializable(package="sat_keras")
class PictureResize(keras.layers.Resizing):
    """Resizes pictures of any size to `image_size` x `image_size` pixels.

    - `"crop"`, the paper's: the shorter side becomes `256 / 224 * image_size`, the aspect ratio is
      kept, and the centre is cut out.
    - `"squash"`: both sides become `image_size`; the aspect ratio is not kept.
    - `"pad"`: the longer side becomes `image_size`, the aspect ratio is kept, and the rest is
      filled with ImageNet's mean colour, the picture in the centre. `region_mask` tells the grid
      cells on the picture from those on the padding.

    Interpolation is bilinear with half-pixel centres and antialiased (a triangle filter as wide
    as the reduction, Pillow's `BILINEAR`), so that reducing a photo does not alias. Scaled sides
    are rounded to the nearest pixel. When an odd number of pixels is cut off, the crop lies half a
    pixel towards the top left; when an odd number is added, the picture lies half a pixel towards
    the bottom right.

    A picture of `image_size` x `image_size` pixels counts as resized and is returned unchanged, so
    that resizing twice is resizing once: the loaders use this layer inside `tf.data` (it runs there
    on every Keras backend) to batch pictures of different sizes, and `ImageEncoder` does not crop
    them again.

    Args:
        image_size: Integer, height and width of the result in pixels.
        resize: `"crop"`, `"squash"` or `"pad"`.
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

    def __init__(self, image_size: int, resize: str = "crop", **kwargs: Any):
        if not isinstance(image_size, int) or image_size < 1:
            raise ValueError(
                "`image_size` must be a positive integer, a number of pixels. "
                f"Received: image_size={image_size!r}"
            )
        if resize not in RESIZE:
            raise ValueError(
                f"`resize` must be 'crop', 'squash' or 'pad'. Received: resize={resize!r}"
            )
        super().__init__(height=image_size, width=image_size, **kwargs)
        self.image_size = image_size
        self.resize = resize

    @property
    def compute_dtype(self) -> str | None:
        # In a TensorFlow graph Keras casts a preprocessing layer's input to this dtype, outside of
        # one it does not, so that pictures would be rounded to grey levels in the one place only.
        # None leaves them as they come.
        return None

    def call(self, images: Any, **kwargs: Any) -> Any:
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
        if self.resize == "pad":
            resized = self._pad(resized, scaled)
        else:
            top, left = _offsets(scaled, size)
            resized = resized[..., top : top + size, left : left + size, :]
        # Gives the result a static shape also where the picture's was unknown.
        leading = (-1,) if len(shape) == 4 else ()
        resized = self.backend.numpy.reshape(resized, (*leading, size, size, 3))
        return self._restore_dtype(resized, images)

    def _pad(self, pictures: Any, scaled: tuple) -> Any:
        """Centres float pictures on a square of the padding colour."""
        numpy, size = self.backend.numpy, self.image_size
        pixels = numpy.arange(size)
        for axis, side, offset in zip((-3, -2), scaled, _offsets(scaled, size), strict=True):
            # Repeats the border; the colour replaces it below.
            inside = numpy.clip(pixels + offset, 0, side - 1)
            pictures = numpy.take(pictures, inside, axis=axis)
        is_picture = _is_inside(pixels, scaled, size)[..., None]
        return numpy.where(is_picture, pictures, numpy.array(PADDING, "float32"))

    def resize_boxes(self, boxes: Any, height: int, width: int) -> np.ndarray:
        """Maps boxes in a picture to where they lie after it was resized.

        Args:
            boxes: Array of shape `(boxes, 4)`, `x0, y0, x1, y1` in pixels of the picture, x right,
                y down.
            height: Integer, the picture's height in pixels.
            width: Integer, the picture's width in pixels.

        Returns:
            Float array of shape `(boxes, 4)`, in pixels of the resized picture. Boxes are clipped
            to what is left of the picture: one that lies outside has `x0 == x1` or `y0 == y1`.

        Example:
        >>> PictureResize(224).resize_boxes([[0, 0, 500, 375]], height=375, width=500)
        array([[  0.,   0., 224., 224.]])
        """
        size, boxes = self.image_size, np.asarray(boxes, "float64")
        rows, columns = self._scaled_sides(int(height), int(width))
        top, left = _offsets((rows, columns), size)
        resized = boxes * np.tile((columns / int(width), rows / int(height)), 2) - np.tile(
            (left, top), 2
        )
        low = np.maximum((-left, -top), 0)
        high = np.minimum((columns - left, rows - top), size)
        return np.clip(resized, np.tile(low, 2), np.tile(high, 2))

    def region_mask(self, height: int, width: int, grid_shape: tuple[int, int]) -> np.ndarray:
        """Returns which cells of a grid over the resized picture lie on the picture.

        Args:
            height: Integer, the picture's height in pixels, before resizing.
            width: Integer, the picture's width in pixels.
            grid_shape: Rows and columns of the grid.

        Returns:
            Boolean array of shape `grid_shape`: `True` where the cell's centre lies on the picture,
            which is everywhere unless `resize="pad"`. At least one cell is `True`.

        Example:
        >>> PictureResize(8, "pad").region_mask(height=10, width=20, grid_shape=(4, 2))
        array([[False, False],
               [ True,  True],
               [ True,  True],
               [False, False]])
        """
        size = self.image_size
        scaled = self._scaled_sides(int(height), int(width))
        inside = []
        for side, offset, cells in zip(scaled, _offsets(scaled, size), grid_shape, strict=True):
            centres = (np.arange(cells) + 0.5) * size / cells + offset  # on the scaled picture
            is_inside = (centres >= 0) & (centres < side)
            if not is_inside.any():  # a picture narrower than a cell
                is_inside = np.arange(cells) == np.abs(centres - side / 2).argmin()
            inside.append(is_inside)
        return inside[0][:, None] & inside[1][None, :]

    def _scaled_sides(self, height: Any, width: Any) -> tuple:
        """Returns the sides before cropping or padding: integers, or integer tensors in a graph."""
        size = self.image_size
        if self.resize == "squash":
            return size, size
        is_static = isinstance(height, int) and isinstance(width, int)
        if is_static and height == width == size:
            return size, size
        numpy = np if is_static else self.backend.numpy
        if self.resize == "pad":
            target, side = size, numpy.maximum(height, width)
        else:
            target, side = round(size * _CROP_FROM), numpy.minimum(height, width)
        if not is_static and self.resize == "crop":
            is_resized = numpy.logical_and(numpy.equal(height, size), numpy.equal(width, size))
            target = numpy.where(is_resized, size, target)
        # Rounded to the nearest integer, halves upwards, at least one pixel.
        scaled = ((2 * x * target + side) // (2 * side) for x in (height, width))
        if is_static:
            return tuple(max(1, int(x)) for x in scaled)
        return tuple(numpy.maximum(x, 1) for x in scaled)

    def _restore_dtype(self, resized: Any, images: Any) -> Any:
        dtype = keras.backend.standardize_dtype(images.dtype)
        if "float" in dtype:
            return self.backend.cast(resized, "float32")
        if dtype != keras.backend.standardize_dtype(resized.dtype):
            resized = self.backend.numpy.clip(self.backend.numpy.round(resized), 0, 255)
        return self.backend.cast(resized, "uint8")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-3], self.image_size, self.image_size, 3)

    def compute_output_spec(self, images: Any, **kwargs: Any) -> Any:
        dtype = keras.backend.standardize_dtype(images.dtype)
        return keras.KerasTensor(
            self.compute_output_shape(images.shape),
            dtype="float32" if "float" in dtype else "uint8",
        )

    def get_config(self) -> dict[str, Any]:
        base_config = keras.Layer.get_config(self)
        return {**base_config, "image_size": self.image_size, "resize": self.resize}


def _offsets(scaled: tuple, size: int) -> tuple:
    """Returns where the result begins on the scaled picture: above 0 to crop, below 0 to pad."""
    return tuple((side - size) // 2 for side in scaled)


def _is_inside(pixels: Any, scaled: tuple, size: int) -> Any:
    """Returns which pixels of the padded square belong to the picture, `(size, size)`."""
    rows, columns = (
        (pixels + offset >= 0) & (pixels + offset < side)
        for side, offset in zip(scaled, _offsets(scaled, size), strict=True)
    )
    return rows[:, None] & columns[None, :]
