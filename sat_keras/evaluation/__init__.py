"""Scores of captions against references, with intervals and comparisons; needs no Keras.

Read `tokens`, `metrics` (BLEU, ROUGE-L, CIDEr-D), `java` (METEOR, SPICE), then `scores`, which joins
them per picture, and `comparison`.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "scores": ("caption_statistics", "score_captions", "score_pictures"),
        "metrics": ("cider", "corpus_bleu", "ngrams", "rouge_l"),
        "tokens": ("ptb_tokenize",),
        "comparison": (),
    },
)
