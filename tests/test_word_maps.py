"""Pointing of word detectors and of attention at the same words, on a grid of 3 x 3 cells."""

import numpy as np
import pandas as pd
import pytest
from keras import ops
from PIL import Image

from sat_keras.analysis import score_word_maps
from sat_keras.baselines import MaximumEntropy
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.datasets import boxes
from sat_keras.paper.captioner import Captioner

TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "dog", "sees", "cat", "bird"])
CONFIG = Config.tiny().replace(
    grid_shape=(3, 3), feature_dim=9, hidden_dim=9, image_size=30, dropout=0.0, resize="squash"
)
SEEN = {"dog": 4, "cat": 8}  # the cell in which the detector sees a word
BOX = {"dog": (10, 10, 20, 20), "cat": (0, 0, 20, 10), "bird": (0, 0, 10, 10)}


class Vectors:
    """A source of one-hot annotation vectors: feature i is 1 in region i."""

    input_name = "annotations"

    def lookup(self, keys, mirror=False):
        return np.zeros(len(keys), "int64")

    def read(self, position):
        return ops.broadcast_to(ops.eye(9), (*position.shape, 9, 9))

    def read_mask(self, position):
        return None


@pytest.fixture
def detectors():
    """Detectors of dog and cat alone that see each word in one cell."""
    captioner = MaximumEntropy(CONFIG, TOKENIZER, num_words=2, hash_bits=6)
    captioner.detectable = [5, 7]
    detector = captioner.detector
    detector.words = list(SEEN)
    detector.hidden.set_weights([np.eye(9), np.zeros(9)])
    kernel = np.zeros((9, 2))
    kernel[SEEN["dog"], 0] = kernel[SEEN["cat"], 1] = 5
    detector.logits.set_weights([kernel, np.full(2, -4.0)])
    return captioner


@pytest.fixture
def captioner():
    captioner = Captioner(CONFIG, TOKENIZER)
    generator = np.random.default_rng(0)
    for weight in captioner.decoder.trainable_variables:
        weight.assign(3 * generator.normal(size=weight.shape))
    return captioner


@pytest.fixture
def tables(tmp_path):
    """Two pictures: the first shows a dog, a cat and a bird, the second has no boxes."""
    path = str(tmp_path / "picture.png")
    Image.new("RGB", (30, 30)).save(path)
    texts = [("1", "a dog sees a cat"), ("1", "a cat"), ("2", "a dog"), ("3", "a bird sees a dog")]
    table = pd.DataFrame([{"image_id": i, "image": path, "caption": text} for i, text in texts])
    named = [
        {"image_id": i, "name": name, **dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))}
        for i in ("1", "3")
        for name, box in BOX.items()
    ]
    return table, pd.DataFrame(named)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_both_point_at_the_words_that_have_a_box_and_a_detector(detectors, captioner, tables):
    found = score_word_maps(
        detectors, {"soft": captioner}, Vectors(), *tables, boxes.words_to_boxes
    )
    assert list(found) == ["detectors", "soft"]
    # dog and cat of picture 1, dog of picture 3: a bird has no detector, picture 2 no boxes.
    assert [each["words"] for each in found.values()] == [3, 3]
    # The detector sees the dogs in the middle, in their box, and the cat in the last cell.
    assert found["detectors"]["pointing_accuracy"] == pytest.approx(100 * 2 / 3)
    there, elsewhere = sigmoid(1), sigmoid(-4)
    in_dog = there / (there + 8 * elsewhere)
    in_cat = 2 * elsewhere / (there + 8 * elsewhere)
    mass = 100 * (2 * in_dog + in_cat) / 3
    assert found["detectors"]["attention_mass"] == pytest.approx(mass, rel=1e-5)
    assert found["detectors"]["attention_mass_uniform"] == pytest.approx(100 * (1 + 2 + 1) / 9 / 3)

    ids = np.array([[[2, 4, 5, 6, 4], [2, 4, 8, 6, 4]]])
    annotations = np.eye(9, dtype="float32")[None]
    weights = ops.convert_to_numpy(
        captioner({"annotations": annotations, "token_ids": ids})["attention_weights"]
    )[0]
    maps = [weights[0, 1], weights[0, 4], weights[1, 4]]  # the steps that say dog, cat, dog
    cells = [[4], [0, 1], [4]]
    hits = [each.argmax() in inside for each, inside in zip(maps, cells, strict=True)]
    inside = [each[cell].sum() for each, cell in zip(maps, cells, strict=True)]
    soft = found["soft"]
    assert soft["pointing_accuracy"] == pytest.approx(100 * np.mean(hits))
    assert soft["attention_mass"] == pytest.approx(100 * np.mean(inside), rel=1e-4)
    for measure in ("pointing_accuracy", "attention_mass"):
        difference = soft[measure] - found["detectors"][measure]
        assert soft["difference"][measure] == pytest.approx(difference)
        low, high = soft["difference_intervals"][measure]
        assert low <= difference <= high


def test_pictures_without_such_words_are_refused(detectors, captioner, tables):
    table, objects = tables
    with pytest.raises(ValueError, match=r"a box and a detector.* Received: 6 objects"):
        score_word_maps(
            detectors, {"soft": captioner}, Vectors(), table[2:3], objects, boxes.words_to_boxes
        )
