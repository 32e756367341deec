"""Attaches the diagram of the model to the notebooks, the part that a notebook is about lit.

    python docs/diagram.py [NOTEBOOK ...]

The source is model.svg, whose groups name their part of the model in `data-part`.
"""

import base64
import json
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "docs" / "model.svg"
NAME = "model.svg"  # of the attachment
DIMMED = 0.22  # opacity

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
    "05_decoding_and_evaluation": {"word", "previous"},
    "06_attention_plots": {"picture", "annotations", "attention", "gate"},
    "07_flickr8k": "all",
    "08_hard_attention": {"attention", "context", "hard"},
}


def light(source: str, parts: set[str] | str) -> str:
    """Returns the diagram with all parts dimmed but the given ones."""
    if parts == "all":
        return source

    def dim(found: re.Match) -> str:
        return found[0] if found[1] in parts else f'{found[0][:-1]} opacity="{DIMMED}">'

    return re.sub('<g data-part="([a-z]+)">', dim, source)


def attach(path: Path) -> None:
    """Writes the diagram into the cells of a notebook that show it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    diagram = light(SOURCE.read_text(encoding="utf-8"), LIT[path.stem])
    data = base64.b64encode(diagram.encode()).decode()
    for cell in notebook["cells"]:
        if f"(attachment:{NAME})" in "".join(cell["source"]):
            cell.setdefault("attachments", {})[NAME] = {"image/svg+xml": data}
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    chosen = sys.argv[1:] or LIT
    for path in (REPOSITORY / "notebooks" / f"{name}.ipynb" for name in chosen):
        attach(path)
