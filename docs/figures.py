"""Draws the README's attention figures: the committed captioner on freely licensed photos.

    python docs/figures.py [--encoder-weights FILE]

The man with the camera is also drawn for the captioner with supervised attention
(camera-grounded.png). The caption of the course's photo is stored for the notebooks, in
sat_keras/course/camera.json.

The photos come with scikit-image (`pip install ".[notebooks]"`): the astronaut Eileen Collins
(NASA, public domain), a man with a camera (Lav Varshney, CC0), the cat Chelsea (Stefan van der
Walt, CC0), a cup of coffee (Rachel Michetti, CC0) and the launch of a rocket (SpaceX, CC0).
"""

import json
import sys
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from sat_keras import load_pretrained
from sat_keras.cli.program import main

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
MODEL = "flickr8k-soft-vgg16"
GROUNDED = "flickr8k-grounded-vgg16"
FOLDER = Path(__file__).resolve().parent / "attention"
STORED = Path(__file__).resolve().parents[1] / "sat_keras" / "course" / "camera.json"


def write_photos(folder: Path) -> list[str]:
    """Writes the photos as files and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in PHOTOS]
    for name, path in zip(PHOTOS, paths, strict=True):
        Image.fromarray(getattr(skimage.data, name)()).save(path)
    return [str(path) for path in paths]


def store_caption(photo: str, path: Path, encoder_weights: str | None) -> None:
    """Stores the caption of a photo, see `sat_keras.course.photo`."""
    caption = load_pretrained(MODEL, encoder_weights).caption(photo)
    stored = {
        "photo": "skimage.data.camera(), Lav Varshney, CC0",
        "model": MODEL,
        "text": caption.text,
        "log_probability": round(caption.log_probability, 4),
        "grid_shape": caption.attention.shape[1:],
        "gate": np.round(caption.gate.astype("float64"), 4).tolist(),
        "attention": np.round(1e5 * caption.attention).astype(int).ravel().tolist(),
    }
    path.write_text(json.dumps(stored) + "\n", encoding="utf-8")


if __name__ == "__main__":
    photos = write_photos(Path("outputs", "photos"))
    weights = dict(zip(sys.argv[1:-1], sys.argv[2:], strict=True)).get("--encoder-weights")
    store_caption(photos[PHOTOS.index("camera")], STORED, weights)
    options = ["--out", str(FOLDER), *sys.argv[1:]]
    grounded = Path("outputs", "photos", "camera-grounded.png")
    grounded.write_bytes(Path(photos[PHOTOS.index("camera")]).read_bytes())
    failed = main(["caption", str(grounded), "--model", GROUNDED, *options])
    sys.exit(failed or main(["caption", *photos, "--model", MODEL, *options]))
