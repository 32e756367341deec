"""Words as coco-caption has them, ids and back."""

import copy
import json
import pickle
import shutil
import string
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from sat_keras.data.tokenizer import (
    END_ID,
    PAD_ID,
    SPECIAL_TOKENS,
    START_ID,
    UNK_ID,
    Tokenizer,
    normalize,
)

CAPTIONS = ["A dog runs.", "A dog jumps over a log!", "The dog's bone isn't here."]
# `a` and `dog` (with its clitic) occur 3 times, `'s` .. `the` once.
WORDS = ["a", "dog", "'s", "bone", "here", "is", "jumps", "log", "n't", "over", "runs", "the"]

# Recorded from pycocoevalcap 1.2's PTBTokenizer.
COCO_CAPTION = {
    "A dog's t-shirt isn't on the man's bike.": "a dog 's t-shirt is n't on the man 's bike",
    "don't can't won't they're": "do n't ca n't wo n't they 're",
    "cannot gonna wanna": "can not gon na wan na",
    "I'll we've he'd gimme lemme gotta": "i 'll we 've he 'd gim me lem me got ta",
    "wouldn't've": "would n't 've",
    "dogs' toys": "dogs toys",
    "rock 'n' roll 'em in the '90s": "rock 'n' roll 'em in the '90s",
    "“smart” ‘single’ don’t dog’s – — … é café": "smart single do n't dog 's é café",
    "black-and-white ice-cream, x-games 2-3": "black-and-white ice-cream x-games 2-3",
    "it's 'quoted' \"double\" `back`": "it 's quoted double back",
    "O'Brien at ten o'clock": "o'brien at ten o'clock",
    "a dog - running -- fast --- slow": "a dog running fast slow",
    "sun-and-surf. A red-,blue; dogs: cats! what?": "sun-and-surf a red blue dogs cats what",
    "$5 50% 3:45 1,000 1/2 # 1 a & b and/or": "$ 5 50 % 3:45 1,000 1/2 # 1 a & b and/or",
    "the U.S. team of Mr. Smith Jr. at 5 p.m. on": "the u.s. team of mr. smith jr. at 5 p.m. on",
    "An ant 's-eye-view it ' s": "an ant 's eye-view it s",
}

text = st.one_of(
    st.text(),
    st.text("abnts'-.,:/_& 01é", max_size=12),
    st.lists(st.sampled_from(["dog", "n't", "'s", "u.s.", "can", "not", "'", "-", " "])).map(
        "".join
    ),
)
word = st.text(string.ascii_lowercase, min_size=1, max_size=8)


def coco_words(captions):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenized = PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(captions)})
    return [tokenized[i][0] for i in range(len(captions))]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_captions(CAPTIONS)


@pytest.mark.parametrize(("caption", "words"), COCO_CAPTION.items())
def test_normalize_gives_coco_caption_words(caption, words):
    assert normalize(caption) == words


@pytest.mark.skipif(shutil.which("java") is None, reason="coco-caption's tokenizer needs Java")
def test_recorded_words_are_those_of_the_java_tokenizer():
    assert coco_words(list(COCO_CAPTION)) == list(COCO_CAPTION.values())


@pytest.mark.skipif(shutil.which("java") is None, reason="coco-caption's tokenizer needs Java")
def test_flickr8k_has_coco_caption_words(shared):
    archive = shared / "flickr8k" / "Flickr8k_text.zip"
    if not archive.is_file():
        pytest.skip(f"needs Flickr8k's captions: no file {archive}")
    with zipfile.ZipFile(archive) as files:
        lines = files.read("Flickr8k.token.txt").decode("utf-8").splitlines()
    captions = [line.split("\t")[1] for line in lines if "(" not in line]
    differing = sum(a != b for a, b in zip(normalize(captions), coco_words(captions), strict=True))
    assert differing <= 6


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a man (in red) [blue] {green} <end>", "a man in red blue green end"),
        ("ﬁsh Ｆull ½ STRASSE straße", "fish full 1/2 strasse strasse"),
        ("e\u0301 \u00e9 don´t", "é é do n't"),
        ("a 😀 smile ❤️ x", "a smile x"),
        ("tab\there\u00a0and\u2003there\n", "tab here and there"),
        ("zero\u200bwidth\x00nul", "zerowidth nul"),
        ("\ue000.a\ue001b", "a b"),
        ("", ""),
        (" .,!? ", ""),
    ],
)
def test_normalize_beyond_coco_caption(caption, words):
    assert normalize(caption) == words


@given(text)
def test_normalize_is_idempotent_and_single_spaced(caption):
    once = normalize(caption)
    assert normalize(once) == once
    assert once.split(" ") == once.split() or once == ""


@given(st.lists(st.binary(max_size=20)))
def test_any_bytes_are_tokenized(captions):
    ids = Tokenizer.from_captions(CAPTIONS)(tf.constant(captions, tf.string)).to_list()
    assert len(ids) == len(captions)


def test_normalize_keeps_the_kind_of_its_argument():
    assert normalize(["A", "B"]) == ["a", "b"]
    assert normalize(iter(["A", "B"])) == ["a", "b"]
    assert normalize([]) == []
    matrix = normalize(tf.constant([["A", "B."]]))
    np.testing.assert_array_equal(matrix, [[b"a", b"b"]])
    assert normalize(tf.ragged.constant([["A"], []])).to_list() == [[b"a"], []]


def test_lone_surrogate_and_very_long_captions():
    assert normalize("a \ud800 dog") == "a dog"
    assert normalize("Dog " * 50_000) == " ".join(["dog"] * 50_000)
    assert normalize("x" * 200_000) == "x" * 200_000


def test_special_ids():
    assert [SPECIAL_TOKENS[i] for i in (PAD_ID, UNK_ID, START_ID, END_ID)] == [
        "",
        "<unk>",
        "<start>",
        "<end>",
    ]


def test_vocabulary_is_by_falling_frequency_then_alphabet(tokenizer):
    assert tokenizer.get_vocabulary() == [*SPECIAL_TOKENS, *WORDS]
    assert tokenizer.vocabulary_size == 16


@pytest.mark.parametrize(
    ("caption", "words"),
    {
        "A dog runs.": "a dog runs .",
        "A dog runs . ": "a dog runs .",
        "A dog, running": "a dog running",
        'He says "stop."': "he says stop .",
        "(A dog.)": "a dog .",
        "A dog... runs!": "a dog runs",
        "In the U.S.": "in the u.s. .",
        "Version 1.5": "version 1.5",
        ".": "",
        "": "",
    }.items(),
)
def test_a_final_full_stop_is_a_word_if_wanted(caption, words):
    assert normalize(caption, full_stop=True) == words
    assert normalize(words, full_stop=True) == words
    assert normalize(caption) == words.removesuffix(" .")


def test_a_tokenizer_with_full_stops():
    tokenizer = Tokenizer.from_captions(["A dog runs.", "A cat ."], full_stop=True)
    assert tokenizer.get_vocabulary()[4:] == [".", "a", "cat", "dog", "runs"]
    assert tokenizer.detokenize(tokenizer(["A cat.", "a dog"])) == ["a cat .", "a dog"]
    assert tokenizer.normalize("A bird.") == "a bird ."
    assert tokenizer != Tokenizer(tokenizer.vocabulary)
    for copied in (pickle.loads(pickle.dumps(tokenizer)), tokenizer.extended(["a bird ."])):
        assert copied.full_stop
    assert Tokenizer.from_config(tokenizer.get_config()) == tokenizer
    old = {"vocabulary": tokenizer.get_vocabulary()}  # of a version without the option
    assert not Tokenizer.from_config(old).full_stop


def test_vocabulary_bounds():
    assert Tokenizer.from_captions(CAPTIONS, min_count=2).get_vocabulary()[4:] == ["a", "dog"]
    assert Tokenizer.from_captions(CAPTIONS, vocabulary_size=5).get_vocabulary()[4:] == ["a"]
    assert Tokenizer.from_captions(CAPTIONS, vocabulary_size=99).vocabulary_size == 16


def test_ids_of_captions(tokenizer):
    ids = tokenizer(["A dog", "", "unseen dog's"])
    assert ids.dtype == tf.int32
    assert ids.to_list() == [[2, 4, 5, 3], [2, 3], [2, 1, 5, 6, 3]]
    np.testing.assert_array_equal(tokenizer("A dog"), [2, 4, 5, 3])
    assert tokenizer(tf.constant([["a"], ["dog"]])).to_list() == [[[2, 4, 3]], [[2, 5, 3]]]
    assert tokenizer([]).to_list() == []


def test_no_caption_can_smuggle_in_a_special_token(tokenizer):
    (ids,) = tokenizer(["<end> a <start> <unk>"]).to_list()
    assert ids == [START_ID, UNK_ID, 4, UNK_ID, UNK_ID, END_ID]


@given(st.lists(text, min_size=1))
def test_ids_in_range_between_start_and_end(captions):
    tokenizer = Tokenizer.from_captions(CAPTIONS)
    for ids in tokenizer(captions).to_list():
        assert ids[0] == START_ID
        assert ids[-1] == END_ID
        assert all(i == UNK_ID or END_ID < i < tokenizer.vocabulary_size for i in ids[1:-1])


@given(st.lists(st.lists(word, max_size=6).map(" ".join), min_size=1, max_size=4))
def test_round_trip_of_words_in_the_vocabulary(captions):
    tokenizer = Tokenizer.from_captions(captions)
    assert tokenizer.detokenize(tokenizer(captions)) == normalize(captions)


def test_detokenize_kinds_and_shapes(tokenizer):
    assert tokenizer.detokenize([2, 4, 5, 3, 5, 0]) == "a dog"
    assert tokenizer.detokenize([[4, 3], [0, 0, 5]]) == ["a", "dog"]
    assert tokenizer.detokenize(np.array([[[4, 3], [1, 5]]])) == [["a", "<unk> dog"]]
    assert tokenizer.detokenize(keras.ops.convert_to_tensor([[4, 3]])) == ["a"]
    assert tokenizer.detokenize([]) == ""
    assert tokenizer.detokenize(np.zeros((0, 4), "int32")) == []


@pytest.mark.parametrize("ids", [[4, 16], [-1], [0.5]])
def test_detokenize_names_bad_ids(tokenizer, ids):
    with pytest.raises(ValueError, match="Token ids must .* Received: "):
        tokenizer.detokenize(ids)


def test_the_same_ids_inside_tf_data():
    fresh = Tokenizer.from_captions(CAPTIONS)  # its table is made while a graph is traced
    mapped = tf.data.Dataset.from_tensor_slices(CAPTIONS).map(fresh)
    assert [ids.numpy().tolist() for ids in mapped] == fresh(CAPTIONS).to_list()
    batched = tf.data.Dataset.from_tensors(CAPTIONS).map(fresh)
    assert next(iter(batched)).to_list() == fresh(CAPTIONS).to_list()


def test_copies_are_equal(tokenizer):
    tokenizer("fills the table")
    config = json.loads(json.dumps(tokenizer.get_config()))
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(tokenizer)))
    copies = [
        Tokenizer.from_config(config),
        keras.saving.deserialize_keras_object(serialized),
        pickle.loads(pickle.dumps(tokenizer)),
        copy.deepcopy(tokenizer),
    ]
    for other in copies:
        assert other == tokenizer
        assert hash(other) == hash(tokenizer)
        assert other("a dog").numpy().tolist() == [2, 4, 5, 3]
    assert tokenizer != Tokenizer.from_captions(["another"])


def test_a_tokenizer_never_changes(tokenizer):
    with pytest.raises(AttributeError):
        tokenizer.vocabulary = ()
    tokenizer.get_vocabulary().append("x")
    tokenizer.get_config()["vocabulary"].append("x")
    assert tokenizer.vocabulary_size == 16
    vocabulary = [*SPECIAL_TOKENS, "a"]
    mine = Tokenizer(vocabulary)
    vocabulary.append("b")
    assert mine.vocabulary_size == 5


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ("abcd", "sequence of strings"),
        ({"a": 0}, "sequence of strings"),
        ([], "special tokens"),
        (["a", "b"], "special tokens"),
        ([*SPECIAL_TOKENS[::-1], "a"], "special tokens"),
        ([*SPECIAL_TOKENS, 7], "7 .int. at id 4"),
        ([*SPECIAL_TOKENS, None], "must be a string"),
        ([*SPECIAL_TOKENS, "a", "b", "a"], "'a' 2 times"),
        ([*SPECIAL_TOKENS, "two words"], "without blanks"),
        ([*SPECIAL_TOKENS, "a", ""], "without blanks"),
    ],
)
def test_bad_vocabularies_are_named(vocabulary, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(vocabulary)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"captions": []}, "no captions"),
        ({"captions": ["a", float("nan")]}, "nan .float. at position 1"),
        ({"captions": ["a"], "vocabulary_size": 4}, "vocabulary_size=4"),
        ({"captions": ["a"], "min_count": 0}, "min_count=0"),
    ],
)
def test_bad_captions_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_captions(**arguments)


def test_without_tensorflow_text_ids_still_become_words(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(ImportError, match=r"pip install tensorflow-text.*WSL.*Received: "):
        tokenizer(["a dog"])
    assert Tokenizer(tokenizer.get_vocabulary()).detokenize([4, 5, 3]) == "a dog"


@pytest.mark.integration
def test_importing_and_detokenizing_need_no_tensorflow(repository):
    program = (
        "import sys, keras; sys.modules.update(tensorflow=None, tensorflow_text=None)\n"
        "from sat_keras.data.tokenizer import SPECIAL_TOKENS, Tokenizer\n"
        "print(Tokenizer([*SPECIAL_TOKENS, 'a']).detokenize([[2, 4, 3]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True
    )
    assert done.stdout.strip() == "['a']", done.stderr
