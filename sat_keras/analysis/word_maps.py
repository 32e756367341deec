"""Pointing of word detectors beside that of attention, at the same words of the same pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from keras import ops

from sat_keras.analysis.forced import force_captions
from sat_keras.analysis.grounding import WordsToBoxes, ground_captions
from sat_keras.analysis.statistics import attention_scores, attention_statistics
from sat_keras.baselines.maximum_entropy import MaximumEntropy
from sat_keras.cnn.resize import PictureResize
from sat_keras.paper.captioner import Captioner
from sat_keras.training.captioning import PIXEL_BATCH, annotate_pictures, references_of

_MEASURES = ("pointing_accuracy", "attention_mass")


def score_word_maps(
    detectors: MaximumEntropy,
    captioners: Mapping[str, Captioner],
    source: Any,
    table: pd.DataFrame,
    objects: pd.DataFrame,
    words_to_boxes: WordsToBoxes,
) -> dict[str, Any]:
    """Scores where word detectors see a word, and where attention looks while it is said.

    The words are those of each picture's first reference that name an object with a box and that
    the detectors know. Attention is that of forced decoding; a detector's map is the probability
    `p_jw` of the word in every region, scaled to sum to 1.

    Args:
        detectors: A `MaximumEntropy`, whose detectors are scored.
        captioners: `Captioner` by name, of the detectors' annotation vectors.
        source: `FeatureCache` or `PictureSource` of the pictures.
        table: Captions table of these pictures.
        objects: Table of the pictures' objects, see `ground_captions`.
        words_to_boxes: Function that finds the boxes of words in `objects`, see `ground_captions`.

    Returns:
        Dictionary from `"detectors"` and the names of the captioners to a dictionary of the number
        of `words`, of `pointing_accuracy` and `attention_mass` with their baselines and sizes in
        percent, see `attention_statistics`, and of their `intervals`. That of a captioner has its
        differences to the detectors' too, as `difference` and `difference_intervals`.

    Raises:
        ValueError: If no word of the references has both a box and a detector.
    """
    config = detectors.config
    texts = {image_id: each[:1] for image_id, each in references_of(table).items()}
    forced = {name: force_captions(each, source, texts) for name, each in captioners.items()}
    captions = {image_id: each[0] for image_id, each in next(iter(forced.values())).items()}
    resize = PictureResize(config.image_size, config.resize)
    found = ground_captions(captions, table, objects, words_to_boxes, resize)
    known = set(detectors.detector.words)
    positions, words, boxes = {}, {}, []  # of the words that count, for each picture with any
    for (image_id, caption), named in zip(captions.items(), found, strict=True):
        at = [i for i, word in enumerate(caption.words) if named[i] is not None and word in known]
        if at:
            positions[image_id] = at
            words[image_id] = [caption.words[i] for i in at]
            boxes.append([named[i] for i in at])
    if not boxes:
        raise ValueError(
            "No word of the references has a box and a detector: give `objects` of these pictures, "
            f"and detectors of their words. Received: {len(objects)} objects, "
            f"{len(known)} detectors"
        )
    maps = {"detectors": _word_maps(detectors, source, words)}
    for name, each in forced.items():
        maps[name] = [each[image_id][0].attention[at] for image_id, at in positions.items()]
    size = (config.image_size, config.image_size)
    statistics = {name: _pointing(each, boxes, size) for name, each in maps.items()}
    results: dict[str, Any] = {}
    for name, sums in statistics.items():
        scores, intervals = attention_scores(sums)
        results[name] = {"words": sum(map(len, boxes)), **scores, "intervals": intervals}
        if name != "detectors":
            difference = {
                measure: sums[measure] - statistics["detectors"][measure] * [1, 0]
                for measure in _MEASURES
            }
            scores, intervals = attention_scores(difference)
            results[name] |= {"difference": scores, "difference_intervals": intervals}
    return results


def _pointing(maps: Any, boxes: Any, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns the sums of the measures that compare maps with boxes."""
    gates = [np.ones(len(each)) for each in maps]
    found = attention_statistics(maps, gates, boxes, size)
    return {name: values for name, values in found.items() if name.startswith(_MEASURES)}


def _word_maps(
    detectors: MaximumEntropy, source: Any, words: Mapping[str, list[str]]
) -> list[np.ndarray]:
    """Returns the detectors' maps of words, `(words, rows, columns)` for each picture."""
    columns = {word: column for column, word in enumerate(detectors.detector.words)}
    image_ids, found = list(words), []
    for start in range(0, len(image_ids), PIXEL_BATCH):
        part = image_ids[start : start + PIXEL_BATCH]
        annotations = annotate_pictures(detectors, source, part)
        # (pictures, regions, detectors)
        seen = ops.convert_to_numpy(detectors.detector(annotations)["word_maps"])
        for of_regions, image_id in zip(seen, part, strict=True):
            # (regions, words) -> (words, rows, columns)
            maps = of_regions[:, [columns[word] for word in words[image_id]]].T
            maps = maps / maps.sum(axis=1, keepdims=True)
            found.append(maps.reshape(-1, *detectors.config.grid_shape))
    return found
