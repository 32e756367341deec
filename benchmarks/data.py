"""Flickr8k's dev pictures: captions and VGG16 annotation vectors."""

import functools

from benchmarks.measure import REPOSITORY
from sat_keras import load_dataset
from sat_keras.cli.program import main as sat_keras
from sat_keras.data.features import FeatureCache

FEATURES = REPOSITORY / "outputs" / "features" / "flickr8k"
ANNOTATIONS = "VGG16-block5_conv3-*"  # beside the cache of a fine-tuning
WEIGHTS = REPOSITORY / "data" / "vgg16_imagenet_notop_fp16.weights.h5"
PRETRAINED = "flickr8k-soft-vgg16"


def encoder_weights():
    """Returns the `sat-keras` options for the CNN's weights: a file or Keras's download."""
    return ["--encoder-weights", str(WEIGHTS)] if WEIGHTS.is_file() else []


@functools.cache
def dev_captions():
    """Returns the table of the dev captions.

    Raises:
        FileNotFoundError: If Flickr8k is not in `data/`.
    """
    table = load_dataset("flickr8k", data_dir=REPOSITORY / "data")
    return table[table["split"] == "dev"]


def dev_features():
    """Opens the dev pictures' features; computes them first if missing."""
    image_ids = list(dev_captions()["image_id"].unique())
    for folder in FEATURES.glob(ANNOTATIONS):
        cache = FeatureCache(folder)
        if all(image_id in cache for image_id in image_ids):
            return cache
    options = ["--dataset", "flickr8k", "--split", "dev", "--out", str(FEATURES)]
    if sat_keras(["features", *options, *encoder_weights()]):
        raise FileNotFoundError(f"Could not compute features into {FEATURES}; see above.")
    return FeatureCache(next(FEATURES.glob(ANNOTATIONS)))
