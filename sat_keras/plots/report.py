"""An evaluation as one page of HTML: scores, spread, best and worst captions, and a table of all.

The page is one file with its style, script and pictures inside. It needs no server, no network and
no library, is readable in light and in dark, and by keyboard and screen reader.
"""

import base64
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from keras import ops
from PIL import Image

from sat_keras.analysis.measures import attention_entropy, unit_of
from sat_keras.cnn.resize import PictureResize
from sat_keras.data.images import load_image
from sat_keras.evaluation.picture_scores import PictureScores
from sat_keras.paper.captioner import Caption
from sat_keras.plots.widget import attention_html

REPORT_FILE = "index.html"
_TEMPLATE = Path(__file__).with_name("report.html")
# Captions that are shown large, at each end.
_SHOWN = 8
# Pictures of the table, and their longer side in pixels: 3 kB each.
_MOST_THUMBNAILS, _THUMBNAIL_SIDE = 1000, 112
_LABELS = {
    **{f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "spice": "SPICE"},
}
_MEANINGS = {
    "entropy": "how wide a word's map is",
    "total_variation": "how much moves from word to word",
    "coverage": "effective share of the regions that a caption looks at",
    "sameness": "overlap of a caption's maps",
    "sameness_between_pictures": "overlap of the pictures' mean maps",
    "gate": "how much of the picture a word lets in",
    "pointing_accuracy": "maps with their peak in the named object's box",
    "attention_mass": "attention inside the named object's box",
    "occlusion_attended": "fall of log p(word) with what it looked at hidden",
    "occlusion_random": "the same, with random regions hidden",
    "occlusion_least": "the same, with what it looked at least hidden",
    "faithfulness": "fall for attended less fall for random",
}
_COUNTS = ("words", "object_words", "occlusion_pictures")
_COLUMNS = {"cider": 3, "bleu4": 1, "meteor": 1, "rouge_l": 1, "spice": 1}


def write_report(
    folder,
    results: Mapping,
    captions: Mapping[str, Caption],
    references: Mapping[str, Sequence[str]],
    paths: Mapping[str, str],
    resize: PictureResize,
) -> Path:
    """Write the report of an evaluation.

    Args:
        folder: Where to write it; made where it is missing.
        results: What `sat-keras evaluate` writes as JSON. Scores that it lacks are left out.
        captions: A `Caption` by image id.
        references: The reference captions by image id.
        paths: Picture files by image id.
        resize: What resizes the pictures for the CNN, so that maps lie on what was seen.

    Returns:
        Path of the page, `index.html` in the folder.

    Raises:
        ValueError: If a picture cannot be read.
    """
    image_ids = sorted(captions, key=str)  # the order of the scores
    each = PictureScores.decode(results["picture_scores"]).each("coco")
    order = np.lexsort((each.get("rouge_l", each["cider"]), each["cider"]))
    ranked = [image_ids[i] for i in order]
    cider = dict(zip(image_ids, each["cider"].tolist(), strict=True))
    shown = min(_SHOWN, len(ranked) // 2 or 1)

    def cards(chosen):
        return "".join(
            _card(image_id, captions[image_id], references[image_id], cider[image_id], picture)
            for image_id in chosen
            for picture in [ops.convert_to_numpy(resize(load_image(paths[image_id])))]
        )

    entropies = [_mean_entropy(captions[image_id]) for image_id in image_ids]
    values = {
        "TITLE": html.escape(f"{results['dataset']} {results['split']}: captions and attention"),
        "SUMMARY": html.escape(_summary(results)),
        "SCORES": _score_tables(results),
        "CHARTS": _charts(each["cider"], [captions[i] for i in image_ids], entropies),
        "BEST": cards(ranked[::-1][:shown]),
        "WORST": cards(ranked[:shown]),
        "ORIGIN": _origin(results),
        "DATA": _table_data(image_ids, captions, references, paths, each, entropies),
    }
    template = _TEMPLATE.read_text(encoding="utf-8")
    page = re.sub(r"%([A-Z]+)%", lambda name: values[name[1]], template)
    path = Path(folder) / REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _summary(results):
    """What was evaluated, in a line."""
    return (
        f"{results['pictures']:,} pictures, encoder {results['encoder']}, {results['attention']} "
        f"attention, beam {results['beam']}, length penalty {results['length_penalty']}, seed "
        f"{results['seed']}, on {results['hardware']}."
    )


# Tables of scores


def _score_tables(results):
    """All numbers of the results, as tables."""
    tables = [_caption_table(results)]
    if "attention_scores" in results:
        tables.append(_attention_table(results["attention_scores"]))
    for key, title in (
        ("scenes", "What is true of the scenes"),
        ("caption_statistics", "Captions"),
    ):
        if key in results:
            rows = [[_label(name), _number(value)] for name, value in results[key].items()]
            tables.append(_table(title, ["", "value"], rows))
    return "".join(tables)


def _caption_table(results):
    """Scores of captions, a row a metric and a column a protocol."""
    protocols = list(results["scores"])
    names = dict.fromkeys(name for scores in results["scores"].values() for name in scores)
    rows = []
    for name in names:
        row = [_label(name)]
        for protocol in protocols:
            ends = results.get("intervals", {}).get(protocol, {}).get(name)
            row.append(
                _cell(results["scores"][protocol].get(name), ends, 3 if name == "cider" else 1)
            )
        rows.append(row)
    title = "Captions against references, by protocol; all but CIDEr in percent"
    return _table(title, ["score", *protocols], rows)


def _attention_table(scores):
    """Scores of attention, beside those of attention that doesn't look."""
    intervals, rows = scores.get("intervals", {}), []
    for name, value in scores.items():
        is_base = name.endswith(("_uniform", "_centre"))
        if name in _COUNTS or is_base or not isinstance(value, (int, float)):
            continue
        digits = 1 if unit_of(name) == "%" else 3
        bases = [
            _cell(scores.get(f"{name}_{base}"), None, digits) for base in ("uniform", "centre")
        ]
        unit = f' <span class="unit">{unit_of(name)}</span>'
        label = html.escape(_label(name)) + unit
        meaning = f'<span class="interval">{html.escape(_MEANINGS.get(name, ""))}</span>'
        rows.append([_Markup(label + meaning), _cell(value, intervals.get(name), digits), *bases])
    counts = ", ".join(f"{scores[name]:,} {_label(name)}" for name in _COUNTS if name in scores)
    return _table(f"Attention: {counts}", ["score", "value", "uniform", "centre"], rows)


class _Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _cell(value, ends, digits):
    """A score above its interval."""
    if value is None:
        return ""
    text = f"{value:.{digits}f}"
    if ends is None:
        return text
    span = " to ".join(f"{end:.{digits}f}" for end in ends)
    return _Markup(f'{text}<span class="interval">{span}</span>')


def _table(title, headings, rows):
    """A table whose first column names the rows."""

    def text(cell):
        return cell if isinstance(cell, _Markup) else html.escape(str(cell))

    head = "".join(
        f'<th scope="col"{" class=number" if i else ""}>{text(cell)}</th>' if cell else "<td></td>"
        for i, cell in enumerate(headings)
    )
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>'
        + "".join(f'<td class="number">{text(cell)}</td>' for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table><caption>{html.escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _label(name):
    return _LABELS.get(name, name.replace("_", " "))


def _number(value):
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.3g}"
        if value < 100
        else f"{value:.1f}"
    )


# Histograms


def _charts(cider, captions, entropies):
    """How lengths, scores and entropies are spread over the pictures."""
    lengths = np.array([len(caption.words) for caption in captions])
    charts = [
        _histogram(
            lengths, np.arange(lengths.min() - 0.5, lengths.max() + 1), "Words of a caption", 1
        ),
        _histogram(cider, np.linspace(0, max(cider.max(), 1e-9), 21), "CIDEr of a picture", 3),
    ]
    spread = np.array([value for value in entropies if value is not None])
    if len(spread):
        most = max(math.log(math.prod(captions[0].attention.shape[1:])), spread.max())  # uniform
        edges = np.linspace(min(spread.min(), most - 1e-6), most, 21)
        charts.append(_histogram(spread, edges, "Entropy of a caption's maps, in nats", 2))
    return "".join(charts)


def _histogram(values, edges, title, digits):
    """A histogram as SVG, with the mean marked, that says in words what it shows."""
    width, height, left, top, bottom = 360, 190, 34, 26, 26
    counts, _ = np.histogram(values, edges)
    low, high, most = edges[0], edges[-1], max(counts.max(), 1)

    def x(value):
        return left + (width - left - 8) * (value - low) / (high - low)

    def y(count):
        return height - bottom - (height - bottom - top) * count / most

    bars = [
        f'<rect class="bar" x="{x(a):.1f}" y="{y(n):.1f}" width="{max(x(b) - x(a) - 1, 0.5):.1f}" '
        f'height="{y(0) - y(n):.1f}"><title>{_between(a, b, digits)}: {n:,} pictures</title></rect>'
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
        if n
    ]
    ticks = [
        f'<text x="{x(value):.1f}" y="{height - 8}" text-anchor="middle">{value:.6g}</text>'
        for value in _ticks(low, high)
    ]
    mean = float(np.mean(values))
    anchor = "end" if x(mean) > 0.7 * width else "start"
    shift = -4 if anchor == "end" else 4
    described = (
        f"Histogram. {title}: mean {mean:.{digits}f}, median {np.median(values):.{digits}f}, "
        f"from {np.min(values):.{digits}f} to {np.max(values):.{digits}f}."
    )
    return (
        f"<figure class=card><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(described)}">'
        f'<text x="{left - 5}" y="{y(most) + 4:.1f}" text-anchor="end">{most:,}</text>'
        f'<text x="{left - 5}" y="{y(0):.1f}" text-anchor="end">0</text>'
        f'<path class="axis" d="M{left} {y(0):.1f}H{width - 8}"/>{"".join(bars)}{"".join(ticks)}'
        f'<path class="mean" d="M{x(mean):.1f} 6V{y(0):.1f}"/>'
        f'<text class="of-mean" x="{x(mean) + shift:.1f}" y="14" text-anchor="{anchor}">'
        f"mean {mean:.{digits}f}</text></svg></figure>"
    )


def _between(low, high, digits):
    """A bar's range; whole numbers have a bar of their own."""
    if digits == 1 and high - low == 1:
        return f"{(low + high) / 2:.0f}"
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _ticks(low, high, most=6):
    """Round numbers from `low` to `high`, at most `most` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(m for m in (1, 2, 5, 10, 20) if (high - low) / (m * step) <= most - 1)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


# Captions


def _card(image_id, caption, references, cider, picture):
    """A caption with its picture, attention and references."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in references)
    return (
        f'<article class="card"><h3>{html.escape(caption.text) or "(no words)"}</h3>'
        f'<p class="meta">{html.escape(str(image_id))}, CIDEr {cider:.3f}</p>'
        f"{attention_html(picture, caption.words, caption.attention, caption.gate)}"
        f"<details open><summary>{len(references)} references</summary><ul>{items}</ul></details>"
        "</article>"
    )


def _mean_entropy(caption):
    """Mean entropy of the words' maps in nats, or None for a caption without words."""
    return float(attention_entropy(caption.attention).mean()) if caption.words else None


def _table_data(image_ids, captions, references, paths, each, entropies):
    """The table of all captions, as JSON that closes no script."""
    names = [name for name in _COLUMNS if name in each]
    columns = [
        {"label": "Picture", "kind": "text"},
        {"label": "Caption", "kind": "text"},
        *({"label": _label(n), "kind": "number", "digits": _COLUMNS[n]} for n in names),
        {"label": "Words", "kind": "number", "digits": 0},
        {"label": "Entropy", "kind": "number", "digits": 2},
    ]
    rows = []
    for i, image_id in enumerate(image_ids):
        caption = captions[image_id]
        scores = [round(float(each[name][i]), 4) for name in names]
        entropy = None if entropies[i] is None else round(entropies[i], 4)
        row = {
            "id": str(image_id),
            "values": [str(image_id), caption.text, *scores, len(caption.words), entropy],
            "references": list(references[image_id]),
        }
        if i < _MOST_THUMBNAILS:
            row["picture"] = _thumbnail(paths[image_id])
        rows.append(row)
    return json.dumps({"columns": columns, "rows": rows}).replace("<", "\\u003c")


def _thumbnail(path):
    """A small JPEG of a picture file, as a data URI."""
    image = Image.fromarray(load_image(path))
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, format="jpeg", quality=72, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _origin(results):
    """Commands, versions and config."""
    commands = "".join(
        f"<p><code>{html.escape(command)}</code></p>"
        for command in results["command"].split(" && ")
    )
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    config = html.escape(json.dumps(results["config"], indent=1))
    return (
        f"{commands}<p class=muted>{html.escape(versions)}; {results['seconds']:,} seconds.</p>"
        f"<details><summary>Configuration</summary><div class=scroll><pre>{config}</pre></div>"
        "</details>"
    )
