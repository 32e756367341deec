"""A flipped bit in every kind of saved file: an error that names the file, or the same contents."""

import functools
import io
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from torture import children, jobs, kills
from torture.pool import Task
from torture.table import Row

Found = tuple[Path, Callable[[], Any]] | None  # a file and a function that reads it


def tasks(prepared: jobs.Prepared, trials: int, folder: Path) -> list[Task]:
    """Returns a task for each kind of file."""
    return [functools.partial(flip, kind, prepared, 2 * trials, folder) for kind in KINDS]


def flip(kind: str, prepared: jobs.Prepared, trials: int, folder: Path) -> list[Row]:
    """Flips random bits of a file, one at a time.

    Args:
        kind: Key of `KINDS`.
        prepared: Uninterrupted runs.
        trials: Integer, number of bits.
        folder: Folder for the attempts.
    """
    row = Row(f"flipped bit in {kind}")
    work = Path(tempfile.mkdtemp(dir=folder)) / "work"
    shutil.copytree(prepared.folder, work)
    found = KINDS[kind](work)
    if found is None:
        row.skipped = "its job was not run"
        return [row]
    path, read = found
    original, expected = path.read_bytes(), read()
    draw = random.Random(kind)
    for _ in range(trials):
        bit = draw.randrange(8 * len(original))
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        row.add(_fault(path, read, expected))
    shutil.rmtree(work.parent, ignore_errors=True)
    return [row]


def _fault(path: Path, read: Callable[[], Any], expected: Any) -> str | None:
    try:
        found = read()
    except (ValueError, OSError) as error:
        message = str(error)
        named = path.name in message or path.parent.name in message
        return None if named else f"the error does not name the file: {message[:80]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    return None if found == expected else "other contents were read without an error"


def _features(cache: Path) -> bytes:
    from sat_keras.data.features import FeatureCache

    opened = FeatureCache(cache)
    keys = [f"{number}.png" for number in (0, 1, 2)]
    return b"".join(opened.read(at).numpy().tobytes() for at in opened.lookup(keys))


def _state(run: Path) -> Any:
    from sat_keras.training.state import read_state

    return read_state(run)


def _description(folder: Path) -> Any:
    from sat_keras.captioning.presets import read_description

    names = ("config", "encoder", "training", "vocabulary")  # others are not read
    description = read_description(folder)
    return {name: description[name] for name in names}


def _model(folder: Path) -> Any:
    from sat_keras import load_pretrained

    captioner = load_pretrained(folder, encoder=False)
    words = captioner.tokenizer.get_vocabulary()
    return [weight.tobytes() for weight in captioner.get_weights()], words, captioner.config


def _checkpoint(run: Path) -> str:
    from sat_keras.data.files import check_sum
    from sat_keras.training.state import read_state

    state = read_state(run)
    check_sum(run / str(state.checkpoint), state.sha256)
    return str(state.sha256)


def _unpacked(archive: Path) -> dict[str, str]:
    from sat_keras.datasets.download import unpack

    into = archive.parent / "into"
    shutil.rmtree(into, ignore_errors=True)
    return jobs.files_of(unpack(archive, into), "*.jpg")


def _reads(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Found]:
    """Returns a function that finds a file in a work folder, and what reads its folder."""

    def find(work: Path) -> Found:
        path = next(work.glob(name), None)
        return path and (path, functools.partial(read, path.parent))

    return find


def _stopped(work: Path) -> Found:
    """Stops a training in its second epoch."""
    if not (work / "run").is_dir():
        return None
    shutil.rmtree(work / "run")
    run = functools.partial(jobs.JOBS["training"].command, work)
    children.run(run, functools.partial(kills.die_in_scoring, 2, 0.0))
    path = next((work / "run" / "backup").glob("*.weights.h5"))
    return path, functools.partial(_checkpoint, work / "run")


def _zip(work: Path) -> Found:
    path = work / "published" / "set.zip"
    return path, functools.partial(_unpacked, path)


def _tar(work: Path) -> Found:
    path, random = work / "published" / "set.tar.gz", np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as archive:
        for number in range(5):
            member = tarfile.TarInfo(f"pictures/{number}.jpg")
            member.size = 2000
            archive.addfile(member, io.BytesIO(random.bytes(member.size)))
    return path, functools.partial(_unpacked, path)


KINDS: dict[str, Callable[[Path], Found]] = {
    "feature shard": _reads("features/*/*.f16", _features),
    "feature manifest": _reads("features/*/manifest.json", _features),
    "training state": _reads("run/state.json", _state),
    "training config": _reads("run/config.json", _description),
    "model.keras": _reads("run/model.keras", _model),
    "checkpoint": _stopped,
    "export's weights": _reads("export/*/*.weights.h5", _model),
    "export's config": _reads("export/*/config.json", _description),
    "zip archive": _zip,
    "tar.gz archive": _tar,
}
