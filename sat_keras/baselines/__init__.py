"""Baselines for captioners. `retrieval` returns captions of similar training pictures."""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "retrieval": (),
    },
)
