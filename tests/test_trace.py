"""A traced search: the same result, and a tree that holds what the search kept, against NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras.analysis.search_tree import trace_search
from sat_keras.plots import plot_beam_tree
from sat_keras.search.beam import beam_search
from sat_keras.search.sampling import greedy_search

PAD, START, END, *WORDS = range(5)
VOCABULARY = ["", "<start>", "<end>", "a", "b"]
ARGUMENTS = {"start_id": START, "end_id": END, "pad_id": PAD, "max_length": 4}

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX runs a search's loop where nothing can be noted"
)


@pytest.fixture
def model():
    """`log p` of the next token by the last one and its position, and the step function."""
    logits = np.random.default_rng(3).normal(size=(5, 5, 5))
    table = (logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))).astype("float32")

    def step(token_ids, states):
        rows = states["time"] * 5 + token_ids
        log_p = ops.take(ops.reshape(ops.convert_to_tensor(table), (-1, 5)), rows, axis=0)
        return log_p, {"time": states["time"] + 1}, {}

    return table, step, {"time": ops.zeros((1, 1), "int32")}


def path(hypotheses, position):
    tokens = []
    while hypotheses[position].parent is not None:
        tokens.insert(0, hypotheses[position].token_id)
        position = hypotheses[position].parent
    return tuple(tokens)


def log_probability(table, tokens):
    previous = (START, *tokens)
    return sum(table[t, previous[t], token] for t, token in enumerate(tokens))


def beams_by_definition(table, beam_size):
    """Every hypothesis that a beam search keeps, as long as none is out of reach."""
    kept, live = {()}, [()]
    for _ in range(ARGUMENTS["max_length"] - 1):
        longer = [(*tokens, token) for tokens in live for token in (END, *WORDS)]
        best = sorted(longer, key=lambda tokens: -log_probability(table, tokens))[:beam_size]
        kept |= set(best)
        live = [tokens for tokens in best if tokens[-1] != END]
    return kept


@pytest.mark.parametrize("beam_size", [1, 2, 3])
def test_the_tree_holds_what_the_beam_kept(model, beam_size):
    table, step, states = model
    arguments = {**ARGUMENTS, "beam_size": beam_size, "length_penalty": 1.0}
    result, hypotheses = trace_search(beam_search, step, states, **arguments)
    paths = [path(hypotheses, i) for i in range(len(hypotheses))]
    assert len(set(paths)) == len(paths)
    for tokens, hypothesis in zip(paths, hypotheses, strict=True):
        assert hypothesis.step == len(tokens)
        assert hypothesis.log_probability == pytest.approx(log_probability(table, tokens), abs=1e-5)
        if hypothesis.rank is None and len(tokens) < ARGUMENTS["max_length"]:
            assert tokens in beams_by_definition(table, beam_size)
    plain = beam_search(step, states, **arguments)
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (result.token_ids, plain.token_ids)))


@pytest.mark.parametrize("search", [beam_search, greedy_search])
def test_the_captions_found_are_ranked(model, search):
    _, step, states = model
    result, hypotheses = trace_search(search, step, states, **ARGUMENTS)
    found = {h.rank: i for i, h in enumerate(hypotheses) if h.rank is not None}
    token_ids, lengths = (ops.convert_to_numpy(x)[0] for x in (result.token_ids, result.lengths))
    expected = [tuple(row[:n].tolist()) for row, n in zip(token_ids, lengths, strict=True) if n]
    assert [path(hypotheses, found[rank]) for rank in range(len(found))] == expected
    assert all(hypotheses[position].token_id == END for position in found.values())


def test_several_pictures_are_refused(model):
    _, step, _ = model
    with pytest.raises(ValueError, match="one picture.*Received: states of 2"):
        trace_search(beam_search, step, {"time": ops.zeros((2, 1), "int32")}, **ARGUMENTS)


def test_the_figure_has_every_hypothesis_and_sets_the_best_path_off(model):
    _, step, states = model
    _, hypotheses = trace_search(beam_search, step, states, beam_size=3, **ARGUMENTS)
    (axes,) = plot_beam_tree(hypotheses, VOCABULARY).axes
    labels = [text.get_text() for text in axes.texts]
    assert labels == [f"{VOCABULARY[h.token_id]}\n{h.log_probability:.2f}" for h in hypotheses]
    places = [text.get_position() for text in axes.texts]
    assert len(set(places)) == len(places)
    best = next(h for h in hypotheses if h.rank == 0)
    widest = max(line.get_linewidth() for line in axes.lines)
    assert sum(line.get_linewidth() == widest for line in axes.lines) == best.step
    assert len(axes.lines) == len(hypotheses) - 1


def test_likelier_hypotheses_are_higher(model):
    _, step, states = model
    _, hypotheses = trace_search(beam_search, step, states, beam_size=3, **ARGUMENTS)
    (axes,) = plot_beam_tree(hypotheses, VOCABULARY).axes
    second = [
        (h.log_probability, t) for h, t in zip(hypotheses, axes.texts, strict=True) if h.step == 2
    ]
    heights = [text.get_position()[1] for _, text in sorted(second, key=lambda pair: -pair[0])]
    assert heights == sorted(heights)  # the axis points down
    assert axes.yaxis_inverted()


def test_no_hypotheses_make_no_figure():
    with pytest.raises(ValueError, match="at least one hypothesis"):
        plot_beam_tree([], VOCABULARY)
