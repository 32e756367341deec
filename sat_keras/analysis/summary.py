"""All scores of a captioner's attention on a data set, as `sat-keras evaluate` computes them."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sat_keras.analysis.curves import (
    SHARES,
    curve_statistics,
    rank_correlation_statistics,
    word_curves,
)
from sat_keras.analysis.hidden_regions import HiddenRegions
from sat_keras.analysis.measures import sameness
from sat_keras.analysis.occlusion import occlusion_statistics
from sat_keras.analysis.ranking import (
    caption_log_probabilities,
    ranking_statistics,
    ranks_of_pictures,
)
from sat_keras.analysis.statistics import attention_scores, attention_statistics
from sat_keras.analysis.worth import KeyedDecoding, attention_worth
from sat_keras.backend.progress import track
from sat_keras.captioning.caption import Caption
from sat_keras.paper.captioner import Captioner
from sat_keras.training.captioning import PIXEL_BATCH, annotate_pictures

# Pictures of occlusion whose regions are also hidden in the order of their weights, and singly.
_CURVE_PICTURES = 32


def score_attention(
    captioner: Captioner,
    source: Any,
    captions: Mapping[str, Caption],
    table: pd.DataFrame,
    boxes: Sequence[Sequence] | None = None,
    occlusion: int = 200,
    ranking: int = 0,
) -> dict[str, Any]:
    """Scores the attention behind a captioner's captions.

    Args:
        captioner: The `Captioner` that wrote them.
        source: `FeatureCache` or `PictureSource` of the pictures. It is read for occlusion only.
        captions: `Caption` by image id.
        table: Captions table of these pictures.
        boxes: Optional result of `ground_captions` for these captions.
        occlusion: Integer, number of pictures, drawn at random, for the scores of occlusion. 0
            for none.
        ranking: Integer, number of pictures, drawn at random, that are ranked by the probability
            of each one's first reference. 0 for none.

    Returns:
        Dictionary for JSON. Counts: `words`, `object_words` (with a box) and
        `occlusion_pictures`. Scores, see `attention_statistics` and `occlusion_statistics`:

        | | unit | mean over |
        |---|---|---|
        | `entropy`, beside `entropy_uniform` | nats | words |
        | `total_variation` | percent | pairs of neighbouring words |
        | `coverage` | percent of the regions | captions |
        | `sameness` of the words' maps | percent | captions |
        | `sameness_between_pictures`, of their mean maps | percent | pairs of pictures |
        | `gate` | 0 to 1 | words |
        | `pointing_accuracy`, `..._uniform`, `..._centre`, `..._mean_map` | percent | named words |
        | `attention_mass`, `..._uniform`, `..._centre`, `..._mean_map` | percent | named words |
        | `pointing_accuracy_small` etc., see `box_sizes` | percent | named words of that size |
        | `pointing_lag` | percent | named words with a next word |
        | `occlusion_attended`, `..._random`, `..._least` | nats | words |
        | `faithfulness`, `attended` minus `random` | nats | words |
        | `uniform_cost`, `permuted_cost`, `other_cost`, see `attention_worth` | nats | words |
        | `deletion`, `insertion`, `..._random`, areas under `word_curves` | percent | words |
        | `rank_correlation`, see `rank_correlation_statistics` | -1 to 1 | words |
        | `recall_1`, `recall_5`, `recall_10`, see `ranks_of_pictures` | percent | pictures |
        | `median_rank`, beside `ranked_pictures` | | pictures |

        `curves` holds the mean curves of all words by name, beside the `share` that is hidden or,
        for insertion, shown.

        `intervals` holds their bootstrap 95 % intervals over pictures, `[low, high]` by the same
        names; `sameness_between_pictures` and `median_rank` have none.
    """
    config, found = captioner.config, list(captions.values())
    side = config.image_size
    statistics = attention_statistics(
        [caption.attention for caption in found],
        [caption.gate for caption in found],
        boxes,
        (side, side),
    )
    sample = random.Random(0).sample(list(captions), min(occlusion, len(captions)))
    extra: dict[str, Any] = {}
    if sample:
        found_here, extra["curves"] = _occlusion(captioner, source, sample, captions)
        statistics |= found_here
    if ranking:
        ranks = _ranks(captioner, source, table, min(ranking, table["image_id"].nunique()))
        statistics |= ranking_statistics(ranks)
        extra |= {"ranked_pictures": len(ranks), "median_rank": float(np.median(ranks))}
    scores, intervals = attention_scores(statistics)
    means = [caption.attention.mean(axis=0) for caption in found if caption.words]
    if len(means) > 1:
        scores["sameness_between_pictures"] = 100 * float(sameness(np.stack(means)))
    return {
        "words": sum(len(caption.words) for caption in found),
        "object_words": sum(box is not None for named in boxes or () for box in named),
        "occlusion_pictures": len(sample),
        "entropy_uniform": math.log(config.num_regions),
        **scores,
        **extra,
        "intervals": intervals,
    }


def _occlusion(
    captioner: Captioner, source: Any, image_ids: Sequence[str], captions: Mapping[str, Caption]
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Returns the statistics of pictures with hidden regions, and the mean curves of their words.

    A few pictures are read at a time to bound the memory.
    """
    generator = np.random.default_rng(0)  # one for all parts, as if they were one call
    orders = np.random.default_rng(0)
    parts: list[dict[str, np.ndarray]] = []
    curves: list[dict[str, np.ndarray]] = []
    model = HiddenRegions(captioner)
    # An ensemble has no one decoder.
    keyed = KeyedDecoding(captioner) if hasattr(captioner, "decoder") else None
    with track(len(image_ids), "Occlusion") as bar:
        for start in range(0, len(image_ids), PIXEL_BATCH):
            part = image_ids[start : start + PIXEL_BATCH]
            annotations = annotate_pictures(captioner, source, part)
            found = [captions[image_id] for image_id in part]
            parts.append(occlusion_statistics(model, annotations, found, seed=generator))
            # A single picture has no other one to take attention from.
            if len(part) > 1 and keyed is not None:
                words = [caption.words for caption in found]
                parts.append(attention_worth(keyed, annotations, words))
            if start < _CURVE_PICTURES:
                pictures, of_words = word_curves(model, annotations, found, seed=orders)
                curves.append(of_words)
                parts.append(curve_statistics(pictures, of_words, len(part)))
                parts.append(rank_correlation_statistics(model, annotations, found))
            bar.update(len(part))
    names = dict.fromkeys(name for part in parts for name in part)
    statistics = {
        name: np.concatenate([part[name] for part in parts if name in part]) for name in names
    }
    means = {
        name: np.concatenate([part[name] for part in curves]).mean(axis=0).tolist()
        for name in curves[0]
        if any(len(part[name]) for part in curves)
    }
    return statistics, {"share": list(SHARES), **means}


def _ranks(captioner: Captioner, source: Any, table: pd.DataFrame, number: int) -> np.ndarray:
    """Returns the ranks of pictures drawn at random by the likelihood of their first reference."""
    references = table.drop_duplicates("image_id").sample(number, random_state=0)
    image_ids = references["image_id"].tolist()
    annotations = [
        np.asarray(annotate_pictures(captioner, source, image_ids[i : i + PIXEL_BATCH]))
        for i in range(0, number, PIXEL_BATCH)
    ]
    tokenizer: Any = captioner.tokenizer
    token_ids = tokenizer(references["caption"].tolist()).to_tensor().numpy()
    log_p = caption_log_probabilities(captioner, np.concatenate(annotations), token_ids)
    return ranks_of_pictures(log_p, range(number))
