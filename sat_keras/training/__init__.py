"""Training a captioner, and the folders of trainings and pretrained models.

Read `fit` first. It puts together `start` (words and weights of another captioner), `optimizer`,
`precision` (what `"auto"` is), `callbacks`, `checkpoint` (what is saved after an epoch) and `state`
(how far a training is).
`folder` describes a training's folder, `pretrained` the form in which models are shared,
`captioning` captions the pictures of a source. `self_critical` trains on CIDEr-D, which
`cider_reward` computes.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "callbacks": ("DevScores",),
        "captioning": ("annotate_pictures", "caption_pictures", "references_of"),
        "cider_reward": ("DocumentFrequencies", "cider_rewards"),
        "fit": ("train_captioner",),
        "optimizer": ("compile_captioner",),
        "pretrained": ("load_pretrained", "make_encoder", "save_pretrained"),
        "self_critical": ("SelfCritical", "make_self_critical"),
        "signals": ("Terminated", "sigterm_raises"),
    },
)
