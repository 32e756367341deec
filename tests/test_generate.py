"""`caption` and `generate` on pictures as people have them, the n best captions, and `predict`."""

import functools
import http.server
import threading
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from seeding import fix_seed

from sat_keras.captioning.caption import Caption, as_sentence
from sat_keras.captioning.maps import fit_picture, reduce_picture
from sat_keras.captioning.model import CaptionSearch
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.encoder import ImageEncoder
from sat_keras.plots.widget import caption_html

pytestmark = pytest.mark.long

CONFIG = Config.tiny().replace(feature_dim=128, max_length=4, beam_size=3)


@pytest.fixture(scope="module")
def captioner():
    fix_seed(0)
    encoder = ImageEncoder("scenes", weights=None, resize="squash", image_size=16)
    config = CONFIG.replace(grid_shape=encoder.grid_shape, feature_dim=encoder.feature_dim)
    tokenizer = Tokenizer.from_captions(["a red circle", "a blue square above a ring"])
    captioner = Captioner(config, tokenizer, encoder)
    random = np.random.default_rng(0)
    captioner.decoder.set_weights(
        [random.normal(size=w.shape, scale=0.7) for w in captioner.decoder.weights]
    )
    return captioner


@pytest.fixture(scope="module")
def pictures():
    """Three pictures of different sizes and looks."""
    random = np.random.default_rng(1)
    ranges = ((0, 256), (200, 256), (0, 30))
    sizes = ((16, 16), (20, 31), (9, 12))
    return [
        random.integers(*limits, (*size, 3), dtype="uint8")
        for limits, size in zip(ranges, sizes, strict=True)
    ]


@pytest.fixture
def folder(tmp_path, pictures):
    for name, picture in zip("abc", pictures, strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.fixture(scope="module")
def expected(captioner, pictures):
    """The words, by the search on each picture's annotation vectors."""
    encoder = captioner.encoder
    annotations = [encoder(encoder.resize_images(picture)[None]) for picture in pictures]
    found = captioner.search(keras.ops.concatenate(annotations), num_results=1)
    texts = captioner.tokenizer.detokenize(found.token_ids[:, 0])
    assert len(set(texts)) > 1
    return texts


@pytest.fixture
def sentences(expected):
    return [as_sentence(text) for text in expected]


@pytest.mark.parametrize(
    ("words", "sentence"),
    {
        "a dog": "A dog.",
        "a man 's dog does n't run": "A man's dog doesn't run.",
        "a dog .": "A dog.",
        "in the u.s.": "In the u.s.",
        "<unk> dog": "<unk> dog.",
        "two 's": "Two's.",
        "it 'sx": "It 'sx.",
        "": "",
        ".": "",
        "कुत्ता दौड़ता है": "कुत्ता दौड़ता है",
    }.items(),
)
def test_words_become_a_sentence(words, sentence):
    assert as_sentence(words) == sentence


def as_dataset(pictures):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(np.stack(pictures)).repeat(1)


MANY = {
    "arrays": lambda pictures, folder: pictures,
    "tuple": lambda pictures, folder: tuple(pictures),
    "floats": lambda pictures, folder: [picture.astype("float32") for picture in pictures],
    "tensors": lambda pictures, folder: [keras.ops.convert_to_tensor(x) for x in pictures],
    "generator": lambda pictures, folder: (picture for picture in pictures),
    "PIL": lambda pictures, folder: [Image.fromarray(picture) for picture in pictures],
    "paths": lambda pictures, folder: sorted(folder.glob("*.png")),
    "names": lambda pictures, folder: [str(path) for path in sorted(folder.glob("*.png"))],
    "column of a table": lambda pictures, folder: pd.Series(sorted(folder.glob("*.png"))),
    "array of names": lambda pictures, folder: np.array(sorted(map(str, folder.glob("*.png")))),
    "folder": lambda pictures, folder: folder,
    "mixed": lambda pictures, folder: [pictures[0], folder / "b.png", Image.open(folder / "c.png")],
}


@pytest.mark.graph  # these tests share one compiled search
@pytest.mark.parametrize("kind", MANY)
def test_many_pictures_give_a_list(captioner, pictures, folder, expected, sentences, kind):
    assert captioner.generate(MANY[kind](pictures, folder)) == sentences
    captions = captioner.caption(MANY[kind](pictures, folder))
    assert [caption.text for caption in captions] == expected


ONE = {
    "array": lambda picture, folder: picture,
    "tensor": lambda picture, folder: keras.ops.convert_to_tensor(picture),
    "PIL": lambda picture, folder: Image.fromarray(picture),
    "path": lambda picture, folder: folder / "a.png",
    "name": lambda picture, folder: str(folder / "a.png"),
}


@pytest.mark.graph
@pytest.mark.parametrize("kind", ONE)
def test_one_picture_gives_one_sentence(captioner, pictures, folder, expected, sentences, kind):
    one = ONE[kind](pictures[0], folder)
    assert captioner.generate(one) == sentences[0]
    caption = captioner.caption(one)
    assert (caption.text, str(caption)) == (expected[0], sentences[0])


@pytest.mark.graph
def test_batches_are_many_pictures(captioner, pictures, sentences):
    batch = np.stack([pictures[0], pictures[0]])
    assert captioner.generate(batch) == [sentences[0]] * 2
    assert captioner.generate(as_dataset(batch)) == [sentences[0]] * 2
    assert captioner.generate([]) == captioner.generate(batch[:0]) == []


def test_many_pictures_are_searched_batch_by_batch(captioner, pictures, sentences, monkeypatch):
    monkeypatch.setattr("sat_keras.captioning.model.BATCH_SIZE", 2)
    assert captioner.generate(pictures) == sentences


def test_annotation_vectors_give_sentences_too(captioner, pictures, sentences):
    annotations = captioner.annotate({"images": pictures[0][None]})
    assert captioner.generate(annotations=annotations) == sentences[:1]


@pytest.mark.parametrize(
    ("images", "kind", "named"),
    [
        ("gone.jpg", FileNotFoundError, r"gone\.jpg"),
        (["gone.jpg"], FileNotFoundError, r"gone\.jpg"),
        (7, ValueError, "Received: int"),
        ({"images": 1}, ValueError, "Received: dict"),
        (np.zeros((4, 4)), ValueError, r"shape \(4, 4\)"),
        (np.full((4, 4, 3), 0.5), ValueError, "multiply floats of 0 to 1 by 255"),
        ([np.full((4, 4, 3), -1)], ValueError, "values from -1"),
        (np.zeros((2, 16, 128), "float32"), ValueError, r"shape \(2, 16, 128\)"),
    ],
)
def test_what_is_no_picture_is_named(captioner, images, kind, named):
    with pytest.raises(kind, match=named):
        captioner.generate(images)


def test_a_folder_without_pictures_is_named(captioner, tmp_path):
    with pytest.raises(ValueError, match=f"folder with pictures.*{tmp_path.name}"):
        captioner.generate(tmp_path)


@pytest.fixture
def server(folder):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.graph
def test_addresses(captioner, server, sentences):
    assert captioner.generate(f"{server}/a.png") == sentences[0]
    assert captioner.generate([f"{server}/{name}.png" for name in "abc"]) == sentences


def test_addresses_that_cannot_be_read(captioner, server):
    with pytest.raises(ConnectionError, match=r"File not found.*save the picture.*gone\.png"):
        captioner.generate(f"{server}/gone.png")
    with pytest.raises(ValueError, match=rf"not a picture.*{server}/notes\.txt"):
        captioner.generate(f"{server}/notes.txt")
    with pytest.raises(ConnectionError, match=r"refused.*Received: 'http://127\.0\.0\.1:9/a\.jpg'"):
        captioner.generate("http://127.0.0.1:9/a.jpg")


# The n best


def test_the_best_captions_are_those_of_the_search(captioner, pictures):
    annotations = captioner.annotate({"images": np.stack([pictures[0]] * 2)})
    found = captioner.search(annotations, num_results=3)
    texts = [
        [as_sentence(text) for text in best]
        for best in captioner.tokenizer.detokenize(found.token_ids)
    ]
    assert captioner.generate([pictures[0]] * 2, num_results=3) == texts
    assert captioner.generate(pictures[0], num_results=3) == texts[0]
    assert captioner.generate(pictures[0], num_results=1) == texts[0][:1]
    captions = captioner.caption(pictures[0], num_results=3)
    np.testing.assert_allclose(
        [caption.log_probability for caption in captions],
        keras.ops.convert_to_numpy(found.log_probability)[0],
        rtol=1e-5,
    )
    weights = keras.ops.convert_to_numpy(found.record["attention_weights"])[0]
    for caption, maps in zip(captions, weights, strict=True):
        flat = caption.attention.reshape(len(caption.words), -1)
        np.testing.assert_allclose(flat, maps[: len(caption.words)], atol=1e-6)


def test_the_search_of_the_n_best_is_compiled_once(captioner, pictures):
    captioner.generate(pictures[0], num_results=2)
    searches = dict(captioner.searches.by_options)
    captioner.generate(pictures[1], num_results=2)
    assert captioner.searches.by_options == searches


def test_captions_that_are_not_there_are_left_out():
    """With one word and at most one of them there are two captions, the empty one included."""
    config = CONFIG.replace(max_length=1)
    captioner = Captioner(config, Tokenizer.from_captions(["dog"]))
    annotations = np.zeros((2, config.num_regions, config.feature_dim), "float32")
    found = CaptionSearch(captioner, num_results=3).predict({"annotations": annotations}, verbose=0)
    assert found["token_ids"].shape == (2, 3, 2)
    texts = captioner.generate(annotations=annotations, num_results=3)
    assert [sorted(x) for x in texts] == [["", "Dog."]] * 2


def test_more_captions_than_beams_are_refused(captioner, pictures):
    with pytest.raises(ValueError, match=r"num_results.*4"):
        captioner.generate(pictures[0], num_results=4)


# What one sees


def test_a_caption_brings_its_picture(captioner, pictures):
    caption = captioner.caption(pictures[1])
    np.testing.assert_array_equal(caption.image, pictures[1])
    assert caption.seen == (0, 0, 31, 20)
    page = caption._repr_html_()
    assert caption.sentence in page
    assert page.count('class="sat-attention"') == 1
    assert "attention=" not in repr(caption)
    assert caption_html(caption).startswith(page[: page.index("<figure")])
    annotations = captioner.annotate({"images": pictures[0][None]})
    without = captioner.caption(annotations=annotations)[0]
    assert without.image is None
    assert without._repr_html_() == caption_html(without)
    assert Caption("a", ["a"], np.ones((1, 1, 1)), np.ones(1), -1.0).seen is None


@pytest.mark.parametrize("size", [(100, 200), (1000, 700), (480, 333), (31, 961)])
def test_a_reduced_picture_is_drawn_as_the_whole_one(size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype="uint8")
    seen = (0.2 * size[1], 0.1 * size[0], size[1], 0.9 * size[0])
    image, box = reduce_picture(photo, seen)
    assert max(image.shape) <= 480
    ours, theirs = fit_picture(image, box), fit_picture(photo, seen)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-9)


# Keras's own words


@pytest.mark.parametrize(
    "x", [np.zeros((1, 16, 16, 3)), "photo.jpg", Path("photo.jpg"), ["photo.jpg"], {"images": []}]
)
def test_predict_on_photos_names_generate(captioner, x):
    with pytest.raises(ValueError, match="use `generate` or `caption`. Received: "):
        captioner.predict(x)


def test_predict_computes_logits_of_given_words(captioner, pictures):
    x = {"images": pictures[0][None], "token_ids": np.ones((1, 2, 3), "int32")}
    assert captioner.predict(x, verbose=0)["logits"].shape[:3] == (1, 2, 3)
