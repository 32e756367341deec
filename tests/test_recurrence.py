"""The loop over the steps: forward against NumPy, its gradient against two independent ones.

The oracles are `paper`, NumPy in float64 that goes word by word, caption by caption and region by
region, whose finite differences are a gradient; and `unrolled`, a plain `keras.ops` loop that
automatic differentiation goes through.
"""

import keras
import numpy as np
import pytest
from gradients import compiled, gradients, numpy, random
from keras import ops

from sat_keras.fast import recurrence
from sat_keras.fast.recurrence import (
    Choice,
    RecurrenceWeights,
    Words,
    attention_recurrence,
    lstm_update,
)

# Compiled functions are part of the loop.
pytestmark = [pytest.mark.graph, pytest.mark.long]

HIDDEN, FEATURES, REGIONS, ATTENTION = 3, 4, 5, 2
SIZES = {"hidden": HIDDEN, "context": FEATURES, "attention_weights": REGIONS, "gate": 1}
ARGUMENTS = (
    *("embedded", "hidden", "cell", "annotations", "keys"),
    *("kernels", "context_kernel", "score_vector", "gate_bias"),
)

# Several captions a picture; one step of one caption; no gate, and one caption a picture; hard
# attention, of which one picture has the expected context; words that attention and gate know as
# well. The loop is compiled once for each shape, so there are few.
CASE = {"steps": 4, "batch": 2, "captions": 3}
CASES = [
    pytest.param(CASE, id="captions"),
    pytest.param({"steps": 1, "batch": 1, "captions": 1}, id="one-step"),
    pytest.param({**CASE, "captions": 1, "has_gate": False}, id="no-gate"),
    pytest.param({**CASE, "expected": (0, 1)}, id="hard"),
    pytest.param({**CASE, "knows_word": True}, id="word-query"),
]


def arguments(steps, batch, captions, has_gate=True, expected=None, knows_word=False):
    """The arguments in order, large enough that nothing is nearly linear or uniform."""
    shapes = {
        "embedded": (steps, batch, captions, 4 * HIDDEN + knows_word * (ATTENTION + 1)),
        "hidden": (batch, captions, HIDDEN),
        "cell": (batch, captions, HIDDEN),
        "annotations": (batch, REGIONS, FEATURES),
        "keys": (batch, REGIONS, ATTENTION),
        "kernels": (HIDDEN, ATTENTION + 1 + 4 * HIDDEN),
        "context_kernel": (FEATURES, 4 * HIDDEN),
        "score_vector": (ATTENTION, 1),
        "gate_bias": (1,),
    }
    values = {name: random(*shapes[name], seed=seed) for seed, name in enumerate(ARGUMENTS)}
    values["score_vector"][:] = [[-3.0], [4.0]]
    if not has_gate:  # as the decoder without a gate holds it open
        values["kernels"][:, ATTENTION] = 0
        values["gate_bias"][:] = 30
    return list(values.values())


def sampling_of(case):
    """Noise `(steps, batch, captions, regions)` and expected `(batch, 1, 1)`, None for soft."""
    if "expected" not in case:
        return None
    noise = random(case["steps"], case["batch"], case["captions"], REGIONS, seed=40, scale=2.0)
    return Choice(noise, np.reshape(case["expected"], (-1, 1, 1)).astype("float32"))


def run(*values, sampling=None):
    embedded, *values = [ops.convert_to_tensor(value) for value in values]
    sampling = sampling and Choice(*map(ops.convert_to_tensor, sampling))
    words = Words(embedded)
    if embedded.shape[-1] > 4 * HIDDEN:
        words = Words(embedded[..., ATTENTION + 1 :], embedded[..., : ATTENTION + 1])
    weights = RecurrenceWeights(*values[4:])
    found = attention_recurrence(words, *values[:4], weights, choice=sampling)
    return [found[name] for name in SIZES]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def paper(
    embedded, hidden, cell, annotations, keys, kernels, context_kernel, v, gate_bias, sampling=None
):
    """The four outputs, from the equations of section 3.1.2 one by one."""
    w_h = kernels[:, :ATTENTION]
    w_beta = kernels[:, ATTENTION]
    u = kernels[:, ATTENTION + 1 :]
    steps, batch, captions = embedded.shape[:3]
    dtype = embedded.dtype
    outputs = [np.zeros((steps, batch, captions, size), dtype) for size in SIZES.values()]
    for n, k in np.ndindex(batch, captions):
        h, c = hidden[n, k], cell[n, k]
        for t in range(steps):
            x = embedded[t, n, k]
            of_query, of_gate = 0, 0
            if len(x) > 4 * HIDDEN:
                of_query, of_gate, x = np.split(x, [ATTENTION, ATTENTION + 1])
            e = np.array([np.tanh(key + h @ w_h + of_query) @ v[:, 0] for key in keys[n]])
            alpha = np.exp(e) / np.exp(e).sum()
            beta = sigmoid(h @ w_beta + of_gate + gate_bias[0])
            z = beta * (alpha[:, None] * annotations[n]).sum(axis=0)
            if sampling and not sampling.expected[n, 0, 0]:
                z = beta * annotations[n, np.argmax(np.log(alpha) + sampling.noise[t, n, k])]
            pre = x + h @ u + z @ context_kernel
            i, f, g, o = pre.reshape(4, HIDDEN)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            for output, value in zip(outputs, (h, z, alpha, beta), strict=True):
                output[t, n, k] = value
    return outputs


def unrolled(
    embedded, hidden, cell, annotations, keys, kernels, context_kernel, v, gate_bias, sampling=None
):
    """The four outputs in plain `keras.ops`, for automatic differentiation."""
    rows = []
    for t in range(embedded.shape[0]):
        words = embedded[t]
        of_query = of_gate = 0.0
        if words.shape[-1] > 4 * HIDDEN:
            of_query, of_gate, words = ops.split(words, [ATTENTION, ATTENTION + 1], axis=-1)
        query = ops.einsum("bch,ha->bca", hidden, kernels[:, :ATTENTION]) + of_query
        layer = ops.tanh(keys[:, None] + query[:, :, None])
        alpha = ops.softmax(ops.einsum("bcra,ao->bcr", layer, v), axis=-1)
        beta = ops.sigmoid(
            ops.einsum("bch,ho->bco", hidden, kernels[:, ATTENTION : ATTENTION + 1])
            + of_gate
            + gate_bias
        )
        look = alpha
        if sampling:
            drawn = ops.one_hot(ops.argmax(ops.log(alpha) + sampling.noise[t], -1), REGIONS)
            look = ops.where(sampling.expected > 0, alpha, drawn)
        z = beta * ops.einsum("bcr,brf->bcf", look, annotations)
        pre = (
            words
            + ops.einsum("bch,hg->bcg", hidden, kernels[:, ATTENTION + 1 :])
            + ops.einsum("bcf,fg->bcg", z, context_kernel)
        )
        i, f, g, o = ops.split(pre, 4, axis=-1)
        cell = ops.sigmoid(f) * cell + ops.sigmoid(i) * ops.tanh(g)
        hidden = ops.sigmoid(o) * ops.tanh(cell)
        rows.append((hidden, z, alpha, beta))
    return [ops.stack(column) for column in zip(*rows, strict=True)]


def upstream(case):
    """A different weight for every number of every output."""
    leading = case["steps"], case["batch"], case["captions"]
    return [random(*leading, size, seed=20 + i) for i, size in enumerate(SIZES.values())]


def scalar(function, case):
    """`sum(upstream * outputs)` as a function of the arguments."""

    def loss(*values):
        outputs = function(*values, sampling=sampling_of(case))
        return sum(
            ops.sum(x * ops.convert_to_tensor(up))
            for x, up in zip(outputs, upstream(case), strict=True)
        )

    return loss


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def gradient(case):
    """The gradient of the loop for each of its arguments, of which two oracles know the values."""
    return gradient_of(case)


def gradient_of(case, loop=None):
    return gradients(scalar(loop or run, case), arguments(**case))


def test_forward_is_the_papers(case):
    sampling = sampling_of(case)
    found = run(*arguments(**case), sampling=sampling)
    exact = [value.astype("float64") for value in arguments(**case)]
    expected = paper(*exact, sampling=sampling)
    for name, x, y in zip(SIZES, found, expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(numpy(x), y, rtol=1e-5, atol=1e-5, err_msg=name)
    assert expected[2].std() > 0.05  # attention that is not uniform
    if "has_gate" in case:
        np.testing.assert_array_equal(numpy(found[3]), 1.0)


def test_gradient_is_that_of_automatic_differentiation(case, gradient):
    expected = gradient_of(case, unrolled)
    for name, x, y in zip(ARGUMENTS, gradient, expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(numpy(x), numpy(y), rtol=1e-4, atol=2e-5, err_msg=name)
        is_held_open = name == "gate_bias" and "has_gate" in case
        assert np.abs(numpy(y)).max() > 1e-3 or is_held_open, name


@pytest.mark.parametrize("output", SIZES)
def test_gradient_of_each_output_alone(output):
    """A part of the backward pass that is missing could hide behind the others."""
    index = list(SIZES).index(output)
    weight = upstream(CASE)[index]
    found, expected = (
        gradients(
            lambda *x, f=f: ops.sum(f(*x)[index] * ops.convert_to_tensor(weight)), arguments(**CASE)
        )
        for f in (run, unrolled)
    )
    for name, x, y in zip(ARGUMENTS, found, expected, strict=True):
        np.testing.assert_allclose(numpy(x), numpy(y), rtol=1e-4, atol=2e-5, err_msg=name)


def test_gradient_is_that_of_finite_differences(case, gradient):
    exact = [value.astype("float64") for value in arguments(**case)]

    def loss():
        outputs = paper(*exact, sampling=sampling_of(case))
        return sum((x * up).sum() for x, up in zip(outputs, upstream(case), strict=True))

    for name, value, slopes in zip(ARGUMENTS, exact, gradient, strict=True):
        # Along random directions of the argument, each a sum over all its elements.
        for direction in range(3):
            along = np.random.default_rng(direction).normal(size=value.shape)
            value += 1e-6 * along
            above = loss()
            value -= 2e-6 * along
            slope = (above - loss()) / 2e-6
            value += 1e-6 * along
            np.testing.assert_allclose(
                (numpy(slopes) * along).sum(), slope, rtol=1e-4, atol=1e-4, err_msg=name
            )


def test_keys_far_in_saturation():
    """As of annotation vectors of norm 400, where exp(2 k) is beyond float32."""
    values = arguments(**CASE)
    values[4] *= 100
    assert np.abs(values[4]).max() > 100
    for name, x, y in zip(SIZES, run(*values), paper(*values), strict=True):
        np.testing.assert_allclose(numpy(x), y, rtol=1e-4, atol=1e-5, err_msg=name)
    found = gradients(scalar(run, CASE), values)
    expected = gradients(scalar(unrolled, CASE), values)
    for name, x, y in zip(ARGUMENTS, found, expected, strict=True):
        np.testing.assert_allclose(numpy(x), numpy(y), rtol=1e-4, atol=1e-4, err_msg=name)


def test_captions_of_a_picture_share_it_and_nothing_else():
    values = arguments(**CASE)
    together = run(*values)
    for caption in range(CASE["captions"]):
        one = slice(caption, caption + 1)
        alone = run(values[0][:, :, one], values[1][:, one], values[2][:, one], *values[3:])
        for x, y in zip(alone, together, strict=True):
            np.testing.assert_allclose(numpy(x), numpy(y)[:, :, one], rtol=1e-5, atol=1e-6)


def test_unknown_sizes_in_a_graph():
    """As the loaders' batches reach a `tf.function`: batch, captions and steps unknown."""
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("shapes are known on this backend")
    values = arguments(**CASE)
    unknown = {0: (None, None, None), 1: (None, None), 2: (None, None), 3: (None,), 4: (None,)}
    signature = [
        tf.TensorSpec((*unknown.get(i, ()), *value.shape[len(unknown.get(i, ())) :]), "float32")
        for i, value in enumerate(values)
    ]

    @tf.function(input_signature=signature)
    def graph(*values):
        return gradients(scalar(run, CASE), values)

    for name, x, y in zip(
        ARGUMENTS, graph(*values), gradients(scalar(run, CASE), values), strict=True
    ):
        np.testing.assert_allclose(numpy(x), numpy(y), rtol=1e-4, atol=1e-5, err_msg=name)


def test_xla_gives_the_same():
    values = [ops.convert_to_tensor(value) for value in arguments(**CASE)]
    found = compiled(lambda *values: gradients(scalar(run, CASE), values))(*values)
    expected = gradients(scalar(run, CASE), values)
    for name, x, y in zip(ARGUMENTS, found, expected, strict=True):
        np.testing.assert_allclose(numpy(x), numpy(y), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(dtype):
    """What the decoder gives in half precision: annotation vectors, keys and kernels."""
    values = arguments(**CASE)
    half = [
        ops.cast(value, dtype) if 3 <= i < 8 else ops.convert_to_tensor(value)
        for i, value in enumerate(values)
    ]
    # The same rounded numbers in float32: what is left are the errors of the products.
    exact = [numpy(value) for value in half]
    tolerance = 0.05 if dtype == "bfloat16" else 0.01
    for name, x, y in zip(SIZES, run(*half), run(*exact), strict=True):
        assert keras.backend.standardize_dtype(x.dtype) == "float32"
        np.testing.assert_allclose(numpy(x), numpy(y), atol=tolerance, err_msg=name)
    found, expected = (gradients(scalar(run, CASE), x) for x in (half, exact))
    for name, argument, x, y in zip(ARGUMENTS, half, found, expected, strict=True):
        assert x.dtype == argument.dtype, name
        error = np.linalg.norm(numpy(x) - numpy(y)) / np.linalg.norm(numpy(y))
        assert error < tolerance, name


# The LSTM alone


def lstm_inputs():
    units = random(5, 4 * HIDDEN, seed=1, scale=2.0)
    return units, random(5, HIDDEN, seed=2)


def test_lstm_is_keras():
    units, cell = lstm_inputs()
    layer = keras.layers.LSTMCell(HIDDEN, unit_forget_bias=False)
    layer.build((None, 4 * HIDDEN))
    layer.set_weights([np.eye(4 * HIDDEN), np.zeros((HIDDEN, 4 * HIDDEN)), np.zeros(4 * HIDDEN)])
    _, expected = layer(units, [np.zeros((5, HIDDEN), "float32"), cell])
    hidden, new_cell, _ = lstm_update(*map(ops.convert_to_tensor, (units, cell)))
    np.testing.assert_allclose(numpy(hidden), numpy(expected[0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numpy(new_cell), numpy(expected[1]), rtol=1e-5, atol=1e-6)


@pytest.mark.integration
def test_lstm_is_torchs():
    torch = pytest.importorskip("torch")
    units, cell = lstm_inputs()
    layer = torch.nn.LSTMCell(4 * HIDDEN, HIDDEN, bias=False)
    with torch.no_grad():
        layer.weight_ih.copy_(torch.eye(4 * HIDDEN))
        layer.weight_hh.zero_()
        expected = layer(torch.tensor(units), (torch.zeros(5, HIDDEN), torch.tensor(cell)))
    hidden, new_cell, _ = lstm_update(*map(ops.convert_to_tensor, (units, cell)))
    np.testing.assert_allclose(numpy(hidden), expected[0].cpu().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numpy(new_cell), expected[1].cpu().numpy(), rtol=1e-5, atol=1e-6)


def test_lstm_activations_are_its_gates():
    units, cell = lstm_inputs()
    _, new_cell, activations = lstm_update(*map(ops.convert_to_tensor, (units, cell)))
    i, f, g, o = np.split(units, 4, axis=-1)
    expected = np.concatenate([sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)], axis=-1)
    np.testing.assert_allclose(numpy(activations), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        numpy(new_cell), sigmoid(f) * cell + sigmoid(i) * np.tanh(g), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("regions", [3, 18, 34])  # one row, two rows of 9, and no row fits
def test_rows_of_regions_add_up_to_the_whole_sum(regions):
    generator = np.random.default_rng(regions)
    d_weights, scores = generator.normal(size=(2, 2, 3, regions))
    query, keys = generator.normal(size=(2, 3, 4)), generator.normal(size=(2, regions, 4))
    score_vector = generator.normal(size=4)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    d_scores = weights * (d_weights - (weights * d_weights).sum(axis=-1, keepdims=True))
    slopes = 1 - np.tanh(query[:, :, None] + keys[:, None]) ** 2
    d_query = np.einsum("bcl,bcla,a->bca", d_scores, slopes, score_vector)
    tensors = d_weights, weights, np.exp(2 * query), np.exp(2 * keys), score_vector
    found = recurrence._attention_gradient(
        *(ops.convert_to_tensor(x.astype("float32")) for x in tensors)
    )
    for x, expected in zip(found, (d_scores, d_query), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(x), expected, rtol=1e-4, atol=1e-5)
