"""What every captioning model does with its step function: search, sentences, compiled prediction.

Read `caption`, the result, then `model`, the base class of `sat_keras.paper.Captioner`, with
`steps`, its step function, and `objectives`; `ensemble` averages several.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "caption": ("Caption",),
        "ensemble": ("Ensemble",),
        "model": ("CaptionModel", "CaptionSearch", "caption_search"),
        "presets": ("pretrained_folder",),
    },
)
