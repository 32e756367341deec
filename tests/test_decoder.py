"""The decoder against the paper's equations in NumPy, and training against word by word."""

import keras
import numpy as np
import pytest
from gradients import numpy, random, weight_gradients
from keras import ops

from sat_keras.backend.dense import forget_gate_bias
from sat_keras.captioning.steps import decoder_step
from sat_keras.paper.decoder import AttentionDecoder

BATCH, CAPTIONS, STEPS = 2, 3, 3
REGIONS, FEATURES, VOCABULARY = 5, 6, 11
pytestmark = pytest.mark.long

SIZES = {"vocabulary_size": VOCABULARY, "embedding_dim": 7, "hidden_dim": 8, "attention_dim": 3}

ABLATIONS = [
    pytest.param({}, id="paper"),
    pytest.param({"use_gate": False}, id="no-gate"),
    pytest.param({"use_deep_output": False}, id="no-deep-output"),
    pytest.param({"use_output_tanh": False}, id="no-tanh"),
    pytest.param({"tie_embeddings": True}, id="tied"),
    pytest.param({"initial_dim": 4}, id="initial-layer"),
    pytest.param({"normalize_annotations": True}, id="normalized"),
    pytest.param({"use_word_query": True}, id="word-query"),
    pytest.param({"use_word_query": True, "use_gate": False}, id="word-query-no-gate"),
    pytest.param(
        {"use_gate": False, "use_output_tanh": False, "tie_embeddings": True, "initial_dim": 4},
        id="many",
    ),
]


def make(options=None, like=None, **more):
    """A decoder with random weights, biases included, or with the weights of another one."""
    decoder = AttentionDecoder(**SIZES, **(options or {}), **more)
    decoder.build((None, None, None), (None, REGIONS, FEATURES))
    if like is not None:
        weights = {weight.path.split("/", 1)[1]: weight for weight in like.weights}
        for weight in decoder.weights:
            name = weight.path.split("/", 1)[1]
            if name in weights and "seed" not in name:
                weight.assign(weights[name])
        return decoder
    for seed, weight in enumerate(decoder.trainable_weights):
        weight.assign(random(*weight.shape, seed=seed, scale=0.7))
    return decoder


def inputs(batch=BATCH, captions=CAPTIONS, steps=STEPS):
    token_ids = np.random.default_rng(1).integers(VOCABULARY, size=(batch, captions, steps))
    return token_ids.astype("int32"), random(batch, REGIONS, FEATURES, seed=2)


def weights_of(layer):
    return [numpy(weight).astype("float64") for weight in layer.trainable_weights]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def paper(decoder, token_ids, annotations):
    """Logits, attention weights and gate, caption by caption and word by word."""
    (embedding,) = weights_of(decoder.embedding)
    w_a, b_a, w_h, v = weights_of(decoder.attention)
    t_embedding, t_bias = weights_of(decoder.lstm_embedding)
    (t_hidden,), (t_context,) = map(weights_of, (decoder.lstm_hidden, decoder.lstm_context))
    logits = np.zeros((*token_ids.shape, VOCABULARY))
    alphas, betas = np.zeros((*token_ids.shape, REGIONS)), np.ones(token_ids.shape)
    for n, k in np.ndindex(token_ids.shape[:2]):
        a = annotations[n].astype("float64")
        if decoder.normalize_annotations:
            centred = a - a.mean(axis=1, keepdims=True)
            a = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-3)
        mean = a.mean(axis=0)
        if decoder.initial_dim:
            kernel, bias = weights_of(decoder.initial_shared)
            mean = np.maximum(mean @ kernel + bias, 0)
        h, c = (
            np.tanh(mean @ kernel + bias)
            for kernel, bias in map(weights_of, (decoder.initial_hidden, decoder.initial_cell))
        )
        for t, word in enumerate(token_ids[n, k]):
            x = embedding[word]
            of_word = np.zeros(SIZES["attention_dim"] + 1)
            if decoder.use_word_query:
                (kernel,) = weights_of(decoder.word_query)
                of_word[: kernel.shape[1]] = x @ kernel
            e = np.tanh(a @ w_a + b_a + h @ w_h + of_word[:-1]) @ v[:, 0]
            alpha = np.exp(e) / np.exp(e).sum()
            if decoder.use_gate:
                kernel, bias = weights_of(decoder.gate)
                betas[n, k, t] = sigmoid(h @ kernel + bias + of_word[-1])[0]
            z = betas[n, k, t] * (alpha @ a)
            i, f, g, o = np.split(x @ t_embedding + t_bias + h @ t_hidden + z @ t_context, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            output = h
            if decoder.use_deep_output:
                l_h, b_h = weights_of(decoder.output_hidden)
                (l_z,) = weights_of(decoder.output_context)
                output = x + h @ l_h + b_h + z @ l_z
                output = np.tanh(output) if decoder.use_output_tanh else output
            kernel, bias = (
                (embedding.T, 0) if decoder.tie_embeddings else weights_of(decoder.output_words)
            )
            logits[n, k, t], alphas[n, k, t] = output @ kernel + bias, alpha
    return {"logits": logits, "attention_weights": alphas, "gate": betas}


def assert_same(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert tuple(x.shape) == tuple(expected[name].shape), name
        np.testing.assert_allclose(
            numpy(x), expected[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


def as_numpy(outputs):
    return {name: numpy(value) for name, value in outputs.items()}


@pytest.fixture(scope="module", params=ABLATIONS)
def ablated(request):
    """The options of a decoder and the decoder, which tests must not change."""
    return request.param, make(request.param)


def test_outputs_are_the_papers(ablated):
    _, decoder = ablated
    found = decoder(*inputs())
    assert_same(found, paper(decoder, *inputs()), 2e-5)
    gate = numpy(found["gate"])
    assert (gate == 1).all() if not decoder.use_gate else gate.std() > 0.02
    assert numpy(found["attention_weights"]).std() > 0.02


def test_decoding_word_by_word_is_teacher_forcing(ablated):
    _, decoder = ablated
    token_ids, annotations = inputs()
    expected = as_numpy(decoder(token_ids, annotations))
    annotations, keys = decoder.read_annotations(annotations)
    hidden, cell = decoder.initial_state(annotations, CAPTIONS)
    states = {"hidden": hidden, "cell": cell}
    advance, pictures = decoder_step(decoder, annotations, keys)
    for t in range(STEPS):
        if t % 2:
            logits, states, record = advance(token_ids[:, :, t], states, pictures)
        else:
            logits, states, record = decoder.step(token_ids[:, :, t], states, annotations, keys)
        found = {"logits": logits, **record}
        assert_same(found, {name: value[:, :, t] for name, value in expected.items()})
    for state in states.values():
        assert state.shape == (BATCH, CAPTIONS, SIZES["hidden_dim"])


def test_gradient_reaches_every_weight(ablated):
    _, decoder = ablated

    def loss():
        return ops.mean(ops.logsumexp(decoder(*inputs())["logits"], axis=-1))

    for path, gradient in weight_gradients(decoder, loss).items():
        assert gradient is not None, path
        assert np.abs(numpy(gradient)).max() > 1e-5, path


def number_of_weights(k, m, n, attention, features, options):
    """By hand; `k` words, embedding `m`, LSTM `n`."""
    initial = options.get("initial_dim")
    mean = initial or features
    total = k * m  # E
    total += features * attention + attention + n * attention + attention  # W_a, b, W_h, v
    gate = options.get("use_gate", True)
    total += (n + 1) if gate else 0
    total += m * (attention + gate) if options.get("use_word_query") else 0
    total += (features * initial + initial) if initial else 0
    total += 2 * (mean * n + n)
    total += (m + n + features) * 4 * n + 4 * n  # T and its bias
    deep = options.get("use_deep_output", True)
    total += (n * m + m + features * m) if deep else 0
    if not options.get("tie_embeddings", False):
        total += (m if deep else n) * k + k
    return total


def test_number_of_weights(ablated):
    options, decoder = ablated
    sizes = (VOCABULARY, SIZES["embedding_dim"], SIZES["hidden_dim"], SIZES["attention_dim"])
    assert decoder.count_params() == number_of_weights(*sizes, FEATURES, options)


def test_initial_state_is_that_of_the_mean_annotation():
    decoder = make()
    _, annotations = inputs()
    hidden, cell = map(numpy, decoder.initial_state(annotations, captions=2))
    assert hidden.shape == cell.shape == (BATCH, 2, SIZES["hidden_dim"])
    for state, layer in ((hidden, decoder.initial_hidden), (cell, decoder.initial_cell)):
        kernel, bias = weights_of(layer)
        expected = np.tanh(annotations.mean(axis=1) @ kernel + bias)
        for caption in range(2):
            np.testing.assert_allclose(state[:, caption], expected, rtol=1e-5, atol=1e-5)
    assert np.abs(hidden - cell).max() > 0.1  # two perceptrons
    # All that reaches it is the mean: the regions' order does not matter.
    shuffled = decoder.initial_state(annotations[:, ::-1], captions=2)
    np.testing.assert_allclose(numpy(shuffled[0]), hidden, rtol=1e-5, atol=1e-6)


def test_without_gate_is_with_the_gate_held_open():
    gated = make()
    gated.gate.kernel.assign(ops.zeros_like(gated.gate.kernel))
    gated.gate.bias.assign(ops.full((1,), 40.0))
    assert_same(make({"use_gate": False}, like=gated)(*inputs()), as_numpy(gated(*inputs())))


def test_a_closed_gate_hides_the_picture():
    decoder = make()
    decoder.gate.kernel.assign(ops.zeros_like(decoder.gate.kernel))
    decoder.gate.bias.assign(ops.full((1,), -40.0))
    token_ids, annotations = inputs()
    other = annotations[:, ::-1] + np.linspace(-1, 1, REGIONS)[:, None].astype("float32")
    np.testing.assert_allclose(other.mean(1), annotations.mean(1), atol=1e-6)
    first, second = as_numpy(decoder(token_ids, annotations)), as_numpy(decoder(token_ids, other))
    np.testing.assert_allclose(first["logits"], second["logits"], rtol=1e-4, atol=1e-5)
    assert np.abs(first["attention_weights"] - second["attention_weights"]).max() > 0.01


@pytest.mark.parametrize("option", ["use_gate", "use_deep_output", "use_output_tanh"])
def test_each_ablation_changes_the_words(option):
    decoder = make()
    ablated = (
        make({option: False}, like=decoder)
        if option != "use_deep_output"
        else make({option: False})
    )
    difference = numpy(ablated(*inputs())["logits"]) - numpy(decoder(*inputs())["logits"])
    assert np.abs(difference).max() > 0.05


def test_captions_of_a_picture_are_those_of_the_picture_repeated():
    decoder = make()
    token_ids, annotations = inputs()
    together = as_numpy(decoder(token_ids, annotations))
    repeated = np.repeat(annotations, CAPTIONS, axis=0)
    alone = decoder(token_ids.reshape(BATCH * CAPTIONS, 1, STEPS), repeated)
    expected = {
        name: value.reshape(BATCH * CAPTIONS, 1, *value.shape[2:])
        for name, value in together.items()
    }
    assert_same(alone, expected)


def test_what_comes_later_changes_nothing_before():
    decoder = make()
    token_ids, annotations = inputs()
    short = as_numpy(decoder(token_ids[:, :, :3], annotations))
    padded = np.concatenate([token_ids[:, :, :3], np.zeros_like(token_ids)], axis=2)
    long = decoder(padded, annotations)
    assert_same({name: value[:, :, :3] for name, value in long.items()}, short)


# Dropout


@pytest.mark.parametrize("use_word_query", [False, True])
def test_attention_knows_the_word_before_only_where_it_is_told(use_word_query):
    decoder = make({"use_word_query": use_word_query})
    token_ids, annotations = inputs()
    other = token_ids.copy()
    other[:, :, -1] = (token_ids[:, :, -1] + 1) % VOCABULARY
    first, second = (as_numpy(decoder(ids, annotations)) for ids in (token_ids, other))
    for name in ("attention_weights", "gate"):
        changed = np.abs(first[name] - second[name])[:, :, -1].max()
        assert changed > 0.01 if use_word_query else changed == 0


def outputs_in_training(**rates):
    decoder = make(**rates)
    expected = as_numpy(decoder(*inputs()))
    found = as_numpy(decoder(*inputs(), training=True))
    return {name: np.abs(found[name] - expected[name]) for name in found}


def test_without_training_nothing_is_dropped():
    rates = {"dropout": 0.5, "embedding_dropout": 0.5, "annotation_dropout": 0.5}
    decoder = make(**rates)
    assert_same(decoder(*inputs(), training=False), as_numpy(make()(*inputs())), 0)
    assert max(value.max() for value in outputs_in_training().values()) == 0  # nor at rate 0


def test_dropout_of_the_output_leaves_attention_alone():
    change = outputs_in_training(dropout=0.5)
    assert change["logits"].max() > 0.05
    assert change["attention_weights"].max() == change["gate"].max() == 0


@pytest.mark.parametrize(
    ("name", "other"), [("drop_hidden", "drop_output"), ("drop_output", "drop_hidden")]
)
def test_dropout_reaches_the_hidden_state_and_the_deep_output(name, other):
    decoder = make(dropout=0.5)
    getattr(decoder, other).rate = 0.0
    assert getattr(decoder, name).rate == 0.5
    dropped = numpy(decoder(*inputs(), training=True)["logits"])
    assert np.abs(dropped - numpy(decoder(*inputs())["logits"])).max() > 0.05


def test_dropout_of_the_words_reaches_attention_after_the_first():
    change = outputs_in_training(embedding_dropout=0.5)
    assert change["attention_weights"][:, :, 0].max() == 0
    assert change["attention_weights"][:, :, 1:].max() > 1e-3
    assert change["logits"][:, :, 0].max() > 0.05


def test_dropout_of_the_annotations_reaches_attention_at_once():
    change = outputs_in_training(annotation_dropout=0.5)
    assert change["attention_weights"][:, :, 0].max() > 1e-3


def test_a_dropped_feature_is_dropped_in_all_regions_of_a_picture():
    decoder = make(annotation_dropout=0.5)
    found = numpy(decoder.read_annotations(np.ones((16, REGIONS, FEATURES)), training=True)[0])
    assert set(np.unique(found)) == {0, 2}
    assert (found == found[:, :1]).all()
    assert (found[:, 0] != found[:1, 0]).any()


# Weights, precision and saving


def test_the_lstm_starts_by_remembering():
    bias = numpy(forget_gate_bias((4 * 3,)))
    np.testing.assert_array_equal(bias.reshape(4, 3), [[0] * 3, [1] * 3, [0] * 3, [0] * 3])
    decoder = AttentionDecoder(**SIZES)
    decoder.build((None, None, None), (None, REGIONS, FEATURES))
    np.testing.assert_array_equal(
        numpy(decoder.lstm_embedding.bias).reshape(4, 8)[:, 0], [0, 1, 0, 0]
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_near(policy):
    """The policy is the layer's own: every part of it must follow, whatever the global one."""
    rates = {"dropout": 0.1, "embedding_dropout": 0.1, "annotation_dropout": 0.1}
    decoder = make(**rates)
    half = make(like=decoder, dtype=policy, **rates)
    found = half(*inputs())
    assert keras.backend.standardize_dtype(found["logits"].dtype) == policy.removeprefix("mixed_")
    assert_same(found, as_numpy(decoder(*inputs())), 0.1)
    layers = half._flatten_layers(include_self=False)
    assert {layer.dtype_policy.name for layer in layers} == {policy}

    def loss():
        return ops.mean(ops.cast(half(*inputs(), training=True)["logits"], "float32") ** 2)

    for path, gradient in weight_gradients(half, loss).items():
        assert np.isfinite(numpy(gradient)).all(), path


def test_config_round_trip():
    options = {
        **{"dropout": 0.1, "embedding_dropout": 0.2, "annotation_dropout": 0.3, "initial_dim": 4},
        **{"use_gate": False, "use_output_tanh": False, "tie_embeddings": True},
        "use_word_query": True,
    }
    decoder = make(options)
    copy = keras.layers.deserialize(keras.layers.serialize(decoder))
    assert copy.get_config() == decoder.get_config()
    assert {name: copy.get_config()[name] for name in options} == options
    copy(*inputs())
    copy.set_weights(decoder.get_weights())
    assert_same(copy(*inputs()), as_numpy(decoder(*inputs())), 0)
    shallow = AttentionDecoder(**SIZES, use_deep_output=False)
    assert not AttentionDecoder.from_config(shallow.get_config()).use_deep_output


def test_symbolic_shapes_are_the_real_ones():
    token_ids = keras.Input((None, None), dtype="int32")
    outputs = AttentionDecoder(**SIZES)(token_ids, keras.Input((REGIONS, FEATURES)))
    shapes = {name: value.shape[3:] for name, value in outputs.items()}
    assert shapes == {"logits": (VOCABULARY,), "attention_weights": (REGIONS,), "gate": ()}


def test_tied_embeddings_need_the_deep_output():
    with pytest.raises(ValueError, match=r"needs the deep output.*Received: use_deep_output=False"):
        AttentionDecoder(**SIZES, tie_embeddings=True, use_deep_output=False)
