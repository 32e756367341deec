"""Self-critical training: the reward is CIDEr-D, the gradient that of the expected reward."""

import itertools

import keras
import numpy as np
import pytest
from gradients import numpy
from keras import ops
from seeding import fix_seed

from sat_keras import training
from sat_keras.config import Config
from sat_keras.data.tokenizer import END_ID, PAD_ID, Tokenizer
from sat_keras.datasets import load_dataset
from sat_keras.evaluation import cider
from sat_keras.paper.captioner import Captioner
from sat_keras.training.cider_reward import DocumentFrequencies, cider_rewards
from sat_keras.training.self_critical import SelfCritical, make_self_critical

tf = pytest.importorskip("tensorflow")

CONFIG = Config.tiny().replace(
    vocabulary_size=6, max_length=2, hidden_dim=3, embedding_dim=3, attention_dim=2, feature_dim=3
)


def padded(captions, rows, steps):
    """Captions as an array, padded to a number of rows and steps."""
    found = np.zeros((rows, steps), "int32")
    for row, caption in zip(found, captions, strict=False):
        row[: len(caption)] = caption
    return found


@pytest.mark.parametrize("vocabulary", [3, 9])
def test_the_reward_is_cider_d(vocabulary):
    random = np.random.default_rng(vocabulary)

    def captions(most):
        lengths = random.integers(1, 9, random.integers(1, most + 1))
        return [random.integers(1, vocabulary, length).tolist() for length in lengths]

    references = [captions(4) for _ in range(8)]
    candidates = [[*captions(1), []][:2] for _ in references]
    frequencies = DocumentFrequencies(references)
    found = cider_rewards(
        np.stack([padded(x, 2, 9) for x in candidates]),
        np.stack([padded(x, 4, 8) for x in references]),
        frequencies,
    )
    expected = [cider([x[i] for x in candidates], references) for i in (0, 1)]
    np.testing.assert_allclose(numpy(found), np.stack(expected, axis=1), rtol=1e-5, atol=1e-6)
    assert numpy(found).max() > 0.5


def test_n_grams_of_no_picture_weigh_like_those_of_one():
    frequencies = DocumentFrequencies([[[4, 5]], [[4, 6], [4, 5]], [[7]]])
    found = frequencies.weights(np.array([[4, 5, 6], [6, 4, 9]], "int32"))
    expected = np.log(3) - np.log([[2, 2, 1], [1, 2, 1]])
    np.testing.assert_allclose(numpy(found[0]), expected, rtol=1e-6)
    pairs = np.log(3) - np.log([[2, 1], [1, 1]])
    np.testing.assert_allclose(numpy(found[1])[:, :2], pairs, rtol=1e-6)


def test_without_any_picture_the_reward_is_0():
    captions = np.ones((1, 1, 3), "int32")
    found = cider_rewards(captions, captions, DocumentFrequencies([]))
    assert numpy(found).tolist() == [[0.0]]


@pytest.fixture
def captioner():
    """A captioner of two words, 4 and 5."""
    fix_seed(3)
    model = Captioner(CONFIG.replace(penalty_weight=0.0))
    random = np.random.default_rng(0)
    model.decoder.set_weights([random.normal(size=w.shape) for w in model.decoder.weights])
    return model


REFERENCES = [[4, 5, END_ID], [5, END_ID]]


def self_critical(**options):
    frequencies = DocumentFrequencies([REFERENCES, [[4, END_ID]], [[4, 4, END_ID]]])
    return SelfCritical(frequencies, samples=2, max_length=2, **options)


def minibatch(batch_size):
    y = np.repeat(padded(REFERENCES, 2, 3)[None], batch_size, axis=0)
    annotations = np.random.default_rng(1).normal(size=(1, 4, 3)).astype("float32")
    x = {"annotations": np.repeat(annotations, batch_size, 0), "token_ids": np.zeros_like(y)}
    return x, y, (y != PAD_ID).astype("float32")


def gradients_of(model, loss):
    with tf.GradientTape() as tape:
        value = loss()
    variables = [v.value for v in model.trainable_variables]
    found = tape.gradient(value, variables, unconnected_gradients="zero")
    return [np.asarray(tf.convert_to_tensor(g)) for g in found]


def test_the_gradient_is_that_of_the_expected_reward(captioner, monkeypatch):
    """Over all pairs of captions of at most two words, by their probability."""
    ends = [(END_ID,), *((w, END_ID) for w in (4, 5))]
    captions = [*ends, *((v, w, END_ID) for v in (4, 5) for w in (4, 5))]
    pairs = list(itertools.product(range(len(captions)), repeat=2))
    token_ids = np.stack([padded([captions[i], captions[j]], 2, 3) for i, j in pairs])
    drawn = (token_ids != PAD_ID) & (np.arange(3) < 2)  # the end after two words is forced
    critic = self_critical()
    monkeypatch.setattr(critic, "sample", lambda *_: (token_ids, drawn.astype("float32")))
    x, y, weight = critic.minibatch(captioner, minibatch(len(pairs)))

    def log_probabilities():
        logits = ops.log_softmax(captioner(x)["logits"][..., END_ID:], axis=-1)
        logits = ops.pad(logits, [(0, 0)] * 3 + [(END_ID, 0)])  # only the end and words are drawn
        chosen = ops.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
        return ops.sum(chosen * weight, axis=-1)  # (pairs, 2)

    probability = np.exp(numpy(log_probabilities()))
    each = probability[: len(captions), 1]
    assert each.sum() == pytest.approx(1, abs=1e-5)
    together = probability.prod(axis=1)
    # `compute_loss` is a mean over captions; here each pair weighs by its probability.
    x["advantage"] = x["advantage"] * (together * len(pairs))[:, None]
    found = gradients_of(
        captioner, lambda: captioner.compute_loss(x, y, captioner(x), weight, training=False)
    )

    rewards = cider_rewards(token_ids, minibatch(len(pairs))[1], critic.frequencies)
    rewards = numpy(rewards)[: len(captions), 1]
    assert np.ptp(rewards) > 1

    def expected_reward():
        return -ops.sum(ops.exp(log_probabilities()[: len(captions), 1]) * rewards)

    expected = gradients_of(captioner, expected_reward)
    assert max(np.abs(g).max() for g in expected) > 0.1
    for mine, true in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, true, atol=2e-5)


def test_samples_are_drawn_from_the_model(captioner):
    critic = self_critical()
    x, y, weight = critic.minibatch(captioner, minibatch(400))
    y, weight = numpy(y), numpy(weight)
    assert y.shape == (400, 2, 3)
    np.testing.assert_array_equal(weight, (y != PAD_ID) & (np.arange(3) < 2))
    before = np.where(y[..., 1:] > 0, y[..., :-1], PAD_ID)
    np.testing.assert_array_equal(numpy(x["token_ids"])[..., 1:], before)
    logits = numpy(captioner({**minibatch(1)[0], "token_ids": np.full((1, 1, 1), 2)})["logits"])
    expected = np.pad(numpy(ops.softmax(logits[0, 0, 0, END_ID:])), (END_ID, 0))
    drawn = np.bincount(y[..., 0].reshape(-1), minlength=6) / 800
    np.testing.assert_allclose(drawn, expected, atol=0.06)
    advantage = numpy(x["advantage"])
    np.testing.assert_allclose(advantage.sum(axis=1), 0, atol=1e-5)  # of two samples
    again = numpy(critic.minibatch(captioner, minibatch(400))[1])
    assert (again != y).any()


def test_references_may_stay_at_a_weight(captioner):
    critic = self_critical(cross_entropy_weight=0.3)
    x, y, weight = critic.minibatch(captioner, minibatch(3))
    np.testing.assert_array_equal(numpy(y)[:, 2:], minibatch(3)[1])
    np.testing.assert_array_equal(numpy(weight)[:, 2:], minibatch(3)[2])
    np.testing.assert_allclose(numpy(x["advantage"])[:, 2:], 0.3)


@pytest.mark.parametrize("cross_entropy_weight", [0.0, 0.3])
def test_supervised_attention_reads_the_references_alone(cross_entropy_weight):
    """The gradient is the unsupervised one plus that of the references' attention in boxes."""
    model = Captioner(CONFIG.replace(grounding_weight=2.0, penalty_weight=0.0))
    critic = self_critical(cross_entropy_weight=cross_entropy_weight)
    x, y, weight = minibatch(2)
    in_boxes = np.zeros((*y.shape, 4), "float32")
    in_boxes[:, 0, 1, 2] = in_boxes[1, 1, 0, 3] = 1
    x, y, weight = critic.minibatch(model, ({**x, "in_boxes": in_boxes}, y, weight))
    np.testing.assert_array_equal(numpy(x["in_boxes"])[:, :2], 0)
    np.testing.assert_array_equal(numpy(x["in_boxes"])[:, 2:], in_boxes)
    np.testing.assert_allclose(numpy(x["advantage"])[:, 2:], cross_entropy_weight)

    def loss(inputs):
        return model.compute_loss(inputs, y, model(inputs), weight, training=False)

    def of_attention():
        alpha = model(x)["attention_weights"]
        # 2 samples and 2 references of each of 2 pictures share the loss.
        named = alpha[0, 2, 1, 2], alpha[1, 2, 1, 2], alpha[1, 3, 0, 3]
        return -2.0 * sum(ops.log(a) for a in named) / 8

    plain = {name: tensor for name, tensor in x.items() if name != "in_boxes"}
    parts = [lambda: loss(x), lambda: loss(plain), of_attention]
    found, without, attention = (gradients_of(model, part) for part in parts)
    assert max(np.abs(g).max() for g in attention) > 1e-3
    for mine, its, added in zip(found, without, attention, strict=True):
        np.testing.assert_allclose(mine, its + added, atol=1e-6)


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match=r"2 or more.*Received: samples=1"):
        SelfCritical(DocumentFrequencies([]), samples=1)


@pytest.mark.integration
def test_training_raises_the_reward(captioner):
    captioner.self_critical = self_critical()
    captioner.compile(optimizer=keras.optimizers.Adam(0.2))
    batches = tf.data.Dataset.from_tensors(minibatch(16)).repeat(10)
    before = {v.path: numpy(v) for v in captioner.decoder.trainable_variables}
    reward = [captioner.fit(batches.take(n), verbose=0).history["reward"][0] for n in (1, 8, 1)]
    assert reward[2] > reward[0] + 1
    for variable in captioner.decoder.trainable_variables:
        assert (numpy(variable) != before[variable.path]).any(), variable.path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Table, encoder, config and a captioner to start from."""
    counts = {"train": 4, "dev": 1, "test": 0}
    table = load_dataset("scenes", tmp_path_factory.mktemp("data"), num_images=counts)
    config = Config.tiny().replace(group="picture", batch_size=20, max_length=3, epochs=1)
    encoder = Captioner.make_encoder(config, None)
    config = config.replace(
        grid_shape=encoder.grid_shape,
        feature_dim=encoder.feature_dim,
        objective="cider",
        caption_samples=3,
        learning_rate=0.02,
    )
    fix_seed(0)
    tokenizer = Tokenizer.from_captions(table[table["split"] == "train"]["caption"], full_stop=True)
    return table, encoder, config, Captioner(config, tokenizer)


@pytest.mark.integration
def test_a_training_goes_on_from_a_captioner_and_saves_one(scenes, tmp_path):
    table, encoder, config, start = scenes
    out = tmp_path / "out"
    log = training.train_captioner(
        config, table, encoder, out, tmp_path / "features", start=start, verbose=0
    )
    assert log["reward"][0] >= 0
    loaded = keras.saving.load_model(out / "model.keras", compile=False)
    assert type(loaded) is Captioner
    mine, its = (numpy(model.decoder.embedding.embeddings) for model in (loaded, start))
    assert 0 < np.abs(mine - its).max() < 0.1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"group": "length"}, "'group': 'length'"),
        ({"attention": "hard"}, "'attention': 'hard'"),
    ],
)
def test_what_does_not_fit_is_named(scenes, changes, named):
    table, _, config, start = scenes
    with pytest.raises(ValueError, match=f"Received: .*{named}"):
        make_self_critical(config.replace(**changes), start.tokenizer, table, start)
    with pytest.raises(ValueError, match="start=None"):
        make_self_critical(config, start.tokenizer, table, None)
