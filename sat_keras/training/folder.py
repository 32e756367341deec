"""The folder of a training: what is trained, on which machine, and with which result.

`config.json` says what is trained. It is written first, so that the same command resumes and
another one is refused. `state.json` says how far the training is, see `state`. `run.json` is a
summary for readers: command, seed, versions, hardware, seconds and the best dev scores.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

import sat_keras
from sat_keras.config.config import Config
from sat_keras.data.files import write_json
from sat_keras.training.fit import TENSORBOARD_FOLDER
from sat_keras.training.pretrained import CONFIG_FILE, MODEL_FILE, read_description
from sat_keras.training.state import BACKUP_FOLDER, LOG_FILE, STATE_FILE, locked, read_state

RUN_FILE = "run.json"
CURVES_FILE = "curves.png"
_FILES = (STATE_FILE, CONFIG_FILE, RUN_FILE, MODEL_FILE, LOG_FILE, CURVES_FILE)
_FOLDERS = (BACKUP_FOLDER, f"{BACKUP_FOLDER}-previous", TENSORBOARD_FOLDER)
# Paths may change while a training is stopped: the encoder is known by its fingerprint.
_PATHS = ("data_dir", "features", "weights")
# What the next run may change after a loss that is not finite.
_REMEDIES = ("learning_rate", "clip_norm")


def open_run(out: str | os.PathLike, description: dict[str, Any], overwrite: bool = False) -> bool:
    """Makes a training's folder, or checks that the folder holds the same training.

    Args:
        out: Path of the folder.
        description: Dictionary for `config.json`: `format`, `config`, `encoder`, `dataset`,
            `start`.
        overwrite: Boolean, whether the files of another training are deleted first. Files of other
            names stay.

    Returns:
        Boolean, whether this training is finished.

    Raises:
        ValueError: If the folder holds something else (the message says what differs), or another
            process trains in it.
        OSError: If the folder is not writable.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"The training needs a folder; choose another `out`. Received: file {out}")
    with locked(out):
        if overwrite:
            _delete(out)
        state = read_state(out)
        if (out / CONFIG_FILE).is_file():
            allowed = (*_PATHS, *(_REMEDIES if state.diverged else ()))
            different = _differences(description, read_description(out), allowed)
            if different:
                raise ValueError(
                    f"The folder {out} holds another training; choose another `out`, or delete "
                    f"that training with `overwrite=True`. Received: {different}"
                )
        elif strange := [name for name in _FILES if (out / name).exists()]:
            raise ValueError(
                f"The folder {out} holds files of something else; choose another `out`, or delete "
                f"them with `overwrite=True`. Received: {', '.join(strange)}"
            )
        write_json(out / CONFIG_FILE, description, checksum=True)  # the data set may have moved
    return state.finished


def read_run(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads a training's `run.json`.

    Args:
        folder: Path of the folder.

    Returns:
        Dictionary, empty if there is no such file.
    """
    with contextlib.suppress(OSError, ValueError):
        return json.loads((Path(folder) / RUN_FILE).read_text(encoding="utf-8"))
    return {}


@contextlib.contextmanager
def recorded_run(out: str | os.PathLike, command: str, config: Config) -> Iterator[None]:
    """Writes `run.json` when the block ends, also after an error or Ctrl-C.

    Args:
        out: Path of the training's folder.
        command: The command, as typed.
        config: Its `Config`.
    """
    try:
        yield
    finally:
        try:
            write_json(Path(out) / RUN_FILE, _summary(Path(out), command, config))
        except (OSError, ValueError) as error:
            print(f"Warning: {RUN_FILE} was not written ({error})", file=sys.stderr)


def _summary(out: Path, command: str, config: Config) -> dict[str, Any]:
    """Returns the contents of `run.json`."""
    state = read_state(out)
    record = {
        "command": command,
        "seed": config.seed,
        "precision": state.precision or config.precision,
        "hardware": hardware(),
        "versions": versions(),
        "finished": state.finished,
    }
    log = state.table
    if len(log):
        best = log.loc[log[f"dev_{config.monitor}"].idxmax()]
        record["epochs"] = len(log)
        record["seconds"] = round(float(log["seconds"].sum()), 1)
        record["best"] = {
            "epoch": int(best["epoch"]) + 1,
            "dev_bleu4": float(f"{best['dev_bleu4']:.6g}"),  # as in log.csv
            "dev_cider": float(f"{best['dev_cider']:.6g}"),
        }
    return record


def _delete(out: Path) -> None:
    """Deletes a training's files, the state first: without it the others count for nothing."""
    for name in _FILES:
        (out / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def hardware() -> str:
    """Returns the names of this machine's processor and accelerators.

    Returns:
        String such as `"Intel(R) Xeon(R) Processor @ 2.20GHz, 2 cores"`.
    """
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        processor = found[1] if found else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ", ".join([processor, f"{cores} cores", *_gpus()])


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on.

    Returns:
        Dictionary from a package's name to its version.
    """
    found = {"sat_keras": sat_keras.__version__, "python": platform.python_version()}
    for name in ("keras", keras.backend.backend(), "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _gpus() -> list[str]:
    """Returns the names of the GPUs that Keras finds."""
    number = len(keras.distribution.list_devices("gpu"))
    if not number:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        return found.stdout.strip().split("\n")[:number]
    return [f"{number} GPU"]


def _differences(mine: dict[str, Any], other: dict[str, Any], allowed: tuple[str, ...]) -> str:
    """Describes in which fields two trainings differ, except those that are allowed to."""
    other = {**other, "config": other["config"].to_dict()}
    found = []
    for part in ("config", "dataset", "encoder", "start"):
        its = other.get(part, {})
        found += [
            f"{name} {its.get(name)!r} there, {value!r} here"
            for name, value in mine[part].items()
            if value != its.get(name) and name not in allowed
        ]
    return "; ".join(found)
