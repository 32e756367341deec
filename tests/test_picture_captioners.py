"""Captioners without attention against their equations in NumPy, and as Keras models."""

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras.baselines import GoogleNIC, InitInject, LogBilinear, MultimodalRNN, VisualMemory
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import START_ID, Tokenizer

BATCH, CAPTIONS, STEPS, REGIONS, FEATURES, WORDS = 2, 3, 4, 5, 6, 8
TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "red", "circle", "dog"])
CONFIG = Config.tiny().replace(
    embedding_dim=3,
    hidden_dim=4,
    feature_dim=FEATURES,
    grid_shape=(1, REGIONS),
    dropout=0.0,
    embedding_dropout=0.0,
    max_length=STEPS,
)
SYSTEMS = {
    "init-inject": (InitInject, {}),
    "nic": (GoogleNIC, {}),
    "nic with biases": (GoogleNIC, {"use_bias": True}),
    "nic with tanh": (GoogleNIC, {"use_tanh": True}),
    "multimodal rnn": (MultimodalRNN, {}),
    "multimodal rnn, every step": (MultimodalRNN, {"every_step": True}),
    "visual memory": (VisualMemory, {"reconstruction_weight": 0.5}),
    "log-bilinear": (LogBilinear, {"context_size": 3}),
    "factored log-bilinear": (LogBilinear, {"context_size": 2, "factors": 5}),
}


@pytest.fixture(params=SYSTEMS)
def captioner(request):
    """A captioner whose weights, biases included, are random."""
    kind, options = SYSTEMS[request.param]
    captioner = kind(CONFIG, TOKENIZER, **options)
    generator = np.random.default_rng(0)
    for weight in captioner.weights:
        weight.assign(generator.normal(size=weight.shape, scale=0.7))
    variance = captioner.standardize.moving_variance
    variance.assign(ops.abs(variance) + 0.1)
    return captioner


@pytest.fixture
def inputs():
    generator = np.random.default_rng(1)
    token_ids = generator.integers(4, WORDS, (BATCH, CAPTIONS, STEPS))
    token_ids[..., 0] = START_ID
    return {
        "annotations": generator.normal(size=(BATCH, REGIONS, FEATURES)).astype("float32"),
        "token_ids": token_ids.astype("int32"),
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def value(x):
    return ops.convert_to_numpy(x)


def picture_vector(captioner, annotations):
    """The mean annotation vector, standardised by the moving averages."""
    layer = captioner.standardize
    deviation = np.sqrt(value(layer.moving_variance) + 1e-6)
    return (annotations.mean(axis=0) - value(layer.moving_mean)) / deviation


def dense(layer, x):
    x = x @ value(layer.kernel)
    return x + value(layer.bias) if layer.use_bias else x


def embed(captioner, token_ids):
    return value(captioner.embedding.embeddings)[token_ids]


def lstm(gates, c, ends_in_tanh=True):
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * (np.tanh(c) if ends_in_tanh else c), c


def init_inject(captioner, v, words):
    cell = captioner.cell
    h = np.tanh(dense(captioner.initial_hidden, v))
    c = np.tanh(dense(captioner.initial_cell, v))
    for x in words:
        gates = x @ value(cell.kernel) + h @ value(cell.recurrent_kernel) + value(cell.bias)
        h, c = lstm(gates, c)
        yield h


def nic(captioner, v, words):
    cell = captioner.cell
    m = c = np.zeros(CONFIG.hidden_dim)
    for t, x in enumerate([dense(captioner.picture_word, v), *words]):
        gates = x @ value(cell.kernel) + m @ value(cell.recurrent_kernel)
        gates = gates + (value(cell.bias) if captioner.use_bias else 0)
        m, c = lstm(gates, c, captioner.use_tanh)
        if t:
            yield m


def multimodal_rnn(captioner, v, words):
    h, of_picture = np.zeros(CONFIG.hidden_dim), dense(captioner.picture_bias, v)
    for t, x in enumerate(words):
        add = of_picture if t == 0 or captioner.every_step else 0
        h = np.maximum(
            dense(captioner.cell.of_word, x) + dense(captioner.cell.of_hidden, h) + add, 0
        )
        yield h


def visual_memory(captioner, v, words):
    cell, s, u = captioner.cell, np.zeros(CONFIG.hidden_dim), np.zeros(CONFIG.hidden_dim)
    for x in words:
        s = sigmoid(
            dense(cell.language_word, x)
            + dense(cell.language_state, s)
            + dense(captioner.picture_part, v)
        )
        u = sigmoid(dense(cell.memory_word, x) + dense(cell.memory_state, u))
        yield np.concatenate([s, u])


def log_bilinear(captioner, v, words):
    g = np.maximum(dense(captioner.read_picture, v), 0)
    matrices = value(captioner.context_parts.kernel)  # (n, K, K)
    start = embed(captioner, START_ID)
    padded = [start] * (len(matrices) - 1) + list(words)
    for t in range(len(words)):
        window = padded[t : t + len(matrices)]
        if captioner.factors:
            factors = value(captioner.word_factors)  # (K, F)
            window = [w @ factors.T for w in window]
        r = sum(w @ c for w, c in zip(window, matrices, strict=True))
        r = r + dense(captioner.picture_part, g)
        yield (r @ factors) * dense(captioner.picture_factors, g) if captioner.factors else r


EQUATIONS = {
    InitInject: init_inject,
    GoogleNIC: nic,
    MultimodalRNN: multimodal_rnn,
    VisualMemory: visual_memory,
    LogBilinear: log_bilinear,
}


def expected_logits(captioner, inputs):
    logits = np.zeros((BATCH, CAPTIONS, STEPS, WORDS))
    for b, annotations in enumerate(inputs["annotations"]):
        for k, token_ids in enumerate(inputs["token_ids"][b]):
            steps = EQUATIONS[type(captioner)](
                captioner, picture_vector(captioner, annotations), embed(captioner, token_ids)
            )
            for t, h in enumerate(steps):
                if captioner.tie_embeddings:
                    matrix = value(captioner.embedding.embeddings)
                    logits[b, k, t] = matrix @ h + value(captioner.output_bias)
                else:
                    logits[b, k, t] = dense(captioner.output_words, h)
    return logits


def test_logits_are_those_of_the_equations(captioner, inputs):
    found = value(captioner(inputs)["logits"])
    np.testing.assert_allclose(found, expected_logits(captioner, inputs), atol=1e-5)


def test_steps_of_a_search_are_those_of_teacher_forcing(captioner, inputs):
    step, states = captioner.step_function(inputs["annotations"])
    states = keras.tree.map_structure(lambda x: ops.repeat(x, CAPTIONS, axis=1), states)
    expected = value(ops.log_softmax(captioner(inputs)["logits"]))
    for t in range(STEPS):
        found, states, record = step(inputs["token_ids"][..., t], states)
        np.testing.assert_allclose(value(found), expected[:, :, t], atol=1e-5)
        assert record == {}


def test_the_picture_vector_is_standardised_over_the_pictures_it_is_adapted_to(captioner, inputs):
    annotations = np.random.default_rng(2).normal(3, 2, size=(7, REGIONS, FEATURES))
    masks = np.arange(REGIONS) < np.array([[5], [5], [5], [5], [2], [2], [2]])
    captioner.adapt(
        [
            {"annotations": annotations[:4].astype("float32")},
            {"annotations": annotations[4:].astype("float32"), "mask": masks[4:]},
        ]
    )
    mean = [x[mask].mean(axis=0) for x, mask in zip(annotations, masks, strict=True)]
    expected = (mean - np.mean(mean, axis=0)) / np.sqrt(np.var(mean, axis=0) + 1e-6)
    found = value(captioner.picture_vector(annotations.astype("float32"), masks))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    before = [value(x) for x in captioner.standardize.weights]
    captioner(inputs, training=True)  # moments of minibatches do not count
    for x, old in zip(captioner.standardize.weights, before, strict=True):
        np.testing.assert_array_equal(value(x), old)


def test_padding_is_no_part_of_the_picture(captioner, inputs):
    mask = np.array([[True] * 3 + [False] * 2, [True] * 5])
    found = value(captioner({**inputs, "mask": mask})["logits"])
    alone = {name: x[:1] for name, x in inputs.items()}
    alone["annotations"] = alone["annotations"][:, :3]
    np.testing.assert_allclose(found[:1], value(captioner(alone)["logits"]), atol=1e-5)
    np.testing.assert_allclose(found[1:], value(captioner(inputs)["logits"])[1:], atol=1e-5)


def test_the_loss_is_the_mean_over_captions_of_the_words_cross_entropy(captioner, inputs):
    y = np.roll(inputs["token_ids"], -1, axis=-1)
    weight = np.ones(y.shape, "float32")
    weight[0, 1, 2:] = 0
    weight[1, 2] = 0  # a row without a caption
    captioner.compile(optimizer="adam")
    loss = float(captioner.test_on_batch(inputs, y, sample_weight=weight)[0])
    logits = expected_logits(captioner, inputs)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    nll = -np.take_along_axis(log_p, y[..., None], axis=-1)[..., 0]
    expected = (weight * nll).sum()
    if isinstance(captioner, VisualMemory):
        expected += 0.5 * (weight * reconstruction_errors(captioner, inputs)).sum()
    assert loss == pytest.approx(expected / 5, rel=1e-5)


def reconstruction_errors(captioner, inputs):
    errors = np.zeros((BATCH, CAPTIONS, STEPS))
    for b, annotations in enumerate(inputs["annotations"]):
        v = picture_vector(captioner, annotations)
        for k, token_ids in enumerate(inputs["token_ids"][b]):
            for t, h in enumerate(visual_memory(captioner, v, embed(captioner, token_ids))):
                memory = h[CONFIG.hidden_dim :]
                again = dense(captioner.reconstruction, memory)
                errors[b, k, t] = ((v - again) ** 2).mean()
    return errors


def test_every_weight_is_trained_and_saved(captioner, inputs, tmp_path):
    y = np.roll(inputs["token_ids"], -1, axis=-1)
    before = [value(x) for x in captioner.trainable_variables]
    captioner.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True)
    first = captioner.train_on_batch(inputs, y)[0]
    for _ in range(5):
        last = captioner.train_on_batch(inputs, y)[0]
    assert last < first
    for weight, old in zip(captioner.trainable_variables, before, strict=True):
        assert np.abs(value(weight) - old).max() > 0, weight.path

    captioner.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert loaded.get_config() == captioner.get_config()
    np.testing.assert_array_equal(
        value(loaded(inputs)["logits"]), value(captioner(inputs)["logits"])
    )


def test_a_context_of_one_word_is_refused():
    with pytest.raises(ValueError, match="context_size.*Received"):
        LogBilinear(CONFIG, TOKENIZER, context_size=1)


def test_words_must_come_from_somewhere():
    with pytest.raises(ValueError, match="tokenizer.*Received"):
        InitInject(CONFIG.replace(vocabulary_size=None))
