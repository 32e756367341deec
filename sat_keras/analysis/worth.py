"""What attention is worth: the log-probability lost where the decoder looks elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from sat_keras.analysis.decoding import Decoding
from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID
from sat_keras.paper.loss import cross_entropies


class KeyedDecoding(Decoding):
    """Forced decoding with given keys, compiled by `predict_on_batch`.

    Args:
        captioner: A `Captioner`.

    Call arguments:
        inputs: Dictionary of `annotations` and `keys`, as `decoder.read_annotations` returns them,
            and `token_ids` from `<start>` to `<end>`, shape `(batch_size, steps + 1)`.

    Returns:
        Tensor of shape `(batch_size, steps)`, `log p` of every token after the first.
    """

    def call(self, inputs: Mapping[str, Any]) -> Any:
        token_ids = inputs["token_ids"][:, None]  # (batch, 1, steps + 1)
        decode = self.captioner.decoder.decode
        logits = decode(token_ids[..., :-1], inputs["annotations"], inputs["keys"])["logits"]
        return -cross_entropies(token_ids[..., 1:], logits)[1][:, 0]


def attention_worth(
    captioner: Any, annotations: Any, captions: Sequence[Sequence[str]], seed: int = 0
) -> dict[str, np.ndarray]:
    """Computes how much less likely captions are with attention that ignores words or picture.

    The captioner is forced to say each caption, once with its own attention and once with another:

    - `uniform_cost`: all regions have the same weight
    - `permuted_cost`: the weights are those of the picture, at regions drawn by a permutation
    - `other_cost`: the weights are those of another picture of the batch, the next one

    The weights follow from the keys `W_a a_i + b`, so other keys replace them at every step, while
    the context stays a mean of the picture's own annotation vectors. The cost of a word is
    `log p(word) - log p(word | other attention)` in nats. At 0 the captioner does not use its
    attention weights.

    Args:
        captioner: A `Captioner` with a tokenizer, or its `KeyedDecoding`.
        annotations: Array of shape `(pictures, num_regions, feature_dim)`, two pictures or more.
        captions: The words of each picture's caption.
        seed: Integer, seed of the permutations.

    Returns:
        Dictionary from a name to an array `(pictures, 2)`: the sum over the caption's words, its
        end included, and their number, for `attention_scores`.

    Raises:
        ValueError: If there is one picture only.

    Reference:
        [Jain and Wallace, 2019](https://arxiv.org/abs/1902.10186), "Attention is not Explanation",
        for the permutation.
    """
    if len(captions) < 2:
        raise ValueError(
            "Another picture's attention needs two pictures or more. "
            f"Received: {len(captions)} pictures"
        )
    model = KeyedDecoding.of(captioner)
    captioner = model.captioner
    steps = captioner.config.max_length + 2
    token_ids = _token_ids(captioner.tokenizer.get_vocabulary(), captions, steps)
    read = captioner.decoder.read_annotations(annotations)
    annotations, keys = (ops.convert_to_numpy(x) for x in read)
    generator = np.random.default_rng(seed)
    order = generator.permuted(np.tile(np.arange(keys.shape[1]), (len(keys), 1)), axis=1)
    others = {
        "uniform_cost": np.zeros_like(keys),
        "permuted_cost": np.take_along_axis(keys, order[..., None], axis=1),
        "other_cost": np.roll(keys, -1, axis=0),
    }

    def log_probability(keys: np.ndarray) -> np.ndarray:
        inputs = {"annotations": annotations, "keys": keys, "token_ids": token_ids}
        return np.asarray(model.predict_on_batch(inputs), "float64")

    is_word = token_ids[:, 1:] != PAD_ID
    own = log_probability(keys)
    return {
        name: np.stack(
            [(is_word * (own - log_probability(other))).sum(axis=1), is_word.sum(axis=1)], axis=1
        )
        for name, other in others.items()
    }


def _token_ids(vocabulary: list[str], captions: Sequence[Sequence[str]], steps: int) -> np.ndarray:
    """Returns ids of the captions with start and end, `(pictures, steps or more)`, 0 at padding.

    The number of steps is that of the longest caption of a search, so that all batches have one
    shape: TensorFlow compiles each shape anew.
    """
    ids = {word: token_id for token_id, word in enumerate(vocabulary)}
    rows = [[START_ID, *(ids.get(word, UNK_ID) for word in words), END_ID] for words in captions]
    token_ids = np.full((len(rows), max(steps, *map(len, rows))), PAD_ID, "int32")
    for row, found in zip(token_ids, rows, strict=True):
        row[: len(found)] = found
    return token_ids
