"""What attention and search did: measures of maps, pointing, occlusion, the search tree.

Read `measures` first; `pointing` and `occlusion` apply them to boxes and hidden regions, `summary`
collects all, `search_tree` records a beam search.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "summary": ("score_attention",),
        "occlusion": ("occlusion_statistics",),
        "search_tree": ("trace_search",),
        "measures": (),
    },
)
