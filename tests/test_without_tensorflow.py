"""Captioning on JAX and PyTorch where TensorFlow is not installed."""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from sat_keras.training.pretrained import load_pretrained

NAME = "flickr8k-soft-vgg16"
PROGRAM = """
import json, sys
import numpy as np
from sat_keras import Captioner, Config, ImageEncoder, Tokenizer, load_pretrained
captioner = load_pretrained(sys.argv[1], encoder=False)
texts = captioner.generate(annotations=np.load(sys.argv[2]), beam_size=2, max_length=4)
encoder = ImageEncoder("scenes", weights=None, resize="squash", image_size=16)
config = Config.tiny().replace(grid_shape=encoder.grid_shape, feature_dim=encoder.feature_dim)
tokenizer = Tokenizer(["", "<unk>", "<start>", "<end>", "dog"])
caption = Captioner(config, tokenizer, encoder).caption(sys.argv[3])
found = [name for name in sys.modules if name.startswith("tensorflow")]
print(json.dumps({"texts": texts, "shape": caption.image.shape, "tensorflow": found}))
"""


@pytest.fixture
def packages(tmp_path):
    """A folder with all installed packages but TensorFlow's, for a Python started without them.

    Blocking the import alone is not enough: Keras asks whether the module is there.
    """
    folder = tmp_path / "packages"
    folder.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(place).iterdir():
            if not path.name.startswith("tensorflow") and path.suffix != ".pth":
                (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.integration
@pytest.mark.skipif(os.name == "nt", reason="Windows needs rights for symbolic links")
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_captions_need_no_tensorflow(backend, packages, repository, tmp_path):
    """Of annotation vectors by a pretrained captioner, the same; and of a picture file."""
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed: pip install {backend}")
    from PIL import Image

    captioner = load_pretrained(NAME, encoder=False)
    shape = (2, captioner.config.num_regions, captioner.config.feature_dim)
    annotations = np.abs(np.random.default_rng(0).normal(size=shape)).astype("float32")
    np.save(tmp_path / "annotations.npy", annotations)
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photo.png")
    files = [str(tmp_path / name) for name in ("annotations.npy", "photo.png")]
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, NAME, *files],
        env=os.environ
        | {"KERAS_BACKEND": backend, "PYTHONPATH": f"{packages}{os.pathsep}{repository}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = captioner.generate(annotations=annotations, beam_size=2, max_length=4)
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "texts": expected,
        "shape": [20, 30, 3],
        "tensorflow": [],
    }
