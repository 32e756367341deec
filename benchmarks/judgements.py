"""Human judgements of Flickr8k captions: whether a caption fits a picture.

The text archive has two files of judgements, mostly of captions of other pictures:

- `ExpertAnnotations.txt`: 5,822 pairs of a picture and a caption, each with the ratings of three
  experts, from 1 (unrelated to the picture) to 4 (describes it without error);
- `CrowdFlowerAnnotations.txt`: 47,830 pairs, each with the share of at least three crowd workers
  who said that the caption describes the picture.
"""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from sat_keras.datasets.download import DataFolder
from sat_keras.datasets.flickr import FLICKR8K_TEXT, numbered_lines, read_captions

_FILES = {"expert": "ExpertAnnotations.txt", "crowd": "CrowdFlowerAnnotations.txt"}
_FIELDS = {"expert": "1<TAB>1<TAB>2", "crowd": "share<TAB>yes<TAB>no"}


def load_judgements(
    data_dir: str | os.PathLike, judges: str, download: bool = True
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Loads the judgements of the experts or of the crowd.

    Args:
        data_dir: Folder with `Flickr8k_text.zip` or its contents, or its parent (`data` for
            `data/flickr8k`).
        judges: `"expert"` or `"crowd"`.
        download: Whether a missing archive may be downloaded.

    Returns:
        Table with one row a pair, and all captions by the picture's file name. The table's columns
        are `image` (file name), `caption_of` (file name of the picture that the caption belongs
        to), `caption` (raw text) and `ratings` (list: the three experts' or the share of yes).

    Raises:
        FileNotFoundError: If the archive is missing.
        ValueError: If `judges` is unknown or a line cannot be parsed.

    Reference:
        [Hodosh et al., 2013](https://doi.org/10.1613/jair.3994).
    """
    if judges not in _FILES:
        raise ValueError(
            f"`judges` must be one of {', '.join(_FILES)}. Received: judges={judges!r}"
        )
    below = Path(data_dir) / "flickr8k"
    folder = DataFolder(below if below.is_dir() else data_dir, "flickr8k", download=download)
    token_file = folder.require(("Flickr8k.token.txt",), FLICKR8K_TEXT)
    captions = read_captions(token_file)
    path = folder.require((_FILES[judges],), FLICKR8K_TEXT)
    rows = [_row(path, number, line, judges, captions) for number, line in numbered_lines(path)]
    return pd.DataFrame(rows), captions


def _row(
    path: Path, line_number: int, line: str, judges: str, captions: dict[str, list[str]]
) -> dict[str, Any]:
    """Parses a line of judgements."""
    try:
        image, key, *values = line.split("\t")
        caption_of, _, number = key.partition("#")
        ratings = [float(value) for value in values]
        if len(ratings) != 3 or image not in captions:
            raise ValueError
        return {
            "image": image,
            "caption_of": caption_of,
            "caption": captions[caption_of][int(number)],
            "ratings": ratings if judges == "expert" else ratings[:1],
        }
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{path}, line {line_number}: expected 'picture.jpg<TAB>picture.jpg#0<TAB>"
            f"{_FIELDS[judges]}' of pictures with captions; correct or delete this line. "
            f"Received: {line!r}"
        ) from error
