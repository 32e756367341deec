"""The searches on a toy alphabet, against plain Python that enumerates or follows the definition.

The toy model's state is the whole prefix, written as a number in base `VOCABULARY_SIZE`, and its
distribution of the next token is a random one for every prefix and picture.
"""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras import Captioner, Config, Tokenizer
from sat_keras.search.beam import beam_search
from sat_keras.search.loop import PictureStep
from sat_keras.search.sampling import greedy_search, sample_search

PAD, UNK, START, END, *WORDS = range(6)
VOCABULARY_SIZE = 6
MAX_LENGTH = 4
IDS = {"start_id": START, "end_id": END, "pad_id": PAD, "forbidden_ids": [UNK]}


class Toy:
    """A random model of captions, and a step function over it."""

    def __init__(self, batch_size=3, max_length=MAX_LENGTH, seed=0, end_bonus=0.0):
        logits = np.random.default_rng(seed).normal(
            size=(batch_size, VOCABULARY_SIZE**max_length, VOCABULARY_SIZE)
        )
        logits[..., END] += end_bonus
        logits[..., [PAD, UNK, START]] += 1.0  # tempting
        log_sum = np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        self.table = (logits - log_sum).astype("float32")
        self.max_length = max_length
        self.arguments = {**IDS, "max_length": max_length}

    def states(self, picture=None):
        batch_size = len(self.table) if picture is None else 1
        return {"prefix": ops.zeros((batch_size, 1), "int32")}

    def step(self, token_ids, states, picture=None):
        prefix = states["prefix"] * VOCABULARY_SIZE + token_ids  # (batch, beams)
        pictures = ops.arange(len(self.table)) if picture is None else ops.array([picture])
        rows = pictures[:, None] * self.table.shape[1] + prefix
        table = ops.convert_to_tensor(self.table.reshape(-1, VOCABULARY_SIZE))
        record = {"prefix": prefix, "pair": ops.stack([prefix, -prefix], axis=-1)}
        return ops.take(table, rows, axis=0), {"prefix": prefix}, record

    def picture_step(self, seen=None):
        """The step function as a `PictureStep`, which notes the sizes of its batches in `seen`."""

        def step(token_ids, states, pictures):
            if seen is not None:
                seen.append(int(ops.shape(pictures)[0]))
            prefix = states["prefix"] * VOCABULARY_SIZE + token_ids
            rows = pictures[:, None] * self.table.shape[1] + prefix
            table = ops.convert_to_tensor(self.table.reshape(-1, VOCABULARY_SIZE))
            record = {"prefix": prefix, "pair": ops.stack([prefix, -prefix], axis=-1)}
            return ops.take(table, rows, axis=0), {"prefix": prefix}, record

        return PictureStep(step, ops.arange(len(self.table), dtype="int32"))

    def log_probability(self, picture, words):
        """Of a caption without its END, by the chain rule."""
        total, prefix = 0.0, START
        for token in (*words, END):
            total += float(self.table[picture, prefix, token])
            prefix = prefix * VOCABULARY_SIZE + token
        return total

    def captions(self):
        """All captions up to the most tokens, without END."""
        for length in range(self.max_length):
            yield from itertools.product(WORDS, repeat=length)


def captions_of(result, picture):
    """Token ids up to END, checking that all after it is padding."""
    captions = []
    tokens, lengths = map(ops.convert_to_numpy, (result.token_ids, result.lengths))
    for row, length in zip(tokens[picture], lengths[picture], strict=True):
        assert (row[length:] == PAD).all()
        captions.append(tuple(row[:length].tolist()))
    return captions


def assert_same(first, second):
    tensors = zip(keras.tree.flatten(first), keras.tree.flatten(second), strict=True)
    for a, b in tensors:
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.0])
def test_wide_beam_is_exhaustive_search(length_penalty):
    toy = Toy()
    number = sum(1 for _ in toy.captions())
    result = beam_search(
        toy.step,
        toy.states(),
        beam_size=number,
        length_penalty=length_penalty,
        **toy.arguments,
    )
    for picture in range(3):
        log_probability = {(*w, END): toy.log_probability(picture, w) for w in toy.captions()}
        score = {c: p / len(c) ** length_penalty for c, p in log_probability.items()}
        best = sorted(score, key=score.get, reverse=True)
        assert captions_of(result, picture) == best
        np.testing.assert_allclose(result.score[picture], [score[c] for c in best], rtol=1e-5)
        np.testing.assert_allclose(
            result.log_probability[picture], [log_probability[c] for c in best], rtol=1e-5
        )


def plain_beam_search(toy, picture, beam_size, length_penalty):
    """`beam_search`'s docstring in lists of (score or log p, tokens)."""
    live, finished = [(0.0, ())], []
    for t in range(toy.max_length):
        allowed = [END] if t == toy.max_length - 1 else [END, *WORDS]
        candidates = []
        for log_probability, tokens in live:
            prefix = 0
            for token in (START, *tokens):
                prefix = prefix * VOCABULARY_SIZE + token
            for token in allowed:
                gain = float(toy.table[picture, prefix, token])
                candidates.append((log_probability + gain, (*tokens, token)))
        kept = sorted(candidates, reverse=True)[:beam_size]
        finished += [(p / len(c) ** length_penalty, c) for p, c in kept if c[-1] == END]
        finished = sorted(finished, reverse=True)[:beam_size]
        worst = finished[-1][0] if len(finished) == beam_size else -math.inf
        live = [
            (p, c) for p, c in kept if c[-1] != END and p / toy.max_length**length_penalty > worst
        ]
    return finished


@pytest.mark.parametrize("beam_size", [2, 3, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.5])
def test_narrow_beam_follows_its_definition(beam_size, length_penalty):
    toy = Toy(batch_size=6, max_length=5, seed=1)
    result = beam_search(
        toy.step,
        toy.states(),
        beam_size=beam_size,
        length_penalty=length_penalty,
        **toy.arguments,
    )
    for picture in range(6):
        expected = plain_beam_search(toy, picture, beam_size, length_penalty)
        found = min(len(expected), beam_size)
        assert captions_of(result, picture)[:found] == [tokens for _, tokens in expected]
        np.testing.assert_allclose(
            result.score[picture][:found], [score for score, _ in expected], rtol=1e-5
        )


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("num_results", [1, 2])
def test_the_best_captions_are_the_same_where_fewer_are_asked_for(num_results, length_penalty):
    toy = Toy(batch_size=20, max_length=5, seed=2)
    options = {"beam_size": 3, "length_penalty": length_penalty, **toy.arguments}
    every = beam_search(toy.step, toy.states(), **options)
    best = beam_search(toy.step, toy.states(), num_results=num_results, **options)
    assert best.token_ids.shape == (20, num_results, 5)
    assert_same(best, keras.tree.map_structure(lambda x: x[:, :num_results], every))


SEARCHES = [
    pytest.param(greedy_search, {}, id="greedy"),
    pytest.param(beam_search, {"beam_size": 4, "length_penalty": 0.7}, id="beam"),
    pytest.param(sample_search, {"num_samples": 4, "seed": 3}, id="sample"),
]


@pytest.mark.parametrize(("search", "options"), SEARCHES)
def test_records_and_log_probability_are_those_of_the_tokens(search, options):
    toy = Toy(batch_size=4, max_length=5, seed=2)
    result = search(toy.step, toy.states(), **options, **toy.arguments)
    records = {name: ops.convert_to_numpy(x) for name, x in result.record.items()}
    assert records["prefix"].shape == result.token_ids.shape
    for picture in range(4):
        for beam, tokens in enumerate(captions_of(result, picture)):
            expected, prefix = np.zeros(5), 0
            for t, token in enumerate((START, *tokens[:-1])):
                prefix = prefix * VOCABULARY_SIZE + token
                expected[t] = prefix
            np.testing.assert_array_equal(records["prefix"][picture, beam], expected)
            np.testing.assert_array_equal(
                records["pair"][picture, beam], np.stack([expected, -expected], axis=-1)
            )
            np.testing.assert_allclose(
                result.log_probability[picture, beam],
                toy.log_probability(picture, tokens[:-1]),
                rtol=1e-5,
            )


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
def test_one_beam_is_greedy_search(length_penalty):
    toy = Toy(batch_size=8, max_length=5, seed=4)
    greedy = greedy_search(toy.step, toy.states(), **toy.arguments)
    beam = beam_search(
        toy.step, toy.states(), beam_size=1, length_penalty=length_penalty, **toy.arguments
    )
    assert len(set(np.ravel(greedy.lengths))) > 2  # the toy closes captions at several lengths
    assert_same(greedy._replace(score=0), beam._replace(score=0))
    for picture in range(8):
        assert captions_of(greedy, picture) == [
            tokens for _, tokens in plain_beam_search(toy, picture, 1, 0)
        ]


@pytest.mark.parametrize(("search", "options"), SEARCHES[:2])
def test_a_picture_does_not_depend_on_its_batch(search, options):
    toy = Toy(batch_size=5, max_length=5, seed=5)
    together = search(toy.step, toy.states(), **options, **toy.arguments)
    for picture in range(5):

        def step(token_ids, states, picture=picture):
            return toy.step(token_ids, states, picture)

        alone = search(step, toy.states(picture), **options, **toy.arguments)
        assert_same(alone, keras.tree.map_structure(lambda x, i=picture: x[i : i + 1], together))


@pytest.mark.parametrize(("batch_size", "seed"), [(1, 0), (7, 1), (8, 2), (9, 3), (13, 4), (13, 5)])
def test_finished_pictures_leave_the_batch(batch_size, seed):
    toy = Toy(batch_size=batch_size, max_length=5, seed=seed, end_bonus=1.0)
    options = {"beam_size": 3, "num_results": 1, **toy.arguments}
    expected = beam_search(toy.step, toy.states(), **options)
    sizes = []
    found = beam_search(toy.picture_step(sizes), toy.states(), **options)
    assert_same(found, expected)
    if keras.backend.backend() == "tensorflow" and batch_size >= 8:
        assert sizes[0] == batch_size
        assert sizes == sorted(sizes, reverse=True)
        assert set(sizes) <= {batch_size, batch_size // 2, batch_size // 4}
        assert len(set(sizes)) > 1


@pytest.mark.parametrize(("search", "options"), SEARCHES)
@pytest.mark.parametrize("end", [-30.0, -math.inf])
def test_captions_that_never_end_are_closed(search, options, end):
    def step(token_ids, states):
        log_probabilities = ops.convert_to_tensor([-1.0, -1.0, -1.0, end, -2.0, -3.0])
        return ops.broadcast_to(log_probabilities, (*token_ids.shape, 6)), states, {}

    result = search(step, {}, batch_size=2, max_length=5, **options, **IDS)
    tokens = ops.convert_to_numpy(result.token_ids)
    assert (tokens[..., -1] == END).all()
    assert np.isin(tokens[..., :-1], WORDS).all()
    assert np.isfinite(result.score).all()
    assert (ops.convert_to_numpy(result.lengths) == 5).all()


@pytest.mark.parametrize(("search", "options"), SEARCHES)
def test_one_token_is_end(search, options):
    toy = Toy()
    arguments = {**toy.arguments, "max_length": 1}
    result = search(toy.step, toy.states(), **options, **arguments)
    assert captions_of(result, 0)[0] == (END,)


def test_beams_beyond_the_number_of_captions_are_empty():
    toy = Toy(max_length=2)
    result = beam_search(toy.step, toy.states(), beam_size=8, **toy.arguments)
    number = 1 + len(WORDS)
    score, lengths = map(ops.convert_to_numpy, (result.score, result.lengths))
    assert np.isfinite(score[:, :number]).all()
    assert (score[:, number:] == -np.inf).all()
    assert (lengths[:, :number] > 0).all()
    assert (lengths[:, number:] == 0).all()
    assert captions_of(result, 0)[-1] == ()


@pytest.mark.parametrize(("search", "options"), SEARCHES)
def test_forbidden_tokens_are_never_emitted(search, options):
    toy = Toy(batch_size=8, max_length=5, seed=6)
    arguments = {**toy.arguments, "forbidden_ids": [UNK, WORDS[0]]}
    result = search(toy.step, toy.states(), **options, **arguments)
    emitted = {token for i in range(8) for caption in captions_of(result, i) for token in caption}
    assert emitted == {END, *WORDS[1:]}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts eager loop turns")
@pytest.mark.parametrize(("search", "options"), SEARCHES)
def test_search_stops_when_every_picture_is_done(search, options):
    calls = []

    def step(token_ids, states):
        calls.append(token_ids.shape)
        t = len(calls)  # the end is nearly certain from the third step on
        row = [-30.0, -30.0, -30.0, 0.0 if t > 2 else -30.0, -1.0 * t, -1.1 * t]
        return ops.broadcast_to(ops.convert_to_tensor(row), (*token_ids.shape, 6)), states, {}

    search(step, {}, batch_size=2, max_length=50, **options, **IDS)
    assert len(calls) < 10
    assert calls[0] == (2, 1)  # one beam to start from
    assert set(calls[1:]) == {(2, 1 if search is greedy_search else 4)}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts eager loop turns")
@pytest.mark.parametrize("length_penalty", [0.0, 0.5])
def test_beam_stops_when_nothing_live_can_win(length_penalty):
    calls = []

    def step(token_ids, states):
        calls.append(token_ids)
        row = ops.log(ops.array([1e-9, 1e-9, 1e-9, 0.5, 0.3, 0.2]))  # there is always a live one
        return ops.broadcast_to(row, (*token_ids.shape, 6)), states, {}

    options = {"beam_size": 2, "length_penalty": length_penalty, "batch_size": 1, **IDS}
    result = beam_search(step, {}, max_length=30, **options)
    assert captions_of(result, 0) == [(END,), (WORDS[0], END)]
    # After t words no live one can reach more than log(0.3 ** t) / 30 ** length_penalty.
    worst = math.log(0.3 * 0.5) / 2**length_penalty
    assert len(calls) == math.ceil(worst * 30**length_penalty / math.log(0.3))
    calls.clear()
    result = beam_search(step, {}, max_length=30, num_results=1, **options)
    assert captions_of(result, 0) == [(END,)]
    assert len(calls) == math.ceil(math.log(0.5) * 30**length_penalty / math.log(0.3))


def compiled(function, *, xla):
    """`function` compiled for a batch of any size, where the backend can."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec((None, 1, 4)), tf.TensorSpec((None, 1, 3, 4))]
        return tf.function(function, input_signature=signature, jit_compile=xla)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    pytest.skip("the backend compiles nothing here")


@pytest.mark.graph
@pytest.mark.parametrize(
    ("search", "options", "xla", "leave"),
    [(*search.values, False, search is SEARCHES[1]) for search in SEARCHES]
    + [(*SEARCHES[1].values, True, leave) for leave in (False, True)],
)
def test_compiled_search_with_unknown_batch_size(search, options, xla, leave):
    generator = np.random.default_rng(7)
    output = ops.convert_to_tensor(generator.normal(size=(4, 6)).astype("float32"))
    embedding = ops.convert_to_tensor(generator.normal(size=(6, 4)).astype("float32"))

    def run(hidden, annotations):
        def step(token_ids, states, annotations=annotations):
            hidden = ops.tanh(states["hidden"] + ops.take(embedding, token_ids, axis=0))
            scores = ops.sum(hidden[:, :, None] * annotations, axis=-1)  # beams share the picture
            weights = ops.softmax(scores)  # (batch, beams, regions)
            context = ops.sum(weights[..., None] * annotations, axis=2)
            log_probabilities = ops.log_softmax(ops.matmul(hidden + context, output))
            return log_probabilities, {"hidden": hidden}, {"attention": weights}

        steps = PictureStep(step, annotations) if leave else step
        return tuple(search(steps, {"hidden": hidden}, max_length=6, **options, **IDS))

    function = compiled(run, xla=xla)
    for batch_size in (1, 3, 8, 11) if not xla else (11,):
        hidden = np.zeros((batch_size, 1, 4), "float32")
        annotations = generator.normal(size=(batch_size, 1, 3, 4)).astype("float32")
        eager = run(ops.convert_to_tensor(hidden), ops.convert_to_tensor(annotations))
        assert_same(function(hidden, annotations), eager)
        attention = ops.convert_to_numpy(eager[-1]["attention"]).sum(axis=-1)
        inside = np.arange(6) < ops.convert_to_numpy(eager[3])[..., None]
        np.testing.assert_allclose(attention, inside, atol=1e-5)


def chi_square(counts, probabilities):
    expected = np.sum(counts) * np.asarray(probabilities)
    return float(np.sum((counts - expected) ** 2 / expected))


# Chi-square's quantiles at 0.999, by degrees of freedom.
CRITICAL = {1: 10.83, 3: 16.27, 12: 32.91}


def test_samples_follow_the_model():
    toy = Toy(batch_size=1, max_length=3, seed=8)
    toy.table[..., [PAD, UNK, START]] = -np.inf
    toy.table -= np.log(np.exp(toy.table).sum(axis=-1, keepdims=True))
    result = sample_search(toy.step, toy.states(), num_samples=4000, seed=1, **toy.arguments)
    captions = captions_of(result, 0)
    probabilities = {}
    for words in toy.captions():
        prefix, p = START, 1.0
        for t, token in enumerate((*words, END)):
            p *= 1.0 if t == 2 else np.exp(toy.table[0, prefix, token])  # the last one is forced
            prefix = prefix * VOCABULARY_SIZE + token
        probabilities[(*words, END)] = p
    counts = [captions.count(caption) for caption in probabilities]
    assert sum(counts) == 4000
    assert chi_square(counts, list(probabilities.values())) < CRITICAL[12]


@pytest.mark.parametrize(
    ("temperature", "top_k"), [(1.0, None), (0.5, None), (3.0, None), (1.0, 2), (2.0, 2)]
)
def test_temperature_and_top_k(temperature, top_k):
    logits = np.array([-math.inf, -math.inf, -math.inf, 0.3, 1.0, -0.5], "float32")
    allowed = logits >= (np.sort(logits)[-top_k] if top_k else -1e9)
    weights = np.where(allowed, np.exp(logits / temperature), 0)[[END, *WORDS]]

    def step(token_ids, states):
        return ops.broadcast_to(ops.convert_to_tensor(logits), (*token_ids.shape, 6)), states, {}

    result = sample_search(
        step,
        {},
        batch_size=2,
        max_length=2,
        num_samples=2000,
        temperature=temperature,
        top_k=top_k,
        seed=2,
        **IDS,
    )
    first = np.ravel(ops.convert_to_numpy(result.token_ids)[..., 0])
    counts = np.array([np.sum(first == token) for token in (END, *WORDS)])
    assert counts[weights == 0].sum() == 0
    counts, weights = counts[weights > 0], weights[weights > 0]
    critical = CRITICAL[1] if top_k == 2 else CRITICAL[3]
    assert chi_square(counts, weights / weights.sum()) < critical


def test_seed_and_limits_of_sampling():
    toy = Toy(batch_size=4, max_length=5, seed=9)

    def sample(**options):
        return sample_search(toy.step, toy.states(), **options, **toy.arguments)

    assert_same(sample(seed=1), sample(seed=1))
    one, other = (ops.convert_to_numpy(sample(seed=seed).token_ids) for seed in (1, 2))
    assert (one != other).any()
    greedy = greedy_search(toy.step, toy.states(), **toy.arguments)
    assert_same(sample(seed=1, top_k=1), greedy)
    assert_same(sample(seed=1, temperature=1e-4), greedy)


@pytest.mark.parametrize(
    ("search", "change"),
    [
        (beam_search, {"beam_size": 0}),
        (beam_search, {"beam_size": 2, "num_results": 0}),
        (beam_search, {"beam_size": 2, "num_results": 3}),
        (beam_search, {"length_penalty": -0.1}),
        (beam_search, {"length_penalty": math.nan}),
        (sample_search, {"temperature": 0.0}),
        (sample_search, {"top_k": 0}),
        (sample_search, {"num_samples": 0}),
        (greedy_search, {"max_length": 0}),
        (greedy_search, {"end_id": START}),
        (greedy_search, {"end_id": PAD}),
        (greedy_search, {"forbidden_ids": [END]}),
        (greedy_search, {"forbidden_ids": [6]}),
        (greedy_search, {"end_id": 6}),
        (greedy_search, {"pad_id": -1}),
        (greedy_search, {"states": {}}),
        (greedy_search, {"states": {"prefix": np.zeros((3, 2), "int32")}}),
        (greedy_search, {"states": {"prefix": np.zeros(3, "int32")}}),
    ],
)
def test_bad_arguments(search, change):
    toy = Toy()
    arguments = {"states": toy.states(), **toy.arguments, **change}
    with pytest.raises(ValueError, match=r"(?s)must .* Received: "):
        search(toy.step, **arguments)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("rest", [(), (2,)])
def test_features_that_are_not_finite_are_an_error_and_no_empty_caption(bad, rest):
    """A search whose logits are NaN returns the end of the caption with such a probability."""
    captioner = Captioner(Config.tiny(), Tokenizer.from_captions(["a red dog", "a cat"]))
    found = {"token_ids": np.full((3, *rest, 2), END), "log_probability": np.zeros((3, *rest))}
    captioner.read(found)
    found["log_probability"][1] = bad
    with pytest.raises(ValueError, match=r"finite.*Received: .* positions \[1\]"):
        captioner.read(found)


def test_captions_of_nan_are_an_error():
    captioner = Captioner(Config.tiny(), Tokenizer.from_captions(["a red dog", "a cat"]))
    with pytest.raises(ValueError, match=r"finite.*Received: .* positions \[0\]"):
        captioner.caption(annotations=np.full((1, 4, 8), np.nan, "float32"), beam_size=1)
