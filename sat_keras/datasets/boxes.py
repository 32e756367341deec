"""Boxes of objects, of Flickr30k Entities and of COCO, to score attention with.

`load_boxes` reads both into one table of named boxes, and `words_to_boxes` finds the boxes that a
caption's words name. For drawn scenes, `sat_keras.datasets.scenes` has a `words_to_boxes` of its
own.
"""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

BOX = ("x0", "y0", "x1", "y1")
COLUMNS = ("image_id", "name", "phrase", *BOX, "width", "height")

# Where Flickr30k Entities may lie in a data folder.
_ENTITIES = (
    "Flickr30kEntities_annotations.zip",
    "annotations.zip",
    *("Flickr30kEntities", "Flickr30kEntities_annotations", "flickr30k_entities", "annotations"),
)
_SIDES = ("xmin", "ymin", "xmax", "ymax")
# A phrase that Entities marks, as in `[/EN#18/people A child] in ...`.
MENTION = re.compile(r"\[/EN#(?P<chain>\d+)(?P<types>(?:/[^\s\]/]+)+) (?P<text>[^\]]+)\]")
_SINGULAR = {
    **{"men": "man", "women": "woman", "children": "child", "people": "person"},
    **{"feet": "foot", "mice": "mouse", "knives": "knife", "leaves": "leaf", "shelves": "shelf"},
    **{plural: plural for plural in ("glasses", "scissors", "skis")},
}
# Other names of COCO's categories.
_OTHER_NAMES = {
    **dict.fromkeys(
        ("man", "woman", "boy", "girl", "child", "kid", "baby", "guy", "lady", "player", "rider"),
        "person",
    ),
    **dict.fromkeys(("skier", "snowboarder", "surfer", "skateboarder", "batter"), "person"),
    **{"bike": "bicycle", "motorbike": "motorcycle", "plane": "airplane", "jet": "airplane"},
    **{"sofa": "couch", "television": "tv", "phone": "cell phone", "cellphone": "cell phone"},
    **{"table": "dining table", "desk": "dining table", "plant": "potted plant", "ski": "skis"},
    **{"doughnut": "donut", "hydrant": "fire hydrant", "stoplight": "traffic light"},
    **{"racket": "tennis racket", "racquet": "tennis racket", "fridge": "refrigerator"},
    **{"puppy": "dog", "kitten": "cat", "calf": "cow", "lamb": "sheep"},
}
# Names of which the last word alone means another thing.
_COMPOUNDS = ("hot dog", "teddy bear")


def load_boxes(
    paths: Sequence[str | os.PathLike], image_ids: Collection[str] | None = None
) -> pd.DataFrame:
    """Loads the boxes of Flickr30k Entities or of COCO.

    Every picture of Flickr8k is in Flickr30k Entities: the image id `1000268201_693b08cb0e` of
    Flickr8k finds the boxes of `1000268201`.

    Args:
        paths: Paths of Flickr30k Entities (the folder with `Annotations` and `Sentences`, its zip
            archive, or a data folder that holds either), or of COCO's files
            `instances_<part><year>.json`.
        image_ids: Image ids of the pictures to load. `None` loads all.

    Returns:
        `pandas.DataFrame` with one row for each name of each box: `image_id` (as in `image_ids`),
        `name` (lower case, singular: a phrase's last word for Entities, the category for COCO),
        `phrase` (as written), the box `x0, y0, x1, y1` in pixels of the original picture (x right,
        y down, x1 and y1 exclusive), and the original picture's `width` and `height`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a file cannot be read. The message names it.

    Example:
    >>> objects = load_boxes(["data/coco2014/annotations/instances_val2014.json"])

    Reference:
        Plummer et al. 2015, "Flickr30k Entities"; Lin et al. 2014, "Microsoft COCO".
    """
    wanted = None if image_ids is None else set(image_ids)
    rows: list[tuple] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(
                "Expected Flickr30k Entities (a folder or zip archive) or a file "
                "instances_<part><year>.json of COCO. "
                f"Received: {str(path)!r}, which does not exist"
            )
        is_entities = path.is_dir() or path.suffix == ".zip"
        rows += _entities_rows(path, wanted) if is_entities else _coco_rows(path, wanted)
    return pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(ignore_index=True)


def words_to_boxes(words: Sequence[str], objects: pd.DataFrame) -> list[list[tuple] | None]:
    """Finds the boxes of the objects that each word of a caption names.

    A word names every object of its name: "dog" and "dogs" name all dogs in the picture, whatever
    else the caption says of them. In a name of several words ("hot dog"), the last word names it.

    Args:
        words: Words of a caption.
        objects: The picture's rows of the table of boxes.

    Returns:
        List as long as `words`: the boxes `(x0, y0, x1, y1)` that the word names, or `None`.

    Example:
    >>> objects = pd.DataFrame([dict(name="dog", x0=0, y0=0, x1=9, y1=9)])
    >>> words_to_boxes("two dogs run".split(), objects)
    [None, [(0, 0, 9, 9)], None]
    """
    by_name = dict(list(objects.groupby("name")))
    words = [_singular(re.sub(r"[^a-z-]", "", word.lower())) for word in words]
    boxes: list[list[tuple] | None] = []
    for before, word in zip(["", *words], words, strict=False):
        names = [f"{before} {word}", word, _OTHER_NAMES.get(word)]
        names = names[:1] if names[0] in _COMPOUNDS else names
        name = next((name for name in names if name in by_name), None)
        rows = [] if name is None else by_name[name][list(BOX)].itertuples(index=False, name=None)
        boxes.append(list(dict.fromkeys(rows)) or None)
    return boxes


def _singular(word: str) -> str:
    """Returns the singular of a noun, by rules that both sides of a comparison go through."""
    if word in _SINGULAR:
        return _SINGULAR[word]
    for ending, singular in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch")):
        if word.endswith(ending) and len(word) > 4:
            return word.removesuffix(ending) + singular
    for ending in ("xes", "buses"):
        if word.endswith(ending):
            return word.removesuffix("es")
    return word if word.endswith(("ss", "us", "is")) else word.removesuffix("s")


def _entities_rows(path: Path, wanted: set[str] | None) -> Iterator[tuple]:
    """Yields the rows of `load_boxes` from Flickr30k Entities."""
    root = open_entities(path)
    # Image ids by the number that Entities knows a picture by.
    ids_by_number: dict[str, list[str]] = {}
    for image_id in sorted(wanted or ()):
        ids_by_number.setdefault(image_id.split("_")[0], []).append(image_id)
    files = [file for file in (root / "Annotations").iterdir() if file.name.endswith(".xml")]
    for file in sorted(files, key=lambda file: file.name):
        number = file.name.removesuffix(".xml")
        image_ids = [number] if wanted is None else ids_by_number.get(number, [])
        if not image_ids:
            continue
        boxes, size = read_annotation(file)
        sentences = (root / "Sentences" / f"{number}.txt").read_text(encoding="utf-8")
        for match in MENTION.finditer(sentences):
            phrase = match["text"].strip()
            name = _singular(phrase.lower().split()[-1])
            for box in boxes.get(match["chain"], ()):
                for image_id in image_ids:
                    yield (image_id, name, phrase, *box, *size)


def open_entities(path: Path) -> Any:
    """Finds the folder that holds Annotations and Sentences of Flickr30k Entities.

    Args:
        path: That folder, its zip archive, or a folder that holds either.

    Returns:
        `pathlib.Path` or `zipfile.Path`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the archive is damaged.
    """
    for place in (path, *(path / name for name in _ENTITIES)):
        if not place.exists():
            continue
        try:
            root: Any = place if place.is_dir() else zipfile.Path(place)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(
                f"The archive {place} is damaged or incomplete; get it again. Received: {error}"
            ) from error
        for folder in (root, *(each for each in root.iterdir() if each.is_dir())):
            if (folder / "Annotations").is_dir() and (folder / "Sentences").is_dir():
                return folder
    raise FileNotFoundError(
        "Expected the folders Annotations and Sentences of Flickr30k Entities, or its "
        f"annotations.zip. Received: {str(path)!r}"
    )


def read_annotation(path: Any) -> tuple[dict[str, list[tuple]], tuple[int, int]]:
    """Reads an annotation file of Flickr30k Entities.

    Args:
        path: `pathlib.Path` or `zipfile.Path` of the file.

    Returns:
        Tuple of the boxes `(x0, y0, x1, y1)` by the number of an entity, and the picture's
        `(width, height)`, in pixels.

    Raises:
        ValueError: If the file is damaged.
    """
    boxes: dict[str, list[tuple]] = {}
    try:
        root = ElementTree.fromstring(path.read_bytes())
        size = _integer(root, "size/width"), _integer(root, "size/height")
        for thing in root.iter("object"):
            for box in thing.iter("bndbox"):
                x0, y0, x1, y1 = (_integer(box, side) for side in _SIDES)
                for name in thing.iter("name"):
                    # The file counts pixels from 1, and the last one belongs to the box.
                    boxes.setdefault(str(name.text), []).append((x0 - 1, y0 - 1, x1, y1))
    except (ElementTree.ParseError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"The file {path} is no annotation of Flickr30k Entities; unpack annotations.zip "
            f"again. Received: {type(error).__name__}: {error}"
        ) from error
    return boxes, size


def _integer(element: ElementTree.Element, name: str) -> int:
    return int(element.findtext(name) or "")


def _coco_rows(path: Path, wanted: set[str] | None) -> Iterator[tuple]:
    """Yields the rows of `load_boxes` from a file of COCO's instances, crowds included."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        names = {category["id"]: category["name"] for category in content["categories"]}
        for note in content["annotations"]:
            image_id = str(note["image_id"])
            if wanted is not None and image_id not in wanted:
                continue
            x, y, width, height = note["bbox"]
            name = names[note["category_id"]]
            if width > 0 and height > 0:
                key = " ".join(map(_singular, name.split()))
                yield (image_id, key, name, x, y, x + width, y + height, *sizes[note["image_id"]])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"The file {path} is no file of COCO's instances: expected JSON with 'images' (id, "
            "width, height), 'categories' (id, name) and 'annotations' (image_id, category_id, "
            f"bbox). Received: {type(error).__name__}: {error}"
        ) from error
