"""Saving, such that a kill at any moment loses at most the last ten minutes.

A checkpoint is written after every epoch, within one every ten minutes, and at a signal to stop. It
counts once the state file says so, which is written last. What a killed process wrote that does not
count is overwritten.
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

from sat_keras.data.files import check_room, check_sum, hdf5_size, replacing, sha256
from sat_keras.paper.captioner import Captioner
from sat_keras.training.callbacks import CheckFiniteLoss
from sat_keras.training.pretrained import MODEL_FILE, save_model
from sat_keras.training.signals import StopRequest
from sat_keras.training.state import BACKUP_FOLDER, LOG_FILE, TrainingState

SAVE_SECONDS = 600.0  # between two checkpoints within an epoch


class Checkpoint(keras.callbacks.Callback):
    """Saves an epoch: weights, best model, log and state; stops when the score stops improving.

    Keras's callbacks do not fit together here. `ModelCheckpoint` and `EarlyStopping` forget the
    patience that is used up when a training is resumed, `CSVLogger` writes an epoch that is
    repeated after a kill twice, and `BackupAndRestore` overwrites its only copy, counts an epoch
    before it is scored, and leaves out the states of dropout's seed generators.

    Within an epoch it saves weights, metrics and position every `SAVE_SECONDS`, and before it stops
    at a signal. Resuming there is exact: the order of the captions depends on the epoch alone.

    Adds `seconds`, the wall time of the epoch, to the logs. Call `save_best` between the dev scores
    and the end of the epoch, while the weights that are scored are in the model.

    Args:
        folder: Folder of the training.
        state: `TrainingState` that is continued.
        copy: `Captioner` that is saved as `model.keras`, in float32 and not compiled. It takes the
            weights of the best epoch.
        monitor: Name of the score in the logs. More is better.
        patience: Integer, epochs without a better score after which training stops.
        finite: `CheckFiniteLoss` of the training, which checks the weights of a checkpoint within
            an epoch.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainingState,
        copy: Captioner,
        monitor: str,
        patience: int,
        finite: CheckFiniteLoss,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.state = state
        self.copy = copy
        self.monitor = monitor
        self.patience = patience
        self.finite = finite
        self.stop = StopRequest()
        self._start = self._saved = 0.0
        self._first_step = 0

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
            OSError: If there is no room for the files of the training.
        """
        self._rename_model()
        # A checkpoint, the one before it, and the model.
        files = 3 if self.state.checkpoint is None else 2
        check_room(self.folder, files * hdf5_size(_saved_variables(captioner)))
        if self.state.checkpoint is None:
            return
        path = self.folder / self.state.checkpoint
        rate = None if _has_schedule(captioner) else float(captioner.optimizer.learning_rate)
        try:
            check_sum(path, self.state.sha256)
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
        self._saved = time.perf_counter()
        self._start = self._saved - self.state.seconds
        self._first_step = self.state.step
        # `fit` has just reset the metrics.
        for variable, value in zip(self.model.metrics_variables, self.state.metrics, strict=False):
            variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.stop.number or time.perf_counter() - self._saved >= SAVE_SECONDS:
            self._save_step(self._first_step + batch + 1)
        self.stop.carry_out()

    def save_best(self, epoch: int, logs: Any) -> None:
        """Saves the model beside the checkpoints if its score is the best one so far."""
        scores = [*scores_of(self.state, self.monitor), logs[self.monitor]]
        if epochs_since_best(scores) > 0:
            return
        self.copy.copy_weights(self.model)
        self.copy.copy_encoder(self.model)
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
        self.state.step, self.state.seconds, self.state.metrics = 0, 0.0, []
        self._save(f"{BACKUP_FOLDER}/epoch-{epoch + 1}.weights.h5")
        self._rename_model()
        self._delete_older()
        write_log(self.state, self.folder)
        self.model.stop_training = self.model.stop_training or self.is_over
        self.stop.carry_out()

    def _save_step(self, step: int) -> None:
        """Saves a checkpoint within an epoch."""
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.finite.check_weights()
        self.state.step = step
        self.state.seconds = round(time.perf_counter() - self._start, 2)
        self.state.metrics = _values(self.model.metrics_variables)
        self._save(f"{BACKUP_FOLDER}/epoch-{self.state.epochs + 1}-step-{step}.weights.h5")
        self._delete_older()
        self._saved = time.perf_counter()

    def _save(self, checkpoint: str) -> None:
        """Saves the weights, then the state that refers to them."""
        self.state.checkpoint = checkpoint
        self.state.seeds = _values(seed_states(self.model))
        save_weights(self.model, self.folder / checkpoint)
        self.state.sha256 = sha256(self.folder / checkpoint)
        self.state.write(self.folder)

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
        check_room(path.parent, hdf5_size(_saved_variables(captioner)))
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


def _values(variables: Sequence[Any]) -> list[Any]:
    """Returns the values of variables for JSON, which keeps every bit of them."""
    return [ops.convert_to_numpy(variable).tolist() for variable in variables]


def _saved_variables(captioner: Captioner) -> list[Any]:
    return [*captioner.variables, *captioner.optimizer.variables]


def _has_schedule(captioner: Captioner) -> bool:
    return captioner.config.schedule != "constant"
