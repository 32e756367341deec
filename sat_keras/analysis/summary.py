"""All that is measured of a captioner's attention on a data set, as `sat-keras evaluate` does."""

import math
import random
from collections.abc import Mapping

import numpy as np
import pandas as pd

from sat_keras.analysis.measures import attention_scores, attention_statistics, sameness
from sat_keras.analysis.occlusion import occlusion_statistics
from sat_keras.analysis.pointing import ground_captions
from sat_keras.cnn.resize import PictureResize
from sat_keras.paper.captioner import Caption
from sat_keras.training.fit import annotate_pictures


def score_attention(
    captioner,
    source,
    captions: Mapping[str, Caption],
    table: pd.DataFrame,
    objects: pd.DataFrame | None = None,
    occlusion: int = 200,
) -> dict:
    """Score the attention behind a captioner's captions.

    Args:
        captioner: The `Captioner` that wrote them.
        source: `FeatureCache` or `PictureSource` of the pictures.
        captions: A `Caption` by image id.
        table: The captions table of these pictures.
        objects: Where the pictures' objects are, see `sat_keras.analysis.pointing`. None: not known.
        occlusion: Pictures, chosen by chance, for `faithfulness`; 0 for none.

    Returns:
        Dictionary for JSON. Numbers of what was measured: `words`, `object_words` (with a box) and
        `occlusion_pictures`. Scores, see `attention_statistics` and `occlusion_statistics`:

        | | unit | mean over |
        |---|---|---|
        | `entropy`, beside `entropy_uniform` | nats | words |
        | `total_variation` | percent | pairs of neighbouring words |
        | `coverage` | percent of the regions | captions |
        | `sameness` of the words' maps | percent | captions |
        | `sameness_between_pictures`, of their mean maps | percent | pairs of pictures |
        | `gate` | 0 to 1 | words |
        | `pointing_accuracy`, `..._uniform`, `..._centre` | percent | words with a box |
        | `attention_mass`, `..._uniform`, `..._centre` | percent | words with a box |
        | `occlusion_attended`, `..._random`, `..._least` | nats | words |
        | `faithfulness`, `attended` less `random` | nats | words |

        `intervals` are their bootstrap 95 % intervals over pictures, `[low, high]` by the same
        names; `sameness_between_pictures` has none.
    """
    config, found = captioner.config, list(captions.values())
    boxes, side = None, config.image_size
    if objects is not None:
        boxes = ground_captions(captions, table, objects, PictureResize(side, config.resize))
    statistics = attention_statistics(
        [caption.attention for caption in found],
        [caption.gate for caption in found],
        boxes,
        (side, side),
    )
    sample = random.Random(0).sample(list(captions), min(occlusion, len(captions)))
    if sample:
        annotations = annotate_pictures(captioner, source, sample)
        statistics |= occlusion_statistics(captioner, annotations, [captions[i] for i in sample])
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
