"""BLEU by the authors' protocol: raw tokens, sentences written as the references are."""

import numpy as np
import pytest

from sat_keras.evaluation import compare_results, corpus_bleu, score_captions, score_pictures
from sat_keras.evaluation.written import Style, style_of, written_tokens

pytestmark = pytest.mark.usefixtures("no_java")

SENTENCES = Style(capital=True, full_stop=True)


@pytest.mark.parametrize(
    ("caption", "tokens"),
    {
        "a dog 's bone": "A dog 's bone .",
        "a dog .": "A dog .",
        "A Dog runs.": "A Dog runs .",
        "two dogs!": "Two dogs!",
        "is it a dog ?": "Is it a dog ?",
        "éclairs": "Éclairs .",
        ".": "",
        "": "",
        "  ": "",
        "<unk> dog": "<unk> dog .",
    }.items(),
)
def test_decoded_words_become_a_sentence(caption, tokens):
    assert written_tokens(caption, SENTENCES) == tokens.split()


def test_references_stay_as_they_are():
    assert written_tokens("a Dog , running .") == ["a", "Dog", ",", "running", "."]
    assert written_tokens("a Dog, running.") == ["a", "Dog,", "running", "."]
    assert written_tokens("a dog", Style(False, False)) == ["a", "dog"]


@pytest.mark.parametrize(
    ("captions", "style"),
    [
        (["A dog .", "A cat.", "a bird"], (True, True)),
        (["A dog", "The cat", "a bird ."], (True, False)),
        (["a dog .", "a cat ."], (False, True)),
        (["A dog .", "a cat"], (False, False)),  # half is not most
        (["कुत्ता दौड़ता है।"], (False, False)),
        (["", " "], (False, False)),
        ([], (False, False)),
    ],
)
def test_style_is_that_of_most_captions(captions, style):
    assert style_of(captions) == style


REFERENCES = {
    "1.jpg": ["A dog runs on the beach .", "The dog is running ."],
    "2.jpg": ["Two boys play football .", "Boys with a ball ."],
}


def test_bleu_of_written_captions_by_hand():
    # "A dog sits ." has 3 of 4 tokens and 1 of 3 pairs, "Two boys play ." 4 of 4 and 2 of 3.
    scores = score_captions({"1.jpg": "a dog sits", "2.jpg": "two boys play"}, REFERENCES)
    assert scores["paper"]["bleu1"] == pytest.approx(100 * 7 / 8)
    assert scores["paper"]["bleu2"] == pytest.approx(100 * np.sqrt(7 / 8 * 3 / 6))
    assert scores["coco"]["bleu1"] == pytest.approx(100 * 5 / 6 * np.exp(1 - 8 / 6), rel=1e-6)


def test_words_and_sentences_score_alike():
    words = {"1.jpg": "a dog sits", "2.jpg": "two boys play"}
    sentences = {"1.jpg": "A dog sits.", "2.jpg": "Two boys play ."}
    assert score_captions(words, REFERENCES) == score_captions(sentences, REFERENCES)


def test_capitals_count():
    kept = score_captions({"1.jpg": "A Dog sits .", "2.jpg": "Two boys play ."}, REFERENCES)
    assert kept["paper"]["bleu1"] == pytest.approx(100 * 6 / 8)


def test_raw_tokens_are_compared_without_brevity_penalty():
    candidates = {"1.jpg": "A dog 's beach .", "2.jpg": "Boys , two , football ."}
    scores = score_captions(candidates, REFERENCES)["paper"]
    tokens = [candidates[i].split() for i in candidates]
    truths = [[caption.split() for caption in REFERENCES[i]] for i in candidates]
    expected = corpus_bleu(tokens, truths, brevity_penalty=False)
    assert [scores[f"bleu{n}"] for n in range(1, 5)] == pytest.approx(expected)


def test_results_of_the_older_definition_are_not_compared_by_it():
    scored = score_pictures({"1.jpg": "a dog sits", "2.jpg": "two boys play"}, REFERENCES)
    new = {"scores": {}, "references": "x", "picture_scores": scored.encode()}
    del scored.statistics["written_bleu"]
    old = {**new, "picture_scores": scored.encode(), "file": "old.json"}
    names = [name for _, name in scored.keys(["paper"])]
    assert names == ["rouge_l", "cider"]
    assert compare_results([new], [old], samples=10)["bleu1"].difference == 0
    with pytest.raises(ValueError, match=r"evaluate again.*Received: an older .* old\.json"):
        compare_results([new], [old], "paper", samples=10)
