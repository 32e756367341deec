"""The step function of a decoder with attention, for search."""

from collections.abc import Callable
from typing import Any

from keras import ops

from sat_keras import fast
from sat_keras.search.loop import PictureStep, StepFunction

States = dict[str, Any]


def attention_steps(
    decoder: Any,
    annotations: Any,
    steps: int,
    rows: int,
    context: str | None = None,
    seed: int | None = None,
    mask: Any = None,
) -> tuple[StepFunction, States]:
    """Returns the step function and the initial states of a search over annotated pictures.

    Contexts other than the expected one draw their noise for all steps and rows beforehand.

    Args:
        decoder: An `AttentionDecoder`.
        annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
        steps, rows: Integers, the largest number of steps and of beams or samples.
        context, seed, mask: As of `CaptionModel.search`.

    Returns:
        Tuple `(step, states)`, see `sat_keras.search.loop`, whose record has `attention_weights`
        and `gate`.
    """
    annotations, keys = decoder.read_annotations(annotations)
    hidden, cell = decoder.initial_state(annotations, mask=mask)
    batch_size, num_regions = ops.shape(annotations)[:2]
    known = annotations.shape[0]  # None where a data set's minibatches may differ
    words = known and known * steps * rows
    advance, pictures = decoder_step(decoder, annotations, keys, mask, words)
    shape = (steps, batch_size, rows, num_regions)
    sampling = decoder.attention.draw(shape, context=context, seed=seed)

    def step(token_ids: Any, states: Any, pictures: Any = pictures) -> Any:
        lstm = {"hidden": states["hidden"], "cell": states["cell"]}
        now = sampling and sampling.at(states["step"][0, 0], token_ids.shape[1])
        logits, lstm, record = advance(token_ids, lstm, pictures, now)
        states = {**lstm, "step": states["step"] + 1}
        return ops.log_softmax(ops.cast(logits, "float32"), axis=-1), states, record

    states = {"hidden": hidden, "cell": cell, "step": ops.zeros((batch_size, 1), "int32")}
    # The noise of a sampled context is drawn for all pictures, so that they stay together.
    is_drawn = sampling is not None and sampling.draws
    return (step if is_drawn else PictureStep(step, pictures)), states


def decoder_step(
    decoder: Any, annotations: Any, keys: Any, mask: Any = None, words: int | None = None
) -> tuple[Callable[..., tuple[Any, States, dict[str, Any]]], dict[str, Any]]:
    """Returns `decoder.step` by the implementation that the decoder chooses.

    Args:
        decoder: An `AttentionDecoder`.
        annotations, keys: The results of `decoder.read_annotations`.
        mask: Boolean tensor of shape `(batch_size, num_regions)`, or `None`.
        words: Integer, number of words that all steps read together, if it is known. The fused
            implementation projects the whole vocabulary once if that is fewer.

    Returns:
        Tuple `(step, pictures)`: a function of token ids, states, `pictures` and optionally one
        step's `Sampling` that returns what `decoder.step` does, and a dictionary of the tensors
        that it reads of every picture, of shape `(batch_size, ...)`.
    """
    if decoder.uses_fused():
        return fast.search_step(decoder, annotations, keys, mask, words)
    pictures = {"annotations": annotations, "keys": keys}
    if mask is not None:
        pictures["mask"] = mask

    def step(token_ids: Any, states: States, pictures: Any, sampling: Any = None) -> Any:
        return decoder.step(token_ids, states, **pictures, sampling=sampling)

    return step, pictures
