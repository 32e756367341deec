"""The report of an evaluation: its elements, and its behaviour in a browser."""

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from sat_keras.captioning.caption import Caption
from sat_keras.cnn.resize import PictureResize
from sat_keras.evaluation.scores import caption_statistics, score_pictures
from sat_keras.plots import report
from sat_keras.plots.report import write_report

EVIL = "</script><script>alert('1')</script> & <b>{{ data }}%DATA%</b>"
REFERENCES = {
    "a": ["A dog runs.", "The dog is running."],
    "b": ["Two boys play football.", EVIL],
    "c": ["A red car.", "The car is red."],
    'd"<i>': ["A man sits.", "The man is sitting."],
}
TEXTS = {"c": "", 'd"<i>': "a <u>cat", "a": "a dog runs", "b": "two boys play"}
VOID = {"meta", "img", "input", "br"}


class Page(html.parser.HTMLParser):
    """Elements, texts by element and whether every element is closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts, self.data = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if attributes.get("id") == "data":
            self.data += data
        elif tag not in ("script", "style"):
            self.texts.append(data)

    def having(self, tag, **attributes):
        """The attributes of the elements of this tag and these attributes."""
        found = [attrs for name, attrs in self.elements if name == tag]
        return [a for a in found if attributes.items() <= a.items()]


CURVES = {
    "share": [0.0, 0.5, 1.0],
    **{"deletion": [0.8, 0.2, 0.1], "deletion_random": [0.8, 0.4, 0.1]},
    **{"insertion": [0.1, 0.7, 0.8], "insertion_random": [0.1, 0.4, 0.8]},
}


def make_captions(texts):
    captions, generator = {}, np.random.default_rng(0)
    for image_id, text in texts.items():
        words = text.split()
        maps = generator.dirichlet(np.ones(6), size=len(words)).reshape(-1, 2, 3)
        captions[image_id] = Caption(text, words, maps, np.full(len(words), 0.5), -1.0)
    return captions


def make_results(texts, references, **changes):
    scored = score_pictures(texts, references)
    return {
        **{"dataset": "<set>", "split": "dev", "pictures": len(texts), "encoder": "scenes"},
        **{"attention": "soft", "beam": 3, "length_penalty": 0.7, "seed": 0, "hardware": "one"},
        **{"command": "sat-keras train && sat-keras evaluate", "versions": {"keras": "3"}},
        **{"config": {"seed": 0}, "seconds": 1.5, "caption_statistics": caption_statistics(texts)},
        "scores": scored.scores(),
        "intervals": scored.intervals(samples=20),
        "picture_scores": scored.encode(),
        "attention_scores": {
            **{"words": 8, "entropy_uniform": 1.792, "entropy": 1.234, "coverage": 56.78},
            "intervals": {"entropy": [1.1, 1.3], "coverage": [51.0, 61.0]},
            "curves": CURVES,
        },
        **changes,
    }


@pytest.fixture
def make(tmp_path):
    """Writes a report and gives the file's text and what is in it."""

    def make(texts=TEXTS, references=REFERENCES, resize=None, boxes=None, **changes):
        paths = {}
        for i, image_id in enumerate(texts):
            paths[image_id] = tmp_path / f"{i}.png"
            Image.new("RGB", (300, 150), (40 * i, 0, 0)).save(paths[image_id])
        results = make_results(texts, references, **changes)
        captions = make_captions(texts)
        path = write_report(
            tmp_path / "new" / "report",
            results,
            captions,
            references,
            paths,
            resize or PictureResize(12, "squash"),
            boxes,
        )
        assert path == tmp_path / "new" / "report" / "index.html"
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert not page.open
        return text, page

    return make


def test_nothing_is_loaded_from_elsewhere(make):
    text, page = make()
    assert "http" not in re.sub(r"http-equiv", "", text)
    (policy,) = page.having("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/", "#"))


def test_text_is_no_markup(make):
    """A caption, a reference and an image id bring elements of their own, if they are let."""
    _, page = make()
    _, tame = make(
        dict(zip("abcd", TEXTS.values(), strict=True)), {key: ["a dog"] for key in "abcd"}
    )
    assert not page.having("u")
    for tag in ("script", "b", "i"):
        assert len(page.having(tag)) == len(tame.having(tag))
    assert "<set> dev: captions and attention" in page.texts
    assert EVIL in page.texts  # read as text
    assert json.loads(page.data)["rows"][1]["references"][1] == EVIL


def test_table_has_every_caption_with_its_scores(make):
    _, page = make()
    table = json.loads(page.data)
    labels = [column["label"] for column in table["columns"]]
    assert labels == ["Picture", "Caption", "CIDEr", "BLEU-4", "ROUGE-L", "Words", "Entropy"]
    each = score_pictures(TEXTS, REFERENCES).each()
    for i, (row, image_id) in enumerate(zip(table["rows"], sorted(TEXTS), strict=True)):
        picture, text, cider, bleu4, rouge_l, words, entropy = row["values"]
        assert (picture, text) == (image_id, TEXTS[image_id])
        assert row["references"] == REFERENCES[image_id]
        expected = [each[name][i] for name in ("cider", "bleu4", "rouge_l")]
        assert [cider, bleu4, rouge_l] == pytest.approx(expected, abs=1e-3)
        assert words == len(text.split())
        assert (entropy is None) == (words == 0)
        thumbnail = base64.b64decode(row["picture"].removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(thumbnail)).size == (112, 56)


def test_best_and_worst_are_by_cider(make, monkeypatch):
    monkeypatch.setattr(report, "_SHOWN", 1)
    _, page = make()
    cards = [text for text in page.texts if re.search(r", CIDEr \d", text)]
    best, worst = (card.split(", CIDEr ") for card in cards)
    cider = score_pictures(TEXTS, REFERENCES).each()["cider"]
    assert best[0] == sorted(TEXTS)[cider.argmax()] == "a"
    assert float(best[1]) == pytest.approx(cider.max(), abs=1e-3)
    assert float(worst[1]) == cider.min() == 0
    assert len(page.having("figure", **{"class": "sat-attention"})) == 2


def test_scores_stand_with_their_intervals_and_what_is_missing_is_left_out(make):
    _, page = make(scenes={"content_words": 1234, "content_word_accuracy": 80.34})
    shown = " ".join(page.texts)
    scored = score_pictures(TEXTS, REFERENCES)
    low, high = scored.intervals(samples=20)["coco"]["bleu1"]
    assert f"{scored.scores()['coco']['bleu1']:.1f}" in page.texts
    assert f"{low:.1f} to {high:.1f}" in page.texts
    assert {"1.234", "1.100 to 1.300", "1.792", "56.8", "1,234", "80.3"} <= set(page.texts)
    assert "Truth about the scenes" in shown
    assert "entropy uniform" not in shown  # it stands beside the entropy
    results = make_results(TEXTS, REFERENCES)
    for name in ("attention_scores", "intervals", "caption_statistics"):
        results.pop(name)
    titles = [table["title"] for table in report._score_tables(results)]
    assert titles == ["Captions against references, by protocol; all but CIDEr in percent"]


@pytest.mark.parametrize(
    "texts", [{"a": "a dog"}, {"a": ""}, {"a": "", "c": ""}, {"a": "", "c": "a car"}]
)
def test_few_and_empty_captions(make, texts):
    _, page = make(texts, {image_id: REFERENCES[image_id] for image_id in texts})
    assert len(json.loads(page.data)["rows"]) == len(texts)


def open_in_browser(path, script, width):
    """What a script returns that uses the page in a dark headless Chromium without a network."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser, chromium or google-chrome: apt-get install chromium")
    run = f"document.body.dataset.found = JSON.stringify((() => {{ {script} }})())"
    page = path.read_text(encoding="utf-8").replace("</body>", f"<script>{run}</script></body>")
    used = path.with_name("used.html")
    used.write_text(page, encoding="utf-8")
    switches = {
        "user-data-dir": path.parent / "profile",
        "host-resolver-rules": "MAP * ~NOTFOUND",
        "blink-settings": "preferredColorScheme=0",  # dark
        "window-size": f"{width},900",
    }
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--{name}={value}" for name, value in switches.items()),
            used.as_uri(),
        ],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    (body,) = Page(done.stdout).having("body")
    return json.loads(body["data-found"])


USE = """
const rows = () => [...document.querySelectorAll("#all tbody tr")];
const column = (i) => rows().map((row) => row.cells[i].innerText.trim());
const click = (name) =>
  [...document.querySelectorAll("#all th button")].find((b) => b.textContent === name).click();
const search = (text) => {
  const query = document.getElementById("query");
  query.value = text;
  query.dispatchEvent(new Event("input"));
};
const found = {overflow: document.documentElement.scrollWidth - innerWidth};
found.background = getComputedStyle(document.body).backgroundColor;
found.by_cider = column(2).map(Number);
click("Words");
found.by_words = column(5).map(Number);
click("Words");
found.by_words_ascending = column(5).map(Number);
search("RUNNING dog");
found.ids = column(0);
found.references = rows()[0].querySelector("li").checkVisibility();
search("no such word");
found.nothing = [rows().length, document.getElementById("status").value];
const stage = document.querySelector("#best ~ .cards .stage");
const word = document.querySelectorAll("#best ~ .cards button")[1];
const looking = () => stage.classList.contains("looking");
found.looking = [looking()];
word.dispatchEvent(new PointerEvent("pointerenter"));
found.looking.push(looking());
word.dispatchEvent(new PointerEvent("pointerleave"));
found.looking.push(looking());
word.click();
word.dispatchEvent(new PointerEvent("pointerleave"));
found.looking.push(looking());
found.note = stage.parentElement.querySelector(".note").textContent;
return found;
"""


def test_a_browser_shows_sorts_searches_and_explores(make, tmp_path):
    make()
    found = open_in_browser(tmp_path / "new" / "report" / "index.html", USE, width=500)
    assert found["overflow"] <= 0
    assert found["background"] == "rgb(21, 23, 26)"  # dark, as the reader wants it
    cider = score_pictures(TEXTS, REFERENCES).each()["cider"]
    assert found["by_cider"] == pytest.approx(sorted(cider, reverse=True), abs=1e-3)
    assert found["by_words"] == [3, 3, 2, 0]
    assert found["by_words_ascending"] == [0, 2, 3, 3]
    assert found["ids"] == ["a"]
    assert found["references"], "a hit in a reference must be open to see"
    assert found["nothing"] == [0, "No caption has all of these words."]
    assert found["looking"] == [False, True, False, True]  # before, at, off and on a click
    assert found["note"].startswith("“dog”: ")


def test_histogram_counts_every_value_once():
    values = np.array([0.0, 0.1, 0.55, 1.0, 1.0])
    found = report._histogram(values, np.linspace(0, 1, 5), "A title", 2)
    names = ["0.00 to 0.25", "0.25 to 0.50", "0.50 to 0.75", "0.75 to 1.00"]
    assert [bar["name"] for bar in found["bars"]] == names
    assert [bar["count"] for bar in found["bars"]] == [2, 0, 1, 2]
    assert [bar["height"] for bar in found["bars"]] == [100, 0, 50, 100]
    assert found["most"] == 2
    assert found["mean"] == (53.0, "0.53")
    ticks = [(0, "0"), (20, "0.2"), (40, "0.4"), (60, "0.6"), (80, "0.8"), (100, "1")]
    assert found["ticks"] == ticks
    assert found["description"] == "Histogram. A title: mean 0.53, median 0.55, from 0.00 to 1.00."


def test_histogram_of_integers_has_a_bar_for_each():
    found = report._histogram(np.array([3, 5, 5]), np.arange(2.5, 6), "Words", digits=0)
    assert [bar["name"] for bar in found["bars"]] == ["3", "4", "5"]
    assert [position for position, _ in found["ticks"]] == pytest.approx([16.67, 50, 83.33])
    assert found["mean"][1] == "4.3"


def test_histograms_are_in_the_page_with_their_description(make):
    _, page = make()
    charts = page.having("div", **{"class": "chart"})
    assert [chart["role"] for chart in charts] == ["img"] * 3
    assert charts[0]["aria-label"].startswith("Histogram. Words of a caption: mean 2.0, median 2.5")
    bars = [a for a in page.having("span") if "pictures" in a.get("title", "")]
    assert {"0: 1 pictures", "3: 2 pictures"} <= {bar["title"] for bar in bars}


def test_curves_are_drawn_and_described(make):
    _, page = make()
    described = [a["aria-label"] for a in page.having("svg", role="img") if "aria-label" in a]
    deletion = next(x for x in described if "is hidden" in x)
    assert "0.800 at 0, 0.100 at 1. At 0.5 it is 0.200 with the most" in deletion
    points = [a["points"] for a in page.having("polyline")]
    # 276 by 150 pixels from (34, 160), the largest value at the top.
    assert points[0] == "34.0,10.0 172.0,122.5 310.0,141.2"
    assert len(points) == 4
    _, page = make(attention_scores={"words": 8})
    assert not page.having("polyline")


def test_bars_show_attention_beside_its_baselines(make):
    phrases = {
        **{"phrases": 3, "phrase_mass": 40.0, "phrase_mass_uniform": 20.0},
        **{"phrase_mass:scene": 30.0, "phrase_mass:people": 50.0, "phrase_mass:small": 2.0},
        **{"phrase_mass_uniform:people": 25.0, "phrase_mass_centre:people": 30.0},
        "phrase_mass_mean_map:people": 28.0,
        "intervals": {"phrase_mass:people": [45.0, 55.0]},
    }
    _, page = make(phrases={"references": phrases})
    described = [a["aria-label"] for a in page.having("svg", role="img") if "aria-label" in a]
    (chart,) = (text for text in described if text.startswith("Bar chart"))
    assert chart == (
        "Bar chart. Attention in the boxes of phrases, reference captions, in percent: all phrases "
        "40.0 (uniform 20.0); people 50.0 (uniform 25.0, centre 30.0, mean map 28.0); scene 30.0; "
        "boxes < 5 % 2.0."
    )
    # The axis ends at 60 %, 176 pixels from its start at 92.
    people = [a for a in page.having("rect") if 4 + 34 <= float(a["y"]) < 4 + 2 * 34]
    lengths = [176 * value / 60 for value in (50, 25, 30, 28)]
    assert [float(a["width"]) for a in people] == pytest.approx(lengths, abs=0.1)
    assert [a["class"] for a in people] == ["attention", "uniform", "centre", "mean-map"]
    (interval,) = page.having("path", **{"class": "interval"})
    assert interval["d"] == f"M{92 + 176 * 45 / 60:.1f} 41H{92 + 176 * 55 / 60:.1f}"


def test_bars_by_size_need_the_boxes_of_words(make):
    assert not make()[1].having("rect")
    sizes = {"attention_mass": 40.0, "attention_mass_small": 10.0, "attention_mass_small_centre": 5}
    _, page = make(attention_scores={"words": 8, **sizes, "intervals": {}})
    assert [a["class"] for a in page.having("rect")] == ["attention", "attention", "centre"]


@pytest.mark.parametrize(
    ("policy", "box"),
    [("squash", (0, 0, 300, 150)), ("crop", (84.375, 9.375, 215.625, 140.625))],
)
def test_cards_show_whole_photos_with_maps_over_what_was_seen(make, monkeypatch, policy, box):
    given = []

    def spy(photo, words, attention, gate, seen, boxes):
        given.append((photo.shape, seen, boxes))
        return ""

    monkeypatch.setattr(report, "attention_html", spy)
    resize = PictureResize(14, policy)
    on_photo = np.array([[90.0, 20.0, 120.0, 80.0]])
    resized = resize.resize_boxes(on_photo, 150, 300)
    named = {name: [None, resized] for name in TEXTS}
    make(resize=resize, boxes=named)
    assert given
    for shape, seen, (none, found) in given:
        assert shape == (150, 300, 3)
        assert seen == pytest.approx(box)
        assert none is None
        np.testing.assert_allclose(found, on_photo)
