"""Draws the README's attention figures: the committed captioner on freely licensed photos.

    python docs/figures.py [--encoder-weights FILE]

The photos come with scikit-image (`pip install ".[notebooks]"`): the astronaut Eileen Collins
(NASA, public domain), a man with a camera (Lav Varshney, CC0), the cat Chelsea (Stefan van der
Walt, CC0), a cup of coffee (Rachel Michetti, CC0) and the launch of a rocket (SpaceX, CC0).
"""

import sys
from pathlib import Path

import skimage
from PIL import Image

from sat_keras.cli.program import main

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
FOLDER = Path(__file__).resolve().parent / "attention"


def write_photos(folder: Path) -> list[str]:
    """Writes the photos as files and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in PHOTOS]
    for name, path in zip(PHOTOS, paths, strict=True):
        Image.fromarray(getattr(skimage.data, name)()).save(path)
    return [str(path) for path in paths]


if __name__ == "__main__":
    photos = write_photos(Path("outputs", "photos"))
    sys.exit(main(["caption", *photos, "--out", str(FOLDER), *sys.argv[1:]]))
