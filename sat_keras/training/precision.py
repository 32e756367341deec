"""`precision="auto"`: a training runs in the precision whose training step is faster where it runs.

Both are timed on one minibatch before the first training in a folder. The answer is kept in its
`state.json` and `config.json`, so that nothing that follows measures again: neither a resumed
training nor `evaluate`.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sat_keras.captioning.presets import CONFIG_FILE, read_description
from sat_keras.config.config import Config
from sat_keras.config.training import AUTO
from sat_keras.data.files import read_json, write_json
from sat_keras.data.random_pictures import RandomPictures
from sat_keras.training.state import TrainingState

CANDIDATES = ("float32", "mixed_bfloat16")
_WARMUP, _ROUNDS = 2, 5


def choose_precision(
    steps: Mapping[str, Callable[[], Any]], clock: Callable[[], float] = time.perf_counter
) -> tuple[str, str]:
    """Chooses the precision of the fastest training step, and says why.

    The steps run in turns, since the speed of a machine changes with what else it does. The first
    two of each, which compile it, do not count.

    Args:
        steps: Functions by the name of their precision. Each trains on one minibatch, the same
            one, and returns when it is done. Of equally fast ones the first is chosen.
        clock: Function that returns seconds.

    Returns:
        Tuple of the name of the precision, that of the least median time, and a line with the
        times.

    Example:

    >>> choose_precision({"float32": step, "mixed_bfloat16": step_in_bfloat16})
    ('mixed_bfloat16', 'Precision mixed_bfloat16: the faster training step here (float32 394 ...')
    """
    for step in steps.values():
        for _ in range(_WARMUP):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(_ROUNDS):
        for name, step in steps.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    fastest = min(medians, key=lambda name: medians[name])
    times = ", ".join(f"{name} {1000 * x:.3g} ms" for name, x in medians.items())
    return fastest, f"Precision {fastest}: the faster training step here ({times})."


def recorded_precision(
    config: Config, folder: str | os.PathLike, overwrite: bool = False
) -> Config:
    """Replaces `"auto"` by what the training in a folder runs in, if there is one.

    Args:
        config: A `Config`.
        folder: Path of the training's folder, which may be empty or missing.
        overwrite: Boolean, whether that training will be deleted, so that it does not count.

    Raises:
        ValueError: If the folder's `config.json` is damaged.
    """
    is_new = overwrite or not Path(folder, CONFIG_FILE).is_file()
    if config.precision != AUTO or is_new:
        return config
    found = read_description(folder)["config"]
    return config.replace(
        precision=found.precision,
        encoder_precision=config.encoder_precision or found.encoder_precision,
    )


def settle_precision(
    config: Config,
    state: TrainingState,
    folder: Path,
    measure: Callable[[], tuple[str, str]],
    verbose: int,
) -> Config:
    """Replaces `"auto"` by the precision that the training began in, else by the measured one.

    It is written into the folder's state file, and into its `config.json` if there is one.

    Args:
        config: A `Config`.
        state: `TrainingState` of the folder.
        folder: Path of the training's folder.
        measure: Function that returns what `choose_precision` does.
        verbose: 0 for no output.

    Returns:
        The config that the training runs with.
    """
    if config.precision == AUTO:
        if state.precision is None:
            state.precision, reason = measure()
            if verbose:
                print(reason)
        config = config.with_precision(state.precision)
        path = folder / CONFIG_FILE
        if path.is_file():
            description = read_json(path)
            names = ("precision", "encoder_precision")
            description["config"] |= {name: getattr(config, name) for name in names}
            write_json(path, description, checksum=True)
    state.precision = config.precision
    state.write(folder)
    return config


def random_pictures(config: Config, encoder: Any) -> RandomPictures:
    """Returns a source of random inputs of a training, for steps whose result does not count.

    Args:
        config: A `Config`.
        encoder: `ImageEncoder` that the inputs are for.
    """
    regions = config.num_regions if config.resize == "pad" else None
    if config.encoder_trainable is True:
        return RandomPictures("images", (config.image_size, config.image_size, 3), "uint8", regions)
    if config.split_layer:
        *grid, channels = encoder.head.input_shape[1:]
        shape = (int(np.prod(grid)), channels)
        return RandomPictures("features", shape, "float16", regions)
    shape = (config.num_regions, config.feature_dim)
    return RandomPictures("annotations", shape, "float16", regions)
