"""Prints notation.md and its diagram on one page, notation.pdf.

    python docs/sheet.py

It needs the packages of the extra `notebooks`, Playwright, and a browser: chromium or
google-chrome. The PDF's title holds the digest of its sources, which a test compares.
"""

import base64
import hashlib
import io
import re
import shutil
import sys
from pathlib import Path

import matplotlib as mpl
import mistune
from matplotlib import mathtext
from matplotlib.font_manager import FontProperties

FOLDER = Path(__file__).resolve().parent
SOURCES = [FOLDER / name for name in ("notation.md", "model.svg", "sheet.py")]
PDF = FOLDER / "notation.pdf"
FONT_SIZE = 8  # points

STYLE = """
@page { size: A4; margin: 8mm 11mm }
body { font: 8pt/1.2 'DejaVu Sans', sans-serif; margin: 0; color: #1f2328 }
h1 { font-size: 13pt; margin: 0 0 1mm }
p { margin: 1mm 0 }
img.diagram { width: 90%; display: block; margin: -2mm auto 0 }
table { border-collapse: collapse; width: 100%; margin: 1.6mm 0 }
th, td { border-bottom: 0.3pt solid #8a8a8a; padding: 0.3mm 1.2mm; text-align: left }
code { font: 7.2pt 'DejaVu Sans Mono', monospace }
a { color: inherit; text-decoration: none }
"""


def title() -> str:
    """Returns the title of the PDF, with the digest of its sources."""
    digest = hashlib.sha256()
    for path in SOURCES:
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return f"sat_keras: the model on one sheet, {digest.hexdigest()[:12]}"


def equation(source: str) -> str:
    """Renders an equation as an image on the text's baseline."""
    file = io.BytesIO()
    font = FontProperties(size=FONT_SIZE)
    with mpl.rc_context({"mathtext.fontset": "dejavusans", "svg.fonttype": "path"}):
        depth = mathtext.math_to_image(f"${source}$", file, prop=font, dpi=72, format="svg")
    data = base64.b64encode(file.getvalue()).decode()
    place = f"vertical-align: {-depth:.2f}pt"
    return f'<img style="{place}" alt="{source}" src="data:image/svg+xml;base64,{data}">'


def page() -> str:
    """Returns the sheet as HTML that holds its diagram and equations."""
    source = SOURCES[0].read_text(encoding="utf-8")
    equations = []

    def keep(found: re.Match) -> str:
        equations.append(equation(found[1]))
        return f"@@{len(equations) - 1}@@"

    source = re.sub(r"\$([^$]+)\$", keep, source)
    body = str(mistune.create_markdown(plugins=["table"])(source))
    body = re.sub("@@([0-9]+)@@", lambda found: equations[int(found[1])], body)
    diagram = base64.b64encode(SOURCES[1].read_bytes()).decode()
    body = body.replace(
        'src="model.svg"', f'class="diagram" src="data:image/svg+xml;base64,{diagram}"'
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{title()}</title><style>{STYLE}</style>{body}"
    )


def write(path: Path = PDF) -> None:
    """Prints the sheet."""
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.set_content(page(), wait_until="load")
        tab.pdf(path=path, prefer_css_page_size=True, print_background=True)
        chromium.close()


if __name__ == "__main__":
    write()
    sys.exit(len(re.findall(rb"/Type /Page\b", PDF.read_bytes())) != 1)
