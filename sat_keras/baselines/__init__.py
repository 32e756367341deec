"""The systems that the paper's Table 1 compares with.

Read `picture_captioner`, the base class of models without attention, then `recurrent` (init-inject,
Google NIC, multimodal RNN), `visual_memory` and `log_bilinear`; `systems` has them by name.
`word_detector` finds the words of a picture, of which `maximum_entropy`
and `templates` make sentences; `reranking` chooses among those of `maximum_entropy`.
`retrieval` and `embedding_retrieval` return captions of similar pictures.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "picture_captioner": ("PictureCaptioner",),
        "recurrent": ("GoogleNIC", "InitInject", "MultimodalRNN"),
        "visual_memory": ("VisualMemory",),
        "log_bilinear": ("FactoredLogBilinear", "LogBilinear"),
        "maximum_entropy": ("MaximumEntropy",),
        "templates": ("Templates",),
        "systems": ("SYSTEMS", "system_of"),
        "word_detector": ("WordDetector", "frequent_words", "word_targets"),
        "embedding_retrieval": ("VisualSemanticEmbedding", "embedding_captions", "train_embedding"),
        "reranking": (),
        "retrieval": (),
    },
)
