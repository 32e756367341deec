"""The maximum-entropy language model against its features counted one by one."""

import numpy as np
import pytest
from keras import ops

from sat_keras.baselines import MaximumEntropy
from sat_keras.config import Config
from sat_keras.data.tokenizer import END_ID, START_ID, Tokenizer

# More than 32 words, so that the weights after a context fill two rows.
TOKENIZER = Tokenizer(
    ["", "<unk>", "<start>", "<end>", "a", "dog", "runs", "red", "cat"]
    + [f"rare{i}" for i in range(30)]
)
DOG, RUNS, RED, CAT = 5, 6, 7, 8
CONFIG = Config.tiny().replace(hidden_dim=3, grid_shape=(1, 2), feature_dim=4, dropout=0.0)


def value(x):
    return ops.convert_to_numpy(x)


@pytest.fixture
def captioner():
    captioner = MaximumEntropy(CONFIG, TOKENIZER, num_words=4, hash_bits=8)
    generator = np.random.default_rng(0)
    for weight in captioner.weights:
        weight.assign(generator.normal(size=weight.shape))
    return captioner


@pytest.fixture
def annotations():
    return np.random.default_rng(1).normal(size=(2, 2, 4)).astype("float32")


def row(context, word):
    """The row of the table that has the weight of a word after others."""
    found = 0
    for i in context:
        found = (found * 8191 + i) % 8
    return (found * 8191 + word // 32) % 8


def expected_logits(captioner, said, named, log_p):
    """Adds the weights of the features that fire, after the words `said` of words `named`."""
    left = set(named) - set(said)
    logits = []
    for word in range(len(TOKENIZER.get_vocabulary())):
        z = value(captioner.word_bias)[word]
        if word in left:
            z += value(captioner.attribute)[word] + value(captioner.score) * log_p[word]
        if word == END_ID and not left:
            z += value(captioner.ending)
        for n, table in zip((2, 3), captioner.tables, strict=True):
            history = [START_ID, *said][-(n - 1) :]
            z += value(table)[row(history, word), int(word in left), word % 32]
        logits.append(z)
    return logits


def detected(captioner, annotations):
    return {name: value(x) for name, x in captioner.detector(annotations).items()}


def test_content_words_are_detected(captioner):
    assert captioner.detector.words == ["dog", "runs", "red", "cat"]
    assert MaximumEntropy(CONFIG, TOKENIZER, num_words=2).detector.words == ["dog", "runs"]


def test_logits_are_the_sum_of_the_features_that_fire(captioner, annotations):
    captions = [[[START_ID, 4, DOG, 0], [START_ID, DOG, RUNS, DOG]], [[START_ID, CAT, 0, 0]] * 2]
    found = value(
        captioner({"token_ids": np.array(captions), "annotations": annotations})["logits"]
    )
    probabilities = detected(captioner, annotations)["probabilities"]
    for b, named in enumerate(({DOG, RUNS}, {CAT})):
        log_p = dict(zip((DOG, RUNS, RED, CAT), np.log(probabilities[b]), strict=True))
        for k, caption in enumerate(captions[b]):
            for t in range(1, 1 + np.count_nonzero(caption)):
                said = [START_ID, *caption[1:t]] if t > 1 else [START_ID]
                np.testing.assert_allclose(
                    found[b, k, t - 1], expected_logits(captioner, said, named, log_p), atol=1e-4
                )


def test_a_search_uses_the_words_that_are_detected(captioner, annotations):
    step, states = captioner.step_function(annotations)
    probabilities = detected(captioner, annotations)["probabilities"]
    ids = np.array([DOG, RUNS, RED, CAT])
    said = [START_ID]
    for word in (START_ID, DOG, 4, RUNS):
        if word != START_ID:
            said.append(word)
        log_p, states, record = step(np.full((2, 1), word, "int32"), states)
        assert record == {}
        for b in range(2):
            best = probabilities[b] >= min(0.5, np.sort(probabilities[b])[-3])
            logits = expected_logits(
                captioner,
                said,
                set(ids[best]),
                dict(zip(ids, np.log(probabilities[b]), strict=True)),
            )
            expected = logits - np.log(np.exp(logits).sum())
            np.testing.assert_allclose(value(log_p)[b, 0], expected, atol=1e-4)


def test_the_loss_adds_that_of_the_detectors(captioner, annotations):
    x = {"token_ids": np.array([[[START_ID, DOG]], [[START_ID, 4]]]), "annotations": annotations}
    y = np.array([[[DOG, END_ID]], [[4, END_ID]]])
    captioner.compile("adam", run_eagerly=True)
    loss = float(np.ravel(captioner.test_on_batch(x, y))[0])
    logits = value(captioner(x)["logits"])
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    words = -np.take_along_axis(log_p, y[..., None], axis=-1).sum() / 2
    p = detected(captioner, annotations)["probabilities"]
    is_named = np.array([[1, 0, 0, 0], [0, 0, 0, 0]])
    of_detectors = -np.log(np.where(is_named, p, 1 - p)).sum() / 2
    assert loss == pytest.approx(words + of_detectors, rel=1e-4)
