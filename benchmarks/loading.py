"""Cost of the input pipeline: steps on minibatches from disk against minibatches in memory.

How long a step waits for its minibatch tells whether the pipeline is ahead; where the same cores
compute and read it costs time all the same.

The peak memory is that of an epoch from disk by `fit`, as a training goes, before any minibatch is
kept for the comparison.
"""

import argparse
import itertools
import json
import resource
import sys
import time

import numpy as np

from benchmarks.data import dev_captions, dev_features
from benchmarks.measure import spread
from sat_keras.backend.memory import keep_freed_memory
from sat_keras.config.config import Config
from sat_keras.data.loaders import caption_batches
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.training.fit import compile_captioner


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="minibatches a round")
    options = parser.parse_args(arguments)
    keep_freed_memory()  # as `sat-keras train` does
    config = Config.flickr8k().replace(min_count=1)
    table = dev_captions()
    tokenizer = Tokenizer.from_captions(table["caption"], config.vocabulary_size)
    captioner = Captioner(config, tokenizer, dtype=config.frozen_precision)
    compile_captioner(captioner, 1000)
    batches = caption_batches(
        table,
        tokenizer,
        dev_features(),
        batch_size=config.batch_size,
        max_length=config.max_length,
    )

    def train(batch):
        x, y, weight = batch
        captioner.train_on_batch(x, y, sample_weight=weight)

    compiled = set()
    captioner.fit(batches, verbose=0)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    for batch in batches:  # an epoch, which compiles for each length of captions
        train(batch)
        compiled.add(tuple(batch[1].shape))
    epochs = itertools.chain.from_iterable(itertools.repeat(batches))
    batches = (batch for batch in epochs if tuple(batch[1].shape) in compiled)
    from_disk, from_memory, waited = [], [], []
    for _ in range(options.rounds):
        kept, idle = [], 0.0
        start = time.perf_counter()
        for _ in range(options.steps):
            asked = time.perf_counter()
            kept.append(next(batches))
            idle += time.perf_counter() - asked
            train(kept[-1])
        middle = time.perf_counter()
        for batch in kept:  # the same minibatches, so that nothing but where they come from differs
            train(batch)
        from_disk.append(middle - start)
        from_memory.append(time.perf_counter() - middle)
        waited.append(idle)
    found = {
        "loader_share": spread(np.divide(from_disk, from_memory) - 1),
        "loader_idle": spread(np.divide(waited, from_disk)),
        "loader_step_seconds": spread(np.divide(from_disk, options.steps)),
        "loader_peak_gb": peak,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
