"""All scores of a captioner's attention on a data set, as `sat-keras evaluate` computes them."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sat_keras.analysis.grounding import WordsToBoxes, ground_captions
from sat_keras.analysis.measures import sameness
from sat_keras.analysis.occlusion import occlusion_statistics
from sat_keras.analysis.statistics import attention_scores, attention_statistics
from sat_keras.analysis.worth import attention_worth
from sat_keras.backend.progress import track
from sat_keras.captioning.caption import Caption
from sat_keras.cnn.resize import PictureResize
from sat_keras.paper.captioner import Captioner
from sat_keras.training.fit import annotate_pictures

# Pictures that pass through the CNN and whose annotation vectors are held at a time. With VGG16 the
# process takes 1.7 GB for 8, 2.4 GB for 16 and 5.4 GB for 64.
_PICTURES_AT_A_TIME = 8


def score_attention(
    captioner: Captioner,
    source: Any,
    captions: Mapping[str, Caption],
    table: pd.DataFrame,
    objects: pd.DataFrame | None = None,
    words_to_boxes: WordsToBoxes | None = None,
    occlusion: int = 200,
) -> dict[str, Any]:
    """Scores the attention behind a captioner's captions.

    Args:
        captioner: The `Captioner` that wrote them.
        source: `FeatureCache` or `PictureSource` of the pictures. It is read for occlusion only.
        captions: `Caption` by image id.
        table: Captions table of these pictures.
        objects: Optional table of the pictures' objects, see `ground_captions`.
        words_to_boxes: Function that finds the boxes of words in `objects`, see
            `ground_captions`. Required with `objects`.
        occlusion: Integer, number of pictures, drawn at random, for the scores of occlusion. 0
            for none.

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
        | `pointing_lag` | percent | named words with a next word |
        | `occlusion_attended`, `..._random`, `..._least` | nats | words |
        | `faithfulness`, `attended` minus `random` | nats | words |
        | `uniform_cost`, `permuted_cost`, `other_cost`, see `attention_worth` | nats | words |

        `intervals` holds their bootstrap 95 % intervals over pictures, `[low, high]` by the same
        names; `sameness_between_pictures` has none.

    Raises:
        ValueError: If `objects` is given without `words_to_boxes`.
    """
    config, found = captioner.config, list(captions.values())
    boxes, side = None, config.image_size
    if objects is not None:
        if words_to_boxes is None:
            raise ValueError(
                "`objects` needs `words_to_boxes`, the function of its data set such as "
                "`sat_keras.datasets.scenes.words_to_boxes`. Received: words_to_boxes=None"
            )
        resize = PictureResize(side, config.resize)
        boxes = ground_captions(captions, table, objects, words_to_boxes, resize)
    statistics = attention_statistics(
        [caption.attention for caption in found],
        [caption.gate for caption in found],
        boxes,
        (side, side),
    )
    sample = random.Random(0).sample(list(captions), min(occlusion, len(captions)))
    if sample:
        statistics |= _occlusion(captioner, source, sample, captions)
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
        "intervals": intervals,
    }


def _occlusion(
    captioner: Captioner, source: Any, image_ids: Sequence[str], captions: Mapping[str, Caption]
) -> dict[str, np.ndarray]:
    """Returns the `occlusion_statistics` of pictures, a few at a time to bound the memory."""
    generator = np.random.default_rng(0)  # one for all parts, as if they were one call
    parts: list[dict[str, np.ndarray]] = []
    worth: list[dict[str, np.ndarray]] = []
    with track(len(image_ids), "Occlusion") as bar:
        for start in range(0, len(image_ids), _PICTURES_AT_A_TIME):
            part = image_ids[start : start + _PICTURES_AT_A_TIME]
            annotations = annotate_pictures(captioner, source, part)
            found = [captions[image_id] for image_id in part]
            parts.append(occlusion_statistics(captioner, annotations, found, seed=generator))
            if len(part) > 1:  # a single picture has no other one to take attention from
                words = [caption.words for caption in found]
                worth.append(attention_worth(captioner, annotations, words))
            bar.update(len(part))
    return {
        name: np.concatenate([part[name] for part in each])
        for each in (parts, worth)
        for name in (each[0] if each else ())
    }
