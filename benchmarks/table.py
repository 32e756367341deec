"""Tables of `README.md`, from `results.json` and from `results-*.json` of other machines."""

import json

from benchmarks.measure import FOLDER

README = FOLDER / "README.md"
END = "<!-- end of table -->"

# What is measured, its comparison, target, key in the results and number format.
TIMES, SHARE, SECONDS, RATE = "{:.1f}x", "{:.1%}", "{:.2f} s", "{:.0f}/s"
FINE_TIMES = "{:.2f}x"
ROWS = (
    (
        "training step, float32, five captions of a picture share it",
        "PyTorch tutorial's captions/s",
        (">= 5x", "training_vs_pytorch", TIMES),
    ),
    (
        "the same, every caption with its own picture",
        "the same",
        ("", "training_vs_pytorch_without_sharing", TIMES),
    ),
    (
        "the same as the first, bfloat16",
        "the same, float32",
        ("", "training_vs_pytorch_bfloat16", TIMES),
    ),
    (
        "training step, float32, shared pictures",
        "the strongest PyTorch, best of eager and compiled",
        (">= 1.5x", "training_vs_strongest", FINE_TIMES),
    ),
    (
        "the same in bfloat16",
        "the same in bfloat16",
        (">= 1.5x", "training_vs_strongest_bfloat16", FINE_TIMES),
    ),
    (
        "the same in the faster precision of each",
        "the same",
        ("", "training_vs_strongest_fastest", FINE_TIMES),
    ),
    (
        "training step, float32, shared pictures",
        "roofline",
        (">= 65%", "training_vs_roofline", SHARE),
    ),
    (
        "the same, every caption with its own picture",
        "roofline",
        ("", "training_vs_roofline_without_sharing", SHARE),
    ),
    (
        "training step, bfloat16, shared pictures",
        "float32",
        (">= 1.8x", "training_low_precision_speedup", TIMES),
    ),
    (
        "the same, every caption with its own picture",
        "float32",
        ("", "training_low_precision_speedup_without_sharing", TIMES),
    ),
    (
        "training on Flickr8k features, flickr8k preset",
        "the same minibatches from memory",
        ("< +3%", "loader_share", "{:+.1%}"),
    ),
    (
        "the same: time that a step waits for its minibatch",
        "the step",
        ("", "loader_idle", SHARE),
    ),
    ("its peak memory", "-", ("<= 2.5 GB", "loader_peak_gb", "{:.1f} GB")),
    (
        "beam search, width 5, 1,000 pictures",
        "PyTorch, picture by picture",
        (">= 25x", "beam_vs_loop", TIMES),
    ),
    ("same captions as that", "-", ("100%", "beam_same_captions", SHARE)),
    (
        "the same search, float32",
        "the strongest PyTorch, best of eager and compiled",
        (">= 1.5x", "beam_vs_strongest", FINE_TIMES),
    ),
    ("same captions as that", "-", ("100%", "beam_same_captions_strongest", SHARE)),
    (
        "the same search, float32",
        "its matrix products, at the rate of their shapes, for the captions' words",
        (">= 60%", "beam_vs_roofline", SHARE),
    ),
    (
        "the same in bfloat16",
        "PyTorch, picture by picture",
        ("", "beam_vs_loop_bfloat16", TIMES),
    ),
    ("same captions as in float32", "-", ("", "beam_same_captions_bfloat16", SHARE)),
    ("dev BLEU-4 of that search, float32", "-", ("", "beam_bleu4", "{:.2f}")),
    ("the same in bfloat16", "float32", ("within 0.3", "beam_bleu4_bfloat16", "{:.2f}")),
    (
        "feature extraction, VGG16, float32",
        "roofline",
        (">= 85%", "features_vs_roofline", SHARE),
    ),
    (
        "feature extraction, VGG16, bfloat16",
        "float32",
        ("> 1x", "features_low_precision_speedup", TIMES),
    ),
    ("pixels to caption, model loaded", "-", ("<= 0.4 s", "caption_seconds", SECONDS)),
    ("`sat-keras caption` from a cold start", "-", ("<= 8 s", "cold_start_seconds", SECONDS)),
    (
        "training step on JAX, shared pictures",
        "-",
        ("", "captions_per_second_jax", RATE),
    ),
    (
        "training step on PyTorch (Keras), shared pictures",
        "-",
        ("", "captions_per_second_torch", RATE),
    ),
)


def others(folder=FOLDER):
    """Returns the results of machines other than the latest, sorted by file name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("results-*.json"))]


def table(results, elsewhere=()):
    """Returns the lines of the main table, with machine and command."""
    columns = ["what", "against", "to reach", "measured"]
    columns += [_label(found["machine"]) for found in elsewhere]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for what, against, (bar, key, form) in ROWS:
        cells = [_cell(found.get(key), form) for found in (results, *elsewhere)]
        if any(cells):
            lines.append(f"| {what} | {against} | {bar} | {' | '.join(cells)} |")
    lines += ["", f"Measured on {results['machine']} {_how(results)}."]
    for name, found in zip(columns[4:], elsewhere, strict=True):
        lines += ["", f"Column {name}: measured on {found['machine']} {_how(found)}."]
    return lines


def _label(machine):
    """Returns a machine's processor and its largest vector or matrix unit."""
    processor, *units, _cores = machine.split(", ")
    return ", ".join([processor, *units[-1:]])


def _how(results):
    minutes = sum(results.get("minutes", {}).values())
    return f"by `{results['command']}`, {minutes:.0f} minutes"


def _cell(value, form):
    """Returns a number or a median with its spread; nothing if not measured."""
    if value is None:
        return ""
    if not isinstance(value, dict):
        return form.format(value)
    median, low, high = (form.format(value[name]) for name in ("median", "low", "high"))
    return f"{median}<br><sub>{low} to {high}</sub>"


def profile_table(results, elsewhere=()):
    """Returns the lines of the table of time by kind of operation."""
    profile = results.get("profile")
    if not profile:
        return []
    kinds = dict.fromkeys(kind for found in profile.values() for kind in found)
    lines = [f"| milliseconds | {' | '.join(profile)} |", "|---|" + "---:|" * len(profile)]
    for kind in kinds:
        values = [f"{found[kind]:.1f}" if kind in found else "" for found in profile.values()]
        lines.append(f"| {kind} | {' | '.join(values)} |")
    return lines


def growth_figure(results, elsewhere=()):
    """Returns the line that shows `growth.svg`."""
    return ["![Time and memory by size](growth.svg)"] if "growth" in results else []


TABLES = {
    "python -m benchmarks": table,
    "python -m benchmarks profile": profile_table,
    "python -m benchmarks growth": growth_figure,
}


def update_readme(results, elsewhere=(), path=README):
    """Writes the tables into `README.md`; only the first shows other machines."""
    text = path.read_text(encoding="utf-8")
    for command, lines in TABLES.items():
        begin = f"<!-- table: {command} -->"
        before, rest = text.split(begin)
        after = rest.split(END, 1)[1]
        text = "\n".join([before + begin, *lines(results, elsewhere), END + after])
    path.write_text(text, encoding="utf-8")
