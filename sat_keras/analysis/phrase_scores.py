"""Scores of attention on phrases, in generated captions and in reference captions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sat_keras.analysis.forced import force_captions
from sat_keras.analysis.phrases import (
    NormalizedSentence,
    generated_phrases,
    normalize_sentences,
    phrase_statistics,
    reference_phrases,
    resize_phrases,
)
from sat_keras.analysis.statistics import attention_scores
from sat_keras.captioning.caption import Caption
from sat_keras.cnn.resize import PictureResize
from sat_keras.data.images import picture_size
from sat_keras.data.tokenizer import normalize
from sat_keras.datasets.phrases import Phrase, Sentence
from sat_keras.paper.captioner import Captioner


def score_phrases(
    captioner: Captioner,
    source: Any,
    captions: Mapping[str, Caption],
    table: pd.DataFrame,
    sentences: Sequence[Sentence],
) -> dict[str, Any]:
    """Scores attention on phrases of Flickr30k Entities, in generated and in reference captions.

    Args:
        captioner: The `Captioner` that wrote the captions.
        source: `FeatureCache` or `PictureSource` of the pictures, for forced decoding.
        captions: `Caption` by image id.
        table: Captions table of these pictures, the reference captions.
        sentences: The result of `load_phrases` for these pictures.

    Returns:
        Dictionary of `generated` and `references`. Each has the number of `phrases`, the scores of
        `phrase_statistics` in percent and their 95 % `intervals`; `references` also the share of
        `captions` in percent that are sentences of Entities.
    """
    known = normalize_sentences(sentences)
    references = table.groupby("image_id", sort=False)["caption"].agg(list).to_dict()
    forced = force_captions(captioner, source, references)
    said = [(image_id, caption) for image_id, each in forced.items() for caption in each]
    texts = normalize([text for each in references.values() for text in each])
    words = [(image_id, text.split()) for (image_id, _), text in zip(said, texts, strict=True)]
    of_references = reference_phrases(words, known)
    matched = {(s.image_id, tuple(s.words)) for s in known}
    share = np.mean([(image_id, tuple(text)) in matched for image_id, text in words])

    resize = _Resizer(captioner, table, known)
    generated = list(captions.items())
    of_generated = generated_phrases([(i, caption.words) for i, caption in generated], known)
    return {
        "generated": resize.scores(generated, of_generated),
        "references": {
            "captions": 100 * float(share),
            **resize.scores(said, of_references),
        },
    }


class _Resizer:
    """Maps phrases to the pictures that a captioner sees, and scores attention on them."""

    def __init__(
        self, captioner: Captioner, table: pd.DataFrame, sentences: Sequence[NormalizedSentence]
    ) -> None:
        self.side = captioner.config.image_size
        self.resize = PictureResize(self.side, captioner.config.resize)
        self.paths = dict(zip(table["image_id"], table["image"], strict=True))
        self.sizes = {s.image_id: s.size for s in sentences}
        self.file_sizes: dict[str, tuple[int, int]] = {}

    def scores(
        self, captions: Sequence[tuple[str, Caption]], phrases: Sequence[Sequence[Phrase]]
    ) -> dict[str, Any]:
        """Returns number of phrases, scores and intervals."""
        resized = [
            self._resized(image_id, named)
            for (image_id, _), named in zip(captions, phrases, strict=True)
        ]
        maps = [caption.attention for _, caption in captions]
        statistics = phrase_statistics(maps, resized, (self.side, self.side))
        # Intervals are over pictures, not over the five references of each.
        pictures = {image_id: n for n, image_id in enumerate(dict.fromkeys(i for i, _ in captions))}
        rows = np.array([pictures[image_id] for image_id, _ in captions])
        summed = {}
        for name, values in statistics.items():
            summed[name] = np.zeros((len(pictures), 2))
            np.add.at(summed[name], rows, values)
        scores, intervals = attention_scores(summed)
        count = int(summed["phrase_mass"][:, 1].sum()) if summed else 0
        return {"phrases": count, **scores, "intervals": intervals}

    def _resized(self, image_id: str, phrases: Sequence[Phrase]) -> list[Phrase]:
        if not any(phrase.boxes for phrase in phrases):
            return []
        if image_id not in self.file_sizes:
            self.file_sizes[image_id] = picture_size(self.paths[image_id])
        return resize_phrases(phrases, self.sizes[image_id], self.file_sizes[image_id], self.resize)
