"""Drawn scenes: a captioning data set that needs no download.

Every picture shows one to three shapes on a textured background, with five true captions and a box
for each object. The test split also has colour-shape pairs that no training picture has: it
measures compositional generalisation.
"""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sat_keras.data.files import replacing
from sat_keras.datasets.scene_captions import (
    BACKGROUNDS,
    COLOURS,
    CONTENT_WORDS,
    RELATIONS,
    SHAPES,
    SIZES,
    caption_accuracy,
    relation_between,
    words_to_boxes,
    write_captions,
)
from sat_keras.datasets.scene_pictures import (
    paint_background,
    paint_object,
    shape_outline,
    to_image,
)
from sat_keras.datasets.tables import SPLITS

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "CONTENT_WORDS",
    "HELD_OUT_PAIRS",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "caption_accuracy",
    "draw_scenes",
    "load_objects",
    "load_scenes",
    "relation_between",
    "words_to_boxes",
]

NUM_IMAGES = {"train": 10000, "dev": 300, "test": 500}
# One pair for each colour and each shape, in the test split only.
HELD_OUT_PAIRS = tuple(zip(COLOURS, SHAPES, strict=True))

_FORMAT = 1  # raise it when the same arguments would draw other pictures or captions
_MANIFEST = "scenes.json"
_BOX = ("x0", "y0", "x1", "y1")
_OBJECT_COLUMNS = ("image_id", "name", "colour", "shape", "size", *_BOX, "background")
# All as shares of the picture's width.
_DIAMETERS = {"small": (0.19, 0.23), "large": (0.34, 0.42)}
_MARGIN = 0.02
_GAP = 0.04
# Of two objects the distances along the axes have a ratio that is clearly above or clearly below
# CLEAR_RATIO, so that no picture lies at the border of what may be said of it.
_ALIGNED_RATIO = 2.0
_OBLIQUE_RATIO = 1.4


def draw_scenes(
    directory: str | os.PathLike,
    num_images: Mapping[str, int] | None = None,
    image_size: int = 64,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draws a seeded set of scenes, or loads it if it has been drawn before.

    Each picture has its own random generator, seeded by seed, split and number: a larger set of the
    same seed begins with the pictures of the smaller one. The set appears in `directory` when it is
    complete.

    Args:
        directory: Folder of this set; new, empty, or holding the same set.
        num_images: Mapping of "train", "dev" and "test" to a number of pictures; a split left out
            is empty. Defaults to 10000, 300 and 500.
        image_size: Width and height in pixels, at least 32.
        seed: Non-negative int.

    Returns:
        `(captions, objects)`, two DataFrames. `captions` has one row a caption: `image` (path of
        the PNG file), `image_id`, `caption`, `split`. `objects` has one row an object: `image_id`,
        `name` ("red circle"), `colour`, `shape`, `size`, the box `x0, y0, x1, y1` in pixels (x
        right, y down, x1 and y1 exclusive) and the picture's `background`.

    Raises:
        ValueError: If an argument is out of range, or `directory` holds something else.

    Example:
    ```python
    captions, objects = draw_scenes("data/scenes", {"train": 3000, "dev": 300, "test": 500})
    ```
    """
    manifest = _checked_manifest(num_images, image_size, seed)
    directory = Path(directory)
    if _holds(directory, manifest):
        return load_scenes(directory)
    try:
        with replacing(directory, overwrite=False) as partial:
            _draw_all(partial, manifest)
    except OSError:  # another process may have drawn the same set meanwhile
        if not _holds(directory, manifest):
            raise
    return load_scenes(directory)


def load_scenes(directory: str | os.PathLike) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Loads a set that `draw_scenes` has drawn.

    Args:
        directory: The set's folder.

    Returns:
        `(captions, objects)` as `draw_scenes` returns them.

    Raises:
        FileNotFoundError: `directory` holds no set, or pictures of it are missing.
    """
    directory = Path(directory)
    if not (directory / _MANIFEST).exists():
        raise FileNotFoundError(
            f"Expected a folder of drawn scenes with {_MANIFEST} in it; draw one with "
            f"draw_scenes(directory). Received: directory={str(directory)!r}"
        )
    captions = pd.read_csv(directory / "captions.csv", dtype=str, keep_default_na=False)
    objects = pd.read_csv(directory / "objects.csv", keep_default_na=False)
    there = {f"images/{path.name}" for path in (directory / "images").glob("*.png")}
    missing = sorted(set(captions["image"]) - there)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} pictures of the scenes in {directory} are missing, the first is "
            f"{missing[0]}. Delete the folder and draw it again. "
            f"Received: directory={str(directory)!r}"
        )
    captions["image"] = [str(directory / name) for name in captions["image"]]
    return captions, objects


def load_objects(captions: pd.DataFrame) -> pd.DataFrame:
    """Loads the objects in the pictures of a table of drawn scenes.

    Args:
        captions: Captions table of one set, or some rows of it.

    Returns:
        The objects table, as `draw_scenes` returns it, for the pictures in `captions`.

    Raises:
        FileNotFoundError: If the table's pictures are no drawn scenes.

    Example:
    ```python
    captions = load_dataset("scenes", only="test")
    objects = load_objects(captions)
    ```
    """
    if captions.empty:
        return pd.DataFrame(columns=list(_OBJECT_COLUMNS))
    _, objects = load_scenes(Path(captions["image"].iloc[0]).parents[1])
    return objects[objects["image_id"].isin(set(captions["image_id"]))].reset_index(drop=True)


def _checked_manifest(num_images: Mapping[str, int] | None, image_size: int, seed: int) -> dict:
    num_images = NUM_IMAGES if num_images is None else num_images
    if set(num_images) - set(SPLITS) or any(count < 0 for count in num_images.values()):
        raise ValueError(
            'Expected num_images to map "train", "dev" and "test" to numbers of pictures. '
            f"Received: num_images={dict(num_images)}"
        )
    if image_size < 32:
        raise ValueError(
            "Expected an image_size of at least 32 pixels, below which the shapes cannot be told "
            f"apart. Received: image_size={image_size}"
        )
    if seed < 0:
        raise ValueError(f"Expected a seed of 0 or above. Received: seed={seed}")
    counts = {split: int(num_images.get(split, 0)) for split in SPLITS}
    return {
        "format": _FORMAT,
        "num_images": counts,
        "image_size": int(image_size),
        "seed": int(seed),
    }


def _holds(directory: Path, manifest: dict) -> bool:
    """Returns whether the folder holds this set; raises an error if it holds anything else."""
    if not directory.exists() or not any(directory.iterdir()):
        return False
    path = directory / _MANIFEST
    found = json.loads(path.read_text()) if path.exists() else "files that are no drawn scenes"
    if found != manifest:
        raise ValueError(
            f"The folder {directory} already holds {found}, not {manifest}. "
            f"Choose another folder or delete this one. Received: directory={str(directory)!r}"
        )
    return True


def _draw_all(directory: Path, manifest: dict) -> None:
    (directory / "images").mkdir(parents=True)
    captions, objects = [], []
    for split, count in manifest["num_images"].items():
        pairs = _pair_cycle(split, manifest["seed"])
        for number in range(count):
            rng = np.random.default_rng([manifest["seed"], 1 + SPLITS.index(split), number])
            image_id = f"{split}-{number:05d}"
            picture, things, sentences = _draw_scene(pairs, number, manifest["image_size"], rng)
            path = f"images/{image_id}.png"
            to_image(picture).save(directory / path, compress_level=1)
            captions += [(path, image_id, sentence, split) for sentence in sentences]
            objects += [{"image_id": image_id, **thing} for thing in things]
    columns = ["image", "image_id", "caption", "split"]
    pd.DataFrame(captions, columns=columns).to_csv(directory / "captions.csv", index=False)
    pd.DataFrame(objects, columns=_OBJECT_COLUMNS).to_csv(directory / "objects.csv", index=False)
    (directory / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def _pair_cycle(split: str, seed: int) -> list[tuple[str, str]]:
    """Returns a split's colour-shape pairs, shuffled: the first objects of its pictures in turn."""
    pairs = [
        pair
        for pair in itertools.product(COLOURS, SHAPES)
        if split == "test" or pair not in HELD_OUT_PAIRS
    ]
    order = np.random.default_rng([seed, 0, SPLITS.index(split)]).permutation(len(pairs))
    return [pairs[i] for i in order]


def _draw_scene(
    pairs: Sequence[tuple[str, str]], number: int, image_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[dict], list[str]]:
    """Draws a scene of a split: the picture, its objects (mappings) and its captions."""
    first = number % len(pairs)
    num_objects = rng.choice((1, 2, 3), p=(0.25, 0.40, 0.35))
    steps = rng.choice(len(pairs) - 1, num_objects - 1, replace=False) + 1
    pairs = [pairs[(first + step) % len(pairs)] for step in (0, *steps)]
    outlines = [shape_outline(shape, rng.uniform(-1, 1)) for _, shape in pairs]
    sizes, diameters, centres = _lay_out([extent for _, extent in outlines], image_size, rng)

    background = str(rng.choice(BACKGROUNDS))
    picture = paint_background(background, image_size, rng)
    things = []
    for (colour, shape), (polygons, _), size, diameter, centre in zip(
        pairs, outlines, sizes, diameters, centres, strict=True
    ):
        box = paint_object(picture, polygons, colour, centre, diameter, rng)
        thing = {"name": f"{colour} {shape}", "colour": colour, "shape": shape, "size": size}
        things.append({**thing, **dict(zip(_BOX, box, strict=True)), "background": background})
    return picture, things, write_captions(things, background, rng)


def _lay_out(
    extents: Sequence[np.ndarray], image_size: int, rng: np.random.Generator, num_tries: int = 100
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Chooses sizes and places so that nothing overlaps and every relation is clear or absent.

    Args:
        extents: Width and height of each object in units of its diameter.
        image_size: Pixels.
        rng: `numpy.random.Generator`.
        num_tries: Places tried at once for one choice of sizes.

    Returns:
        sizes (list of str), diameters `(objects,)` and centres `(objects, 2)` in pixels.
    """
    while True:
        sizes = [str(size) for size in rng.choice(SIZES, len(extents))]
        diameters = image_size * np.array([rng.uniform(*_DIAMETERS[size]) for size in sizes])
        spans = np.array(extents) * diameters[:, None]  # (objects, 2)
        low = spans / 2 + _MARGIN * image_size
        centres = rng.uniform(low, image_size - low, (num_tries, *low.shape))
        good = np.ones(num_tries, bool)
        num_aligned = np.zeros(num_tries, int)
        for a, b in itertools.combinations(range(len(extents)), 2):
            distance = np.abs(centres[:, a] - centres[:, b])  # (tries, 2)
            free = distance - (spans[a] + spans[b]) / 2 >= _GAP * image_size
            aligned = (free & (distance >= _ALIGNED_RATIO * distance[:, ::-1])).any(axis=-1)
            oblique = distance.max(axis=-1) <= _OBLIQUE_RATIO * distance.min(axis=-1)
            good &= aligned | (oblique & free.any(axis=-1))
            num_aligned += aligned
        good &= num_aligned >= len(extents) - 1  # every object can be told by a relation
        if good.any():
            return sizes, diameters, centres[good.argmax()]
