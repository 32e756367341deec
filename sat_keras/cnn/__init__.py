"""The CNNs under `paper.encoder.ImageEncoder`: resizing, building, weights.

Read `resize` first, then `picture_cnn` (the encoder's base class), `scenes` (the small CNN of the
drawn scenes), `applications`, `split` (a CNN that is trained in part) and `towers` (vision
transformers).
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {"resize": ("PictureResize",), "scenes": ("scene_cnn",), "towers": ("patch_grid",)},
)
