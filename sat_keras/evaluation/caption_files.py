"""Captions and references from JSON files in COCO's formats.

- Captions: `[{"image_id": ..., "caption": "..."}, ...]`, as `sat-keras evaluate --captions` writes.
- References: the same with several captions a picture, by itself or as `"annotations"` of an object
  (COCO's `captions_val2014.json`); or `{"image id": ["...", ...], ...}`.

Image ids may be numbers or text; they become text.
"""

import collections
import json
import os
import re
from pathlib import Path

# What a byte that is no UTF-8 becomes, and half a character that JSON spells as one.
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_candidates(path: str | os.PathLike) -> list[tuple[str, str]]:
    """Reads one caption a picture.

    Args:
        path: A JSON file.

    Returns:
        Pairs of image id and caption, as `score_captions` takes them.

    Raises:
        ValueError: If the file is no such list; the message has the number of the entries that are
            wrong and the first.
    """
    value = _read_json(path)
    if not isinstance(value, list):
        raise ValueError(
            f'{path}: expected a list of captions, [{{"image_id": 1, "caption": "a dog"}}, ...]. '
            f"Received: {_shown(value)}"
        )
    return _pairs(path, value)


def read_references(path: str | os.PathLike) -> dict[str, list[str]]:
    """Reads the reference captions of each picture.

    Args:
        path: A JSON file.

    Returns:
        Dictionary from image id to the list of captions.

    Raises:
        ValueError: If the file is nothing of what the module's description says; the message has
            the number of the entries that are wrong and the first.
    """
    value = _read_json(path)
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        value = value["annotations"]
    if isinstance(value, list):
        references = {}
        for image_id, caption in _pairs(path, value):
            references.setdefault(image_id, []).append(caption)
        return references
    if not isinstance(value, dict):
        raise ValueError(
            f'{path}: expected reference captions, {{"image id": ["a dog", ...], ...}} or a list '
            f'[{{"image_id": 1, "caption": "a dog"}}, ...]. Received: {_shown(value)}'
        )
    wrong = [
        image_id
        for image_id, captions in value.items()
        if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions)
    ]
    if wrong:
        raise ValueError(
            f"{path}: every picture must have a list of captions, each a text. Received: "
            f"{len(wrong)} pictures without, the first {wrong[0]!r}: {_shown(value[wrong[0]])}"
        )
    _check_encoding(path, [(i, caption) for i, captions in value.items() for caption in captions])
    return value


def _read_json(path):
    """A JSON file's value; a key that an object has twice is an error."""

    def check(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            raise ValueError(
                f"{path}: every picture must be there once; join its captions in one list. "
                f"Received: {len(twice)} image ids more than once, the first one {twice[0]!r}"
            )
        return dict(pairs)

    # What is no UTF-8 becomes surrogates: where they are is known once the JSON is read.
    text = Path(path).read_bytes().decode("utf-8-sig", errors="surrogateescape")
    try:
        return json.loads(text, object_pairs_hook=check)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected a JSON file in UTF-8. Received: {error}") from error


def _check_encoding(path, pairs):
    """Raises a `ValueError` for image ids and captions that were not in UTF-8."""
    wrong = [pair for pair in pairs if _SURROGATE.search("".join(pair))]
    if wrong:
        image_id, caption = wrong[0]
        raise ValueError(
            f"{path}: expected UTF-8; save the file in this encoding. Received: {len(wrong)} "
            f"captions that are not, the first one of {image_id!r}: {caption[:80]!r}"
        )


def _pairs(path, entries):
    """Image ids and captions of a list of objects."""
    wrong = [number for number, entry in enumerate(entries, 1) if not _is_caption(entry)]
    if wrong:
        raise ValueError(
            f'{path}: every entry must have an "image_id", a number or a text, and a "caption", a '
            f"text. Received: {len(wrong)} entries without, the first is number {wrong[0]}: "
            f"{_shown(entries[wrong[0] - 1])}"
        )
    pairs = [(str(entry["image_id"]), entry["caption"]) for entry in entries]
    _check_encoding(path, pairs)
    return pairs


def _is_caption(entry):
    return (
        isinstance(entry, dict)
        and type(entry.get("image_id")) in (int, str)  # a bool is an int as well
        and isinstance(entry.get("caption"), str)
    )


def _shown(value):
    """The beginning of a value."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}..."
