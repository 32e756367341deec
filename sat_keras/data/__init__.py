"""From files to tensors: pictures, words, cached annotation vectors, minibatches.

Read `images`, `tokenizer`, `features`, then `loaders`, which joins them in a `tf.data` pipeline.
`extraction` computes features, `beam_extraction` on many machines. `random_pictures` stands in for
pictures where a training step is timed; `pipeline` has an option of all pipelines.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "beam_extraction": ("extract_features_with_beam",),
        "extraction": ("extract_features",),
        "features": ("FeatureCache",),
        "images": ("load_image",),
        "loaders": (
            "PictureSource",
            "caption_batches",
            "epoch_order",
            "picture_batches",
            "teacher_forcing",
        ),
        "tokenizer": ("END_ID", "PAD_ID", "START_ID", "UNK_ID", "Tokenizer", "normalize"),
    },
)
