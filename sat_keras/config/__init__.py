"""Every choice of a model, its training and its search, each described and checked once.

Read `model`, `training` and `search`, where the fields are declared, then `config`, which joins
them, and `presets`. `fields` has the checks.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "config": ("Config",),
        "model": ("ModelConfig",),
        "search": ("SearchConfig",),
        "training": ("TrainingConfig",),
    },
)
