"""Every choice of a model, its training and its search, each described and checked once.

Read `config`: the fields, then the presets.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "config": ("Config",),
    },
)
