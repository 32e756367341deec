"""The app in a headless browser: a photo is uploaded, a word pointed at."""

import shutil

import numpy as np
import pytest
from PIL import Image

from sat_keras.cli import main
from sat_keras.plots import app as app_module
from sat_keras.plots.app import LOW_CONFIDENCE, launch_app, make_app

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def page(pixel_captioner):
    """The app's page in a browser that reaches this computer alone."""
    pytest.importorskip("gradio")
    playwright = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser, chromium or google-chrome: apt-get install chromium")
    app, address = launch_app({"soft": pixel_captioner, "other": pixel_captioner}, block=False)
    assert address.startswith("http://127.0.0.1:")
    try:
        with playwright.sync_playwright() as driver:
            chromium = driver.chromium.launch(
                executable_path=browser,
                args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
            )
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.goto(address)
            yield page
            chromium.close()
    finally:
        app.close()


@pytest.mark.integration
def test_a_photo_is_described_and_a_word_shows_where_it_looked(page, pixel_captioner, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    expected = pixel_captioner.caption(pixels, num_results=2, beam_size=2)
    page.set_input_files("input[type=file]", tmp_path / "photo.png")
    frame = page.frame_locator("#caption iframe")
    words = frame.locator("figure button")
    words.first.wait_for(timeout=60_000)
    assert words.all_inner_texts() == expected[0].words
    words.first.hover()
    assert frame.locator(".looking").count() == 1
    assert expected[1].sentence in page.locator("#beam").inner_text()


def test_a_guess_says_what_the_model_knows(pixel_captioner, monkeypatch):
    (caption,) = pixel_captioner.caption(np.zeros((1, 16, 16, 3), "uint8"))
    mean = caption.log_probability / (len(caption.words) + 1)
    monkeypatch.setattr(app_module, "LOW_CONFIDENCE", mean - 0.1)
    assert app_module._note(caption) == ""
    monkeypatch.setattr(app_module, "LOW_CONFIDENCE", mean + 0.1)
    assert "Flickr" in app_module._note(caption)
    assert LOW_CONFIDENCE < 0


def test_a_caption_is_no_longer_than_the_slider_says(pixel_captioner):
    pytest.importorskip("gradio")
    app = make_app({"soft": pixel_captioner})
    describe = next(iter(app.fns.values())).fn
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype("uint8")
    # name, beams, length penalty, longest caption, context (of hard attention alone)
    _, _, rows = describe(photo, "soft", 2, 1.0, 1, "argmax")
    assert [text for text, _ in rows] == [
        caption.sentence for caption in pixel_captioner.caption(photo, num_results=2, max_length=1)
    ]
    assert describe(None, "soft", 2, 1.0, 1, "argmax") == ("", "", [])


def test_no_captioner_is_refused():
    pytest.importorskip("gradio")
    with pytest.raises(ValueError, match="captioner.*Received"):
        make_app({})


def test_the_command_serves_the_captioner_that_it_is_given(pixel_captioner, tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr(app_module, "launch_app", lambda *arguments: served.append(arguments))
    folder = pixel_captioner.save_to_preset(tmp_path / "mine", encoder_weights=None)
    assert main(["app", "--model", str(folder), "--port", "7865"]) == 0
    ((captioners, port),) = served
    assert port == 7865
    assert [model.config for model in captioners.values()] == [pixel_captioner.config]
