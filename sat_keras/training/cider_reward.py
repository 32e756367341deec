"""CIDEr-D of token ids in `keras.ops`, the reward of self-critical training.

`sat_keras.evaluation.metrics.cider` computes the same of words, one caption after the other. Here
all captions of a minibatch are scored at once, inside the compiled training step.
"""

import collections
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from keras import ops

from sat_keras.data.tokenizer import PAD_ID
from sat_keras.evaluation.metrics import ngrams

MAX_N = 4
SIGMA = 6.0  # standard deviation of the length penalty, in words


class DocumentFrequencies:
    """In how many pictures each n-gram occurs, looked up in `keras.ops`.

    The n-grams form a trie with one level for each n. A node's children are neighbours, sorted by
    their last token, so that one more token is found by bisection.

    Args:
        pictures: For each picture its captions, sequences of token ids without padding.
        max_n: Integer, longest n-gram.
    """

    def __init__(self, pictures: Iterable[Sequence[Sequence[int]]], max_n: int = MAX_N) -> None:
        counts: collections.Counter = collections.Counter()
        self.num_pictures = 0
        for captions in pictures:
            self.num_pictures += 1
            counts.update(set().union(*(ngrams(caption, max_n) for caption in captions)))
        self._levels = []
        parents: dict[tuple[int, ...], int] = {(): 0}
        for n in range(1, max_n + 1):
            grams = sorted(gram for gram in counts if len(gram) == n)
            children = np.zeros(max(len(parents), 1), "int32")
            for gram in grams:
                children[parents[gram[:-1]]] += 1
            self._levels.append(
                {
                    "starts": np.concatenate([[0], np.cumsum(children)]).astype("int32"),
                    "tokens": np.array([gram[-1] for gram in grams] or [-1], "int32"),
                    "pictures": np.array([counts[gram] for gram in grams] or [0], "float32"),
                    "bisections": int(children.max()).bit_length(),
                }
            )
            parents = {gram: node for node, gram in enumerate(grams)}

    def weights(self, token_ids: Any) -> list[Any]:
        """Returns the logarithm of the inverse document frequency of every n-gram.

        Args:
            token_ids: Int32 tensor of shape `(..., steps)`.

        Returns:
            List of a tensor for each n, of the shape of `token_ids`: `log(pictures / pictures with
            the n-gram that starts here)`. N-grams of no picture count as if of one. Values whose
            n-gram would pass the end mean nothing.
        """
        found, node = [], ops.zeros_like(token_ids)
        for n, level in enumerate(self._levels):
            # The token n places later; those that come in at the end are masked by the caller.
            node = _child(level, node, ops.roll(token_ids, -n, axis=-1))
            known = ops.take(level["pictures"], ops.maximum(node, 0))
            known = ops.where(node >= 0, known, 1.0)
            found.append(math.log(max(self.num_pictures, 1)) - ops.log(known))
        return found


def _child(level: dict[str, Any], node: Any, token: Any) -> Any:
    """Returns the child of a node for a token, -1 where there is none or the node is -1."""
    parent = ops.maximum(node, 0)
    low, end = ops.take(level["starts"], parent), ops.take(level["starts"], parent + 1)
    last, high = len(level["tokens"]) - 1, end
    for _ in range(level["bisections"]):
        middle = (low + high) // 2
        is_less = ops.take(level["tokens"], ops.minimum(middle, last)) < token
        is_less = ops.logical_and(is_less, low < high)
        low, high = ops.where(is_less, middle + 1, low), ops.where(is_less, high, middle)
    is_there = ops.take(level["tokens"], ops.minimum(low, last)) == token
    is_there = ops.logical_and(is_there, ops.logical_and(low < end, node >= 0))
    return ops.where(is_there, low, -1)


def cider_rewards(candidates: Any, references: Any, frequencies: DocumentFrequencies) -> Any:
    """Computes CIDEr-D of captions against the references of their picture.

    With `g_k` the number of times that an n-gram `k` occurs, times its inverse document frequency,
    and `l` the length of a caption, both with a reference `j` of `m`

        10 / (4 m) * sum_n sum_j exp(-(l - l_j)^2 / (2 * 6^2))
                   * sum_k min(g_k, g_jk) g_jk / (|g| |g_j|)

    A sum over n-grams is one over the places where they start, divided by how often they occur.

    Args:
        candidates: Int32 tensor of shape `(batch_size, samples, steps)`, padded with 0.
        references: Int32 tensor of shape `(batch_size, captions, steps)`, padded with 0. A row of
            padding is no caption.
        frequencies: `DocumentFrequencies` of the training pictures.

    Returns:
        Float32 tensor of shape `(batch_size, samples)`, 0 to 10.

    Reference:
        [Vedantam et al., 2015](https://arxiv.org/abs/1411.5726), equations 1 to 3 and section 7.
    """
    is_word, is_reference_word = candidates != PAD_ID, references != PAD_ID
    # (batch, samples, captions, steps, steps): whether two places have the same token
    one = _same(candidates[:, :, None], references[:, None])
    one_own, one_reference = (_same(x, x) for x in (candidates, references))
    shared, own, other = one, one_own, one_reference
    weights, reference_weights = map(frequencies.weights, (candidates, references))
    total: Any = 0.0
    for n in range(MAX_N):
        if n:
            shared, own, other = (
                _longer(first, rest)
                for first, rest in ((one, shared), (one_own, own), (one_reference, other))
            )
        # How often the n-gram that starts at a place occurs in its own caption; 0 past the end.
        count, reference_count = (ops.sum(ops.cast(x, "float32"), axis=-1) for x in (own, other))
        in_reference = ops.sum(ops.cast(shared, "float32"), axis=-1)
        squared = ops.where(count > 0, weights[n] ** 2, 0.0)
        reference_squared = ops.where(reference_count > 0, reference_weights[n] ** 2, 0.0)
        each = ops.minimum(count[:, :, None], in_reference) * in_reference
        each = squared[:, :, None] * each / ops.maximum(count[:, :, None], 1.0)
        product = ops.sum(each, axis=-1)  # (batch, samples, captions)
        norm = ops.sum(squared * count, axis=-1)[:, :, None]
        norm = norm * ops.sum(reference_squared * reference_count, axis=-1)[:, None]
        total = total + ops.where(norm > 0, product / ops.sqrt(ops.maximum(norm, 1e-12)), 0.0)
    length, reference_length = (
        ops.sum(ops.cast(x, "float32"), axis=-1) for x in (is_word, is_reference_word)
    )
    difference = ops.maximum(length, 1.0)[:, :, None] - reference_length[:, None]
    is_caption = ops.cast(reference_length > 0, "float32")[:, None]
    score = is_caption * total * ops.exp(-(difference**2) / (2 * SIGMA**2))
    return 10 / MAX_N * ops.sum(score, axis=-1) / ops.maximum(ops.sum(is_caption, axis=-1), 1.0)


def _same(first: Any, second: Any) -> Any:
    """Returns whether places of two captions have the same token, `(..., steps, other steps)`."""
    first, second = first[..., :, None], second[..., None, :]
    return ops.logical_and(ops.equal(first, second), first != PAD_ID)


def _longer(first: Any, rest: Any) -> Any:
    """Returns whether the n-grams of two places are the same, from their first token and rest."""
    moved = ops.pad(rest[..., 1:, 1:], [(0, 0)] * (len(rest.shape) - 2) + [(0, 1), (0, 1)])
    return ops.logical_and(first, moved)
