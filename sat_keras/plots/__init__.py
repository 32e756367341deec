"""Figures, the interactive widget and the evaluation report.

`attention`, `history` and `beam_tree` draw one kind of figure each, with the settings of `style`;
`widget` and `report` render HTML, `bars` computes the report's bar charts, `app` serves a page;
`notebook` displays a figure with alternative text. The maps themselves are enlarged and described
in `sat_keras.captioning.maps`.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "app": ("launch_app", "make_app"),
        "attention": ("plot_annotation_grid", "plot_attention"),
        "sat_keras.captioning.maps": ("describe_attention", "seen_box", "upsample_attention"),
        "beam_tree": ("plot_beam_tree",),
        "history": ("plot_history",),
        "notebook": ("figure_html",),
        "report": ("write_report",),
        "style": ("save_figure",),
        "widget": ("attention_html", "caption_html"),
    },
)
