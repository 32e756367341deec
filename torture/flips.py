"""A flipped bit in every kind of saved file: an error that names the file, or the same contents."""

import functools
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture import children, jobs, table
from torture.table import Row


def attack(prepared: jobs.Prepared, trials: int, folder: Path) -> Iterator[Row]:
    """Yields a row for each kind of file. All run in one child, for TensorFlow."""
    results = folder / "flips.json"

    def child() -> None:
        rows = [flip(*kind, trials) for kind in kinds(prepared.folder, folder)]
        table.save(rows, results)

    if children.run(child, log=folder / "flips.txt"):
        raise RuntimeError((folder / "flips.txt").read_text(encoding="utf-8")[-2000:])
    yield from table.load(results)


def kinds(prepared: Path, folder: Path) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """Yields the name of each kind of file, one of them, and a function that reads it."""
    work = Path(tempfile.mkdtemp(dir=folder)) / "work"
    shutil.copytree(prepared, work)
    cache = next((work / "features").iterdir())
    run, export = work / "run", work / "export"
    yield "feature shard", next(cache.glob("*.f16")), functools.partial(_features, cache)
    yield "feature manifest", cache / "manifest.json", functools.partial(_features, cache)
    if run.is_dir():
        yield "training state", run / "state.json", functools.partial(_state, run)
        yield "training config", run / "config.json", functools.partial(_description, run)
        yield "model.keras", run / "model.keras", functools.partial(_model, run)
    if export.is_dir():
        weights = next(export.glob("*.weights.h5"))
        yield "export's weights", weights, functools.partial(_model, export)
        yield "export's config", export / "config.json", functools.partial(_description, export)


def flip(name: str, path: Path, read: Callable[[], Any], trials: int) -> Row:
    """Flips random bits of a file, one at a time."""
    row = Row(f"flipped bit in {name}")
    original, expected = path.read_bytes(), read()
    draw = random.Random(name)
    for _ in range(trials):
        bit = draw.randrange(8 * len(original))
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        row.add(_fault(path, read, expected))
    path.write_bytes(original)
    return row


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
