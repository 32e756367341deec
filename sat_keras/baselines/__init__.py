"""What a captioner is compared with.

`retrieval` gives a picture the caption of another one.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "retrieval": (),
    },
)
