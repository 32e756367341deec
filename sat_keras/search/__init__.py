"""Greedy search, sampling and beam search over a step function; no model is known here.

Read `loop`, the step function's contract, then `sampling` and `beam`.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "loop": ("PictureStep", "SearchResult", "StepFunction"),
        "sampling": ("greedy_search", "sample_search"),
        "beam": ("beam_search",),
    },
)
