"""Forced decoding: what a captioner attends to while it is made to say given captions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from sat_keras.analysis.decoding import Decoding
from sat_keras.backend.progress import track
from sat_keras.captioning.caption import Caption
from sat_keras.data.images import picture_errors
from sat_keras.data.loaders import input_batches
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.loss import cross_entropies
from sat_keras.training.captioning import batch_size

_BATCH = 32  # pictures decoded at a time from a cache
# Steps are padded to a multiple, since each number of steps may be compiled anew.
_STEPS = 8


class ForcedDecoding(Decoding):
    """A captioner's forced decoding, compiled by `predict_on_batch`.

    Args:
        captioner: A `Captioner`.

    Call arguments:
        inputs: Dictionary as of the captioner, but with the whole captions as `token_ids`, from
            `<start>` to `<end>`, shape `(batch_size, captions, steps + 1)`.

    Returns:
        Dictionary of `log_probability`, `log p` of every token after the first in nats, shape
        `(batch_size, captions, steps)`, and of the captioner's `attention_weights` and `gate` if it
        has attention.
    """

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        token_ids = inputs["token_ids"]
        outputs = self.captioner({**inputs, "token_ids": token_ids[..., :-1]})
        return {
            "log_probability": -cross_entropies(token_ids[..., 1:], outputs["logits"])[1],
            **{name: outputs[name] for name in ("attention_weights", "gate") if name in outputs},
        }


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
    tokenizer: Any = captioner.tokenizer
    rows = iter(tokenizer([text for each in captions.values() for text in each]).to_list())
    token_ids = {i: [next(rows) for _ in each] for i, each in captions.items()}
    # Pictures with long captions together: a batch has as many steps as its longest caption.
    image_ids = sorted(filter(captions.get, captions), key=lambda i: max(map(len, token_ids[i])))
    if not image_ids:
        return {image_id: [] for image_id in captions}
    number = max(map(len, captions.values()))
    model = ForcedDecoding(captioner)
    found: dict[str, list[Caption]] = {}
    size = batch_size(source, _BATCH)
    with track(len(image_ids), "Forced decoding") as bar, picture_errors():
        for start, inputs in zip(
            range(0, len(image_ids), size),
            input_batches(image_ids, source, size),
            strict=True,
        ):
            part = image_ids[start : start + size]
            padded = _pad([token_ids[i] for i in part], number)
            # Arrays, which every backend takes: tf.data yields TensorFlow's tensors.
            arrays = {name: np.asarray(x) for name, x in inputs.items()}
            outputs = model.predict_on_batch({**arrays, "token_ids": padded})
            forced = _read(captioner, outputs, [token_ids[i] for i in part])
            found |= dict(zip(part, forced, strict=True))
            bar.update(len(part))
    return {image_id: found.get(image_id, []) for image_id in captions}


def _pad(captions: Sequence[Sequence[list[int]]], number: int) -> np.ndarray:
    """Returns token ids of shape `(pictures, number, steps + 1)`, padded with 0."""
    longest = max(len(row) for rows in captions for row in rows)
    token_ids = np.zeros((len(captions), number, 1 + -(-(longest - 1) // _STEPS) * _STEPS), "int32")
    for b, rows in enumerate(captions):
        for k, row in enumerate(rows):
            token_ids[b, k, : len(row)] = row
    return token_ids


def _read(
    captioner: Captioner, outputs: Mapping[str, Any], captions: Sequence[Sequence[list[int]]]
) -> Iterator[list[Caption]]:
    """Yields the forced captions of each picture of a batch.

    Args:
        captioner: The `Captioner`.
        outputs: What `ForcedDecoding` returns.
        captions: Token ids of each picture's captions.
    """
    tokenizer: Any = captioner.tokenizer
    vocabulary, grid = tokenizer.get_vocabulary(), captioner.config.grid_shape
    log_p, weights, gate = (
        ops.convert_to_numpy(outputs[name])
        for name in ("log_probability", "attention_weights", "gate")
    )
    for b, rows in enumerate(captions):
        forced = []
        for k, row in enumerate(rows):
            ids = row[1:-1]  # without start and end
            words, count = [vocabulary[i] for i in ids], len(ids)
            maps = weights[b, k, :count].reshape(-1, *grid)
            total = float(log_p[b, k, : count + 1].sum())
            forced.append(Caption(" ".join(words), words, maps, gate[b, k, :count], total))
        yield forced
