"""JSON files that are whole or not there."""

import json
import os
from pathlib import Path


def write_json(path, value):
    """Write a JSON file that appears when it is complete, and the folders above it.

    Args:
        path: The file's path.
        value: Anything that JSON knows.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
