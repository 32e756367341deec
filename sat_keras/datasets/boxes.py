"""Where the objects are: boxes of Flickr30k Entities and of COCO, for the scores of attention.

Both are read into one table of named boxes. Which of them a caption's word names is decided by
`words_to_boxes`, as `sat_keras.datasets.scenes.words_to_boxes` does for drawn scenes.
"""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pandas as pd

BOX = ("x0", "y0", "x1", "y1")
COLUMNS = ("image_id", "name", "phrase", *BOX, "width", "height")

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_PHRASE = re.compile(r"\[/EN#(?P<chain>\d+)(?:/[^\s\]/]+)+ (?P<text>[^\]]+)\]")
_SINGULAR = {
    **{"men": "man", "women": "woman", "children": "child", "people": "person"},
    **{"feet": "foot", "mice": "mouse", "knives": "knife", "leaves": "leaf", "shelves": "shelf"},
    **{plural: plural for plural in ("glasses", "scissors", "skis")},
}
# What else captions call COCO's categories.
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
# Names that are no kind of what their last word names.
_COMPOUNDS = ("hot dog", "teddy bear")


def load_boxes(
    paths: Sequence[str | os.PathLike], image_ids: Collection[str] | None = None
) -> pd.DataFrame:
    """Load the boxes of Flickr30k Entities or of COCO.

    Args:
        paths: a folder of Flickr30k Entities, with the folders `Annotations` and `Sentences` in it,
            or COCO's files `instances_<part><year>.json`, one or several.
        image_ids: the pictures to load; None for all.

    Returns:
        DataFrame with one row for each name of each box: `image_id` (as in the captions table),
        `name` (of what is in the box, in small letters and the singular: a phrase's last word for
        Entities, the category for COCO), `phrase` (as it was written), the box `x0, y0, x1, y1` in
        pixels of the original picture (x right, y down, x1 and y1 exclusive), and the original
        picture's `width` and `height`.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a file cannot be read; the message names it.

    Example:
    ```python
    objects = load_boxes(["data/coco2014/annotations/instances_val2014.json"])
    ```

    Reference:
        Plummer et al., "Flickr30k Entities", 2015; Lin et al., "Microsoft COCO", 2014.
    """
    wanted = None if image_ids is None else set(image_ids)
    rows = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(
                "Expected a folder of Flickr30k Entities or a file instances_<part><year>.json of "
                f"COCO. Received: {str(path)!r}, which does not exist"
            )
        rows += _entities_rows(path, wanted) if path.is_dir() else _coco_rows(path, wanted)
    return pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(ignore_index=True)


def words_to_boxes(words: Sequence[str], objects: pd.DataFrame) -> list[list[tuple] | None]:
    """Find the boxes of the objects that each word of a caption names.

    A word names what bears its name, whatever else is said of it: "dog" means all dogs in the
    picture, since of several nothing tells which one is meant. Number does not matter ("dogs").
    Of a name of several words ("hot dog") the last one stands for all.

    Args:
        words: list of words (a caption split as the model wrote it).
        objects: the picture's rows of the table of boxes.

    Returns:
        List as long as `words`: the boxes `(x0, y0, x1, y1)` of what the word names, or None where
        it names nothing that has a box.

    Example:
    >>> objects = pd.DataFrame([dict(name="dog", x0=0, y0=0, x1=9, y1=9)])
    >>> words_to_boxes("two dogs run".split(), objects)
    [None, [(0, 0, 9, 9)], None]
    """
    by_name = dict(list(objects.groupby("name")))
    words = [_singular(re.sub(r"[^a-z-]", "", word.lower())) for word in words]
    boxes = []
    for before, word in zip(["", *words], words, strict=False):
        names = [f"{before} {word}", word, _OTHER_NAMES.get(word)]
        names = names[:1] if names[0] in _COMPOUNDS else names
        name = next((name for name in names if name in by_name), None)
        rows = [] if name is None else by_name[name][list(BOX)].itertuples(index=False, name=None)
        boxes.append(list(dict.fromkeys(rows)) or None)
    return boxes


def _singular(word: str) -> str:
    """The singular of a noun, as far as rules go; the same for both of what is compared."""
    if word in _SINGULAR:
        return _SINGULAR[word]
    for ending, singular in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch")):
        if word.endswith(ending) and len(word) > 4:
            return word.removesuffix(ending) + singular
    for ending in ("xes", "buses"):
        if word.endswith(ending):
            return word.removesuffix("es")
    return word if word.endswith(("ss", "us", "is")) else word.removesuffix("s")


def _entities_rows(folder: Path, wanted: set[str] | None) -> Iterator[tuple]:
    """The rows of `load_boxes` of a folder of Flickr30k Entities."""
    if not (folder / "Annotations").is_dir() or not (folder / "Sentences").is_dir():
        raise FileNotFoundError(
            "Expected the folders Annotations and Sentences of Flickr30k Entities; unpack its "
            f"annotations.zip. Received: {str(folder)!r}"
        )
    for path in sorted((folder / "Annotations").glob("*.xml")):
        if wanted is not None and path.stem not in wanted:
            continue
        boxes, size = _read_annotation(path)
        sentences = (folder / "Sentences" / f"{path.stem}.txt").read_text(encoding="utf-8")
        for match in _PHRASE.finditer(sentences):
            phrase = match["text"].strip()
            name = _singular(phrase.lower().split()[-1])
            for box in boxes.get(match["chain"], ()):
                yield (path.stem, name, phrase, *box, *size)


def _read_annotation(path: Path) -> tuple[dict[str, list[tuple]], tuple[int, int]]:
    """{number of an entity: its boxes} and the picture's (width, height) of an annotation file."""
    try:
        root = ElementTree.parse(path).getroot()
        size = int(root.findtext("size/width")), int(root.findtext("size/height"))
        boxes = {}
        for thing in root.iter("object"):
            for box in thing.iter("bndbox"):
                x0, y0, x1, y1 = (int(box.findtext(side)) for side in _SIDES)
                for name in thing.iter("name"):
                    # The file counts pixels from 1 and the last one belongs to the box.
                    boxes.setdefault(name.text, []).append((x0 - 1, y0 - 1, x1, y1))
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise ValueError(
            f"The file {path} is no annotation of Flickr30k Entities; unpack annotations.zip "
            f"again. Received: {type(error).__name__}: {error}"
        ) from error
    return boxes, size


def _coco_rows(path: Path, wanted: set[str] | None) -> Iterator[tuple]:
    """The rows of `load_boxes` of a file of COCO's instances, crowds included."""
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
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The file {path} is no file of COCO's instances: expected JSON with 'images' (id, "
            "width, height), 'categories' (id, name) and 'annotations' (image_id, category_id, "
            f"bbox). Received: {type(error).__name__}: {error}"
        ) from error
