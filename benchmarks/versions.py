"""This checkout against another one: training step, beam search and feature extraction, in pairs.

    git worktree add /tmp/before VERSION
    python -m benchmarks.versions /tmp/before

Each checkout runs in a process of its own. The two take turns at one block after another, so that
both share the machine's state. A second pair of processes starts and runs in the other order, since
the first one may be slower. Prints the ratios of seconds, this checkout's to the other's: below 1
this one is faster.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np

from benchmarks.measure import REPOSITORY, in_turns, machine, spread

PICTURES = 32
SAMPLE = REPOSITORY / "outputs" / "benchmarks" / "pictures.npy"

# Runs in either checkout, by names that both have: reads the kind of a block, says when it is done.
WORKER = """
import json, sys
import numpy as np
from benchmarks.encoding import extraction
from benchmarks.sizes import Sizes, train_step
from sat_keras import load_pretrained

shapes, sample, repeats = json.loads(sys.argv[1])
annotations = np.load(sample)
photos = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3)).astype("uint8")
captioner = load_pretrained("flickr8k-soft-vgg16", encoder=False)
functions = {
    "training": train_step(Sizes(**shapes)),
    "search": lambda: captioner.caption(annotations=annotations, beam_size=5),
    "extraction": extraction("float32", photos)[1],
}
for function in functions.values():
    function()
print("done", flush=True)
for line in sys.stdin:
    kind = line.strip()
    for _ in range(repeats[kind]):
        functions[kind]()
    print("done", flush=True)
"""
SHARED = {"pictures": 13, "captions": 5}
REPEATS = {"training": 4, "search": 2, "extraction": 2}


def start(checkout, shapes=SHARED, repeats=REPEATS):
    """Starts the worker of a checkout.

    Raises:
        RuntimeError: If it cannot run there. Its error is on the terminal.
    """
    options = json.dumps([shapes, str(SAMPLE), repeats])
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, options],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait(worker, checkout)
    return worker


def wait(worker, name):
    """Waits until a worker is done."""
    for line in worker.stdout:
        if line.strip() == "done":
            return
    raise RuntimeError(f"The checkout's benchmark does not run. Received: {name}")


def block(worker, kind):
    """Returns a function that has a worker run a block."""

    def run():
        worker.stdin.write(f"{kind}\n")
        worker.stdin.flush()
        wait(worker, kind)

    return run


def interval(ratios, draws=10_000):
    """Returns the 95 % interval of the median, by bootstrap over rounds."""
    rounds = np.random.default_rng(0).choice(ratios, (draws, len(ratios)))
    return [round(float(x), 4) for x in np.percentile(np.median(rounds, axis=1), [2.5, 97.5])]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", help="folder of the other checkout")
    parser.add_argument("--kinds", nargs="+", choices=list(REPEATS), default=list(REPEATS))
    parser.add_argument("--rounds", type=int, default=10, help="blocks of each order that count")
    options = parser.parse_args(arguments)
    from benchmarks.data import dev_captions, dev_features

    features = dev_features()
    image_ids = list(dev_captions()["image_id"].unique()[:PICTURES])
    SAMPLE.parent.mkdir(parents=True, exist_ok=True)
    np.save(SAMPLE, features.read(features.lookup(image_ids)).numpy())
    ratios = {kind: [] for kind in options.kinds}
    here = str(REPOSITORY)
    for checkouts in ((here, options.checkout), (options.checkout, here)):
        workers = {checkout: start(checkout) for checkout in checkouts}
        for kind in options.kinds:
            blocks = {checkout: block(worker, kind) for checkout, worker in workers.items()}
            seconds = in_turns(blocks, options.rounds, warmup=1)
            ratios[kind].extend(seconds[here] / seconds[options.checkout])
        for worker in workers.values():
            worker.communicate()
    found = {kind: spread(x) | {"interval": interval(x)} for kind, x in ratios.items()}
    print(json.dumps({"machine": machine(), **found}, indent=1))


if __name__ == "__main__":
    main()
