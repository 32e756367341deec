"""Keras's float64 as the default float type: training and every search, soft and hard.

In a process of its own, since the float type is the whole process's.
"""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import keras
keras.config.set_floatx("float64")
import numpy as np
from sat_keras import Captioner, Config, Tokenizer, sample_search
for changes in ({}, {"attention": "hard", "context": "sampled"}, {"tie_embeddings": True}):
    config = Config.tiny().replace(**changes)
    captioner = Captioner(config, Tokenizer.from_captions(["a red circle"]))
    annotations = np.ones((2, 4, 8))
    assert len(captioner.caption(annotations=annotations)) == 2
    step, states = captioner.step_function(annotations, rows=2)
    options = {"start_id": 2, "end_id": 3, "max_length": 4, "num_samples": 2}
    assert sample_search(step, states, **options).token_ids.shape[0] == 2
    captioner.compile("adam", run_eagerly=True)
    inputs = {"annotations": annotations, "token_ids": np.array([[[2, 4, 5]]] * 2)}
    loss = captioner.fit(inputs, np.array([[[4, 5, 3]]] * 2), verbose=0).history["loss"]
    assert np.isfinite(loss).all()
print("done")
"""


@pytest.mark.integration
def test_float64(repository):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr[-2000:]
