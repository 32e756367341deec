"""How far a training is: one small file, written last and atomically, is the only truth.

Everything else in the folder may be ahead of it after a kill (a checkpoint, a better model, a row
of the log) and is then written again.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from sat_keras.data.files import read_json, write_json

STATE_FILE = "state.json"
LOCK_FILE = ".lock"
LOG_FILE = "log.csv"
BACKUP_FOLDER = "backup"
FORMAT = 1


@dataclasses.dataclass
class TrainingState:
    """How far a training is.

    Attributes:
        epochs: Integer, epochs that are trained, scored and logged.
        finished: Boolean, whether no more epochs follow.
        log: List of dictionaries, the logs of these epochs.
        checkpoint: Path of the weights file to resume from, relative to the folder, or `None`.
        sha256: SHA-256 checksum of that file, or `None` for a checkpoint of version 0.1.0.
        model: Path of the model of the last epoch, relative to the folder, if it is the best one
            and still has to be renamed to `model.keras`; otherwise `None`.
        seeds: List of the states of the model's seed generators.
        step: Integer, steps of the next epoch that `checkpoint` has behind it, 0 between epochs.
        seconds: Float, wall time of these steps.
        metrics: List of the values of the model's metrics after these steps.
        diverged: Boolean, whether the last run stopped at a loss that is not finite. The next run
            may change the learning rate and the clip norm.
        precision: Name of the dtype policy of the training, chosen if its config says `"auto"`, or
            `None` before the first run and in files of version 0.1.0.
        format: Integer, version of the file's format.
    """

    epochs: int = 0
    finished: bool = False
    log: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    checkpoint: str | None = None
    sha256: str | None = None
    model: str | None = None
    seeds: list[list[int]] = dataclasses.field(default_factory=list)
    step: int = 0
    seconds: float = 0.0
    metrics: list[Any] = dataclasses.field(default_factory=list)
    diverged: bool = False
    precision: str | None = None
    format: int = FORMAT

    @property
    def table(self) -> pd.DataFrame:
        """The log as a DataFrame with a row per epoch."""
        return pd.DataFrame(self.log) if self.log else pd.DataFrame({"epoch": pd.Series(dtype=int)})

    def write(self, folder: Path) -> None:
        """Writes the state file of a folder."""
        write_json(folder / STATE_FILE, dataclasses.asdict(self), checksum=True)


def read_state(folder: str | os.PathLike) -> TrainingState:
    """Returns the state of the training in a folder, a new one if there is none.

    Args:
        folder: The training's folder.

    Raises:
        ValueError: If the state file is damaged or of another version.
    """
    folder = Path(folder)
    path = folder / STATE_FILE
    if not path.is_file():
        return _state_of_0_1_0(folder)
    try:
        state = TrainingState(**read_json(path))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The file {path} is damaged or of a later version; train again in an empty folder. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    if state.format != FORMAT:
        raise ValueError(
            f"The file {path} must be of format {FORMAT}; use the version of sat_keras that wrote "
            f"it. Received: format {state.format!r}"
        )
    return state


def read_log(path: str | os.PathLike, epochs: int | None = None) -> pd.DataFrame:
    """Reads a `log.csv`.

    Args:
        path: Path of the file. It may be missing.
        epochs: Integer, number of epochs to read, or `None` for all.

    Returns:
        DataFrame with a row per epoch. The column `epoch` counts from 0.
    """
    if not Path(path).is_file():
        return TrainingState().table
    log = pd.read_csv(path)
    return log if epochs is None else log[log["epoch"] < epochs]


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Holds the lock of a training's folder, so that only one process trains in it.

    Args:
        folder: The folder, which is made if it does not exist.

    Raises:
        ValueError: If another process holds the lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise ValueError(
            "Another process trains in this folder; wait for it or choose another folder. "
            f"Received: {folder}"
        ) from error
    try:
        yield
    finally:
        lock.release()  # keeps the file: who deletes it could delete another process's lock


def _state_of_0_1_0(folder: Path) -> TrainingState:
    """Returns the state of a folder of version 0.1.0, which had a Keras backup and a CSV log."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads((folder / "run.json").read_text(encoding="utf-8"))["finished"]:
            log = read_log(folder / LOG_FILE).to_dict("records")
            return TrainingState(epochs=len(log), finished=True, log=log)
    for name in (BACKUP_FOLDER, f"{BACKUP_FOLDER}-previous"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            metadata = folder / name / "training_metadata.json"
            epochs = int(json.loads(metadata.read_text(encoding="utf-8"))["epoch"])
            log = read_log(folder / LOG_FILE, epochs).to_dict("records")
            checkpoint = f"{name}/latest.weights.h5"
            return TrainingState(epochs=epochs, log=log, checkpoint=checkpoint)
    return TrainingState()
