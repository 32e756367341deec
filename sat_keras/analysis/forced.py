"""Forced decoding: what a captioner attends to while it is made to say given captions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from sat_keras.backend.progress import track
from sat_keras.captioning.caption import Caption
from sat_keras.paper.captioner import Captioner
from sat_keras.training.captioning import annotate_pictures

_PICTURES_AT_A_TIME = 8


def force_captions(
    captioner: Captioner, source: Any, captions: Mapping[str, Sequence[str]]
) -> dict[str, list[Caption]]:
    """Computes attention, gate and log-probability of given captions by teacher forcing.

    Args:
        captioner: A `Captioner` with a tokenizer.
        source: `FeatureCache` or `PictureSource` of the pictures.
        captions: Captions of each picture by image id.

    Returns:
        Dictionary from image id to a list of `Caption`, one for each given caption. `words` are
        the tokenizer's, `<unk>` for those that it does not know.

    Example:

    >>> forced = force_captions(captioner, cache, {"1000268201_693b08cb0e": ["a girl climbs"]})
    >>> forced["1000268201_693b08cb0e"][0].attention.shape
    (3, 14, 14)
    """
    image_ids = list(captions)
    found: dict[str, list[Caption]] = {}
    tokenizer: Any = captioner.tokenizer
    rows = tokenizer([text for each in captions.values() for text in each]).to_list()
    queue = iter(rows)
    token_ids = {i: [next(queue) for _ in each] for i, each in captions.items()}
    # One shape for all batches: TensorFlow compiles each shape anew.
    shape = max(map(len, token_ids.values()), default=0), max(map(len, rows), default=0)
    with track(len(image_ids), "Forced decoding") as bar:
        for start in range(0, len(image_ids), _PICTURES_AT_A_TIME):
            part = image_ids[start : start + _PICTURES_AT_A_TIME]
            annotations = annotate_pictures(captioner, source, part)
            forced = _force(captioner, annotations, [token_ids[i] for i in part], shape)
            found |= dict(zip(part, forced, strict=True))
            bar.update(len(part))
    return found


def _force(
    captioner: Captioner,
    annotations: Any,
    captions: Sequence[Sequence[list[int]]],
    shape: tuple[int, int],
) -> Iterator[list[Caption]]:
    """Yields the forced captions of each picture of a batch.

    Args:
        captioner: The `Captioner`.
        annotations: The pictures' annotation vectors.
        captions: Token ids of each picture's captions.
        shape: Tuple of the largest number of captions and of tokens.
    """
    tokenizer: Any = captioner.tokenizer
    # (batch, captions, steps): padding is 0
    token_ids = np.zeros((len(captions), *shape), "int32")
    for b, rows in enumerate(captions):
        for k, row in enumerate(rows):
            token_ids[b, k, : len(row)] = row
    outputs = captioner({"annotations": annotations, "token_ids": token_ids[..., :-1]})
    log_p = ops.log_softmax(ops.cast(outputs["logits"], "float32"), axis=-1)
    chosen = ops.take_along_axis(log_p, ops.expand_dims(token_ids[..., 1:], -1), axis=-1)[..., 0]
    log_p, weights, gate = (
        ops.convert_to_numpy(x) for x in (chosen, outputs["attention_weights"], outputs["gate"])
    )
    vocabulary, grid = tokenizer.get_vocabulary(), captioner.config.grid_shape
    for b, rows in enumerate(captions):
        forced = []
        for k, row in enumerate(rows):
            ids = row[1:-1]  # without start and end
            words, count = [vocabulary[i] for i in ids], len(ids)
            maps = weights[b, k, :count].reshape(-1, *grid)
            total = float(log_p[b, k, : count + 1].sum())
            forced.append(Caption(" ".join(words), words, maps, gate[b, k, :count], total))
        yield forced
