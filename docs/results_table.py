"""Writes the tables of results into README.md and results/README.md.

    python docs/results_table.py

A table stands between two comments, of which the first names the files that are shown, as patterns:

    <!-- results: flickr8k-soft-* scenes-* -->
    <!-- end of results -->
"""

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = (REPOSITORY / "README.md", REPOSITORY / "results" / "README.md")
TABLE = re.compile(r"(<!-- results: (.*?) -->\n).*?(<!-- end of results -->)", re.DOTALL)
SCORES = {
    **{f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "spice": "SPICE"},
}
COLUMNS = ("results", "data", "encoder", "attention", "beam", "protocol")


def read_results():
    """What `sat-keras evaluate` wrote, by the file's name without its ending."""
    files = {path.stem: path.read_text("utf-8") for path in sorted(PAGES[1].parent.glob("*.json"))}
    read = {name: json.loads(text) for name, text in files.items()}
    return {name: results for name, results in read.items() if "scores" in results}


def table(shown, folder):
    """A table of results with 95 % intervals, a row for each protocol.

    Args:
        shown: Dictionary from names of results to results.
        folder: Where the files are, seen from the page.
    """
    names = [n for n in SCORES if any(n in r["scores"]["coco"] for r in shown.values())]
    lines = [
        "| " + " | ".join([*COLUMNS, *(SCORES[name] for name in names)]) + " |",
        "|---" * (len(COLUMNS) + len(names)) + "|",
    ]
    for name, results in shown.items():
        for protocol in results["scores"]:
            cells = [
                f"[{name}]({folder}{name}.json)",
                f"{results['dataset']} {results['split']}",
                results["encoder"] or "–",
                results["attention"] or "–",
                str(results["beam"] or "–"),
                f"`{protocol}`",
                *(cell(results, protocol, score) for score in names),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "".join(f"{line}\n" for line in lines)


def cell(results, protocol, name):
    """A score above its interval."""
    if name not in results["scores"][protocol]:
        return "–"
    digits = 3 if name == "cider" else 1
    text = f"{results['scores'][protocol][name]:.{digits}f}"
    if "intervals" in results:
        low, high = results["intervals"][protocol][name]
        text += f"<br><sub>{low:.{digits}f}–{high:.{digits}f}</sub>"
    return text


def with_tables(page):
    """A page's text with its tables as they should be."""
    everything = read_results()
    folder = "results/" if page.parent == REPOSITORY else ""

    def fill(found):
        start, patterns, end = found.groups()
        shown = {
            name: results
            for pattern in patterns.split()
            for name, results in everything.items()
            if Path(name).match(pattern)
        }
        if not shown:
            raise ValueError(f"A table must show some results. Received: {patterns!r} in {page}")
        return start + table(shown, folder) + end

    return TABLE.sub(fill, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path), encoding="utf-8")
