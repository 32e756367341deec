"""Show, Attend and Tell: neural image captioning with visual attention, on Keras 3.

Start reading in `paper`, where every equation of the paper is the code that runs. The other rooms,
from the bottom up: `config`, `backend`, `search`, `evaluation`, `data` and `datasets`, `cnn`,
`fast`, `captioning`, `paper`, `baselines`, `training`, `analysis`, `plots`, `course`, `cli`. A
room imports only from rooms before it in this list.

Public names are imported at their first use: `import sat_keras` is quick, and layers, model and
search run where TensorFlow is not installed.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__version__ = "0.2.0.dev0"


def lazy_exports(
    package: str, modules: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` of a package that imports names on first use.

    Args:
        package: Name of the package, `__name__` in its `__init__.py`.
        modules: Public names of each module, relative to the package or as `sat_keras.room.module`.
            A module without names is itself public.

    Returns:
        Tuple `(__getattr__, __dir__, __all__)`.
    """
    homes = {name: module for module, names in modules.items() for name in names}
    public = sorted([*homes, *(module for module, names in modules.items() if not names)])

    def get_attribute(name: str) -> Any:
        if name in homes:
            home = homes[name]
            module = home if home.startswith("sat_keras.") else f"{package}.{home}"
            return getattr(importlib.import_module(module), name)
        if name in public:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get_attribute, lambda: [*public, "__version__"], public


__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "config": ("Config",),
        "data": (
            *("FeatureCache", "Tokenizer", "caption_batches", "extract_features", "load_image"),
            "picture_batches",
        ),
        "datasets": ("load_dataset",),
        "evaluation": ("score_captions",),
        "captioning": ("Caption", "CaptionSearch"),
        "paper": (
            *("AttentionDecoder", "BahdanauAttention", "Captioner", "HardAttention"),
            "ImageEncoder",
        ),
        "plots": ("attention_html", "plot_attention", "plot_history"),
        "search": ("beam_search", "greedy_search", "sample_search"),
        "training": ("load_pretrained",),
    },
)
