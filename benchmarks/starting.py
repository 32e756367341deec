"""Latency of a caption: with the model loaded, and from the command line."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.data import PRETRAINED, encoder_weights
from benchmarks.measure import REPOSITORY, in_turns, spread


def photo():
    """Returns a random picture of 480 x 640 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (15, 20, 3)).astype("uint8")
    return np.array(Image.fromarray(coarse).resize((640, 480)))


def loaded(rounds):
    """Returns seconds from pixels to caption."""
    from sat_keras.training.pretrained import load_pretrained

    weights = encoder_weights()
    captioner = load_pretrained(PRETRAINED, weights[1] if weights else None)
    picture = photo()
    seconds = in_turns({"caption": lambda: captioner.caption([picture])}, rounds)
    return {"caption_seconds": spread(seconds["caption"])}


def cold(rounds):
    """Returns seconds of `sat-keras caption photo.png`, from the start of Python to the figure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.png"
        Image.fromarray(photo()).save(path)
        command = [sys.executable, "-m", "sat_keras", "caption", str(path), "--out", folder]

        def start():
            subprocess.run(
                [*command, *encoder_weights()], check=True, capture_output=True, cwd=REPOSITORY
            )

        seconds = in_turns({"start": start}, rounds, warmup=1)
    return {"cold_start_seconds": spread(seconds["start"])}


def imports():
    """Returns the slowest imports of a cold start in seconds, nested imports included."""
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-c",
            "import tensorflow, keras, sat_keras.paper.captioner",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ},
    )
    rows = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
    times = {row[2].strip(): int(row[1]) / 1e6 for row in rows[1:]}
    return dict(sorted(times.items(), key=lambda item: -item[1])[:40])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--imports", action="store_true", help="only list the slowest imports")
    options = parser.parse_args(arguments)
    if options.imports:
        print(json.dumps(imports(), indent=1))
        return
    start = time.perf_counter()
    found = {**cold(options.rounds), **loaded(3 * options.rounds)}
    print(json.dumps({**found, "starting_seconds": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
    main()
