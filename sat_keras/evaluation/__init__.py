"""Scores of captions against references, with intervals and comparisons. Needs no Keras.

Read `tokens` (the compared words, with tables in `characters`), `written` (those of the authors'
protocol), `metrics` (BLEU, ROUGE-L, CIDEr-D) and `java` (METEOR, SPICE), then `statistics` (corpus
scores from counts of each picture, bootstrap intervals, comparisons), `scores` (all metrics in one
call) and `caption_files` (file formats).
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "tokens": ("ptb_tokenize",),
        "written": ("style_of", "written_tokens"),
        "metrics": ("cider", "corpus_bleu", "ngrams", "rouge_l"),
        "statistics": (
            *("METRICS", "PROTOCOLS", "Difference", "PictureScores", "compare_results", "interval"),
            *("p_value", "read_results", "resample"),
        ),
        "scores": (
            *("PYTHON_METRICS", "available_metrics", "caption_statistics", "references_digest"),
            *("score_captions", "score_pictures", "score_tokens"),
        ),
        "caption_files": ("read_candidates", "read_references"),
    },
)
