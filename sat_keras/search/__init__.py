"""Greedy search, beam search and sampling over a step function; no model is known here.

Read `search` from the top: the step function's contract, then the three searches.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "search": ("SearchResult", "StepFunction", "beam_search", "greedy_search", "sample_search"),
    },
)
