"""Whether a captioner tells pictures apart: which picture makes a caption likeliest."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sat_keras.analysis.forced import ForcedDecoding
from sat_keras.data.tokenizer import PAD_ID

TOP = (1, 5, 10)
# Captions decoded for a picture, and pictures, at a time.
_CAPTIONS, _PICTURES = 16, 4


def caption_log_probabilities(
    captioner: Any, annotations: np.ndarray, token_ids: np.ndarray
) -> np.ndarray:
    """Computes `log p(caption | picture)` of every caption for every picture.

    Args:
        captioner: A `Captioner`.
        annotations: Array of shape `(pictures, num_regions, feature_dim)`.
        token_ids: Integer array of shape `(captions, steps + 1)`, from `<start>` to `<end>`, then
            padding.

    Returns:
        Float64 array of shape `(captions, pictures)`, in nats.
    """
    model = ForcedDecoding(captioner)
    found = np.zeros((len(token_ids), len(annotations)))
    for c in range(0, len(token_ids), _CAPTIONS):
        rows = token_ids[c : c + _CAPTIONS]
        for p in range(0, len(annotations), _PICTURES):
            pictures = annotations[p : p + _PICTURES]
            ids = np.broadcast_to(rows, (len(pictures), *rows.shape))
            outputs = model.predict_on_batch({"annotations": pictures, "token_ids": ids})
            of_words = np.asarray(outputs["log_probability"], "float64")
            sums = (of_words * (ids[..., 1:] != PAD_ID)).sum(axis=-1)  # (pictures, captions)
            found[c : c + _CAPTIONS, p : p + _PICTURES] = sums.T
    return found


def ranks_of_pictures(log_p: np.ndarray, pictures: Sequence[int]) -> np.ndarray:
    """Computes the rank of each caption's own picture among all pictures.

    Args:
        log_p: Array of shape `(captions, pictures)`, see `caption_log_probabilities`.
        pictures: The number of each caption's own picture.

    Returns:
        Float array of shape `(captions,)`: 1 if the caption is likeliest for its own picture. A
        picture that is as likely as the own one counts half.

    Example:

    >>> ranks_of_pictures(np.array([[-3.0, -1.0, -2.0], [-1.0, -4.0, -1.0]]), [2, 0])
    array([2. , 1.5])
    """
    own = np.take_along_axis(log_p, np.asarray(pictures)[:, None], axis=1)
    return 1 + (log_p > own).sum(axis=1) + ((log_p == own).sum(axis=1) - 1) / 2


def ranking_statistics(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the recall at 1, 5 and 10, as sums for `attention_scores`.

    Args:
        ranks: Result of `ranks_of_pictures`, one caption a picture.

    Returns:
        Dictionary from `recall_1`, `recall_5` and `recall_10` to an array `(pictures, 2)`: whether
        the picture is among so many likeliest ones, and 1.

    Reference:
        [Hodosh et al., 2013](https://www.jair.org/index.php/jair/article/view/10833), section 5.
    """
    return {
        f"recall_{k}": np.stack([ranks <= k, np.ones_like(ranks)], axis=1).astype("float64")
        for k in TOP
    }
