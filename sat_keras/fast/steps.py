"""The decoder's steps by the fused loop: collects a decoder's weights and calls `recurrence`."""

from collections.abc import Callable
from typing import Any

from keras import ops

from sat_keras.fast.recurrence import (
    Choice,
    RecurrenceWeights,
    Words,
    attention_factors,
    attention_recurrence,
    attention_step,
    mask_bias,
)


def run_steps(
    decoder: Any,
    words: Any,
    states: dict[str, Any],
    annotations: Any,
    keys: Any,
    mask: Any = None,
    sampling: Any = None,
) -> dict[str, Any]:
    """Runs `decoder.recurrent_step` for all steps of teacher forcing.

    Args:
        decoder: An `AttentionDecoder`.
        words: Tensor `E y` of shape `(batch_size, captions, steps, embedding_dim)`.
        states: Dictionary of the initial `hidden` and `cell`, `(batch_size, captions, hidden_dim)`.
        annotations, keys: The results of `decoder.read_annotations`.
        mask: Boolean tensor of shape `(batch_size, num_regions)`, or `None`.
        sampling: `Sampling` of all steps, or `None`.

    Returns:
        Dictionary of `hidden`, `context`, `attention_weights` and `gate`, tensors of shape
        `(steps, batch_size, captions, ...)`.
    """
    # (batch, captions, steps, width) -> (steps, batch, captions, width)
    read = Words(
        *(x if x is None else ops.transpose(x, (2, 0, 1, 3)) for x in _read_words(decoder, words))
    )
    return attention_recurrence(
        read,
        states["hidden"],
        states["cell"],
        annotations,
        keys,
        _weights(decoder),
        mask,
        _choice(sampling),
    )


def search_step(
    decoder: Any, annotations: Any, keys: Any, mask: Any = None, words: int | None = None
) -> tuple[Callable[..., tuple[Any, dict[str, Any], dict[str, Any]]], dict[str, Any]]:
    """Returns `decoder.step` for one picture batch, with what all steps share computed once.

    Args:
        decoder: An `AttentionDecoder`.
        annotations, keys: The results of `decoder.read_annotations`.
        mask: Boolean tensor of shape `(batch_size, num_regions)`, or `None`.
        words: Integer, number of words that all steps read together, or `None` if not known. The
            whole vocabulary is projected once where it has no more.

    Returns:
        Tuple `(step, pictures)`, see `sat_keras.captioning.steps.decoder_step`.
    """
    weights = _weights(decoder)
    pictures = {"annotations": annotations, "factors": attention_factors(keys)}
    if mask is not None:
        pictures["mask_bias"] = mask_bias(mask)
    table = None
    if words is None or words >= decoder.vocabulary_size:
        table = _read_words(decoder, ops.cast(decoder.embedding.embeddings, decoder.compute_dtype))

    def step(token_ids: Any, states: dict[str, Any], pictures: Any, sampling: Any = None) -> Any:
        word = decoder.embedding(token_ids)
        if table is None:
            read = _read_words(decoder, word)
        else:
            read = Words(*(x if x is None else ops.take(x, token_ids, axis=0) for x in table))
        new = attention_step(
            read,
            states["hidden"],
            states["cell"],
            weights=weights,
            choice=_choice(sampling),
            **pictures,
        )
        logits = decoder.predict_words(word, new["hidden"], new["context"])
        record = {"attention_weights": new["attention_weights"], "gate": new["gate"][..., 0]}
        return logits, {"hidden": new["hidden"], "cell": new["cell"]}, record

    return step, pictures


def _choice(sampling: Any) -> Choice | None:
    return Choice(*sampling) if sampling is not None and sampling.draws else None


def _weights(decoder: Any) -> RecurrenceWeights:
    """Collects the weights of a step in the compute dtype."""
    attention, gate = decoder.attention, decoder.gate
    kernels = [attention.query_projection.kernel, decoder.lstm_hidden.kernel]
    gate_bias = None
    if gate is not None:
        kernels.insert(1, gate.kernel)
        gate_bias = ops.cast(ops.cast(gate.bias, decoder.compute_dtype), "float32")
    return RecurrenceWeights(
        kernels=ops.cast(ops.concatenate(kernels, axis=-1), decoder.compute_dtype),
        context_kernel=ops.cast(decoder.lstm_context.kernel, decoder.compute_dtype),
        score_vector=ops.cast(attention.score_vector.kernel, decoder.compute_dtype),
        gate_bias=gate_bias,
    )


def _read_words(decoder: Any, embedded: Any) -> Words:
    """Computes what embedded words contribute to a step, for any number of steps."""
    lstm = ops.cast(decoder.lstm_embedding(embedded), "float32")
    if decoder.word_query is None:
        return Words(lstm)
    return Words(lstm, ops.cast(decoder.word_query(embedded), "float32"))
