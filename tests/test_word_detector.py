"""Word detectors against noisy-OR in NumPy, and on pictures in which one region shows a word."""

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras.baselines import WordDetector, frequent_words, word_targets
from sat_keras.data.tokenizer import Tokenizer

CAPTIONS = {
    "1": ["A dog runs.", "A red dog!"],
    "2": ["a dog", "two zebras"],
    "3": ["A red circle"],
}
TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "dog", "red", "runs", "circle"])


def test_probabilities_are_noisy_or_over_the_regions():
    detector = WordDetector(["dog", "red"], num_regions=3, feature_dim=4, hidden_dim=5)
    generator = np.random.default_rng(0)
    for weight in detector.weights:
        weight.assign(generator.normal(size=weight.shape))
    annotations = generator.normal(size=(2, 3, 4)).astype("float32")
    w1, b1, w2, b2 = (ops.convert_to_numpy(x) for x in detector.weights[:4])
    in_region = 1 / (1 + np.exp(-(np.maximum(annotations @ w1 + b1, 0) @ w2 + b2)))
    expected = 1 - np.prod(1 - in_region, axis=1)
    found = {name: ops.convert_to_numpy(x) for name, x in detector(annotations).items()}
    np.testing.assert_allclose(found["word_maps"], in_region, atol=1e-6)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)

    y = np.array([[1, 0], [1, 1]], "float32")
    detector.compile("adam")
    loss = detector.test_on_batch(annotations, y)
    cross_entropy = -(y * np.log(expected) + (1 - y) * np.log(1 - expected)).sum(axis=1).mean()
    assert np.ravel(loss)[0] == pytest.approx(cross_entropy, rel=1e-5)


def test_every_word_starts_at_its_prior():
    detector = WordDetector(["dog"], num_regions=196, feature_dim=4, hidden_dim=5, prior=0.2)
    found = detector(np.zeros((1, 196, 4), "float32"))["probabilities"]
    assert float(found[0, 0]) == pytest.approx(0.2, rel=1e-4)


@pytest.mark.graph
def test_it_learns_where_a_word_is_from_whole_pictures(tmp_path):
    generator = np.random.default_rng(0)
    annotations = generator.normal(size=(64, 4, 3), scale=0.1).astype("float32")
    y = (np.arange(64) % 2)[:, None].astype("float32")
    region = generator.integers(0, 4, 64)
    annotations[np.arange(64), region, 0] += 2 * y[:, 0]  # what shows the word
    detector = WordDetector(["dog"], 4, 3, hidden_dim=8, dropout=0.0, prior=0.5)
    detector.compile(keras.optimizers.Adam(0.03))
    steps = [np.concatenate([x] * 60) for x in (annotations, y)]
    detector.fit(*steps, batch_size=64, shuffle=False, verbose=0)
    found = {name: ops.convert_to_numpy(x) for name, x in detector(annotations).items()}
    np.testing.assert_array_equal(found["probabilities"] > 0.5, y > 0)
    seen = y[:, 0] > 0
    np.testing.assert_array_equal(found["word_maps"][seen, :, 0].argmax(axis=1), region[seen])

    detector.save(tmp_path / "detector.keras")
    loaded = keras.saving.load_model(tmp_path / "detector.keras", compile=False)
    assert loaded.words == ["dog"]
    again = ops.convert_to_numpy(loaded(annotations)["probabilities"])
    np.testing.assert_array_equal(again, found["probabilities"])


def test_words_are_counted_once_a_picture():
    assert frequent_words(CAPTIONS, TOKENIZER, min_pictures=2) == ["a", "dog", "red"]
    targets = word_targets(CAPTIONS, ["dog", "red", "runs"], TOKENIZER)
    np.testing.assert_array_equal(targets, [[1, 1, 1], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(("words", "prior"), [([], 0.1), (["dog"], 0.0), (["dog"], 1.0)])
def test_impossible_arguments_are_refused(words, prior):
    with pytest.raises(ValueError, match="Received"):
        WordDetector(words, 4, 3, prior=prior)
