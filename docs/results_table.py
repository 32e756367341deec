"""Writes the tables of results into README.md and results/README.md.

    python docs/results_table.py

A table stands between two comments, of which the first names the files that are shown, as patterns;
those of attention, of the agreement with people, of the settings which a file says were tried and
of hard attention's variance as well:

    <!-- results: flickr8k-soft-* scenes-* -->
    <!-- end of results -->
    <!-- attention: flickr8k-soft-* scenes-* -->
    <!-- end of attention -->
    <!-- agreement: human-agreement -->
    <!-- end of agreement -->
    <!-- tried: flickr8k-consensus -->
    <!-- end of tried -->
    <!-- variance: hard-variance -->
    <!-- end of variance -->
"""

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = (REPOSITORY / "README.md", REPOSITORY / "results" / "README.md")
TABLE = re.compile(
    r"(<!-- (results|attention|agreement|tried|variance): ([^>]*) -->\n).*?(<!-- end of \2 -->)",
    re.DOTALL,
)
SCORES = {
    **{f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "spice": "SPICE"},
}
# With the unit and the number of decimals.
ATTENTION = {
    "entropy": ("entropy of a word's map, nats", 2),
    "total_variation": ("moves from word to word, %", 1),
    "coverage": ("effective share of the regions, %", 1),
    "sameness": ("overlap of a caption's maps, %", 1),
    "sameness_between_pictures": ("overlap of the pictures' mean maps, %", 1),
    "gate": ("gate, 0 to 1", 2),
    "pointing_accuracy": ("pointing accuracy, %", 1),
    "attention_mass": ("attention in the object's box, %", 1),
    "occlusion_attended": ("fall of log p with the attended hidden, nats", 3),
    "occlusion_random": ("with random regions hidden, nats", 3),
    "faithfulness": ("the difference, nats", 3),
}
COLUMNS = ("results", "data", "encoder", "attention", "beam", "protocol")


def read_results():
    """What the commands wrote, by the file's name without its ending."""
    files = sorted(PAGES[1].parent.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def is_evaluation(results):
    """Whether a file is of captions' scores."""
    return "scores" in results


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
    low, high = results["intervals"][protocol][name]
    score = f"{results['scores'][protocol][name]:.{digits}f}"
    return f"{score}<br><sub>{low:.{digits}f}–{high:.{digits}f}</sub>"


def attention_table(shown):
    """A table of the scores of attention, a column for each of the results that have them."""
    shown = {name: r["attention_scores"] for name, r in shown.items() if "attention_scores" in r}
    lines = [f"| | {' | '.join(shown)} |", "|---" * (1 + len(shown)) + "|"]
    for name, (title, digits) in ATTENTION.items():
        if any(name in scores for scores in shown.values()):
            cells = [attention_cell(scores, name, digits) for scores in shown.values()]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def attention_cell(scores, name, digits):
    """A score of attention above its interval and what attention that doesn't look would get."""
    if name not in scores:
        return "–"
    small = []
    if name in scores["intervals"]:
        small.append("–".join(f"{end:.{digits}f}" for end in scores["intervals"][name]))
    for base in ("uniform", "centre"):
        if f"{name}_{base}" in scores:
            small.append(f"{base} {scores[f'{name}_{base}']:.{digits}f}")
    text = f"{scores[name]:.{digits}f}"
    return f"{text}<br><sub>{'; '.join(small)}</sub>" if small else text


def agreement_table(results):
    """Kendall's tau of every metric with people's judgements beside the published one."""
    judges = {
        name: part for name, part in results.items() if isinstance(part, dict) and "tau" in part
    }
    heads = [f"{name}, tau-{part['variant']} | published" for name, part in judges.items()]
    lines = [f"| metric | {' | '.join(heads)} |", "|---" * (2 * len(judges) + 1) + "|"]
    for name, title in SCORES.items():
        cells = []
        for part in judges.values():
            if name in part["tau"]:
                cells += [f"{part['tau'][name]:.1f}", str(part["published"].get(name, "–"))]
        if cells:
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def tried_table(results):
    """The settings that a baseline was tried with."""
    tried = results["config"]["tried"]
    columns = sorted({setting["agreeing"] for setting in tried})
    lines = [
        f"| k | {' | '.join(f'm = {m}' for m in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for k in sorted({setting["neighbours"] for setting in tried}):
        found = {s["agreeing"]: s["cider"] for s in tried if s["neighbours"] == k}
        lines.append(f"| {k} | {' | '.join(f'{found[m]:.3f}' for m in columns)} |")
    return "".join(f"{line}\n" for line in lines)


def variance_table(results):
    """The gradient's variance and the loss after training of every setting of hard attention."""
    lines = [
        "| mixing | baseline | samples | variance | −log p after the training, nats a word |",
        "|---" * 5 + "|",
    ]
    for row, curve in zip(results["variances"], results["curves"], strict=True):
        loss = sum(losses[-1] for losses in curve["losses"]) / len(curve["losses"])
        cells = [row["mixing"], row["baseline"], row["samples"], f"{row['variance']:.3g}"]
        lines.append(f"| {' | '.join(map(str, [*cells, f'{loss:.2f}']))} |")
    return "".join(f"{line}\n" for line in lines)


def with_tables(page):
    """A page's text with its tables as they should be."""
    everything = read_results()
    folder = "results/" if page.parent == REPOSITORY else ""

    def fill(found):
        start, kind, patterns, end = found.groups()
        shown = {
            name: results
            for pattern in patterns.split()
            for name, results in everything.items()
            if Path(name).match(pattern)
        }
        if not shown:
            raise ValueError(f"A table must show some results. Received: {patterns!r} in {page}")
        if kind == "results":
            return start + table(shown, folder) + end
        if kind == "attention":
            return start + attention_table(shown) + end
        (results,) = shown.values()
        make = {"agreement": agreement_table, "tried": tried_table, "variance": variance_table}
        return start + make[kind](results) + end

    return TABLE.sub(fill, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path), encoding="utf-8")
