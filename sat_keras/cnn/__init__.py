"""The CNNs under `paper.encoder.ImageEncoder`: resizing, building, weights.

Read `resize` first, then `scenes` (the small CNN of the drawn scenes) and `applications`.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {"resize": ("PictureResize",), "scenes": ("scene_cnn",)},
)
