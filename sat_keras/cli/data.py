"""`sat-keras data`: checks a data set before a training and prints what it holds."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sat_keras.cli import options
from sat_keras.cli.errors import printable
from sat_keras.cli.inputs import label

SUMMARY = "Check a folder of photos and captions, or another data set, before a training."
USAGE = "DIR"
EXAMPLES = """
examples:
  sat-keras data my_photos
  sat-keras data my_photos --model flickr8k-soft-vgg16
"""
_SHOWN = 10  # broken files and new words in the list


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "dataset",
        type=options.dataset,
        metavar="DIR",
        help="folder with photos and a captions file (captions.csv, .tsv, .txt or .jsonl, or "
        f"Karpathy's or COCO's JSON), or one of {', '.join(options.DATASETS)}",
    )
    group = parser.add_argument_group("options")
    group.add_argument(
        "--model",
        type=options.path,
        metavar="MODEL",
        help="captioner whose words the captions are compared with: a folder, or the name of a "
        "pretrained one (default: none)",
    )
    options.add_data_dir(group)
    group.add_argument(
        "--splits",
        type=options.path,
        metavar="FILE",
        help="Karpathy's split file, or 'karpathy' to download it",
    )
    group.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints what a data set holds.

    Returns:
        Integer exit code, 1 if there are broken pictures.
    """
    from sat_keras.datasets import describe_dataset, load_dataset

    table = load_dataset(arguments.dataset, arguments.data_dir or "data", splits=arguments.splits)
    found = describe_dataset(table)
    if arguments.dataset not in options.DATASETS:
        found["without_caption"] = _without_caption(table, arguments.dataset)
    if arguments.model:
        found["new_words"] = _new_words(table, arguments.model)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(label(arguments.dataset), found, arguments.model)
    return 1 if found["broken"] else 0


def _new_words(table: Any, model: str) -> dict[str, int]:
    """Returns the words that a captioner does not know, and how often they occur."""
    import collections

    from sat_keras.data.tokenizer import normalize
    from sat_keras.training.pretrained import load_pretrained

    tokenizer: Any = load_pretrained(model, encoder=False).tokenizer
    known = set(tokenizer.get_vocabulary())
    words = " ".join(normalize(table["caption"].tolist())).split()
    counts = collections.Counter(word for word in words if word not in known)
    return dict(counts.most_common())


def _without_caption(table: Any, folder: str) -> list[str]:
    """Returns the paths of the pictures in a folder that have no caption."""
    from PIL import Image

    suffixes = Image.registered_extensions()
    named = {os.path.abspath(path) for path in table["image"]}
    found = (path for path in Path(folder).rglob("*") if path.suffix.lower() in suffixes)
    return sorted(str(path) for path in found if os.path.abspath(path) not in named)


def _print(name: str, found: Mapping[str, Any], model: str | None) -> None:
    print(f"{name}:")
    for kind in ("pictures", "captions"):
        parts = ", ".join(f"{count:,} {split}" for split, count in found[kind].items())
        print(f"  {kind:9} {sum(found[kind].values()):,} ({parts})")
    words = found["words"]
    print(
        f"  words     {words['total']:,}, of them {words['distinct']:,} different; captions of "
        f"{words['shortest']} to {words['longest']} words"
    )
    if model:
        new = found["new_words"]
        some = ", ".join(list(new)[:_SHOWN])
        print(f"  new words {len(new):,} that {model} does not know{some and f': {some}'}")
    if found["sizes"]["median"]:
        smallest, median, largest = ("x".join(map(str, size)) for size in found["sizes"].values())
        print(f"  sizes     {smallest} to {largest} pixels, median {median}")
    if found.get("without_caption"):
        _print_list("unused", "pictures without a caption", found["without_caption"])
    _print_list("broken", "pictures", list(found["broken"].values()))


def _print_list(name: str, what: str, lines: Sequence[str]) -> None:
    print(f"  {name:9} {len(lines):,} {what}")
    for line in lines[:_SHOWN]:
        print(printable(f"    {line}"))
    if len(lines) > _SHOWN:
        print(f"    and {len(lines) - _SHOWN:,} more")
