"""Supervised attention: boxes of words in minibatches, the loss, and what training makes of it."""

import keras
import numpy as np
import pandas as pd
import pytest
from gradients import numpy
from keras import ops
from PIL import Image

from sat_keras import cli
from sat_keras.analysis import caption_boxes
from sat_keras.captioning.objectives import grounding_loss
from sat_keras.cnn.resize import PictureResize
from sat_keras.config import Config
from sat_keras.data import Tokenizer, caption_batches
from sat_keras.datasets import boxes
from sat_keras.paper.captioner import Captioner
from sat_keras.training import train_captioner

TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "dog", "and", "cat"])


class Vectors:
    """A source of two pictures on a grid of 2 x 2; vectors of mirrored views are negative."""

    input_name = "annotations"

    def lookup(self, keys, mirror=False):
        return np.array([int(key) + 2 * mirror for key in keys])

    def read(self, position):
        import tensorflow as tf

        sign = tf.where(position >= 2, -1.0, 1.0)
        return sign * tf.ones((4, 3)) * tf.cast(position % 2 + 1, "float32")

    def read_mask(self, position):
        return None


TABLE = pd.DataFrame(
    [("0", "a dog and a cat"), ("1", "a dog"), ("0", "a cat")], columns=["image_id", "caption"]
)
# The dog fills the left half of the upper right cell, and a dog is all over the lower left one.
DOG, OTHER_DOG, CAT = (0.5, 0.0, 0.75, 0.5), (0.0, 0.5, 0.5, 1.0), (0.0, 0.0, 1.0, 0.25)
BOXES = [[(1, *DOG), (1, *OTHER_DOG), (4, *CAT)], [(1, *DOG)], []]
IN_DOGS, IN_CAT, IN_DOG = [0, 0.5, 1, 0], [0.5, 0.5, 0, 0], [0, 0.5, 0, 0]


def batches(**options):
    return caption_batches(
        TABLE, TOKENIZER, Vectors(), boxes=BOXES, grid_shape=(2, 2), shuffle=False, **options
    )


def test_every_word_has_the_shares_of_the_regions_in_its_boxes():
    x, y, _ = next(iter(batches(batch_size=3)))
    assert x["in_boxes"].shape == (3, 1, 6, 4)
    expected = {
        (4, 5, 6, 4, 7): {1: IN_DOGS, 4: IN_CAT},
        (4, 5): {1: IN_DOG},
        (4, 7): {},
    }
    for row, words in zip(numpy(x["in_boxes"]), numpy(y), strict=True):
        named = expected[tuple(word for word in words[0] if word > 3)]
        for step in range(6):
            np.testing.assert_allclose(row[0, step], named.get(step, np.zeros(4)), atol=1e-6)


def test_captions_of_a_picture_have_their_own_boxes():
    x, y, _ = next(iter(batches(batch_size=3, group="picture")))
    assert x["in_boxes"].shape == (*y.shape, 4)
    pictures = numpy(x["annotations"])[:, 0, 0]
    first = numpy(x["in_boxes"])[pictures == 1][0]
    np.testing.assert_allclose(first[0, [1, 4]], [IN_DOGS, IN_CAT], atol=1e-6)
    assert first[1].sum() == 0
    second = numpy(x["in_boxes"])[pictures == 2][0]
    np.testing.assert_allclose(second[0, 1], IN_DOG, atol=1e-6)
    assert second[1:].sum() == 0  # padding


def test_boxes_of_a_mirrored_picture_are_mirrored():
    seen = set()
    for epoch in range(6):
        x, y, _ = next(iter(batches(batch_size=3, mirror=True, first_epoch=epoch)))
        for picture, row, words in zip(
            *map(numpy, (x["annotations"], x["in_boxes"], y)), strict=True
        ):
            if np.count_nonzero(words) == 6:
                is_mirrored = picture[0, 0] < 0
                seen.add(is_mirrored)
                order = [1, 0, 3, 2] if is_mirrored else [0, 1, 2, 3]
                np.testing.assert_allclose(row[0, 1], np.array(IN_DOGS)[order], atol=1e-6)
    assert seen == {False, True}


def test_boxes_need_an_entry_for_each_caption():
    with pytest.raises(ValueError, match="Received: 2 entries, 3 captions, grid_shape=None"):
        caption_batches(TABLE, TOKENIZER, Vectors(), boxes=BOXES[:2])


def test_the_loss_is_the_log_of_the_attention_in_the_boxes():
    alpha = np.array([[0.1, 0.2, 0.3, 0.4], [0.25] * 4, [1, 0, 0, 0]], "float32")
    in_boxes = np.array([IN_DOGS, [0] * 4, [0, 0, 0, 1]], "float32")
    loss, has_boxes = grounding_loss(alpha[None, None], in_boxes[None, None])
    expected = [-np.log(0.5 * 0.2 + 0.3), 0, -np.log(1e-6)]
    np.testing.assert_allclose(numpy(loss)[0, 0], expected, rtol=1e-5)
    np.testing.assert_array_equal(numpy(has_boxes)[0, 0], [1, 0, 1])


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_the_objective_adds_the_weighted_loss(kind):
    config = Config.tiny().replace(
        vocabulary_size=8, feature_dim=3, grid_shape=(2, 2), penalty_weight=0.0, attention=kind
    )
    config = config.replace(attention_samples=2 if kind == "hard" else 1)
    x, y, weight = next(iter(batches(batch_size=3)))
    plain = Captioner(config, TOKENIZER)
    supervised = Captioner(config.replace(grounding_weight=0.3), TOKENIZER)
    supervised.copy_weights(plain)
    y_pred = plain(x, training=True)
    losses = [
        float(model.compute_loss(x, y, y_pred, weight, training=True))
        for model in (plain, supervised)
    ]
    alpha = numpy(y_pred["attention_weights"])
    rows = alpha.shape[1]
    each = numpy(grounding_loss(alpha, np.repeat(numpy(x["in_boxes"]), rows, axis=1))[0])
    captions = 3 * rows
    assert losses[1] - losses[0] == pytest.approx(0.3 * each.sum() / captions, rel=1e-4)
    words = rows * 3  # dog and cat, and a dog
    assert float(supervised.grounding_tracker.result()) == pytest.approx(
        each.sum() / words, rel=1e-4
    )


def test_boxes_of_captions_are_shares_of_the_resized_picture(tmp_path):
    Image.new("RGB", (64, 32)).save(tmp_path / "0.png")
    table = TABLE[TABLE["image_id"] == "0"].assign(image=str(tmp_path / "0.png"))
    sides = {"x0": 32, "y0": 0, "x1": 96, "y1": 32}  # of a picture of 128 x 64
    objects = pd.DataFrame([{"image_id": "0", "name": "dog", **sides, "width": 128, "height": 64}])
    found = caption_boxes(table, objects, boxes.words_to_boxes, PictureResize(16, "squash"))
    assert found == [[(1, 0.25, 0.0, 0.75, 0.5)], []]


@pytest.mark.integration
@pytest.mark.graph
def test_a_training_with_boxes_looks_into_them(tmp_path):
    keras.utils.set_random_seed(0)
    config = Config.tiny().replace(
        vocabulary_size=8, feature_dim=4, grid_shape=(2, 2), grounding_weight=1.0
    )
    captioner = Captioner(config, TOKENIZER)
    captioner.compile(keras.optimizers.Adam(0.05))
    x, y, weight = next(iter(batches(batch_size=3)))
    x["annotations"] = ops.broadcast_to(ops.eye(4), (3, 4, 4))
    values = [
        captioner.train_on_batch(x, y, sample_weight=weight, return_dict=True) for _ in range(30)
    ]
    assert values[-1]["grounding"] < values[0]["grounding"] - 0.5


def test_boxes_must_be_given_for_the_weight(tmp_path):
    table = pd.DataFrame([("0", s, "a.png", "a dog") for s in ("train", "dev")])
    table.columns = ["image_id", "split", "image", "caption"]
    with pytest.raises(ValueError, match="`boxes` .* grounding_weight=0.5"):
        train_captioner(Config.tiny().replace(grounding_weight=0.5), table, None, tmp_path)


@pytest.mark.integration
def test_the_command_supervises_attention_on_the_scenes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sat_keras.cli.train.draw_curves", lambda folder: None)
    command = "train --dataset scenes --preset tiny --limit 3 --epochs 1 --out m --quiet"
    command += " --max-length 3 --beam-size 1"
    assert cli.main([*command.split(), "--grounding-weight", "0.5", "--mirror"]) == 0
    log = pd.read_csv(tmp_path / "m" / "log.csv")
    assert log["grounding"].iloc[0] > 0


def test_the_command_needs_boxes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["image,caption,split"]
    for i, split in enumerate(("train", "dev")):
        Image.new("RGB", (16, 16)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,a dog,{split}")
    (folder / "captions.csv").write_text("\n".join(rows))
    command = "train --dataset photos --preset tiny --encoder-weights none --out m --epochs 1"
    assert cli.main([*command.split(), "--grounding-weight", "1"]) == 2
    assert "--boxes" in capsys.readouterr().err
