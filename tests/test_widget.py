"""The HTML of the widget: its data, and that it needs no other file."""

import base64
import html.parser
import io
import json
import re
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from sat_keras.captioning.caption import Caption
from sat_keras.captioning.maps import describe_attention, fit_picture, upsample_attention
from sat_keras.plots.widget import attention_html, caption_html

WORDS = ["two", "dogs", "run"]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype="uint8")


@pytest.fixture
def attention():
    """Upper left, centre, everywhere."""
    maps = np.full((3, 5, 5), 1 / 25, "float32")
    maps[:2] = 0
    maps[0, 0, 0] = maps[1, 2, 2] = 1
    return maps


class Page(html.parser.HTMLParser):
    """Collects a page's tags with their attributes, and the text of its script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.script = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.script += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self):
        return json.loads(re.search(r"const data = (.*);\n", self.script)[1])


def read_picture(uri):
    content = base64.b64decode(re.fullmatch(r"data:image/\w+;base64,(.*)", uri)[1])
    return Image.open(io.BytesIO(content))


def test_each_word_has_its_map_its_place_and_its_gate(image, attention):
    data = Page(attention_html(image, WORDS, attention, gate=[0.125, 0.5, 1.0])).data
    assert data["words"] == WORDS
    assert data["places"] == ["upper left", "centre", "the whole picture"]
    assert data["gate"] == [0.125, 0.5, 1.0]
    assert data["aspect"] == 1.5
    for uri, weights in zip(data["maps"], attention, strict=True):
        opacity = np.asarray(read_picture(uri))[..., -1]
        np.testing.assert_array_equal(
            opacity, np.round(255 * upsample_attention(weights, *opacity.shape))
        )


def test_the_things_that_words_name_are_outlined(image, attention):
    boxes = [None, (3, 5, 9, 10), [(0, 0, 30, 20), (15, 10, 30, 20)]]
    data = Page(attention_html(image, WORDS, attention, boxes=boxes)).data
    # left, top, width and height in percent of 30 x 20 pixels
    expected = [[], [[10, 25, 20, 25]], [[0, 0, 100, 100], [50, 50, 50, 50]]]
    assert data["boxes"] == expected
    assert Page(attention_html(image, WORDS, attention)).data["boxes"] == [[], [], []]


@pytest.mark.parametrize("boxes", [[None], [None, None, (1, 2, 3)], [None, "box", None], 3])
def test_what_are_no_boxes_is_named(image, attention, boxes):
    with pytest.raises(ValueError, match=r"each of the 3 words. Received: boxes="):
        attention_html(image, WORDS, attention, boxes=boxes)


def test_a_drawn_picture_keeps_its_pixels(image, attention):
    drawn = np.zeros_like(image)
    drawn[5:10, 5:10] = (255, 0, 0)
    picture = read_picture(Page(attention_html(drawn, WORDS, attention)).data["picture"])
    expected, _ = fit_picture(drawn)
    np.testing.assert_array_equal(np.asarray(picture), np.round(255 * expected))


def test_a_photo_is_small(attention):
    """Noise is the worst case: some 150 kB as a PNG."""
    photo = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype="uint8")
    picture = Page(attention_html(photo, WORDS, attention)).data["picture"]
    assert picture.startswith("data:image/jpeg")
    assert read_picture(picture).size == (224, 224)


def test_without_scripts_there_is_the_figure_with_its_description(image, attention):
    open_figures = plt.get_fignums()
    (still,) = Page(attention_html(image, WORDS, attention)).attributes("img")
    assert still["alt"] == describe_attention(WORDS, attention)
    picture = read_picture(still["src"])
    assert picture.width > 2 * picture.height  # four panels in a row
    assert plt.get_fignums() == open_figures


def test_it_needs_nothing_from_elsewhere(image, attention):
    page = Page(attention_html(image, WORDS, attention, gate=[0.1, 0.2, 0.3]))
    assert not any("src" in attributes for attributes in page.attributes("script"))
    assert "http" not in page.script
    assert [tag for tag, _ in page.tags] == ["figure", "img", "style", "script"]


def test_words_cannot_break_out(image, attention):
    words = ["</script><b>", '"quoted" & \\', "%DATA%"]
    page = Page(attention_html(image, words, attention))
    assert page.data["words"] == words
    assert [tag for tag, _ in page.tags] == ["figure", "img", "style", "script"]
    assert page.attributes("img")[0]["alt"] == describe_attention(words, attention)


def test_the_bar_of_the_gate_does_not_depend_on_the_words_width(image, attention):
    """The bar has a length of its own; only its filled part is a share, and a share of the bar."""
    page = attention_html(image, WORDS, attention, gate=[0.1, 0.2, 0.3])
    (bar,) = re.findall(r"\.gate \{([^}]*)\}", page)
    assert re.search(r"\bwidth: [\d.]+rem;", bar)
    assert re.findall(r"make\((\w+), .*\)\.style\.width", Page(page).script) == ["bar"]


@pytest.mark.integration
def test_the_bars_of_a_short_and_of_a_long_word_are_equal_in_a_browser(image, attention):
    """Of any gate: the widths of the bars are equal, those of their parts are the gates."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser, chromium or google-chrome: apt-get install chromium")
    words, gate = ["a", "extraordinarily", "dog"], [0.5, 0.5, 1.0]
    widths_of = "found => found.map(element => element.getBoundingClientRect().width)"
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page()
        page.set_content(attention_html(image, words, attention, gate))
        widths = {
            selector: page.eval_on_selector_all(selector, widths_of)
            for selector in (".words button", ".gate", ".gate span")
        }
        chromium.close()
    assert widths[".words button"][0] < widths[".words button"][1]
    assert widths[".gate"] == pytest.approx([widths[".gate"][0]] * 3)
    assert np.divide(widths[".gate span"], widths[".gate"]) == pytest.approx(gate)


def test_widgets_of_one_page_are_told_apart(image, attention):
    page = attention_html(image, WORDS, attention)
    assert page == attention_html(image, WORDS, attention)
    other = attention_html(image, WORDS, attention[::-1])
    (first,), (second,) = (Page(p).attributes("figure") for p in (page, other))
    assert first["data-key"] != second["data-key"]
    assert f'[data-key="{first["data-key"]}"]' in Page(page).script


def test_a_caption_without_words_is_a_picture(image):
    data = Page(attention_html(image, [], np.zeros((0, 5, 5)))).data
    assert data["words"] == data["maps"] == []


def test_maps_cover_what_was_seen_of_a_photo(image, attention):
    """Of 30 x 20 pixels the middle 15 x 10: a quarter of the mask, and nothing around it."""
    data = Page(attention_html(image, WORDS, attention, seen=(7.5, 5, 22.5, 15))).data
    assert data["aspect"] == 1.5
    opacity = np.asarray(read_picture(data["maps"][2]))[..., -1]
    assert opacity.shape == (60, 60)
    np.testing.assert_array_equal(opacity[15:45, 15:45], 255)
    assert opacity.astype(int).sum() == 30 * 30 * 255


def test_a_large_photo_is_reduced_and_keeps_its_shape(attention):
    photo = np.zeros((1500, 2000, 3), "uint8")
    data = Page(attention_html(photo, WORDS, attention)).data
    assert read_picture(data["picture"]).size == (480, 360)
    assert data["aspect"] == pytest.approx(4 / 3)


def test_a_caption_renders_as_its_sentence_and_the_widget(image, attention):
    caption = Caption("two <b>dogs run", WORDS, attention, np.ones(3), -1.234)
    sentence = caption_html(caption)
    assert "Two &lt;b&gt;dogs run." in sentence
    assert "log p = -1.23" in sentence
    widget = attention_html(image, WORDS, attention, np.ones(3))
    assert caption_html(caption, image) == sentence + widget
    empty = Caption("", [], np.zeros((0, 5, 5)), np.zeros(0), -1.0)
    assert "(no words)" in caption_html(empty, image)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"words": ["two", "dogs"]}, "2 words"),
        ({"gate": [0.5]}, "one value for each of the 3 words"),
        ({"image": np.zeros((4, 4))}, "RGB"),
    ],
)
def test_what_does_not_fit_is_named(image, attention, changes, named):
    arguments = {"image": image, "words": WORDS, "attention": attention, **changes}
    with pytest.raises(ValueError, match=named):
        attention_html(**arguments)
