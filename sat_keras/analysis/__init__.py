"""What attention and search did: measures of maps, pointing, occlusion, the search tree.

Read `measures` and `pointing` first, `statistics` turns them into scores of a set of captions.
`grounding` finds the boxes of words, `occlusion` hides regions from the model, which
`hidden_regions` decodes, and `curves` hides them in order and singly. `forced` decodes given
captions, `phrases` and `phrase_scores` measure attention on the phrases of Flickr30k Entities,
`worth` replaces attention, `ranking` asks which picture a caption describes, `word_maps` compares
attention with word detectors. `decoding` is what the models of these share. `summary` collects all
scores; `search_tree` records a beam search.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "curves": ("SHARES", "curve_statistics", "rank_correlation_statistics", "word_curves"),
        "forced": ("force_captions",),
        "grounding": ("caption_boxes", "ground_captions"),
        "measures": ("attention_entropy", "coverage", "sameness", "total_variation"),
        "occlusion": ("occlusion_statistics",),
        "phrase_scores": ("score_phrases",),
        "phrases": ("phrase_statistics",),
        "pointing": ("attention_mass", "box_sizes", "centre_map", "pointing_accuracy"),
        "ranking": ("caption_log_probabilities", "ranking_statistics", "ranks_of_pictures"),
        "search_tree": ("trace_search",),
        "statistics": ("attention_scores", "attention_statistics"),
        "summary": ("score_attention",),
        "word_maps": ("score_word_maps",),
        "worth": ("attention_worth",),
    },
)
