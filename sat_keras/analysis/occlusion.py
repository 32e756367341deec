"""Whether a word depends on the regions that its attention map marks: hide them and compare.

A plausible attention map means little if the word's probability stays the same without the
regions that were attended. Occlusion measures this with the model itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sat_keras.analysis.hidden_regions import (
    HiddenRegions,
    caption_tokens,
    word_log_probabilities,
)
from sat_keras.captioning.caption import Caption

# Share of a picture's regions that is hidden.
OCCLUDED_SHARE = 0.1
CHOICES = ("attended", "random", "least")


def occlusion_statistics(
    captioner: Any,
    annotations: np.ndarray,
    captions: Sequence[Caption],
    share: float = OCCLUDED_SHARE,
    seed: int | np.random.Generator = 0,
) -> dict[str, np.ndarray]:
    """Computes how far each word's log-probability drops when regions are hidden.

    For the `t`-th word of a caption `y` with attention `alpha_t` and a set `S` of
    `k = max(1, round(share * num_regions))` regions,

        drop_t(S) = log p(y_t | y_1 .. y_{t-1}, a) - log p(y_t | y_1 .. y_{t-1}, a^S)

    where `a^S` are the annotation vectors `a` with those of `S` replaced by the mean of `a`. The
    caption is the same in both (teacher forcing). `a^S` replaces `a` from the initial state on,
    so that earlier steps cannot pass on information about the hidden regions. `S` is in turn

    - `attended`: the `k` regions with the largest weights `alpha_ti`,
    - `random`: `k` random regions,
    - `least`: the `k` regions with the smallest weights; ties are broken at random.

    If a word depends on the regions that it attends to, the drop is large for `attended` and
    small for the others. A word that follows from the words before it ("of") drops little for
    any. Hard attention reads the context of its config, as in any call of the captioner.

    Args:
        captioner: `Captioner`, or a function as of `HiddenRegions` with an attribute `tokenizer`,
            or the `HiddenRegions` of either, which is compiled once for several calls.
        annotations: Array of shape `(pictures, num_regions, feature_dim)`.
        captions: The captioner's captions of these pictures, with their attention.
        share: Float, share of the regions to hide, above 0 and at most 1.
        seed: Integer seed of the random regions, or the generator that draws them.

    Returns:
        Dictionary of arrays `(pictures, 2)`, the sum over the words of a caption and their
        number, as in `attention_statistics`: `occlusion_attended`, `occlusion_random` and
        `occlusion_least`, drops in nats, and `faithfulness`, the first minus the second.

    Raises:
        ValueError: If the numbers of pictures and captions differ, or `share` is out of range.

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
    annotations = np.asarray(annotations)
    model = HiddenRegions.of(captioner)
    tokens = caption_tokens(model, captions)
    generator = np.random.default_rng(seed)
    words = [
        (picture, step)
        for picture, caption in enumerate(captions)
        for step in range(len(caption.words))
    ]
    # 0 hides nothing, the others are by choice.
    is_hidden = np.zeros((1 + len(CHOICES), len(words), annotations.shape[1]), bool)
    for row, (picture, step) in enumerate(words):
        weights = captions[picture].attention[step].ravel()
        for variant, regions in enumerate(_hidden_regions(weights, share, generator), start=1):
            is_hidden[variant, row, regions] = True
    of_words = word_log_probabilities(model, annotations, is_hidden, tokens, words)
    drops = dict(zip(CHOICES, of_words[0] - of_words[1:], strict=True))
    drops["difference"] = drops["attended"] - drops["random"]
    sums = {name: np.zeros((len(captions), 2)) for name in drops}
    for name, values in drops.items():
        np.add.at(sums[name], [p for p, _ in words], np.stack([values, values**0], axis=-1))
    named = {f"occlusion_{name}": sums[name] for name in CHOICES}
    return {**named, "faithfulness": sums["difference"]}


def _hidden_regions(
    weights: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Returns the regions `(k,)` to hide, in the order of `CHOICES`."""
    count = max(1, round(share * len(weights)))
    by_weight = np.lexsort((generator.random(len(weights)), weights))
    at_random = generator.choice(len(weights), count, replace=False)
    return by_weight[-count:], at_random, by_weight[:count]
