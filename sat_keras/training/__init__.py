"""Training a captioner, and the folders that trainings and pretrained models live in.

Read `fit` first, then `folder` (a training's files) and `pretrained` (the form that is shared).
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "fit": (
            "DevScores",
            "caption_pictures",
            "compile_captioner",
            "references_of",
            "train_captioner",
        ),
        "pretrained": ("load_pretrained", "make_encoder", "save_pretrained"),
    },
)
