"""Time and memory by numbers of pictures, words, captions a minibatch and vocabulary."""

import argparse
import dataclasses
import itertools
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import FOLDER, in_turns, repeated, run_part
from benchmarks.sizes import Sizes, train_step

SMALL = Sizes(num_regions=49, feature_dim=64, width=128, vocabulary_size=4000)
FIGURE = FOLDER / "growth.svg"
DATA_SETS = (1_024, 4_096, 16_384, 65_536)  # whole minibatches of 64: one shape to compile
SERIES = {
    "steps": (5, 10, 20, 40),
    "pictures": (16, 64, 256, 512),
    "vocabulary_size": (1_000, 4_000, 16_000, 50_000),
}
LABELS = {
    "data_set": "pictures of the data set",
    "steps": "words of a caption",
    "pictures": "captions of a minibatch",
    "vocabulary_size": "words of the vocabulary",
}


def of_steps(rounds):
    """Returns milliseconds a caption of a training step, for each series."""
    found = {}
    for name, values in SERIES.items():
        sizes = {value: dataclasses.replace(SMALL, **{name: value}) for value in values}
        steps = {value: repeated(train_step(size), 2) for value, size in sizes.items()}
        seconds = in_turns(steps, rounds)
        found[name] = {
            value: 500 * float(np.median(seconds[value])) / sizes[value].rows for value in values
        }
    return found


def of_data_set(pictures, steps=100):
    """Returns milliseconds a caption of training from disk, and peak memory."""
    from sat_keras.data.features import FeatureCache
    from sat_keras.data.loaders import caption_batches
    from sat_keras.data.tokenizer import Tokenizer
    from sat_keras.paper.captioner import Captioner
    from sat_keras.training.fit import compile_captioner

    generator = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(1000)])
    image_ids = [f"{i}.jpg" for i in range(pictures)]
    captions = [" ".join(row) for row in words[generator.integers(0, 1000, (pictures, 12))]]
    table = pd.DataFrame({"image_id": image_ids, "caption": captions})
    config = SMALL.config()
    tokenizer = Tokenizer.from_captions(table["caption"][:1000])
    captioner = Captioner(config, tokenizer)
    compile_captioner(captioner, steps)
    with tempfile.TemporaryDirectory() as folder:
        write_features(Path(folder), image_ids, config)
        batches = caption_batches(table, tokenizer, FeatureCache(folder), batch_size=64)
        batches = iter(itertools.chain.from_iterable(itertools.repeat(batches)))
        for turn in range(2):  # the first one compiles
            start = time.perf_counter()
            for x, y, weight in itertools.islice(batches, steps if turn else 5):
                captioner.train_on_batch(x, y, sample_weight=weight)
        seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return {"milliseconds": 1000 * seconds / (64 * steps), "gb": memory}


def write_features(folder, image_ids, config):
    """Writes random annotation vectors in the format of `sat_keras.data.features`."""
    manifest = {
        "format": 2,
        "encoder": "made up",
        "fingerprint": "0",
        "grid_shape": list(config.grid_shape),
        "feature_dim": config.feature_dim,
        "dtype": "float16",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shape = config.num_regions, config.feature_dim
    shard = np.random.default_rng(0).normal(size=shape).astype("float16").tobytes()
    for image_id in image_ids:
        (folder / f"{image_id}.{0:016x}.f16").write_bytes(shard)


def plot(growth):
    """Draws all series into `growth.svg`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 5, figsize=(15, 2.8), layout="constrained")
    panels = [
        *((name, growth[name], "ms a caption") for name in LABELS),
        ("data_set", growth["memory"], "peak memory, GB"),
    ]
    for axis, (name, values, label) in zip(axes, panels, strict=True):
        axis.plot([int(x) for x in values], list(values.values()), "o-")
        # Linear where time should be, so that it shows as a line.
        scale = "linear" if name in ("steps", "vocabulary_size") else "log"
        axis.set(xlabel=LABELS[name], ylabel=label, xscale=scale)
        axis.set_ylim(0, 1.1 * max(values.values()))
        labels = [f"{int(x):,}" for x in values]
        if name == "vocabulary_size":
            labels[1] = ""  # 4,000 is too near to 1,000
        axis.set_xticks([int(x) for x in values], labels, minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.savefig(FIGURE, metadata={"Date": None})
    plt.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data-set", type=int, help="only training with so many pictures")
    options = parser.parse_args(arguments)
    if options.data_set:
        print(json.dumps(of_data_set(options.data_set)))
        return
    parts = {n: run_part("benchmarks.growth", "--data-set", n) for n in DATA_SETS}
    growth = {
        "data_set": {n: part["milliseconds"] for n, part in parts.items()},
        "memory": {n: part["gb"] for n, part in parts.items()},
        **of_steps(options.rounds),
    }
    plot(growth)
    rounded = {name: {k: round(v, 4) for k, v in x.items()} for name, x in growth.items()}
    print(json.dumps({"growth": rounded}))


if __name__ == "__main__":
    main()
