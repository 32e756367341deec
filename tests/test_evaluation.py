"""Scores against pycocoevalcap and cases computed by hand."""

import functools
import math
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sat_keras.evaluation.metrics import cider, corpus_bleu, rouge_l
from sat_keras.evaluation.scores import (
    available_metrics,
    caption_statistics,
    references_digest,
    score_captions,
    score_pictures,
)
from sat_keras.evaluation.tokens import ptb_tokenize

needs_java = pytest.mark.skipif(
    shutil.which("java") is None, reason="the toolkit's tokenizer needs Java"
)

REFERENCES = {
    "1.jpg": ["A dog runs on the beach.", "The dog is running."],
    "2.jpg": ["Two boys play football.", "Boys with a ball."],
}
LOWER = {i: [" ".join(ptb_tokenize(x)) for x in texts] for i, texts in REFERENCES.items()}
CANDIDATES = {"1.jpg": "a dog runs", "2.jpg": "two boys play football"}


def toolkit_scores(candidates, references):
    """BLEU-1 to -4 in percent, CIDEr-D and ROUGE-L per picture by pycocoevalcap, of tokens."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    results = {i: [" ".join(tokens)] for i, tokens in enumerate(candidates)}
    truths = {i: [" ".join(tokens) for tokens in r] for i, r in enumerate(references)}
    bleu, _ = Bleu(4).compute_score(truths, results, verbose=0)
    _, cider_scores = Cider().compute_score(truths, results)
    _, rouge_scores = Rouge().compute_score(truths, results)
    return 100 * np.array(bleu), cider_scores, 100 * rouge_scores


captions = st.lists(st.sampled_from("abcde"), max_size=9)
pictures = st.tuples(captions, st.lists(captions, min_size=1, max_size=4))


@settings(max_examples=50)
@given(st.lists(pictures, min_size=1, max_size=6))
def test_equal_to_the_toolkit_on_random_corpora(corpus):
    assume(any(any(references) for _, references in corpus))  # or the toolkit crashes
    candidates, references = zip(*corpus, strict=True)
    bleu, cider_scores, rouge_scores = toolkit_scores(candidates, references)
    np.testing.assert_allclose(corpus_bleu(candidates, references), bleu, atol=1e-6)
    np.testing.assert_allclose(cider(candidates, references), cider_scores, atol=1e-6)
    # In the toolkit two empty captions have one word in common, the empty string.
    rouge_scores = np.where([bool(tokens) for tokens in candidates], rouge_scores, 0)
    np.testing.assert_allclose(rouge_l(candidates, references), rouge_scores, atol=1e-6)


@functools.cache
def flickr8k_captions(folder):
    """Captions of all pictures by file name, and the names of the dev split."""
    with zipfile.ZipFile(folder / "Flickr8k_text.zip") as archive:
        lines = archive.read("Flickr8k.token.txt").decode().splitlines()
        dev = archive.read("Flickr_8k.devImages.txt").decode().split()
    table = {}
    for line in lines:
        key, caption = line.split("\t")
        table.setdefault(key.split("#")[0], []).append(caption)
    return table, dev


def test_equal_to_the_toolkit_on_flickr8k(flickr8k_text):
    table, dev = flickr8k_captions(flickr8k_text)
    candidates = {name: table[name][0] for name in dev}
    references = {name: table[name][1:] for name in dev}
    scores = score_captions(candidates, references)
    tokens = [ptb_tokenize(caption) for caption in candidates.values()]
    reference_tokens = [[ptb_tokenize(c) for c in references[name]] for name in dev]
    bleu, cider_scores, rouge_scores = toolkit_scores(tokens, reference_tokens)
    ours = [scores["coco"][f"bleu{n}"] for n in range(1, 5)]
    np.testing.assert_allclose(ours, bleu, atol=1e-6)
    assert scores["coco"]["cider"] == pytest.approx(np.mean(cider_scores), abs=1e-6)
    assert scores["coco"]["rouge_l"] == pytest.approx(np.mean(rouge_scores), abs=1e-6)
    assert 15 < scores["coco"]["bleu4"] < 30  # what people reach against each other


@needs_java
def test_tokens_equal_to_the_toolkit_on_flickr8k(flickr8k_text):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    table, _ = flickr8k_captions(flickr8k_text)
    lines = [caption for picture in table.values() for caption in picture]
    theirs = PTBTokenizer().tokenize({i: [{"caption": line}] for i, line in enumerate(lines)})
    differing = [
        (line, theirs[i][0])
        for i, line in enumerate(lines)
        if ptb_tokenize(line) != theirs[i][0].split()
    ]
    assert len(lines) == 40460
    assert differing == []


# Tokens of Stanford's tokenizer without the toolkit's list of punctuation.
TOKENS = {
    "A dog runs.": "a dog runs",
    "  A dog ,  a cat ;and:more  ": "a dog a cat and more",
    "The man's dog, the dogs' bowls": "the man 's dog the dogs bowls",
    "It isn't, can't, won't, CAN'T": "it is n't ca n't wo n't ca n't",
    "I'm sure they're what we've seen, he'd say": "i 'm sure they 're what we 've seen he 'd say",
    "he’d’ve gone": "he 'd 've gone",
    "we cannot, gonna, wanna": "we can not gon na wan na",
    "five o'clock, O'Brien, ma'am": "five o'clock o'brien ma'am",
    "rock 'n' roll of the '50s, 1950's": "rock 'n' roll of the '50s 1950 's",
    "a sign reads \"STOP\", or 'stop'.": "a sign reads stop or stop",
    "“curly” ‘quotes’": "curly quotes",
    "a half-eaten four-year-old's t-shirt": "a half-eaten four-year-old 's t-shirt",
    "wait - no -- really... no — never": "wait no really no never",
    "a cat (black) [sic]": "a cat -lrb- black -rrb- -lsb- sic -rsb-",
    "Mr. Smith of St. Louis in the U.S.": "mr. smith of st. louis in the u.s.",
    "vitamin C. And the letter b.": "vitamin c. and the letter b.",
    "boat no. 7, there is no. But": "boat no. 7 there is no but",
    "at 3:30 or 12:00pm": "at 3:30 or 12:00 pm",
    "1,000 pieces, 3.5 stars, 1/2 pizza, 2x4": "1,000 pieces 3.5 stars 1/2 pizza 2x4",
    "$5.00, 50%, #3, a 10-speed": "$ 5.00 50 % # 3 a 10-speed",
    "R&B at AT&T & co": "r&b at at&t & co",
    "and/or w/ cheese": "and/or w / cheese",
    "What?! Wow!! Oh!": "what ?! wow !! oh",
    "one sentence.Another one": "one sentence.another one",
    "visit www.example.com.": "visit www.example.com",
    "café naïve": "café naïve",
    "a <unk> of <unk>": "a <unk> of <unk>",
    "": "",
    " . ": "",
    "\t\n": "",
}


@pytest.mark.parametrize("text", TOKENS)
def test_tokens_of_tricky_captions(text):
    assert ptb_tokenize(text) == TOKENS[text].split()


@needs_java
def test_table_of_tricky_captions_is_right():
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = [text for text in TOKENS if text.strip()]
    theirs = PTBTokenizer().tokenize({i: [{"caption": line}] for i, line in enumerate(lines)})
    for i, line in enumerate(lines):
        assert theirs[i][0].split() == TOKENS[line].split()


@given(st.text())
def test_any_text_has_lower_case_tokens(text):
    tokens = ptb_tokenize(text)
    assert all(token and token == token.strip() for token in tokens)
    assert not {".", ",", "'", '"', "!", "?", "-", ":", ";"} & set(tokens)


def test_bleu_by_hand():
    # 7 of 7 words, 5 of 5 pairs, 3 of 3 triples and 1 of 1; 7 words against 4 + 4.
    scores = score_captions(CANDIDATES, LOWER)
    for n in range(1, 5):
        assert scores["coco"][f"bleu{n}"] == pytest.approx(100 * math.exp(1 - 8 / 7), abs=1e-4)
        assert scores["paper"][f"bleu{n}"] == pytest.approx(100, abs=1e-4)


def test_bleu_clips_repeated_words():
    bleu = corpus_bleu([["the"] * 7], [[["the", "cat", "the"], ["a", "the"]]])
    assert bleu[0] == pytest.approx(100 * 2 / 7)
    assert bleu[1] == pytest.approx(0, abs=1e-3)


def test_bleu_takes_the_closest_reference_and_the_shorter_of_two():
    words = "abcdefgh"
    references = [[words[:2], words[:6]]]
    assert corpus_bleu([words[:4]], references)[0] == pytest.approx(100)  # 2 words, not 6
    references = [[words[:1], words[:5]]]
    assert corpus_bleu([words[:4]], references)[0] == pytest.approx(100 * math.exp(1 - 5 / 4))


def test_protocols_differ_in_the_brevity_penalty_only_where_captions_have_no_case_and_marks():
    long = {"1.jpg": "a dog runs on the beach today", "2.jpg": "two boys play football again"}
    scores = score_captions(long, LOWER)
    assert scores["coco"] == scores["paper"]
    short = score_captions(CANDIDATES, LOWER)
    assert short["coco"]["bleu4"] < short["paper"]["bleu4"]
    assert short["coco"]["cider"] == short["paper"]["cider"]
    assert list(score_captions(long, REFERENCES, protocols=["paper"])) == ["paper"]


def test_cider_prefers_rare_words_and_the_references_themselves():
    tokens = {name: [ptb_tokenize(c) for c in refs] for name, refs in REFERENCES.items()}
    references = list(tokens.values())
    same = cider([references[0][0], references[1][0]], references)
    other = cider([references[1][0], references[0][0]], references)
    assert (same > 2).all()
    assert (other < 0.1).all()
    # Every picture says "a", one says "zebra".
    references = [[["a", "zebra"]], [["a", "cat"]], [["a", "dog"]]]
    common, rare = (cider([[w], ["x"], ["x"]], references)[0] for w in ("a", "zebra"))
    assert common == 0
    assert rare > 1


def test_rouge_l_by_hand():
    # The first has "a dog on sand" of the candidate's 5 words, the second is all in it.
    candidate = ["a", "dog", "runs", "on", "sand"]
    references = [["a", "white", "dog", "on", "the", "sand"], ["a", "dog", "sand"]]
    precision, recall = 4 / 5, 3 / 3
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    np.testing.assert_allclose(rouge_l([candidate], [references]), [100 * expected])
    # The order of words counts, so that only one of them is in common.
    assert rouge_l([["a", "b"]], [[["b", "a"]]])[0] == pytest.approx(50)


def test_perfect_captions():
    references = {"1": ["a dog runs on sand"], "2": ["two boys play at home"]}
    scores = score_captions({k: v[0] for k, v in references.items()}, references)["coco"]
    assert scores["bleu4"] == pytest.approx(100)
    assert scores["rouge_l"] == pytest.approx(100)
    assert scores["cider"] == pytest.approx(10)


@pytest.mark.parametrize("caption", ["", " ", ".", "''"])
def test_empty_candidates_score_0(caption):
    scores = score_captions(dict.fromkeys(REFERENCES, caption), REFERENCES)
    assert {value for protocol in scores.values() for value in protocol.values()} == {0.0}
    one_empty = score_captions({**CANDIDATES, "1.jpg": caption}, REFERENCES)
    assert 0 < one_empty["coco"]["bleu4"] < score_captions(CANDIDATES, REFERENCES)["coco"]["bleu4"]


def test_order_and_pairs_do_not_matter():
    expected = score_captions(CANDIDATES, REFERENCES)
    assert score_captions(reversed(CANDIDATES.items()), REFERENCES) == expected


@pytest.mark.parametrize(
    ("candidates", "references", "received"),
    [
        ({}, REFERENCES, "none"),
        ({**CANDIDATES, "8.jpg": "a", "9.jpg": "a"}, REFERENCES, "2 .*without ref.*'8.jpg'"),
        ({"2.jpg": "boys"}, REFERENCES, "1 .*without a candidate.*'1.jpg'"),
        (CANDIDATES, {**REFERENCES, "2.jpg": []}, "1 .*empty list.*'2.jpg'"),
        (CANDIDATES, {"1.jpg": "a dog", "2.jpg": "two"}, "2 .*a string.*'1.jpg'"),
        ([("1.jpg", "a"), ("2.jpg", "b"), ("1.jpg", "c")], REFERENCES, "1 .*once.*'1.jpg'"),
    ],
)
def test_bad_candidates_and_references(candidates, references, received):
    with pytest.raises(ValueError, match=f"(?s)must .* Received: {received}"):
        score_captions(candidates, references)


def test_unknown_protocols_and_metrics():
    with pytest.raises(ValueError, match="`protocols` must be .* Received: 'meteor'"):
        score_captions(CANDIDATES, REFERENCES, protocols=["coco", "meteor"])
    with pytest.raises(ValueError, match="`metrics` must be .* Received: 'rouge'"):
        score_captions(CANDIDATES, REFERENCES, metrics=["cider", "rouge"])
    with pytest.raises(ValueError, match=r"`metrics` must be .* Received: \[\]"):
        score_captions(CANDIDATES, REFERENCES, metrics=[])


def test_metrics_are_scored_as_asked_for():
    scores = score_captions(CANDIDATES, REFERENCES, metrics=["cider", "bleu"])["coco"]
    assert list(scores) == ["bleu1", "bleu2", "bleu3", "bleu4", "cider"]
    assert scores == {n: score_captions(CANDIDATES, REFERENCES)["coco"][n] for n in scores}


def test_what_does_not_run_here_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    names, reasons = available_metrics()
    assert names == ("bleu", "rouge_l", "cider")
    assert [reason.split()[0] for reason in reasons] == ["METEOR", "SPICE"]


def test_pictures_are_in_the_order_of_their_names():
    pictures = score_pictures({2: "two boys", 10: "a dog"}, {10: ["a dog"], 2: ["two men"]})
    np.testing.assert_allclose(pictures.each()["bleu1"], [100, 50])  # "10" before "2"


def test_digest_is_of_the_pictures_and_their_references():
    digest = references_digest(REFERENCES)
    assert references_digest(dict(reversed(REFERENCES.items()))) == digest
    assert references_digest({k: [c.upper() for c in v] for k, v in REFERENCES.items()}) == digest
    assert references_digest({**REFERENCES, "3.jpg": ["a"]}) != digest
    assert references_digest({**REFERENCES, "2.jpg": ["two boys"]}) != digest
    assert len(digest) == 16


def test_caption_statistics():
    captions = {"1": "a dog runs", "2": "a dog runs", "3": "<unk> a cat", "4": ""}
    expected = {
        "captions": 4,
        "mean_length": 9 / 4,
        "vocabulary": 5,
        "distinct1": 5 / 9,
        "distinct2": 4 / 6,
        "repeated": 1 / 4,
        "unknown": 1 / 9,
    }
    assert caption_statistics(captions) == pytest.approx(expected)
    assert caption_statistics(list(captions.values())) == pytest.approx(expected)
    assert caption_statistics(captions.items()) == pytest.approx(expected)
    assert caption_statistics([""])["distinct2"] == 0
    novel = caption_statistics(captions, ["A dog runs.", "A cat"])["novel"]
    assert novel == 1 / 2  # the third and the empty one
    with pytest.raises(ValueError, match="at least one caption. Received: "):
        caption_statistics({})
