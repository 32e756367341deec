"""Captions and references from the file formats that scoring tools use.

- JSON list, or COCO's `"annotations"`: `[{"image_id": 1, "caption": "a dog"}, ...]`.
- JSON object: `{"1": "a dog"}` or `{"1": ["a dog"]}` for candidates, `{"1": ["a dog", "dogs"]}` for
  references.
- pycocoevalcap's dictionaries: `{"1": [{"caption": "a dog"}]}`.
- JSON lines (`.jsonl`): `{"image_id": 1, "caption": "a dog"}` in each line.
- Karpathy's JSON: one split of `{"images": [...]}`, by `cocoid` or, where there is none, file name.
- Tables (`.csv`, `.tsv`, `.parquet`) with an image column and a caption column.
- Text (`.txt`): one caption a line, by line number; one file for each reference of a picture.

Image ids may be numbers or strings; they become strings.
"""

import collections
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Pairs = list[tuple[str, str]]

# What `surrogateescape` makes of bytes that are not UTF-8, and half characters spelled in JSON.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".parquet")
_IMAGE_COLUMNS = ("image_id", "image", "image_name", "filename", "file_name", "id")
_CAPTION_COLUMNS = ("caption", "comment", "text", "sentence", "prediction")


def read_candidates(path: str | os.PathLike) -> Pairs:
    """Reads one caption for each picture.

    Args:
        path: File in one of the formats listed at the top of this module.

    Returns:
        Pairs of image id and caption, as `score_captions` takes them.

    Raises:
        ValueError: If the file has another format or a picture of a dictionary has more than one
            caption. The message says how many entries are wrong and shows the first.
    """
    pairs = _read(path)
    _check_encoding(path, pairs)
    return pairs


def read_references(*paths: str | os.PathLike, split: str = "test") -> dict[str, list[str]]:
    """Reads the reference captions of each picture.

    Args:
        paths: One file, or several with one reference for each picture, such as `ref1.txt`,
            `ref2.txt`.
        split: Split to read from Karpathy's JSON.

    Returns:
        Dictionary from image id to the list of captions.

    Raises:
        ValueError: If a file has another format.
    """
    references: dict[str, list[str]] = {}
    for path in paths:
        pairs = _read(path, split)
        _check_encoding(path, pairs)
        for image_id, caption in pairs:
            references.setdefault(image_id, []).append(caption)
    return references


def _read(path: str | os.PathLike, split: str | None = None) -> Pairs:
    """Reads pairs of image id and caption. `split` is `None` for candidates."""
    suffix = Path(path).suffix.lower()
    if suffix in _TABLES:
        return _table_pairs(path, suffix)
    text = _text(path)
    if suffix in _LINES:
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        return _list_pairs(path, [_parse(f"{path}, line {n}", line) for n, line in lines])
    if suffix == ".txt" and not text.lstrip().startswith(("[", "{")):
        captions = text.removesuffix("\n").split("\n") if text else []
        return [(str(n), caption.rstrip("\r")) for n, caption in enumerate(captions, 1)]
    value = _parse(path, text)
    if isinstance(value, dict) and isinstance(value.get("images"), list) and _is_karpathy(value):
        return _karpathy_pairs(path, value["images"], split)
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        value = value["annotations"]
    if isinstance(value, list):
        return _list_pairs(path, value)
    if isinstance(value, dict):
        return _dictionary_pairs(path, value, several=split is not None)
    raise ValueError(
        f'{path}: expected captions, [{{"image_id": 1, "caption": "a dog"}}, ...] or '
        f'{{"image id": ["a dog"], ...}}. Received: {_shown(value)}'
    )


def _text(path: str | os.PathLike) -> str:
    # Bytes that are not UTF-8 become surrogates, so that the caption can be named after parsing.
    return Path(path).read_bytes().decode("utf-8-sig", errors="surrogateescape")


def _parse(where: Any, text: str) -> Any:
    """Parses JSON. A key that an object has twice is an error."""

    def check(pairs: Pairs) -> dict[str, Any]:
        counts = collections.Counter(key for key, _ in pairs)
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            raise ValueError(
                f"{where}: every picture must occur once; join its captions in one list. "
                f"Received: {len(twice)} image ids more than once, the first one {twice[0]!r}"
            )
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=check)
    except RecursionError as error:
        raise ValueError(
            f"{where}: expected JSON of captions, at most a few levels deep. Received: "
            f"a deeply nested value, {text[:40]!r}..."
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected a JSON file in UTF-8. Received: {error}") from error


def _list_pairs(path: str | os.PathLike, entries: Sequence[Any]) -> Pairs:
    wrong = [number for number, entry in enumerate(entries, 1) if not _is_caption(entry)]
    if wrong:
        raise ValueError(
            f'{path}: every entry must have an "image_id", a number or a string, and a "caption", '
            f"a string. Received: {len(wrong)} entries without, the first is number {wrong[0]}: "
            f"{_shown(entries[wrong[0] - 1])}"
        )
    return [(str(entry["image_id"]), entry["caption"]) for entry in entries]


def _is_caption(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and type(entry.get("image_id")) in (int, str)  # excludes bool, a subclass of int
        and isinstance(entry.get("caption"), str)
    )


def _dictionary_pairs(path: str | os.PathLike, value: Mapping[str, Any], several: bool) -> Pairs:
    """Reads `{id: caption}`, `{id: [caption]}` and `{id: [{"caption": caption}]}`."""
    captions = {image_id: _texts(entry) for image_id, entry in value.items()}
    wrong = [
        image_id
        for image_id, texts in captions.items()
        if texts is None or (several and isinstance(value[image_id], str))
    ]
    if wrong:
        expected = "a list of captions" if several else "a caption or a list of one caption"
        raise ValueError(
            f"{path}: every picture must have {expected}, each a string. Received: "
            f"{len(wrong)} pictures without, the first {wrong[0]!r}: {_shown(value[wrong[0]])}"
        )
    found = {image_id: texts or [] for image_id, texts in captions.items()}
    other = [image_id for image_id, texts in found.items() if len(texts) != 1]
    if other and not several:
        raise ValueError(
            f"{path}: every picture must have one caption to score. Received: {len(other)} "
            f"pictures with another number, the first {other[0]!r}: {_shown(value[other[0]])}"
        )
    return [(image_id, text) for image_id, texts in found.items() for text in texts]


def _texts(entry: Any) -> list[str] | None:
    """Returns the captions of a dictionary's entry, `None` if there is something else."""
    entries = entry if isinstance(entry, list) else [entry]
    return _strings(each.get("caption") if isinstance(each, dict) else each for each in entries)


def _strings(values: Iterable[Any]) -> list[str] | None:
    """Returns the values as a list, `None` if one is not a string."""
    values = list(values)
    return values if all(isinstance(value, str) for value in values) else None


def _is_karpathy(value: Mapping[str, Any]) -> bool:
    return any(isinstance(image, dict) and "sentences" in image for image in value["images"])


def _karpathy_pairs(path: str | os.PathLike, images: Sequence[Any], split: str | None) -> Pairs:
    pairs: Pairs = []
    for number, image in enumerate(images, 1):
        if not isinstance(image, dict) or (split is not None and image.get("split") != split):
            continue
        image_id = image.get("cocoid", image.get("filename"))
        sentences = image.get("sentences")
        texts = _raw_texts(sentences)
        if texts is None or type(image_id) not in (int, str):
            raise ValueError(
                f'{path}: every image must have a "cocoid" or "filename" and "sentences", a list '
                f'of objects with a string "raw". Received: image number {number}: {_shown(image)}'
            )
        pairs += [(str(image_id), text) for text in texts]
    if not pairs:
        splits = sorted({str(image.get("split")) for image in images if isinstance(image, dict)})
        raise ValueError(
            f"{path}: expected images of the split {split!r}. Received: the splits {splits}"
        )
    return pairs


def _raw_texts(sentences: Any) -> list[str] | None:
    if not isinstance(sentences, list):
        return None
    return _strings(each.get("raw") if isinstance(each, dict) else None for each in sentences)


def _table_pairs(path: str | os.PathLike, suffix: str) -> Pairs:
    import pandas as pd

    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            separator = "\t" if suffix == ".tsv" else ","
            options: dict[str, Any] = {"dtype": str, "keep_default_na": False}
            table = pd.read_csv(path, sep=separator, encoding="utf-8-sig", **options)
    except (ValueError, ImportError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path}: expected a table of captions in UTF-8. Received: {error}"
        ) from error
    names = {str(name).strip().lower(): name for name in table.columns}
    image = next((names[name] for name in _IMAGE_COLUMNS if name in names), None)
    caption = next((names[name] for name in _CAPTION_COLUMNS if name in names), None)
    if image is None or caption is None:
        raise ValueError(
            f"{path}: expected one column of {', '.join(_IMAGE_COLUMNS)} and one of "
            f"{', '.join(_CAPTION_COLUMNS)}. Received: the columns {list(map(str, names.values()))}"
        )
    captions = table[caption].tolist()
    wrong = [row for row, text in enumerate(captions, 1) if not isinstance(text, str)]
    if wrong:
        raise ValueError(
            f"{path}: every row must have a caption, a string. Received: {len(wrong)} rows "
            f"without, the first is number {wrong[0]}: {captions[wrong[0] - 1]!r}"
        )
    return list(zip(map(str, table[image].tolist()), captions, strict=True))


def _check_encoding(path: str | os.PathLike, pairs: Iterable[tuple[str, str]]) -> None:
    """Raises a `ValueError` for image ids and captions that are not UTF-8."""
    wrong = [pair for pair in pairs if _SURROGATE.search("".join(pair))]
    if wrong:
        image_id, caption = wrong[0]
        raise ValueError(
            f"{path}: expected UTF-8; save the file in this encoding. Received: {len(wrong)} "
            f"captions that are not, the first one of {image_id!r}: {caption[:80]!r}"
        )


def _shown(value: Any) -> str:
    """Returns the beginning of a value as JSON."""
    encoder = json.JSONEncoder(ensure_ascii=False)
    text = "".join(itertools.islice(encoder.iterencode(value), 100))
    return text if len(text) <= 80 else f"{text[:80]}..."
