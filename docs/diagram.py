"""Attaches the diagram of the model to the notebooks, the part that a notebook is about lit.

    python docs/diagram.py [NOTEBOOK ...]

The source is model.svg, whose groups name their part of the model in `data-part`. JupyterLab shows
no SVG that is attached, so a PNG goes with it, which needs Playwright and a browser: chromium or
google-chrome.
"""

import base64
import hashlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "docs" / "model.svg"
NAME = "model.svg"  # of the attachment
DIMMED = 0.22  # opacity
PIXELS = 1.5  # of the PNG, for one of the SVG

# The parts that each notebook explains; "all" leaves the diagram as it is.
LIT = {
    "01_preprocessing": {"picture", "word", "previous"},
    "02_encoder_and_attention": {"picture", "cnn", "annotations", "attention", "context"},
    "03_decoder_and_loss": {
        "context",
        "gate",
        "lstm",
        "word",
        "output",
        "previous",
        "hidden",
        "loss",
    },
    "04_training": "all",
    "05_decoding": {"word", "previous"},
    "05b_evaluation": {"picture", "word"},
    "06_attention_plots": {"picture", "annotations", "attention", "gate"},
    "07_flickr8k": "all",
    "08_hard_attention": {"attention", "context", "hard"},
    "08b_training_hard_attention": {"attention", "word", "hard", "loss"},
    "09_table1": {"annotations", "attention", "context"},
    "10_self_critical": {"word", "output", "previous", "loss"},
}


def light(source: str, parts: set[str] | str) -> str:
    """Returns the diagram with all parts dimmed but the given ones."""
    if parts == "all":
        return source

    def dim(found: re.Match) -> str:
        return found[0] if found[1] in parts else f'{found[0][:-1]} opacity="{DIMMED}">'

    return re.sub('<g data-part="([a-z]+)">', dim, source)


def digest(diagram: str) -> str:
    """Returns what the PNG of an SVG holds as its text `Source`."""
    return hashlib.sha256(diagram.encode()).hexdigest()


def draw(diagram: str) -> bytes:
    """Draws an SVG as a PNG."""
    from playwright.sync_api import sync_playwright

    width, height = map(int, re.search('viewBox="0 0 ([0-9]+) ([0-9]+)"', diagram).groups())
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=PIXELS
        )
        page.set_content(f"<style>body {{ margin: 0 }} svg {{ display: block }}</style>{diagram}")
        drawn = page.screenshot()
        chromium.close()
    information, file = PngInfo(), io.BytesIO()
    information.add_text("Source", digest(diagram))
    picture = Image.open(io.BytesIO(drawn)).convert("RGB").quantize(64)
    picture.save(file, "png", optimize=True, pnginfo=information)
    return file.getvalue()


def attach(path: Path) -> None:
    """Writes the diagram into the cells of a notebook that show it.

    JupyterLab takes the first format of an attachment, nbconvert the SVG if there is one.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    diagram = light(SOURCE.read_text(encoding="utf-8"), LIT[path.stem])
    formats = {"image/png": draw(diagram), "image/svg+xml": diagram.encode()}
    encoded = {kind: base64.b64encode(data).decode() for kind, data in formats.items()}
    for cell in notebook["cells"]:
        if f"(attachment:{NAME})" in "".join(cell["source"]):
            cell.setdefault("attachments", {})[NAME] = encoded
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    chosen = sys.argv[1:] or LIT
    for path in (REPOSITORY / "notebooks" / f"{name}.ipynb" for name in chosen):
        attach(path)
