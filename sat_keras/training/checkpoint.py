"""Saving after every epoch, such that a kill at any moment loses at most the epoch it is in.

An epoch counts once the state file says so. It is written after the checkpoint, the best model and
the log of the epoch. What a killed process wrote of an epoch that does not count is overwritten.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from sat_keras.data.files import replacing
from sat_keras.paper.captioner import Captioner
from sat_keras.training.pretrained import MODEL_FILE, save_model
from sat_keras.training.state import BACKUP_FOLDER, LOG_FILE, TrainingState


class Checkpoint(keras.callbacks.Callback):
    """Saves an epoch: weights, best model, log and state; stops when the score stops improving.

    Keras's callbacks do not fit together here. `ModelCheckpoint` and `EarlyStopping` forget the
    patience that is used up when a training is resumed, `CSVLogger` writes an epoch that is
    repeated after a kill twice, and `BackupAndRestore` overwrites its only copy, counts an epoch
    before it is scored, and leaves out the states of dropout's seed generators.

    Adds `seconds`, the wall time of the epoch, to the logs. Call `save_best` between the dev scores
    and the end of the epoch, while the weights that are scored are in the model.

    Args:
        folder: Folder of the training.
        state: `TrainingState` that is continued.
        copy: `Captioner` that is saved as `model.keras`, in float32 and not compiled. It takes the
            weights of the best epoch.
        monitor: Name of the score in the logs. More is better.
        patience: Integer, epochs without a better score after which training stops.
    """

    def __init__(
        self, folder: Path, state: TrainingState, copy: Captioner, monitor: str, patience: int
    ) -> None:
        super().__init__()
        self.folder = folder
        self.state = state
        self.copy = copy
        self.monitor = monitor
        self.patience = patience
        self._start = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the score has not improved for `patience` epochs."""
        return epochs_since_best(scores_of(self.state, self.monitor)) >= self.patience

    def restore(self, captioner: Captioner) -> None:
        """Restores a compiled captioner with a built optimizer, and finishes a renaming.

        Args:
            captioner: The `Captioner` that is trained.

        Raises:
            ValueError: If the checkpoint cannot be read.
        """
        self._rename_model()
        if self.state.checkpoint is None:
            return
        path = self.folder / self.state.checkpoint
        rate = None if _has_schedule(captioner) else float(captioner.optimizer.learning_rate)
        try:
            captioner.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"The checkpoint {path} is missing or damaged; train again in an empty folder. "
                f"Received: {' '.join(str(error).split())[:200]}"
            ) from error
        if rate is not None:  # it may differ from the checkpoint's after a loss that is not finite
            captioner.optimizer.learning_rate = rate
        for variable, value in zip(seed_states(captioner), self.state.seeds, strict=False):
            variable.assign(value)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def save_best(self, epoch: int, logs: Any) -> None:
        """Saves the model beside the checkpoints if its score is the best one so far."""
        scores = [*scores_of(self.state, self.monitor), logs[self.monitor]]
        if epochs_since_best(scores) > 0:
            return
        self.copy.copy_weights(self.model)
        if self.copy.encoder is not None and self.model.encoder is not None:
            self.copy.encoder.set_weights(self.model.encoder.get_weights())
        self.state.model = f"{BACKUP_FOLDER}/epoch-{epoch + 1}.keras"
        path = self.folder / self.state.model
        path.parent.mkdir(exist_ok=True)
        save_model(self.copy, path)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["seconds"] = round(time.perf_counter() - self._start, 2)
        self.state.log.append(
            {"epoch": epoch, **{name: float(value) for name, value in logs.items()}}
        )
        self.state.epochs = epoch + 1
        self.state.checkpoint = f"{BACKUP_FOLDER}/epoch-{epoch + 1}.weights.h5"
        self.state.seeds = [ops.convert_to_numpy(x).tolist() for x in seed_states(self.model)]
        save_weights(self.model, self.folder / self.state.checkpoint)
        self.state.write(self.folder)
        self._rename_model()
        self._delete_older()
        write_log(self.state, self.folder)
        self.model.stop_training = self.model.stop_training or self.is_over

    def _rename_model(self) -> None:
        if self.state.model is None:
            return
        with contextlib.suppress(FileNotFoundError):  # renamed before a kill
            os.replace(self.folder / self.state.model, self.folder / MODEL_FILE)
        self.state.model = None

    def _delete_older(self) -> None:
        for path in (self.folder / BACKUP_FOLDER).iterdir():
            if path != self.folder / str(self.state.checkpoint):
                with contextlib.suppress(OSError):
                    path.unlink()
        shutil.rmtree(self.folder / f"{BACKUP_FOLDER}-previous", ignore_errors=True)


def finish(state: TrainingState, folder: Path) -> None:
    """Marks a training as finished and deletes its checkpoints. Repeating it does no harm.

    Args:
        state: `TrainingState`.
        folder: Folder of the training.
    """
    state.finished = True
    state.checkpoint = None
    state.write(folder)
    write_log(state, folder)
    for name in (BACKUP_FOLDER, f"{BACKUP_FOLDER}-previous"):  # the second is version 0.1.0's
        shutil.rmtree(folder / name, ignore_errors=True)


def scores_of(state: TrainingState, monitor: str) -> list[float]:
    """Returns the dev scores of the epochs of a state.

    Args:
        state: A `TrainingState`.
        monitor: Name of the score.
    """
    return [row[monitor] for row in state.log if monitor in row]


def epochs_since_best(scores: Sequence[float]) -> int:
    """Returns the number of epochs since the best score, 0 without any epoch.

    Args:
        scores: Score of each epoch. Of equal scores the first is the best.
    """
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def seed_states(captioner: Captioner) -> list[Any]:
    """Returns the states of all seed generators, which `save_weights` leaves out.

    Args:
        captioner: A `Captioner`.

    Returns:
        List of variables, in the order in which the layers were made.
    """
    others = [*captioner.non_trainable_weights, *captioner.metrics_variables]
    known = {id(variable) for variable in others}
    return [x for x in captioner.non_trainable_variables if id(x) not in known]


def save_weights(captioner: Captioner, path: Path) -> None:
    """Saves weights and optimizer in a file and forces it to disk.

    Args:
        captioner: A compiled `Captioner`.
        path: Path that ends in `.weights.h5`. It is overwritten.

    Raises:
        OSError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.unlink(missing_ok=True)
        captioner.save_weights(path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # HDF5's errors name no file
        raise OSError(
            f"The checkpoint {path} could not be written; make room on the disk and run again to "
            f"resume. Received: {' '.join(str(error).split())[:200]}"
        ) from error


def write_log(state: TrainingState, folder: Path) -> None:
    """Writes `log.csv`, a copy of the log in the state file; a failure is a warning.

    Args:
        state: `TrainingState`.
        folder: Folder of the training.
    """
    try:
        with replacing(folder / LOG_FILE) as partial:
            state.table.to_csv(partial, index=False, float_format="%.6g")
    except OSError as error:
        print(f"\nWarning: {LOG_FILE} was not written ({error})", file=sys.stderr)


def _has_schedule(captioner: Captioner) -> bool:
    return captioner.config.schedule != "constant"
