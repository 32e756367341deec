"""The hypotheses of a search as a tree: what a beam kept, what it dropped, and where it ended.

A search passes every hypothesis that it keeps, with its states, to the step function.
`trace_search` therefore records a search without changing it: it wraps the step function, and adds
to the states which hypothesis each row continues.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from sat_keras.search.loop import SearchResult, StepFunction

# Position of a row that continues a finished hypothesis. The search ignores such rows.
_NONE = -1


class Hypothesis(NamedTuple):
    """The beginning of a caption that a search kept.

    Attributes:
        token_id: Id of its last token.
        parent: Position in the list of the hypothesis that it continues, None for the start.
        step: Number of its tokens, START not counted.
        log_probability: `log p` of its tokens, in nats.
        rank: Its rank among the captions found, 0 for the best, or None if it is not one of them.
    """

    token_id: int
    parent: int | None
    step: int
    log_probability: float
    rank: int | None = None


def trace_search(
    search: Callable[..., SearchResult],
    step: StepFunction,
    states: Any,
    *,
    end_id: int,
    **arguments: Any,
) -> tuple[SearchResult, list[Hypothesis]]:
    """Searches the captions of one picture and lists the hypotheses that the search kept.

    Runs eagerly, on TensorFlow and PyTorch. JAX is not supported: it traces the search's loop.

    Args:
        search: `beam_search`, `greedy_search` or, with one sample, `sample_search`.
        step: The step function, see `sat_keras.search.loop`.
        states: Nest of initial states of shape `(1, 1, ...)`.
        end_id: Integer, id of the token that ends a caption.
        **arguments: The search's other arguments.

    Returns:
        Tuple of the search's result and of the list of `Hypothesis`, parents before their
        children. The first one is the start.

    Raises:
        ValueError: If there are several pictures.

    Example:

    >>> step, states = captioner.step_function(annotations[:1])
    >>> result, hypotheses = trace_search(
    ...     beam_search, step, states, start_id=START_ID, end_id=END_ID, max_length=20
    ... )
    >>> figure = plot_beam_tree(hypotheses, tokenizer.get_vocabulary())

    Reference:
        Notebook `05_decoding`.
    """
    hypotheses: list[Hypothesis] = []

    def record(token_id: int, parent: int | None, next_log_p: np.ndarray | None) -> int:
        """Appends a hypothesis and returns its position."""
        if parent is None or next_log_p is None:
            hypotheses.append(Hypothesis(token_id, None, 0, 0.0))
        elif parent == _NONE or hypotheses[parent].token_id == end_id:
            return _NONE
        else:
            before = hypotheses[parent]
            log_p = before.log_probability + float(next_log_p[token_id])
            hypotheses.append(Hypothesis(token_id, parent, before.step + 1, log_p))
        return len(hypotheses) - 1

    def traced_step(token_ids: Any, states: dict[str, Any]) -> tuple[Any, Any, Any]:
        tokens = ops.convert_to_numpy(token_ids)
        if len(tokens) != 1:
            raise ValueError(
                "`trace_search` needs the states of one picture. "
                f"Received: states of {len(tokens)} pictures"
            )
        parents, next_log_p = [None], [None]
        if "parent" in states:
            parents = ops.convert_to_numpy(states["parent"])[0].tolist()
            next_log_p = ops.convert_to_numpy(states["next_log_p"])[0]
        positions = list(map(record, tokens[0].tolist(), parents, next_log_p))
        log_probabilities, inner, output = step(token_ids, states["model"])
        traced_states = {
            "model": inner,
            "parent": ops.convert_to_tensor(np.array([positions], "int32")),
            "next_log_p": log_probabilities,
        }
        return log_probabilities, traced_states, output

    result = search(traced_step, {"model": states}, end_id=end_id, **arguments)
    return result, _with_ranks(hypotheses, result)


def _with_ranks(hypotheses: Sequence[Hypothesis], result: SearchResult) -> list[Hypothesis]:
    """Assigns ranks to finished captions, adding those that ended at the last step."""
    hypotheses = list(hypotheses)
    positions = {(h.parent, h.token_id): i for i, h in enumerate(hypotheses)}
    lengths, log_p = (ops.convert_to_numpy(x)[0] for x in (result.lengths, result.log_probability))
    for rank, token_ids in enumerate(ops.convert_to_numpy(result.token_ids)[0]):
        position = 0
        for token_id in token_ids[: lengths[rank]].tolist():
            parent, known = position, positions.get((position, token_id))
            if known is None:
                known = len(hypotheses)
                step = hypotheses[parent].step + 1
                hypotheses.append(Hypothesis(token_id, parent, step, float(log_p[rank])))
            position = known
        if position:
            hypotheses[position] = hypotheses[position]._replace(rank=rank)
    return hypotheses
