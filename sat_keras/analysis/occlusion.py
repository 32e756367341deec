"""Whether attention tells what a word rests on: hide where the model looked, and see.

A map of attention may look right and mean nothing, if the word would have been the same without
what was looked at. Occlusion asks the model itself.
"""

from collections.abc import Sequence

import numpy as np
from keras import ops

from sat_keras.data.tokenizer import START_ID
from sat_keras.paper.captioner import Caption

# What is hidden of a picture, as a share of its regions.
OCCLUDED_SHARE = 0.1
CHOICES = ("attended", "random", "least")
# Captions decoded at a time: 256 times 196 regions of 512 features take 100 MB.
_BATCH = 256


def occlusion_statistics(
    captioner,
    annotations: np.ndarray,
    captions: Sequence[Caption],
    share: float = OCCLUDED_SHARE,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """How far each word's log-probability falls when regions of the picture are hidden.

    For the `t`-th word of a caption `y` with attention `alpha_t` and a set `S` of
    `k = max(1, round(share * num_regions))` regions,

        drop_t(S) = log p(y_t | y_1 .. y_{t-1}, a) - log p(y_t | y_1 .. y_{t-1}, a^S)

    where `a^S` are the annotation vectors `a` with those of `S` replaced by the mean of `a`. The
    caption is the same in both (teacher forcing), and `a^S` stands in the place of `a` from the
    initial state on, so that nothing of the hidden regions reaches the word by way of earlier
    steps. `S` are, by turns,

    - `attended`: the `k` regions with the largest weights `alpha_ti`,
    - `random`: `k` regions by chance,
    - `least`: the `k` with the smallest weights; ties are broken by chance.

    Attention that tells what a word rests on drops far for `attended` and little for the others.
    A word that follows from the words before it ("of") drops little for any. Hard attention reads
    the context that its config names, as in any call of the captioner.

    Args:
        captioner: `Captioner`, or any function from a dictionary of `annotations`, shape
            `(rows, num_regions, feature_dim)`, and `token_ids`, shape `(rows, 1, steps)`, to one
            of `logits`, shape `(rows, 1, steps, vocabulary_size)`, that has a `tokenizer`.
        annotations: Array `(pictures, num_regions, feature_dim)`.
        captions: The captioner's own captions of these pictures, with their attention.
        share: Share of the regions to hide, above 0, at most 1.
        seed: Of the random regions.

    Returns:
        Dictionary of arrays `(pictures, 2)`, the sum over the words of a caption and the number of
        its words, as of `sat_keras.analysis.measures.attention_statistics`: `occlusion_attended`,
        `occlusion_random` and `occlusion_least`, drops in nats, and `faithfulness`, the first less
        the second.

    Raises:
        ValueError: If there are other numbers of pictures than of captions, or `share` is out of
            range.

    Reference:
        [Samek et al., 2017](https://arxiv.org/abs/1509.06321), for explanations of classifiers;
        [Jain & Wallace, 2019](https://arxiv.org/abs/1902.10186), on attention.
        Notebook `06_attention_plots`.
    """
    if len(annotations) != len(captions) or not 0 < share <= 1:
        raise ValueError(
            "There must be a caption for each picture, and a share above 0 and at most 1. "
            f"Received: {len(annotations)} pictures, {len(captions)} captions, share={share}"
        )
    ids = {word: i for i, word in enumerate(captioner.tokenizer.get_vocabulary())}
    tokens = [[START_ID, *(ids[word] for word in caption.words)] for caption in captions]
    generator = np.random.default_rng(seed)
    # A row is a word: its picture, its step (from 0) and the regions to hide, by choice.
    rows = [
        (picture, step, _hidden_regions(weights.ravel(), share, generator))
        for picture, caption in enumerate(captions)
        for step, weights in enumerate(caption.attention)
    ]
    rows.sort(key=lambda row: row[1])  # short ones together: a word needs no steps after its own
    sums = {name: np.zeros((len(captions), 2)) for name in (*CHOICES, "difference")}
    chunk = _BATCH // (1 + len(CHOICES))
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        drops = _drops(captioner, annotations, tokens, part)
        drops["difference"] = drops["attended"] - drops["random"]
        for name, values in drops.items():
            np.add.at(sums[name], [row[0] for row in part], np.stack([values, values**0], axis=-1))
    named = {f"occlusion_{name}": sums[name] for name in CHOICES}
    return {**named, "faithfulness": sums["difference"]}


def _hidden_regions(weights, share, generator):
    """The regions `(k,)` to hide by each choice."""
    count = max(1, round(share * len(weights)))
    by_weight = np.lexsort((generator.random(len(weights)), weights))
    by_chance = generator.choice(len(weights), count, replace=False)
    return {"attended": by_weight[-count:], "random": by_chance, "least": by_weight[:count]}


def _drops(captioner, annotations, tokens, rows):
    """The fall of the log-probability of each row's word, `(rows,)` in nats by choice."""
    pictures, steps, hidden = zip(*rows, strict=True)
    whole = np.asarray(annotations)[list(pictures)]  # (rows, num_regions, feature_dim)
    mean = whole.mean(axis=1, dtype="float32").astype(whole.dtype)
    variants = [whole]
    for choice in CHOICES:
        variants.append(whole.copy())
        for row, regions in enumerate(hidden):
            variants[-1][row, regions[choice]] = mean[row]
    length = max(steps) + 1
    known = [(tokens[picture] + length * [0])[: length + 1] for picture in pictures]
    known = np.array(len(variants) * known, dtype="int32")  # (variants * rows, length + 1)
    outputs = captioner({"annotations": np.concatenate(variants), "token_ids": known[:, None, :-1]})
    last = np.tile(steps, len(variants))
    logits = ops.cast(outputs["logits"], "float32")[:, 0]
    chosen = ops.take_along_axis(logits, ops.convert_to_tensor(last[:, None, None]), axis=1)[:, 0]
    log_probabilities = ops.convert_to_numpy(ops.log_softmax(chosen, axis=-1))
    words = known[np.arange(len(known)), last + 1]
    found = log_probabilities[np.arange(len(known)), words].reshape(len(variants), -1)
    return dict(zip(CHOICES, found[0] - found[1:], strict=True))
