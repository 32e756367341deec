"""Do the metrics say what people say? Kendall's tau with the judgements of Flickr8k's captions.

The recipe is SPICE's and CLIPScore's, so that the published figures test the metrics' code on
something that nobody here wrote:

- `expert`: pairs whose caption is one of the picture's own are left out; the ratings of the three
  experts are a row each; tau-c;
- `crowd`: the rating is the share of yes; a caption of the picture itself that was judged is taken
  out of the picture's references, for all captions that were judged with it, as in CLIPScore's
  `flickr8k_example/download.py`; tau-b.

Each caption is scored by itself against the captions of its picture. CIDEr's weights of words come
from the references of all pairs that are scored.
"""

import functools
import os
from collections.abc import Sequence

import numpy as np

from benchmarks.judgements import load_judgements
from sat_keras.evaluation.scores import PYTHON_METRICS, score_tokens
from sat_keras.evaluation.tokens import ptb_tokenize

# Kendall's tau x 100 as in CLIPScore's tables.
PUBLISHED = {
    "expert": {"bleu1": 32.3, "bleu4": 30.8, "rouge_l": 32.3, "meteor": 41.8, "cider": 43.9},
    "crowd": {"bleu1": 17.9, "bleu4": 16.9, "rouge_l": 19.9, "meteor": 22.2, "cider": 24.6},
}
_VARIANTS = {"expert": "c", "crowd": "b"}


def human_agreement(
    data_dir: str | os.PathLike,
    judges: str,
    metrics: Sequence[str] = PYTHON_METRICS,
) -> dict:
    """Measures how far metrics agree with people on Flickr8k's captions.

    Args:
        data_dir: Folder with `Flickr8k_text.zip`.
        judges: `"expert"` or `"crowd"`.
        metrics: As in `sat_keras.evaluation.scores.score_captions`.

    Returns:
        Dictionary: `pairs` and `judgements` (their numbers), `variant` (of Kendall's tau), `tau`
        (x 100, by score) and `published` (the same of CLIPScore's paper).

    Raises:
        ValueError: If `judges` or a metric is unknown or a file cannot be read.
        FileNotFoundError: If the archive is missing.

    Reference:
        [Hodosh et al., 2013](https://doi.org/10.1613/jair.3994), the judgements;
        [Anderson et al., 2016](https://arxiv.org/abs/1607.08822), section 4.3, the recipe;
        [Hessel et al., 2021](https://arxiv.org/abs/2104.08718), tables 1 and 2.
    """
    table, captions = load_judgements(data_dir, judges)
    is_own = [pair.caption in captions[pair.image] for pair in table.itertuples()]
    if judges == "expert":
        table = table[~np.array(is_own)]
    references = {image: list(captions[image]) for image in table["image"]}
    for pair in table.itertuples():
        if pair.caption in references[pair.image]:
            references[pair.image].remove(pair.caption)
    tokenize = functools.cache(ptb_tokenize)
    tokens = {image: [tokenize(text) for text in references[image]] for image in references}
    candidates = [tokenize(caption) for caption in table["caption"]]
    truths = [tokens[image] for image in table["image"]]
    each = score_tokens(candidates, truths, metrics).each()
    ratings = np.array(table["ratings"].tolist())
    people = ratings.shape[1]
    tau = {
        name: 100 * kendall_tau(np.repeat(scores, people), ratings.ravel(), _VARIANTS[judges])
        for name, scores in each.items()
    }
    return {
        "pairs": len(table),
        "judgements": ratings.size,
        "variant": _VARIANTS[judges],
        "tau": tau,
        "published": PUBLISHED[judges],
    }


def kendall_tau(scores: np.ndarray, ratings: np.ndarray, variant: str = "b") -> float:
    """Kendall's rank correlation of a metric with ratings of few levels.

    Of all pairs of captions, `concordant` are those in which the better rated one has the higher
    score and `discordant` those in which it has the lower one:

        tau-b = (concordant - discordant) / sqrt((pairs - ties of scores) (pairs - ties of ratings))
        tau-c = 2 (concordant - discordant) / (n^2 (m - 1) / m)

    with m the number of different scores or ratings, whichever is smaller.

    Args:
        scores: `(n,)`.
        ratings: `(n,)`. Time grows with the number of different ratings.
        variant: `"b"` or `"c"`.

    Returns:
        From -1 to 1.

    Raises:
        ValueError: If all scores or all ratings are the same, or the variant is unknown.
    """
    levels, sizes = np.unique(ratings, return_counts=True)
    different, repeats = np.unique(scores, return_counts=True)
    if variant not in ("b", "c") or min(len(levels), len(different)) < 2:
        raise ValueError(
            "Kendall's tau needs the variant b or c, and scores and ratings that differ. "
            f"Received: variant {variant!r}, {len(different)} different scores, "
            f"{len(levels)} different ratings"
        )
    excess = 0  # concordant - discordant
    for level in levels[1:]:
        lower = np.sort(scores[ratings < level])
        here = scores[ratings == level]
        below = np.searchsorted(lower, here, side="left").sum()
        above = (len(lower) - np.searchsorted(lower, here, side="right")).sum()
        excess += int(below) - int(above)
    n = len(scores)
    if variant == "c":
        smaller = min(len(levels), len(different))
        return 2 * excess / (n**2 * (smaller - 1) / smaller)

    def untied(counts):
        return (n * (n - 1) - int((counts * (counts - 1)).sum())) / 2

    return excess / (untied(sizes) * untied(repeats)) ** 0.5
