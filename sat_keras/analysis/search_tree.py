"""The hypotheses that a search went through: what a beam kept, what it dropped, and where it ended.

A search hands every hypothesis that it keeps to the step function, with its states. So the search
needs no change to be watched: a step function around the model's notes who comes by, and a state
of its own tells it from where.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from sat_keras.search.search import SearchResult, StepFunction

# The number of a hypothesis that continues a finished one. The search counts it for nothing.
_NONE = -1


class Hypothesis(NamedTuple):
    """The beginning of a caption that a search kept.

    Attributes:
        token_id: Its last token.
        parent: Position in the list of the hypothesis that it continues, `None` for the start.
        step: Number of its tokens, START not counted.
        log_probability: `log p` of its tokens, in nats.
        rank: Its place among the captions found, 0 for the best, if it is one; else `None`.
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
    **arguments,
) -> tuple[SearchResult, list[Hypothesis]]:
    """Searches the captions of one picture and lists the hypotheses that were kept on the way.

    Runs eagerly, on TensorFlow and on PyTorch: JAX traces a search's loop and runs it elsewhere.

    Args:
        search: `beam_search`, `greedy_search` or, with one sample, `sample_search`.
        step: The step function, see `sat_keras.search.search`.
        states: Nest of initial states `(1, 1, ...)`.
        end_id: Id of the token that closes a caption.
        **arguments: The search's other arguments.

    Returns:
        Tuple of the search's result and of the hypotheses, parents before their children. The
        first one is the start.

    Raises:
        ValueError: If there are several pictures.

    Example:

    >>> step, states = captioner.step_function(annotations[:1])
    >>> result, hypotheses = trace_search(
    ...     beam_search, step, states, start_id=START_ID, end_id=END_ID, max_length=20
    ... )
    >>> figure = plot_beam_tree(hypotheses, tokenizer.get_vocabulary())

    Reference:
        Notebook `05_decoding_and_evaluation`.
    """
    hypotheses: list[Hypothesis] = []

    def note(token_id, parent, next_log_p):
        """Adds a hypothesis and returns its number."""
        if parent is None:
            hypotheses.append(Hypothesis(token_id, None, 0, 0.0))
        elif parent == _NONE or hypotheses[parent].token_id == end_id:
            return _NONE
        else:
            before = hypotheses[parent]
            log_p = before.log_probability + float(next_log_p[token_id])
            hypotheses.append(Hypothesis(token_id, parent, before.step + 1, log_p))
        return len(hypotheses) - 1

    def traced_step(token_ids, states):
        tokens = ops.convert_to_numpy(token_ids)
        if len(tokens) != 1:
            raise ValueError(
                "A trace is of one picture: give the states of one. "
                f"Received: {len(tokens)} pictures"
            )
        parents, tables = [None], [None]
        if "parent" in states:
            parents = ops.convert_to_numpy(states["parent"])[0].tolist()
            tables = ops.convert_to_numpy(states["next"])[0]
        numbers = list(map(note, tokens[0].tolist(), parents, tables))
        log_probabilities, inner, record = step(token_ids, states["model"])
        ours = {
            "model": inner,
            "parent": ops.convert_to_tensor(np.array([numbers], "int32")),
            "next": log_probabilities,
        }
        return log_probabilities, ours, record

    result = search(traced_step, {"model": states}, end_id=end_id, **arguments)
    return result, _with_ranks(hypotheses, result)


def _with_ranks(hypotheses, result):
    """Marks the captions found. Those that ended in the last step did not come by again."""
    hypotheses = list(hypotheses)
    positions = {(h.parent, h.token_id): i for i, h in enumerate(hypotheses)}
    lengths, log_p = (ops.convert_to_numpy(x)[0] for x in (result.lengths, result.log_probability))
    for rank, token_ids in enumerate(ops.convert_to_numpy(result.token_ids)[0]):
        position = 0
        for token_id in token_ids[: lengths[rank]].tolist():
            parent, position = position, positions.get((position, token_id))
            if position is None:
                position = len(hypotheses)
                hypotheses.append(
                    Hypothesis(token_id, parent, hypotheses[parent].step + 1, float(log_p[rank]))
                )
        if position:
            hypotheses[position] = hypotheses[position]._replace(rank=rank)
    return hypotheses
