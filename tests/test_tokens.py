"""Tokens against the toolkit's Java tokenizer and, where Java is absent, its stored output."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sat_keras.evaluation import cider, corpus_bleu, ptb_tokenize, read_candidates, read_references
from sat_keras.evaluation.characters import SINGLE, WORD

# Made by the toolkit's tokenizer, as `test_stored_tokens_are_the_toolkits` checks.
FIXTURE = Path(__file__).parent / "fixtures" / "ptb_tokens.json"
STORED = json.loads(FIXTURE.read_text(encoding="utf-8"))

LETTERS = {
    "Devanagari": "कखगदनपमरलसहअआािीुूेो्ंःँ़",
    "Bengali": "কখগদনপমরলসহআািীুেো্ংঁ়ৎ",
    "Tamil": "கசஞடதநபமயரலவாிீுூெேைொோ்",
    "Thai": "กขคงจชดตนมรลวสหอะาิีึุูเแโใไ็่้๊๋์ํ",
    "Arabic": "ابتجدرسعفقكلمنهويءةى\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u0670",
    "Hebrew": "אבגדהוזחטיכלמנסעפצקרשת\u05b0\u05b4\u05b5\u05b6\u05b7\u05b8\u05bc\u05c1",
    "Cyrillic": "абвгдежзийклмнопрстуыьэюяёїАБВЁ",
    "Greek": "αβγδεζηθκλμνοπρσςτυωάέήίΑΒΓ",
    "Latin": "aeiouyäöüßéèçñåøæœžčİĄndtsr\u0300\u0301\u0308\u0327\u0323",
    "Han": "一二三狗猫人大小中国日本語ひらがなカタカナー한국어",
    "others": "აბგდհայաğꯀꯁខមរກຂ່ກາཀཁིအကခိ",
}
MARKS = [
    *(" ", " ", "  ", "\u00a0", "\u00ad", "\u200b", "\u200c", "\u200d", "\ufe0f", "😀", "❤", "☀"),
    *("।", "॥", "،", "؟", "؛", "。", "，", "！", "「", "」", "·", "…", "—", "–", "־", "״"),
    *("«", "»", "“", "”", "„", "‹", "&amp;", "&eacute;", "&quot;", "&lt;", "&nbsp;", "&#39;"),
]


def java_tokens(lines: list[str]) -> list[list[str]]:
    """Returns the tokens that `pycocoevalcap`'s `PTBTokenizer` scores."""
    module = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("the toolkit's tokenizer needs Java")
    jar = Path(module.__file__).with_name(module.STANFORD_CORENLP_3_4_1_JAR)
    program = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar)]
    done = subprocess.run(
        [*program, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"],
        input="\n".join(lines).encode(),
        capture_output=True,
        check=True,
    )
    found = done.stdout.decode().split("\n")[: len(lines)]
    assert len(found) == len(lines)
    return [[w for w in line.split(" ") if w and w not in module.PUNCTUATIONS] for line in found]


@pytest.mark.parametrize("text", STORED)
def test_tokens_of_many_scripts(text):
    assert ptb_tokenize(text) == STORED[text].split(" ")


def test_stored_tokens_are_the_toolkits():
    assert [" ".join(tokens) for tokens in java_tokens(list(STORED))] == list(STORED.values())


def texts() -> st.SearchStrategy[str]:
    """Words of one script with its punctuation, joiners, emoji, soft hyphens and HTML entities."""
    one_script = st.sampled_from(list(LETTERS.values())).flatmap(
        lambda letters: st.lists(
            st.one_of(st.sampled_from(letters), st.sampled_from(letters), st.sampled_from(MARKS)),
            max_size=20,
        )
    )
    return one_script.map("".join)


@settings(max_examples=3)
@given(st.lists(texts(), min_size=150, max_size=150))
def test_tokens_equal_the_toolkits_on_invented_text(lines):
    # A word at both ends: the program skips lines without any token.
    lines = [f"x {line} x" for line in lines]
    assert [ptb_tokenize(line) for line in lines] == java_tokens(lines)


@pytest.mark.integration
def test_every_character_is_tokenized_as_by_the_toolkit():
    breaks = {0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029}  # each ends a line of the program
    points = [c for c in range(1, 0x10800) if not 0xD800 <= c < 0xE000 and c not in breaks]
    for form in ("x q{0}z x", "x {0}1 x", "x {0}{0} x"):
        lines = [form.format(chr(point)) for point in points if chr(point) != "@"]
        wrong = [
            (line, theirs)
            for line, theirs in zip(lines, java_tokens(lines), strict=True)
            if ptb_tokenize(line) != theirs
        ]
        assert wrong == []


@given(texts())
@example("क\u094dष")
@example("e\u0301te\u0301")
def test_combining_marks_stay_in_their_word(text):
    known = "".join(letters for script, letters in LETTERS.items() if script != "others")
    word = "".join(character for character in text if character in known)
    assert ptb_tokenize(f"x {word} x")[1:-1] == [word.lower()] * bool(word)


def test_tables_are_sorted_and_disjoint():
    ranges = []
    for item in f"{WORD} {SINGLE}".split():
        first, _, last = item.partition("-")
        ranges.append((int(first, 16), int(last or first, 16)))
    ranges.sort()
    assert all(first <= last for first, last in ranges)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))


def test_hindi_scores_are_the_toolkits(shared):
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    folder = shared / "cases" / "10-hindi-captions-shredded"
    candidates = dict(read_candidates(folder / "captions.json"))
    references = read_references(folder / "references.json")
    tokens = [ptb_tokenize(candidates[i]) for i in references]
    truths = [[ptb_tokenize(text) for text in texts] for texts in references.values()]
    flat = [text for texts in references.values() for text in texts]
    theirs = iter(java_tokens([*(candidates[i] for i in references), *flat]))
    results = {i: [" ".join(next(theirs))] for i in references}
    gold = {i: [" ".join(next(theirs)) for _ in texts] for i, texts in references.items()}
    bleu, _ = Bleu(4).compute_score(gold, results, verbose=0)
    assert corpus_bleu(tokens, truths) == pytest.approx([100 * score for score in bleu])
    assert corpus_bleu(tokens, truths)[0] == pytest.approx(28.6, abs=0.05)
    expected, _ = Cider().compute_score(gold, results)
    assert cider(tokens, truths).mean() == pytest.approx(expected)
