"""The model: its loss against NumPy, that it learns, that it is saved whole, and its captions."""

import json
import math
import zipfile

import keras
import numpy as np
import pytest
from gradients import gradients, numpy, random
from keras import ops
from seeding import fix_seed
from tracing import functions_run_eagerly

from sat_keras.captioning.model import FILE_FORMAT, CaptionSearch
from sat_keras.captioning.steps import decoder_step
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID, Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.encoder import ImageEncoder
from sat_keras.paper.loss import cross_entropies

pytestmark = pytest.mark.long

CONFIG = Config.tiny()  # grid 2 x 2 of 8 features
WORDS = ["a", "red", "blue", "circle", "square", "left", "of"]
TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", *WORDS])
SENTENCES = ["a red circle", "a blue square", "a circle left of a square", "red of blue"]


def token_ids(sentences, steps=None):
    """Ids as the loaders pad them, without TensorFlow: `(captions, steps)`."""
    ids = [[START_ID, *map(TOKENIZER.vocabulary.index, x.split()), END_ID] for x in sentences]
    steps = steps or max(map(len, ids))
    return np.array([row + [PAD_ID] * (steps - len(row)) for row in ids], "int32")


def batch(sentences=SENTENCES, captions=1):
    """`(x, y, sample_weight)` of pictures that differ, with `captions` sentences each."""
    ids = token_ids(sentences).reshape(len(sentences) // captions, captions, -1)
    y = ids[..., 1:]
    x = {"annotations": pictures(len(ids)), "token_ids": np.where(y == PAD_ID, 0, ids[..., :-1])}
    return x, y, (y != PAD_ID).astype("float32")


def pictures(number=4):
    return random(number, CONFIG.num_regions, CONFIG.feature_dim, seed=5)


def small_encoder():
    """A CNN of the same grid and features as `CONFIG`."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 64, -2.0)(inputs)
    outputs = keras.layers.Conv2D(8, 8, strides=8)(x)
    return ImageEncoder(keras.Model(inputs, outputs, name="small"), resize="squash")


def make(seed=0, tokenizer=TOKENIZER, encoder=None, dtype=None, **changes):
    fix_seed(seed)
    return Captioner(CONFIG.replace(**changes), tokenizer, encoder, dtype=dtype)


def photos(*sizes):
    return [
        np.random.default_rng(i).integers(0, 256, (*s, 3), "uint8") for i, s in enumerate(sizes)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A captioner that knows four captions by heart; its history; the file it was saved in.

    Shared by the tests, which must not train it further.
    """
    captioner = make(encoder=small_encoder(), penalty_weight=0.1)
    captioner.compile(keras.optimizers.Adam(0.03))
    x, y, weight = keras.tree.map_structure(lambda x: np.concatenate([x] * 10), batch())
    with functions_run_eagerly(False):
        history = captioner.fit(
            x, y, sample_weight=weight, batch_size=4, epochs=8, shuffle=False, verbose=0
        ).history
    path = tmp_path_factory.mktemp("captioner") / "captioner.keras"
    captioner.save(path)
    return captioner, history, path


# The loss


def loss_by_hand(config, outputs, y, weight, smoothing):
    """Loss, cross-entropy a word and penalty a caption, caption by caption in float64."""
    total, entropies, penalties = 0.0, [], []
    for n, k in np.ndindex(y.shape[:2]):
        logits = outputs["logits"][n, k].astype("float64")
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        steps = [t for t in range(y.shape[2]) if weight[n, k, t]]
        if not steps:
            continue
        alpha = outputs["attention_weights"][n, k][steps]
        tau = 1.0 if config.penalty_target == "one" else len(steps) / alpha.shape[-1]
        penalty = sum((tau - alpha[:, i].sum()) ** 2 for i in range(alpha.shape[-1]))
        words = len(log_p[0])
        for t in steps:
            target = np.full(words, smoothing / words)
            target[y[n, k, t]] += 1 - smoothing
            total -= target @ log_p[t]
            entropies.append(-log_p[t, y[n, k, t]])
        total += config.penalty_weight * penalty
        penalties.append(penalty)
    return total / len(penalties), np.mean(entropies), np.mean(penalties)


def made_up_outputs(y):
    shape = (*y.shape, CONFIG.num_regions)
    attention = np.exp(random(*shape, seed=6, scale=2.0))
    return {
        "logits": random(*y.shape, TOKENIZER.vocabulary_size, seed=7, scale=2.0),
        "attention_weights": attention / attention.sum(-1, keepdims=True),
        "gate": np.ones(y.shape, "float32"),
    }


@pytest.mark.parametrize(
    ("target", "smoothing", "weight_of_penalty"),
    [("one", 0.0, 1.0), ("length", 0.0, 0.7), ("one", 0.2, 0.0), ("length", 0.2, 0.7)],
)
def test_loss_is_the_papers(target, smoothing, weight_of_penalty):
    changes = {"penalty_weight": weight_of_penalty, "penalty_target": target}
    captioner = make(**changes, label_smoothing=smoothing)
    _, y, weight = batch(captions=2)
    weight[1, 1] = 0  # a caption without words, as fills up a picture's row
    outputs = made_up_outputs(y)
    tensors = {name: ops.convert_to_tensor(value) for name, value in outputs.items()}
    for training in (True, False):
        for metric in captioner.metrics:
            metric.reset_state()
        found = captioner.compute_loss(None, ops.array(y), tensors, ops.array(weight), training)
        used = smoothing if training else 0.0
        loss, entropy, penalty = loss_by_hand(captioner.config, outputs, y, weight, used)
        np.testing.assert_allclose(float(found), loss, rtol=1e-5)
        logged = {metric.name: float(metric.result()) for metric in captioner.metrics}
        np.testing.assert_allclose(logged["cross_entropy"], entropy, rtol=1e-5)
        np.testing.assert_allclose(logged["penalty"], penalty, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_of_the_cross_entropies(smoothing):
    """Against automatic differentiation of their definition; the plain one has none."""
    words = np.array([[1, 0, 4], [2, 2, 3]])
    upstream = random(2, 3, seed=8)
    target = (1 - smoothing) * np.eye(5, dtype="float32")[words] + smoothing / 5

    def found(logits):
        smoothed, plain = cross_entropies(ops.array(words), logits, smoothing)
        return ops.sum(upstream * smoothed + 3 * plain)

    def expected(logits):
        return -ops.sum(upstream[..., None] * target * ops.log_softmax(logits))

    logits = [100 * random(2, 3, 5, seed=9)]
    (found,), (expected,) = gradients(found, logits), gradients(expected, logits)
    np.testing.assert_allclose(numpy(found), numpy(expected), rtol=1e-4, atol=1e-5)
    assert np.abs(numpy(found)).max() > 0.1


def test_padding_does_not_count():
    captioner = make()
    _, y, weight = batch()
    outputs = made_up_outputs(y)
    expected = float(captioner.compute_loss(None, y, outputs, weight))
    padding = weight == 0
    assert padding.any()
    outputs["logits"][padding] = 50.0
    outputs["attention_weights"][padding] = 0.25
    np.testing.assert_allclose(float(captioner.compute_loss(None, y, outputs, weight)), expected)
    # Without weights, everything counts.
    everything = loss_by_hand(CONFIG, outputs, y, np.ones_like(weight), 0.0)[0]
    np.testing.assert_allclose(
        float(captioner.compute_loss(None, y, outputs)), everything, rtol=1e-5
    )


def test_a_batch_without_words_costs_nothing():
    captioner = make()
    _, y, weight = batch()
    assert float(captioner.compute_loss(None, y, made_up_outputs(y), 0 * weight)) == 0.0


def test_metrics_of_an_epoch_are_means_over_words_and_captions():
    """Not over minibatches: those with few words must not count as much as those with many."""
    captioner = make()
    captioner.compile()
    x, y, weight = batch()
    weight[2:, :, 2:] = 0
    logs = captioner.evaluate(x, y, sample_weight=weight, batch_size=3, verbose=0, return_dict=True)
    outputs = {name: numpy(value) for name, value in captioner(x).items()}
    _, entropy, penalty = loss_by_hand(CONFIG, outputs, y, weight, 0.0)
    np.testing.assert_allclose(logs["cross_entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(logs["penalty"], penalty, rtol=1e-5)
    assert logs["loss"] > entropy


@pytest.mark.parametrize("vocabulary_size", [50, 2000])
def test_first_loss_is_near_the_logarithm_of_the_vocabulary(vocabulary_size):
    captioner = make(tokenizer=None, vocabulary_size=vocabulary_size, hidden_dim=32)
    ids = np.random.default_rng(0).integers(4, vocabulary_size, (4, 2, 6))
    captioner.compute_loss(
        None, ids, captioner({"annotations": pictures(4), "token_ids": ids}, training=True)
    )
    cross_entropy = float(captioner.cross_entropy_tracker.result())
    assert abs(cross_entropy - math.log(vocabulary_size)) < 0.3


# Training


def test_fit_learns_the_captions_by_heart(trained):
    captioner, history, _ = trained
    assert set(history) == {"loss", "cross_entropy", "penalty"}
    assert 0.5 < history["cross_entropy"][0] < math.log(TOKENIZER.vocabulary_size)
    assert history["cross_entropy"][-1] < 0.05
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    captions = captioner.caption(annotations=pictures())
    assert [caption.text for caption in captions] == SENTENCES


@pytest.mark.graph
def test_fit_on_data_sets_of_unknown_shapes(monkeypatch):
    """As the loaders give them: every minibatch of its own number of captions and of steps.

    They share a trace, the only one: the optimizer's variables are made before it.
    """
    traces, train_step = [], Captioner.train_step

    def count(self, *arguments):
        traces.append(1)
        return train_step(self, *arguments)

    monkeypatch.setattr(Captioner, "train_step", count)
    tf = pytest.importorskip("tensorflow")
    minibatches = [batch(captions=2), batch(SENTENCES[:3]), batch(SENTENCES[1:2])]
    spec = (
        {
            "annotations": tf.TensorSpec((None, CONFIG.num_regions, CONFIG.feature_dim)),
            "token_ids": tf.TensorSpec((None, None, None), "int32"),
        },
        tf.TensorSpec((None, None, None), "int32"),
        tf.TensorSpec((None, None, None)),
    )
    data = tf.data.Dataset.from_generator(lambda: iter(minibatches), output_signature=spec)
    data = data.apply(tf.data.experimental.assert_cardinality(len(minibatches)))
    captioner = make(penalty_weight=0.5)
    with functions_run_eagerly(True):
        expected = [
            loss_by_hand(captioner.config, outputs_of(captioner, x), y, w, 0.0)
            for x, y, w in minibatches
        ]
    captioner.compile(keras.optimizers.SGD(0.0))
    logs = captioner.fit(data, epochs=1, verbose=0).history
    assert len(traces) == 1
    rows = [len(y) for _, y, _ in minibatches]
    words = [w.sum() for *_, w in minibatches]
    loss, entropy, _ = zip(*expected, strict=True)
    np.testing.assert_allclose(logs["loss"][0], np.average(loss, weights=rows), rtol=1e-5)
    np.testing.assert_allclose(
        logs["cross_entropy"][0], np.average(entropy, weights=words), rtol=1e-5
    )


def outputs_of(captioner, x):
    return {name: numpy(value) for name, value in captioner(x).items()}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_training_in_half_precision(policy):
    dropout = {"dropout": 0.1, "embedding_dropout": 0.1, "annotation_dropout": 0.1}
    captioner = make(dtype=policy, label_smoothing=0.1, **dropout)
    captioner.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    x, y, weight = batch(captions=2)
    losses = []
    for _ in range(4):
        captioner.reset_metrics()
        losses.append(captioner.train_on_batch(x, y, sample_weight=weight)[0])
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    for weight in captioner.trainable_weights:
        assert np.isfinite(numpy(weight.value)).all(), weight.path
        assert keras.backend.standardize_dtype(weight.dtype) == "float32"
    scales = [w for w in captioner.optimizer.variables if "dynamic_scale" in w.path]
    assert bool(scales) == (policy == "mixed_float16")


@pytest.mark.graph
def test_training_under_xla():
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch has no XLA here")
    x, y, weight = batch(captions=2)
    logs, weights = [], []
    for is_eager in (False, True):
        captioner = make()
        captioner.compile(keras.optimizers.SGD(0.1), run_eagerly=is_eager, jit_compile=not is_eager)
        with functions_run_eagerly(is_eager):
            logs.append(captioner.train_on_batch(x, y, sample_weight=weight))
        weights.append(np.concatenate([np.ravel(value) for value in captioner.get_weights()]))
    np.testing.assert_allclose(*logs, rtol=1e-4)
    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-5)


# Files


def assert_captions_alike(captions, expected, tolerance=1e-6):
    for first, second in zip(captions, expected, strict=True):
        assert (first.text, first.words) == (second.text, second.words)
        np.testing.assert_allclose(first.attention, second.attention, atol=tolerance)
        np.testing.assert_allclose(first.gate, second.gate, atol=tolerance)
        assert abs(first.log_probability - second.log_probability) < 10 * tolerance


def test_a_file_holds_model_tokenizer_and_encoder(trained):
    captioner, _, path = trained
    loaded = keras.saving.load_model(path)
    assert loaded.config == captioner.config
    assert loaded.tokenizer == captioner.tokenizer
    images = np.stack(photos((16, 16), (16, 16)))
    expected = captioner.caption(images)
    assert any(caption.words for caption in expected)
    assert_captions_alike(loaded.caption(images), expected)


def test_a_file_brings_its_encoder(trained, monkeypatch):
    """To a program that has imported the captioner alone, and so has registered no encoder."""
    monkeypatch.delitem(keras.saving.get_custom_objects(), "sat_keras>ImageEncoder")
    assert isinstance(Captioner.from_config(trained[0].get_config()).encoder, ImageEncoder)


def test_training_continues_from_a_file(tmp_path):
    """With the optimizer's moments and iterations: as if it had not been interrupted."""
    x, y, weight = batch()
    captioner = make()
    captioner.compile(keras.optimizers.Adam(0.02), run_eagerly=True)
    for _ in range(2):
        captioner.train_on_batch(x, y, sample_weight=weight)
    captioner.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    loaded.run_eagerly = True
    assert int(loaded.optimizer.iterations) == 2
    captioner.train_on_batch(x, y, sample_weight=weight)
    loaded.train_on_batch(x, y, sample_weight=weight)
    for first, second in zip(captioner.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(numpy(first.value), numpy(second.value), atol=1e-6)


def test_weights_alone(tmp_path):
    captioner = make(seed=1)
    other = make(seed=2)
    x, _, _ = batch()
    expected = outputs_of(captioner, x)
    assert np.abs(outputs_of(other, x)["logits"] - expected["logits"]).max() > 0.01
    captioner.save_weights(tmp_path / "captioner.weights.h5")
    other.load_weights(tmp_path / "captioner.weights.h5")
    for name, value in outputs_of(other, x).items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("file_format", [FILE_FORMAT + 1, None])
def test_a_file_of_another_format_is_refused(trained, tmp_path, file_format):
    changed = tmp_path / "changed.keras"
    with zipfile.ZipFile(trained[2]) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["file_format"] = file_format
                content = json.dumps(config)
            target.writestr(name, content)
    expected = rf"model file of format {FILE_FORMAT}.*train again.*Received: format {file_format}"
    with pytest.raises(ValueError, match=expected):
        keras.saving.load_model(changed)


def test_a_config_of_a_newer_version_is_refused():
    config = make().get_config()
    config["config"]["from_the_future"] = 1
    with pytest.raises(ValueError, match=r"Received: \['from_the_future'\]"):
        Captioner.from_config(config)


# Captions


def test_a_caption_says_where_it_looked(trained):
    captioner, _, _ = trained
    for caption, sentence in zip(captioner.caption(annotations=pictures()), SENTENCES, strict=True):
        assert caption.words == sentence.split()
        assert caption.attention.shape == (len(caption.words), *CONFIG.grid_shape)
        np.testing.assert_allclose(caption.attention.sum(axis=(1, 2)), 1, rtol=1e-5)
        assert caption.gate.shape == (len(caption.words),)
        assert ((caption.gate > 0) & (caption.gate < 1)).all()
        assert math.log(0.5) < caption.log_probability < 0


def test_a_captions_attention_is_that_of_teacher_forcing(trained):
    """Rows are the grid's rows, words the steps: nothing is shifted or transposed."""
    captioner, _, _ = trained
    x, _, weight = batch()
    outputs = outputs_of(captioner, x)
    for n, caption in enumerate(captioner.caption(annotations=x["annotations"])):
        maps = outputs["attention_weights"][n, 0, : len(caption.words)]
        np.testing.assert_allclose(caption.attention, maps.reshape(-1, 2, 2), atol=1e-5)
        np.testing.assert_allclose(caption.gate, outputs["gate"][n, 0, : len(maps)], atol=1e-5)
    assert weight.sum() == sum(len(sentence.split()) + 1 for sentence in SENTENCES)


def test_log_probability_is_that_of_teacher_forcing():
    """Of every beam, also of a captioner that knows nothing."""
    captioner = make(seed=3)
    result = captioner.search(pictures(), beam_size=3, max_length=4)
    ids, lengths = numpy(result.token_ids), numpy(result.lengths)
    assert ids.shape == (4, 3, 5)
    previous = np.concatenate([np.full((4, 3, 1), START_ID), ids[:, :, :-1]], axis=-1)
    outputs = outputs_of(captioner, {"annotations": pictures(), "token_ids": previous})
    log_p = outputs["logits"] - np.log(np.exp(outputs["logits"]).sum(-1, keepdims=True))
    inside = np.arange(5) < lengths[..., None]
    chosen = np.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(
        numpy(result.log_probability), (chosen * inside).sum(-1), rtol=1e-4, atol=1e-4
    )
    for name in ("attention_weights", "gate"):
        found, expected = numpy(result.record[name]), outputs[name]
        np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-4, atol=1e-5)


def test_captions_end_without_unknown_words():
    captioner = make(seed=4)
    bias = np.zeros(TOKENIZER.vocabulary_size, "float32")
    bias[[UNK_ID, PAD_ID, START_ID]], bias[END_ID] = 9.0, -9.0  # tempting, and hard to end
    captioner.decoder.output_words.bias.assign(bias)
    result = captioner.search(pictures(), beam_size=2, max_length=3)
    for row, length in zip(
        numpy(result.token_ids).reshape(-1, 4), numpy(result.lengths).ravel(), strict=True
    ):
        assert length == 4
        assert row[3] == END_ID
        assert (row[:3] > END_ID).all()


def test_beams_share_the_annotation_vectors(monkeypatch):
    captioner = make()
    seen = []

    def spy(decoder, annotations, keys, *rest):
        step, found = decoder_step(decoder, annotations, keys, *rest)

        def seen_step(token_ids, *states):
            seen.append((tuple(token_ids.shape), tuple(annotations.shape), tuple(keys.shape)))
            return step(token_ids, *states)

        return seen_step, found

    monkeypatch.setattr("sat_keras.captioning.steps.decoder_step", spy)
    captioner.search(pictures(), beam_size=3, max_length=2)
    assert {token_ids for token_ids, _, _ in seen} == {(4, 1), (4, 3)}
    assert {shapes for _, *shapes in seen for shapes in shapes} == {(4, 4, 8)}


def test_search_takes_its_options_from_the_config():
    captioner = make(beam_size=2, max_length=3, length_penalty=0.0)
    result = captioner.search(pictures())
    assert result.token_ids.shape == (4, 2, 4)
    np.testing.assert_array_equal(numpy(result.score), numpy(result.log_probability))
    assert captioner.search(pictures(), beam_size=1, max_length=5).token_ids.shape == (4, 1, 6)


def test_a_data_set_is_captioned_batch_by_batch(trained):
    captioner, _, _ = trained
    search = CaptionSearch(captioner, beam_size=2)
    found = search.predict({"annotations": pictures()}, batch_size=3, verbose=0)
    assert [caption.text for caption in captioner.read(found)] == SENTENCES


def test_pictures_of_any_sizes(trained):
    captioner, _, _ = trained
    images = photos((16, 16), (20, 31), (9, 12))
    together = captioner.caption(images)
    assert len(together) == 3
    for image, caption in zip(images, together, strict=True):
        assert_captions_alike(captioner.caption(image[None]), [caption], 1e-5)
    attention = np.concatenate([caption.attention for caption in together])
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)


def test_pictures_and_their_annotations_give_the_same(trained):
    captioner, _, _ = trained
    images = np.stack(photos((16, 16), (16, 16)))
    annotations = numpy(captioner.annotate({"images": images}))
    assert_captions_alike(
        captioner.caption(images), captioner.caption(annotations=annotations), 1e-5
    )
    x, _, _ = batch(SENTENCES[:2])
    from_pictures = outputs_of(captioner, {"images": images, "token_ids": x["token_ids"]})
    x["annotations"] = annotations
    for name, value in outputs_of(captioner, x).items():
        np.testing.assert_allclose(from_pictures[name], value, rtol=1e-4, atol=1e-5)


def test_no_pictures_give_no_captions(trained):
    captioner, _, _ = trained
    assert captioner.caption([]) == []
    assert captioner.caption(annotations=pictures()[:0]) == []


# What is missing


def test_without_a_tokenizer_there_are_ids_and_no_sentences():
    captioner = make(tokenizer=None, vocabulary_size=11)
    assert captioner.search(pictures(), beam_size=1, max_length=2).token_ids.shape == (4, 1, 3)
    with pytest.raises(ValueError, match=r"Sentences need a tokenizer.*Received: tokenizer=None"):
        captioner.caption(annotations=pictures(), beam_size=1, max_length=2)


def test_without_any_number_of_words():
    with pytest.raises(ValueError, match=r"give the captioner a `tokenizer`.*Received: "):
        Captioner(CONFIG)


def test_without_an_encoder_there_are_no_pictures():
    captioner = make()
    with pytest.raises(ValueError, match=r"without an encoder needs `annotations`.*Received: "):
        captioner.caption(photos((16, 16)))
    with pytest.raises(ValueError, match=r"Received: inputs \['images', 'token_ids'\]"):
        captioner.annotate({"images": photos((16, 16)), "token_ids": None})


@pytest.mark.parametrize("given", [{}, {"images": [], "annotations": []}])
def test_either_pictures_or_annotations(given):
    with pytest.raises(ValueError, match=r"either `images` or `annotations`.*Received: "):
        make().caption(**given)


def test_an_encoder_of_other_sizes_is_refused():
    expected = r"config\.replace\(grid_shape=.*Received: encoder \(2, 2\), 8; config \(\(2, 2\), 9"
    with pytest.raises(ValueError, match=expected):
        make(encoder=small_encoder(), feature_dim=9)
