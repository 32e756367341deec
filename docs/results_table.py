"""Writes the tables of README.md and results/README.md from the files in results/.

    python docs/results_table.py

A table stands between two comments. The first names the kind of table and the files it shows, as
patterns:

    <!-- summary: flickr8k-soft-vgg16* scenes-soft -->
    <!-- end of summary -->

Kinds: `summary` (one row a model, test scores with dev scores beside them, and the paper's),
`results` (one row a file, protocol `coco`, with intervals), `paper` (BLEU by the authors' protocol,
with intervals), `attention`, `agreement`, `tried`, `variance`, `table1` (the systems of the paper's
Table 1, with the difference to soft attention), `word_maps` (pointing of word detectors and of
attention).
"""

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = (REPOSITORY / "README.md", REPOSITORY / "results" / "README.md")
TABLE = re.compile(r"(<!-- (\w+): ([^>]*) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
BLEU = {f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)}
SCORES = {
    **BLEU,
    **{"meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "spice": "SPICE"},
}
# BLEU-1 to 4 in the paper's Table 1, Flickr8k, by the authors' protocol.
PAPER = {
    "the paper, soft attention, VGG19": (67, 44.8, 29.9, 19.5),
    "the paper, hard attention, VGG19": (67, 45.7, 31.4, 21.3),
}
# The same of the committed captioners on the test split, as it was measured when the test pictures
# were evaluated. The files are of a version with another definition, which was removed from them.
ON_TEST = {
    "flickr8k-soft-vgg16-test": (66.6, 46.0, 32.1, 22.4),
    "flickr8k-hard-vgg16-test": (66.8, 46.1, 31.9, 21.8),
}
# Rows of table1-*.json with attention.
ATTENDING = ("soft", "hard")
# Title with unit, number of decimals.
ATTENTION = {
    "entropy": ("entropy of a map, nats", 2),
    "total_variation": ("change from word to word, %", 1),
    "coverage": ("effective share of the regions, %", 1),
    "sameness": ("overlap of a caption's maps, %", 1),
    "sameness_between_pictures": ("overlap of the pictures' mean maps, %", 1),
    "gate": ("gate, 0 to 1", 2),
    "pointing_accuracy": ("pointing accuracy, %", 1),
    "attention_mass": ("attention in the object's box, %", 1),
    "pointing_accuracy_small": ("pointing accuracy, boxes under 5 % of the picture, %", 1),
    "pointing_accuracy_medium": ("pointing accuracy, boxes of 5 to 20 %, %", 1),
    "pointing_accuracy_large": ("pointing accuracy, boxes over 20 %, %", 1),
    "attention_mass_small": ("attention in the box, boxes under 5 % of the picture, %", 1),
    "attention_mass_medium": ("attention in the box, boxes of 5 to 20 %, %", 1),
    "attention_mass_large": ("attention in the box, boxes over 20 %, %", 1),
    "occlusion_attended": ("drop of log p, attended regions hidden, nats", 3),
    "occlusion_random": ("drop of log p, random regions hidden, nats", 3),
    "faithfulness": ("difference of the two, nats", 3),
    "pointing_lag": ("pointing of the next word's map minus the word's own, %", 1),
    "uniform_cost": ("log p lost with uniform weights, nats", 3),
    "permuted_cost": ("log p lost with permuted weights, nats", 3),
    "other_cost": ("log p lost with another picture's weights, nats", 3),
    "deletion": ("area under p(word), attended regions hidden first, %", 1),
    "deletion_random": ("the same in random order, %", 1),
    "insertion": ("area under p(word), attended regions shown first, %", 1),
    "insertion_random": ("the same in random order, %", 1),
    "rank_correlation": ("rank correlation of attention and drop of log p", 2),
    "recall_1": ("references that are likeliest for their own picture, %", 1),
    "recall_10": ("references whose picture is among the 10 likeliest, %", 1),
}
# Endings of the scores of attention that ignores the words, and their names in the table.
BASELINES = {"_uniform": "uniform", "_centre": "centre", "_mean_map": "mean map"}


def read_results():
    """Returns the contents of all results files by name without the suffix."""
    files = sorted(PAGES[1].parent.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def is_evaluation(results):
    """Whether a file holds the scores of captions."""
    return "scores" in results


def markdown(heads, rows):
    """Returns a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines)


def link(name, folder, text=None):
    """Returns a link to a results file."""
    return f"[{text or name}]({folder}{name}.json)"


def score_names(shown, protocol="coco"):
    """Returns the scores that any of the results has, in the tables' order."""
    return [n for n in SCORES if any(n in r["scores"][protocol] for r in shown.values())]


def summary_table(shown, folder):
    """Returns one row a model: scores on test, those on dev in brackets; the paper's last.

    Args:
        shown: Dictionary from names to results. `x` and `x-test` belong to one model. Of the file
            of a Table 1, the system without attention that has the highest CIDEr is shown.
        folder: Folder of the files, relative to the page.
    """
    models = {}
    for name, results in shown.items():
        model, scored = f"`{name.removesuffix('-test')}`", results
        if "rows" in results:
            rows = {key: row for key, row in results["rows"].items() if key not in ATTENDING}
            scored = max(rows.values(), key=lambda row: row["scores"]["coco"]["cider"])
            model = f"best without attention, {scored['title']}"
        models.setdefault(model, {})[results["split"]] = name, scored
    rows = []
    for model, splits in models.items():
        files = [link(splits[split][0], folder, split) for split in sorted(splits)[::-1]]
        cells = [
            in_brackets({split: number(x, "coco", score) for split, (_, x) in splits.items()})
            for score in ("bleu1", "bleu4", "meteor", "cider")
        ]
        by_paper = {
            split: " / ".join(map(str, ON_TEST[name])) if name in ON_TEST else bleu_by_paper(x)
            for split, (name, x) in splits.items()
        }
        rows.append([f"{model}: {', '.join(files)}", *cells, in_brackets(by_paper)])
    for model, bleu in PAPER.items():
        rows.append([model, *["–"] * 4, " / ".join(map(str, bleu))])
    heads = ["model", "BLEU-1", "BLEU-4", "METEOR", "CIDEr", "BLEU-1 to 4, authors' protocol"]
    return markdown(heads, rows)


def in_brackets(values):
    """Returns the value of the test split, that of dev in brackets."""
    dev = values.get("dev", "–")
    return values.get("test", "–") + ("" if dev == "–" else f" ({dev})")


def bleu_by_paper(results):
    """Returns BLEU-1 to 4 by the authors' protocol as text."""
    found = [number(results, "paper", name) for name in BLEU]
    return "–" if "–" in found else " / ".join(found)


def table(shown, folder, protocol="coco"):
    """Returns one row a file: scores with 95 % intervals.

    Args:
        shown: Dictionary from names to results.
        folder: Folder of the files, relative to the page.
        protocol: "coco", or "paper" for BLEU alone.
    """
    names = score_names(shown) if protocol == "coco" else list(BLEU)
    rows = [
        [link(name, folder), results["split"], *(cell(results, protocol, n) for n in names)]
        for name, results in shown.items()
    ]
    return markdown(["results", "split", *(SCORES[name] for name in names)], rows)


def paper_table(shown, folder):
    """Returns one row a file that has BLEU by the authors' protocol."""
    shown = {name: found for name, found in shown.items() if "bleu1" in found["scores"]["paper"]}
    return table(shown, folder, "paper")


def number(results, protocol, name):
    """Returns a score as text."""
    digits = 3 if name == "cider" else 1
    value = results["scores"][protocol].get(name)
    return "–" if value is None else f"{value:.{digits}f}"


def cell(results, protocol, name):
    """Returns a score above its interval."""
    score = number(results, protocol, name)
    if score == "–":
        return score
    low, high = results["intervals"][protocol][name]
    digits = 3 if name == "cider" else 1
    return f"{score}<br><sub>{low:.{digits}f}–{high:.{digits}f}</sub>"


def attention_table(shown, folder=""):
    """Returns the attention scores, one column a file that has them."""
    shown = {name: r["attention_scores"] for name, r in shown.items() if "attention_scores" in r}
    rows = [
        [title, *(attention_cell(scores, name, digits) for scores in shown.values())]
        for name, (title, digits) in ATTENTION.items()
        if any(name in scores for scores in shown.values())
    ]
    return markdown(["", *shown], rows)


def attention_cell(scores, name, digits):
    """Returns an attention score above its interval and those of maps that ignore the words."""
    if name not in scores:
        return "–"
    small = []
    if name in scores["intervals"]:
        small.append("–".join(f"{end:.{digits}f}" for end in scores["intervals"][name]))
    for ending, base in BASELINES.items():
        if name + ending in scores:
            small.append(f"{base} {scores[name + ending]:.{digits}f}")
    text = f"{scores[name]:.{digits}f}"
    return f"{text}<br><sub>{'; '.join(small)}</sub>" if small else text


def phrase_table(shown, folder=""):
    """Returns the attention on phrases of Flickr30k Entities, one row a file."""
    rows = []
    for name, results in shown.items():
        cells = [link(name, folder), results["split"]]
        for scores in results["phrases"].values():
            cells += [f"{scores['phrases']:,}", attention_cell(scores, "phrase_mass", 1)]
        rows.append(cells)
    kinds = [f"{kind} captions" for kind in next(iter(shown.values()))["phrases"]]
    heads = [
        head for kind in kinds for head in (f"phrases of {kind}", "attention in the phrase, %")
    ]
    return markdown(["results", "split", *heads], rows)


def entity_table(shown, folder=""):
    """Returns the attention on phrases of reference captions by type of entity, uniform beside."""
    found = {name: results["phrases"]["references"] for name, results in shown.items()}
    types = {key.partition(":")[2] for scores in found.values() for key in scores if ":" in key}
    types -= {"small", "medium", "large"}  # sizes of boxes
    rows = [
        [
            kind,
            *(
                f"{scores[f'phrase_mass:{kind}']:.1f} ({scores[f'phrase_mass_uniform:{kind}']:.1f})"
                for scores in found.values()
            ),
        ]
        for kind in sorted(types)
    ]
    return markdown(["entity", *found], rows)


def agreement_table(shown, folder=""):
    """Returns Kendall's tau of every metric with human judgements beside the published value."""
    (results,) = shown.values()
    judges = {
        name: part for name, part in results.items() if isinstance(part, dict) and "tau" in part
    }
    heads = ["metric"]
    for name, part in judges.items():
        heads += [f"{name}, tau-{part['variant']}", "published"]
    rows = []
    for name, title in SCORES.items():
        cells = []
        for part in judges.values():
            if name in part["tau"]:
                cells += [f"{part['tau'][name]:.1f}", part["published"].get(name, "–")]
        if cells:
            rows.append([title, *cells])
    return markdown(heads, rows)


def tried_table(shown, folder=""):
    """Returns CIDEr of the consensus baseline by its settings."""
    (results,) = shown.values()
    tried = results["config"]["tried"]
    columns = sorted({setting["agreeing"] for setting in tried})
    rows = []
    for k in sorted({setting["neighbours"] for setting in tried}):
        found = {s["agreeing"]: s["cider"] for s in tried if s["neighbours"] == k}
        rows.append([k, *(f"{found[m]:.3f}" for m in columns)])
    return markdown(["k", *(f"m = {m}" for m in columns)], rows)


def table1_table(shown, folder=""):
    """Returns the systems of the paper's Table 1: scores, and the difference to soft attention."""
    (results,) = shown.values()
    rows = []
    for row in results["rows"].values():
        found = row.get("against_soft", {}).get("coco", {}).get("cider")
        difference = "–"
        if found:
            ends = f"{found['low']:+.3f} to {found['high']:+.3f}"
            p = f"p {found['p_value']:.4f}"
            difference = f"{found['difference']:+.3f}<br><sub>{ends}; {p}</sub>"
        coco = [cell(row, "coco", name) for name in ("bleu1", "bleu4", "meteor", "cider")]
        paper = bleu_by_paper(row)
        parameters, seconds = row["parameters"], row["training_seconds"]
        rows.append(
            [
                row["title"],
                *coco,
                difference,
                paper,
                f"{parameters:,}" if parameters else "–",
                f"{seconds:.0f}" if seconds else "–",
            ]
        )
    heads = ["system", "BLEU-1", "BLEU-4", "METEOR", "CIDEr", "CIDEr minus soft attention's"]
    return markdown([*heads, "BLEU-1 to 4, `paper`", "parameters", "training, s"], rows)


def word_maps_table(shown, folder=""):
    """Returns the pointing of word detectors and of attention at the same words of references."""
    rows = []
    for results in shown.values():
        maps = next(row["word_maps"] for row in results["rows"].values() if "word_maps" in row)
        for name, scores in maps.items():
            of_scores = [
                attention_cell(scores, measure, 1)
                for measure in ("pointing_accuracy", "attention_mass")
            ]
            difference = "–"
            if "difference" in scores:
                ends = scores["difference_intervals"]["pointing_accuracy"]
                value = scores["difference"]["pointing_accuracy"]
                difference = f"{value:+.1f}<br><sub>{ends[0]:+.1f} to {ends[1]:+.1f}</sub>"
            rows.append([results["dataset"], name, f"{scores['words']:,}", *of_scores, difference])
    heads = ["data set", "maps", "words", "pointing accuracy, %", "mass in the box, %"]
    return markdown([*heads, "pointing minus the detectors'"], rows)


def variance_table(shown, folder=""):
    """Returns the gradient's variance and the loss after training for every setting."""
    (results,) = shown.values()
    rows = []
    for row, curve in zip(results["variances"], results["curves"], strict=True):
        loss = sum(losses[-1] for losses in curve["losses"]) / len(curve["losses"])
        setting = [row["mixing"], row["baseline"], row["samples"]]
        rows.append([*setting, f"{row['variance']:.3g}", f"{loss:.2f}"])
    last = "−log p after the training, nats a word"
    return markdown(["mixing", "baseline", "samples", "variance", last], rows)


KINDS = {
    "summary": summary_table,
    "results": table,
    "paper": paper_table,
    "attention": attention_table,
    "phrases": phrase_table,
    "entities": entity_table,
    "agreement": agreement_table,
    "tried": tried_table,
    "variance": variance_table,
    "table1": table1_table,
    "word_maps": word_maps_table,
}


def with_tables(page):
    """Returns the text of a page with its tables written anew."""
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
        if kind not in KINDS or not shown:
            raise ValueError(
                f"Expected a kind of table ({', '.join(KINDS)}) and names of results files. "
                f"Received: {kind}: {patterns} in {page.name}"
            )
        return start + KINDS[kind](shown, folder) + end

    return TABLE.sub(fill, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path), encoding="utf-8")
