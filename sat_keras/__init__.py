"""Show, Attend and Tell: neural image captioning with visual attention, on Keras 3.

The public names are imported at their first use, so that `import sat_keras` is quick and the
layers, the model and the search run where TensorFlow is not installed.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "attention": ("BahdanauAttention", "HardAttention"),
    "captioner": ("Caption", "CaptionSearch", "Captioner"),
    "config": ("Config",),
    "datasets": ("load_dataset",),
    "decoder": ("AttentionDecoder",),
    "encoder": ("ImageEncoder",),
    "evaluation": ("score_captions",),
    "features": ("FeatureCache", "extract_features"),
    "images": ("load_image",),
    "loaders": ("caption_batches", "picture_batches"),
    "pretrained": ("load_pretrained",),
    "search": ("beam_search", "greedy_search", "sample_search"),
    "tokenizer": ("Tokenizer",),
    "visualization": ("plot_attention", "plot_history"),
    "widget": ("attention_html",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'sat_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sat_keras.{_HOME[name]}"), name)


def __dir__():
    return [*__all__, "__version__"]
