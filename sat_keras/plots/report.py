"""An evaluation as one HTML page: scores, distributions, best and worst captions, and a table.

The page is one file that holds its style, script and pictures. It needs no server and no network,
follows the reader's light or dark theme, and can be used by keyboard and screen reader.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from PIL import Image

from sat_keras.analysis.measures import attention_entropy
from sat_keras.analysis.statistics import BASELINES, unit_of
from sat_keras.captioning.caption import Caption
from sat_keras.captioning.maps import seen_box
from sat_keras.captioning.widget import TEMPLATES, data_uri
from sat_keras.cnn.resize import PictureResize
from sat_keras.data.images import load_image
from sat_keras.evaluation.statistics import PictureScores
from sat_keras.plots.bars import bar_charts
from sat_keras.plots.widget import attention_html

REPORT_FILE = "index.html"
_TEMPLATES = TEMPLATES.overlay(loader=jinja2.PackageLoader("sat_keras.plots", ""))
# Number of captions that are shown large, best and worst.
_SHOWN = 8
# The first pictures of the table have a thumbnail of 3 kB with this longer side in pixels.
_MOST_THUMBNAILS, _THUMBNAIL_SIDE = 1000, 112
_LABELS = {
    **{f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "spice": "SPICE"},
}
_MEANINGS = {
    "entropy": "how widely a word's attention is spread",
    "total_variation": "attention that moves from word to word",
    "coverage": "effective share of the regions that a caption looks at",
    "sameness": "overlap of a caption's maps",
    "sameness_between_pictures": "overlap of the pictures' mean maps",
    "gate": "how much of the context a word lets in",
    "pointing_accuracy": "maps with their peak in the named object's box",
    "attention_mass": "attention inside the named object's box",
    **{
        f"{name}_{size}": f"the same, boxes {limits} of the picture"
        for name in ("pointing_accuracy", "attention_mass")
        for size, limits in (
            ("small", "under 5 %"),
            ("medium", "of 5 to 20 %"),
            ("large", "over 20 %"),
        )
    },
    "occlusion_attended": "drop of log p(word) with the attended regions hidden",
    "occlusion_random": "the same, with random regions hidden",
    "occlusion_least": "the same, with the least attended regions hidden",
    "faithfulness": "drop for attended minus drop for random regions",
    "pointing_lag": "pointing of the next word's map minus the word's own",
    "uniform_cost": "log p(word) lost with uniform attention weights",
    "permuted_cost": "log p(word) lost with the weights at permuted regions",
    "other_cost": "log p(word) lost with another picture's weights",
    "deletion": "area under p(word), attended regions hidden first",
    "deletion_random": "the same, regions hidden in random order",
    "insertion": "area under p(word), attended regions shown first",
    "insertion_random": "the same, regions shown in random order",
    "rank_correlation": "ranks of attention and of the drop of log p(word), block by block",
    "recall_1": "references that are likeliest for their own picture",
    "recall_5": "references whose picture is among the 5 likeliest",
    "median_rank": "median rank of a reference's own picture",
    "recall_10": "references whose picture is among the 10 likeliest",
}
_COUNTS = ("words", "object_words", "occlusion_pictures", "ranked_pictures")
# Scores in the table of captions, with their digits.
_COLUMNS = {"cider": 3, "bleu4": 1, "meteor": 1, "rouge_l": 1, "spice": 1}


def write_report(
    folder: str | Path,
    results: Mapping[str, Any],
    captions: Mapping[str, Caption],
    references: Mapping[str, Sequence[str]],
    paths: Mapping[str, str],
    resize: PictureResize,
    boxes: Mapping[str, Sequence] | None = None,
) -> Path:
    """Writes the report of an evaluation.

    Args:
        folder: Folder for the page. It is created if it is missing.
        results: What `sat-keras evaluate` writes as JSON. Missing scores are left out.
        captions: `Caption` by image id.
        references: Reference captions by image id.
        paths: Picture file by image id.
        resize: `PictureResize` of the encoder, so that maps cover what the CNN saw of a photo.
        boxes: Optional boxes by image id, of things that the words name, as `ground_captions`
            returns them for a caption.

    Returns:
        Path of the page, `index.html` in the folder.

    Raises:
        ValueError: If a picture cannot be read.
    """
    table = _caption_table(results, captions)
    by = ["cider", "rouge_l"] if "rouge_l" in table else ["cider"]
    ranked = table.sort_values(by).index
    shown = min(_SHOWN, len(ranked) // 2 or 1)

    def in_photo(found: Any, seen: Sequence[float]) -> Any:
        """Moves boxes from the resized picture to the photo."""
        shift = np.tile(seen[:2], 2)
        scale = (np.tile(seen[2:], 2) - shift) / resize.image_size
        return found and [None if x is None else shift + scale * x for x in found]

    def card(image_id: str) -> dict[str, Any]:
        caption, photo = captions[image_id], load_image(paths[image_id])
        seen = seen_box(resize, *photo.shape[:2])
        things = in_photo((boxes or {}).get(image_id), seen)
        return {
            "id": image_id,
            "text": caption.text,
            "cider": table.loc[image_id, "cider"],
            "references": references[image_id],
            "widget": Markup(_photo_html(photo, caption, seen, things)),
        }

    page = _TEMPLATES.get_template("report.html").render(
        results=results,
        tables=_score_tables(results),
        histograms=_histograms(table, captions),
        curves=_curves(results.get("attention_scores", {}).get("curves", {})),
        bars=bar_charts(results),
        best=[card(image_id) for image_id in ranked[::-1][:shown]],
        worst=[card(image_id) for image_id in ranked[:shown]],
        data=_table_data(table, references, paths),
    )
    path = Path(folder) / REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _caption_table(results: Mapping[str, Any], captions: Mapping[str, Caption]) -> pd.DataFrame:
    """Returns one row for each picture: its caption, scores, number of words and mean entropy."""
    image_ids = sorted(captions, key=str)  # the order of the picture scores
    each = PictureScores.decode(results["picture_scores"]).each("coco")
    found = [captions[image_id] for image_id in image_ids]
    return pd.DataFrame(
        {
            "caption": [caption.text for caption in found],
            **{name: each[name] for name in _COLUMNS if name in each},
            "words": [len(caption.words) for caption in found],
            "entropy": [
                np.nan
                if caption.attention is None or not caption.words
                else attention_entropy(caption.attention).mean()
                for caption in found
            ],
        },
        index=image_ids,
    )


# Tables of scores


def _score_tables(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns title, headings and rows of every table of scores."""
    tables = [_protocol_table(results)]
    if "attention_scores" in results:
        tables.append(_attention_table(results["attention_scores"]))
    for key, title in (("scenes", "Truth about the scenes"), ("caption_statistics", "Captions")):
        if key in results:
            rows = [_row(name, _cell(value)) for name, value in results[key].items()]
            tables.append({"title": title, "headings": ["value"], "rows": rows})
    return tables


def _protocol_table(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scores of captions, a row for each metric and a column for each protocol."""
    scores, intervals = results["scores"], results.get("intervals", {})
    names = dict.fromkeys(name for protocol in scores.values() for name in protocol)
    rows = [
        _row(
            name,
            *(
                _cell(
                    scores[protocol].get(name),
                    3 if name == "cider" else 1,
                    intervals.get(protocol, {}).get(name),
                )
                for protocol in scores
            ),
        )
        for name in names
    ]
    title = "Captions against references, by protocol; all but CIDEr in percent"
    return {"title": title, "headings": list(scores), "rows": rows}


def _attention_table(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scores of attention beside those of uniform and of centred attention."""
    intervals, rows = scores.get("intervals", {}), []
    kinds = [kind for kind in BASELINES if any(name.endswith(kind) for name in scores)]
    for name, value in scores.items():
        is_baseline = name.endswith(BASELINES)
        if name in _COUNTS or is_baseline or not isinstance(value, (int, float)):
            continue
        digits = 1 if unit_of(name) == "%" else 3
        baselines = (_cell(scores.get(f"{name}{kind}"), digits) for kind in kinds)
        rows.append(_row(name, _cell(value, digits, intervals.get(name)), *baselines))
    counts = ", ".join(f"{scores[name]:,} {_label(name)}" for name in _COUNTS if name in scores)
    headings = ["value", *(kind.strip("_").replace("_", " ") for kind in kinds)]
    return {"title": f"Attention: {counts}", "headings": headings, "rows": rows}


def _row(name: str, *cells: tuple[str, str]) -> dict[str, Any]:
    meaning = _MEANINGS.get(name, "")
    unit = unit_of(name) if meaning else ""
    return {"label": _label(name), "unit": unit, "meaning": meaning, "cells": cells}


def _cell(
    value: float | None, digits: int | None = None, interval: Sequence[float] | None = None
) -> tuple[str, str]:
    """Returns the texts of a score and of its interval. Without `digits` three are significant."""
    if value is None:
        return "", ""
    if digits is None:
        whole = isinstance(value, int)
        return f"{value:,}" if whole else f"{value:.3g}" if value < 100 else f"{value:.1f}", ""
    ends = "" if interval is None else " to ".join(f"{end:.{digits}f}" for end in interval)
    return f"{value:.{digits}f}", ends


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " "))


# Histograms


def _photo_html(photo: np.ndarray, caption: Caption, seen: Any, boxes: Any) -> str:
    """Returns a photo with the caption's attention, or alone if the model has none."""
    if caption.attention is not None:
        words = caption.words, caption.attention, caption.gate
        return attention_html(photo, *words, seen=seen, boxes=boxes)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, format="jpeg", quality=88)
    return f'<img alt="" src="{data_uri(file.getvalue(), "jpeg")}">'


def _histograms(table: pd.DataFrame, captions: Mapping[str, Caption]) -> list[dict[str, Any]]:
    """Returns the distributions of lengths, scores and entropies over the pictures."""
    words, cider, entropy = table["words"], table["cider"], table["entropy"].dropna()
    edges = np.arange(words.min() - 0.5, words.max() + 1)
    histograms = [
        _histogram(words, edges, "Words of a caption", digits=0),
        _histogram(cider, np.linspace(0, max(cider.max(), 1e-9), 21), "CIDEr of a picture", 3),
    ]
    if len(entropy):
        num_regions = np.prod(captions[table.index[0]].attention.shape[1:])
        highest = max(np.log(num_regions), entropy.max())  # uniform attention
        edges = np.linspace(min(entropy.min(), highest - 1e-6), highest, 21)
        histograms.append(_histogram(entropy, edges, "Entropy of a caption's maps, in nats", 2))
    return histograms


def _histogram(values: Any, edges: np.ndarray, title: str, digits: int) -> dict[str, Any]:
    """Returns bars, ticks and mean of a histogram, positions and heights in percent.

    With `digits=0` the values are integers and every bar is one of them.
    """
    counts, _ = np.histogram(values, edges)
    heights = np.round(100 * counts / counts.max(), 1)
    low, high = edges[0], edges[-1]
    mean = float(np.mean(values))

    def position(value: float) -> float:
        return round(float(100 * (value - low) / (high - low)), 2)

    def bar_name(start: float, end: float) -> str:
        if digits == 0:
            return f"{(start + end) / 2:.0f}"
        return f"{start:.{digits}f} to {end:.{digits}f}"

    ticks = MaxNLocator(5, integer=digits == 0).tick_values(low, high)
    return {
        "title": title,
        "description": (
            f"Histogram. {title}: mean {mean:.{digits or 1}f}, "
            f"median {np.median(values):.{digits or 1}f}, "
            f"from {np.min(values):.{digits}f} to {np.max(values):.{digits}f}."
        ),
        "most": int(counts.max()),
        "bars": [
            {"name": bar_name(a, b), "count": int(count), "height": float(height)}
            for a, b, count, height in zip(edges[:-1], edges[1:], counts, heights, strict=True)
        ],
        "ticks": [(position(tick), f"{tick:.6g}") for tick in ticks if low <= tick <= high],
        "mean": (position(mean), f"{mean:.{digits or 1}f}"),
    }


# Deletion and insertion


def _curves(curves: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    """Returns the curves of `word_curves`, in pixels of the page's drawing."""
    charts = []
    for name, done in (("deletion", "hidden"), ("insertion", "shown")):
        if name not in curves:
            continue
        lines = {"attended": curves[name], "random": curves[f"{name}_random"]}
        most = max(map(max, lines.values()))
        axis = f"Probability of a word, by the share of the regions that is {done}"
        middle = len(curves["share"]) // 2
        charts.append(
            {
                "title": name.capitalize(),
                "axis": axis,
                "most": f"{most:.2f}",
                "description": (
                    f"Line chart. {axis}: {lines['attended'][0]:.3f} at 0, "
                    f"{lines['attended'][-1]:.3f} at 1. At {curves['share'][middle]:g} it is "
                    f"{lines['attended'][middle]:.3f} with the most attended regions first, "
                    f"{lines['random'][middle]:.3f} in random order."
                ),
                "ticks": [(34 + 276 * share, f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)],
                "lines": [
                    {
                        "kind": kind,
                        "points": " ".join(
                            f"{34 + 276 * share:.1f},{160 - 150 * p / most:.1f}"
                            for share, p in zip(curves["share"], values, strict=True)
                        ),
                    }
                    for kind, values in lines.items()
                ],
            }
        )
    return charts


# The table of all captions


def _table_data(
    table: pd.DataFrame, references: Mapping[str, Sequence[str]], paths: Mapping[str, str]
) -> dict[str, Any]:
    """Returns columns and rows of the table of all captions, for JSON."""
    digits = {**_COLUMNS, "words": 0, "entropy": 2}
    columns: list[dict[str, Any]] = [
        {"label": label, "kind": "text"} for label in ("Picture", "Caption")
    ]
    columns += [
        {"label": _LABELS.get(name, name.capitalize()), "kind": "number", "digits": digits[name]}
        for name in table.columns[1:]
    ]
    values = table.round(4).astype(object).where(table.notna(), None).itertuples(name=None)
    rows = [
        {
            "id": str(image_id),
            "values": [str(image_id), *cells],
            "references": list(references[image_id]),
            "picture": _thumbnail(paths[image_id]) if i < _MOST_THUMBNAILS else None,
        }
        for i, (image_id, *cells) in enumerate(values)
    ]
    return {"columns": columns, "rows": rows}


def _thumbnail(path: str) -> str:
    """Returns a small JPEG of a picture file, as a data URI."""
    image = Image.fromarray(load_image(path))
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, format="jpeg", quality=72, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
