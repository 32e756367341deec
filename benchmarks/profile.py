"""Time of a training step and of a beam search by kind of operation."""

import argparse
import collections
import json
import re
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.searching import BATCH, BEAMS, PRETRAINED
from benchmarks.training import SIZES, SMALL, train_step
from sat_keras.captioning.model import caption_search
from sat_keras.training.pretrained import load_pretrained

# What an operation's name ends in, and XLA's name for running a compiled function.
KINDS = {
    "matrix products": r":\w*(MatMul|Einsum)",
    "compiled loops": r"^CpuExecutable::ExecuteAsyncOnStream$",
    "softmax, top k": r"Softmax|TopK",
    "moving memory": r":\w*(Concat|Gather|Slice|Split|Transpose|Cast|Scatter|Pack|Copy|TensorList)",
}


def kind(name):
    """Returns the kind of operation of an event; `None` for events that only wait."""
    for label, pattern in KINDS.items():
        if re.search(pattern, name):
            return label
    return "other operations" if re.search(r"[\w/]:[A-Z]\w+$", name) else None


def operations(function, calls):
    """Returns milliseconds a call by kind of operation, from TensorFlow's profiler."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    milliseconds = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(calls):
            function()
        tf.profiler.experimental.stop()
        for path in Path(folder).rglob("*.xplane.pb"):
            for plane in xplane_pb2.XSpace.FromString(path.read_bytes()).planes:
                names = {key: data.name for key, data in plane.event_metadata.items()}
                for event in (event for line in plane.lines for event in line.events):
                    milliseconds[kind(names[event.metadata_id])] += event.duration_ps / 1e9
    del milliseconds[None]
    return {name: round(value / calls, 2) for name, value in milliseconds.most_common()}


def profile(function, calls):
    """Adds the milliseconds of a whole call, timed without the profiler."""
    for _ in range(2):
        function()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    whole = 1000 * (time.perf_counter() - start) / calls
    return {"whole": round(whole, 2), **operations(function, calls)}


def search():
    """Returns a function that captions a minibatch of random pictures with long captions."""
    captioner = load_pretrained(PRETRAINED, encoder=False)
    shape = BATCH, captioner.config.num_regions, captioner.config.feature_dim
    pictures = {"annotations": np.random.default_rng(0).gamma(0.3, 30, shape).astype("float32")}
    return lambda: caption_search(captioner, beam_size=BEAMS).predict_on_batch(pictures)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a small step alone, to try it out")
    options = parser.parse_args(arguments)
    if options.small:
        functions = {"training step": train_step(SMALL["shared"])}
    else:
        functions = {
            "training step": train_step(SIZES["shared"]),
            "training step, bfloat16": train_step(SIZES["shared"], "mixed_bfloat16"),
            f"beam search of {BATCH} pictures": search(),
        }
    found = {name: profile(function, options.calls) for name, function in functions.items()}
    print(json.dumps({"profile": found}))


if __name__ == "__main__":
    main()
