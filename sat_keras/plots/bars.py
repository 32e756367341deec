"""Bar charts of the report: attention by type of entity and by size, beside three baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

from sat_keras.analysis.pointing import BOX_SIZES
from sat_keras.analysis.statistics import BASELINES

# Of the page's drawing, in its units: left end and length of the longest bar, a bar's height, and
# the height of a group of bars with the space below it.
_LEFT, _LENGTH, _BAR, _GROUP = 92, 176, 6, 34
_LABELS = {
    "small": "boxes < 5 %",
    "medium": "boxes 5–20 %",
    "large": "boxes > 20 %",
    "bodyparts": "body parts",
}


def bar_charts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the bar charts of attention in boxes, in units of the page's drawing.

    Args:
        results: What `sat-keras evaluate` writes as JSON. Missing scores are left out.

    Returns:
        List of charts, none for results without boxes.
    """
    charts = []
    scores = results.get("attention_scores", {})
    for name, title in (
        ("pointing_accuracy", "Words whose map peaks in their box"),
        ("attention_mass", "Attention in the box of a word"),
    ):
        rows = {"all words": name} | {_LABELS[size]: f"{name}_{size}" for size in BOX_SIZES}
        charts.append(_chart(f"{title}, by the box's share of the picture", scores, rows, ""))
    for kind, scores in results.get("phrases", {}).items():
        found = [key.partition(":")[2] for key in scores if key.startswith("phrase_mass:")]
        types = [suffix for suffix in found if suffix not in BOX_SIZES]
        types.sort(key=lambda suffix: -scores[f"phrase_mass:{suffix}"])
        rows = {"all phrases": "phrase_mass"}
        rows |= {_LABELS.get(x, x): f"phrase_mass:{x}" for x in (*types, *BOX_SIZES)}
        title = f"Attention in the boxes of phrases, {kind.removesuffix('s')} captions"
        charts.append(_chart(title, scores, rows, "by type of entity and by the boxes' share"))
    return [chart for chart in charts if chart["groups"]]


def _chart(
    title: str, scores: Mapping[str, Any], rows: Mapping[str, str], note: str
) -> dict[str, Any]:
    """Returns a chart of the rows that have a score: groups of bars, ticks, description."""
    rows = {label: name for label, name in rows.items() if name in scores}
    bars = {label: _values(scores, name) for label, name in rows.items()}
    ends = [end for name in rows.values() for end in scores["intervals"].get(name, ())]
    highest = max([value for row in bars.values() for value in row.values()] + ends, default=0)
    most = max(20 * -(-highest // 20), 20)  # a multiple of 20, so that its half is round

    def at(value: float) -> float:
        return round(_LEFT + _LENGTH * value / most, 1)

    groups = []
    for number, (label, name) in enumerate(rows.items()):
        top = 4 + _GROUP * number
        interval = [at(end) for end in scores["intervals"].get(name, ())]
        groups.append(
            {
                "label": label,
                "top": top,
                "value": f"{scores[name]:.1f}",
                "end": max([at(scores[name]), *interval]) + 4,
                "interval": interval,
                "bars": [
                    {"kind": kind, "top": top + _BAR * i, "width": round(at(value) - _LEFT, 1)}
                    for i, (kind, value) in enumerate(bars[label].items())
                ],
            }
        )
    return {
        "title": title,
        "note": note,
        "description": _description(title, bars),
        "left": _LEFT,
        "height": 4 + _GROUP * len(groups),
        "bar": _BAR,
        "ticks": [(at(share * most), f"{share * most:g}") for share in (0, 0.5, 1)],
        "groups": groups,
    }


def _values(scores: Mapping[str, Any], name: str) -> dict[str, float]:
    """Returns a score and those of attention that ignores the words, where they are known."""
    measure, colon, suffix = name.partition(":")
    found = {"attention": scores[name]}
    for base in BASELINES:
        key = f"{measure}{base}{colon}{suffix}"
        if key in scores:
            found[base.strip("_").replace("_", "-")] = scores[key]
    return found


def _description(title: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    parts = []
    for label, row in bars.items():
        others: Sequence[str] = [
            f"{kind.replace('-', ' ')} {value:.1f}"
            for kind, value in row.items()
            if kind != "attention"
        ]
        beside = f" ({', '.join(others)})" if others else ""
        parts.append(f"{label} {row['attention']:.1f}{beside}")
    return f"Bar chart. {title}, in percent: {'; '.join(parts)}."
