"""Figures, the interactive widget and the evaluation report.

`figures` is the only user of matplotlib; `widget` and `report` write HTML.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "figures": (
            "describe_attention",
            "plot_annotation_grid",
            "plot_attention",
            "plot_beam_tree",
            "plot_history",
            "save_figure",
            "upsample_attention",
        ),
        "widget": ("attention_html",),
    },
)
