"""A training's folder: what was asked for, where and for how long it ran, how it went.

`config.json` says what is trained and is written first, so that the same command goes on with it
and another is refused. `run.json` says how it went so far: command, seed, versions, hardware,
seconds and the best dev scores.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import keras

import sat_keras
from sat_keras.data.files import write_json
from sat_keras.plots import plot_history, save_figure
from sat_keras.training.fit import BACKUP_FOLDER, LOG_FILE, TENSORBOARD_FOLDER, read_log
from sat_keras.training.pretrained import CONFIG_FILE, MODEL_FILE, read_description

RUN_FILE = "run.json"
CURVES_FILE = "curves.png"
_FILES = (CONFIG_FILE, RUN_FILE, MODEL_FILE, LOG_FILE, CURVES_FILE)
_FOLDERS = (BACKUP_FOLDER, f"{BACKUP_FOLDER}-previous", TENSORBOARD_FOLDER)
# Where things lie may change while a training is stopped: the encoder has a fingerprint.
_PATHS = ("data_dir", "features", "weights")


def open_run(out, description, overwrite=False):
    """Make a training's folder, or check that what is there is the same training.

    Args:
        out: The folder's path.
        description: Dictionary for `config.json`: `format`, `config`, `encoder`, `dataset`,
            `start`.
        overwrite: Boolean, whether another training's files are deleted first. Files of other
            names stay.

    Returns:
        Boolean, whether this very training is finished.

    Raises:
        ValueError: If the folder holds something else; the message says what differs.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"The training needs a folder; choose another --out. Received: file {out}")
    if overwrite:
        for name in _FILES:
            (out / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
    if (out / CONFIG_FILE).is_file():
        different = _differences(description, read_description(out))
        if different:
            raise ValueError(
                f"The folder {out} holds another training; choose another --out, or delete that "
                f"training with --overwrite. Received: {different}"
            )
    elif strange := [name for name in _FILES if (out / name).exists()]:
        raise ValueError(
            f"The folder {out} holds files of something else; choose another --out, or delete them "
            f"with --overwrite. Received: {', '.join(strange)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / CONFIG_FILE, description)  # the data set may have moved
    return bool(read_run(out).get("finished"))


def read_run(folder):
    """Read a training's `run.json`.

    Args:
        folder: The folder's path.

    Returns:
        Dictionary, empty if there is no such file.
    """
    with contextlib.suppress(OSError, ValueError):
        return json.loads((Path(folder) / RUN_FILE).read_text(encoding="utf-8"))
    return {}


@contextlib.contextmanager
def recorded_run(out, command, config):
    """Write `run.json` and `curves.png` when the block ends, also by an error or Ctrl-C.

    Args:
        out: The training's folder.
        command: The command, as typed.
        config: Its `Config`.
    """
    out = Path(out)
    record = {
        "command": command,
        "seed": config.seed,
        "hardware": hardware(),
        "versions": versions(),
        "finished": False,
    }
    try:
        yield
        record["finished"] = True
    finally:
        log = read_log(out / LOG_FILE)
        if len(log):
            best = log.loc[log[f"dev_{config.monitor}"].idxmax()]
            record["epochs"] = len(log)
            record["seconds"] = round(float(log["seconds"].sum()), 1)
            record["best"] = {
                "epoch": int(best["epoch"]) + 1,
                "dev_bleu4": float(best["dev_bleu4"]),
                "dev_cider": float(best["dev_cider"]),
            }
            save_figure(plot_history(log), out / CURVES_FILE)
        write_json(out / RUN_FILE, record)


def hardware():
    """Name this machine's processor and accelerators.

    Returns:
        String such as `"Intel(R) Xeon(R) Processor @ 2.20GHz, 2 cores"`.
    """
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        processor = found[1] if found else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ", ".join([processor, f"{cores} cores", *_gpus()])


def versions():
    """List the versions that a result depends on.

    Returns:
        Dictionary from a package's name to its version.
    """
    found = {"sat_keras": sat_keras.__version__, "python": platform.python_version()}
    for name in ("keras", keras.backend.backend(), "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _gpus():
    """Names of the GPUs that Keras sees."""
    number = len(keras.distribution.list_devices("gpu"))
    if not number:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        return found.stdout.strip().split("\n")[:number]
    return [f"{number} GPU"]


def _differences(mine, other):
    """What is not alike in two trainings, in words."""
    other = {**other, "config": other["config"].to_dict()}
    found = []
    for part in ("config", "dataset", "encoder", "start"):
        its = other.get(part, {})
        found += [
            f"{name} {its.get(name)!r} there, {value!r} here"
            for name, value in mine[part].items()
            if value != its.get(name) and name not in _PATHS
        ]
    return "; ".join(found)
