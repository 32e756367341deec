"""Hostile files: archives, pictures, JSON and models made to harm.

Each is refused by a `ValueError` or `OSError` within a second or so, and nothing lies outside its
folder afterwards.
"""

import functools
import io
import os
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture import jobs
from torture.pool import Task
from torture.table import Row

SECONDS = 30.0  # after which a refusal counts as hanging


def tasks(prepared: jobs.Prepared | None, trials: int, folder: Path) -> list[Task]:
    """Returns one task: the list of files is fixed."""
    del prepared, trials

    def refuse_all() -> list[Row]:
        work = Path(tempfile.mkdtemp(dir=folder)) / "work"
        work.mkdir()
        return [refuse(name, cases) for name, cases in _kinds(work)]

    return [refuse_all]


def refuse(name: str, cases: dict[str, Callable[[], Any]]) -> Row:
    """Reads each file, which must be refused.

    Args:
        name: Kind of file.
        cases: Dictionary from what is hostile to a function that reads it.
    """
    row = Row(f"hostile {name}")
    for case, read in cases.items():
        start = time.monotonic()
        try:
            read()
            fault = f"{case}: read without an error"
        except (ValueError, OSError):
            slow = time.monotonic() - start > SECONDS
            fault = f"{case}: refused too late" if slow else None
        except Exception as error:
            fault = f"{case}: {type(error).__name__}"
        row.add(fault)
    return row


def _kinds(work: Path) -> Iterator[tuple[str, dict[str, Callable[[], Any]]]]:
    yield "archives", dict(_archives(work))
    yield "pictures", dict(_pictures(work))
    yield "JSON", dict(_json(work))
    yield "model files", dict(_models(work))


def _archives(work: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    from sat_keras.datasets.download import unpack

    def unpacked(path: Path) -> None:
        unpack(path, work / "into")
        if any((work.parent / name).exists() for name in ("outside.txt", "etc.txt")):
            raise RuntimeError("a file left the folder")
        if path.suffix == ".zip":  # zip members that would leave the folder are put inside it
            raise ValueError("nothing left the folder")

    for name in ("../../outside.txt", "/etc.txt", "..\\..\\outside.txt"):
        path = work / f"zip{len(name)}{ord(name[0])}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "x")
        yield f"zip with {name!r}", functools.partial(unpacked, path)
    for name in ("../../outside.txt", "link", "device"):
        path = work / f"tar-{len(name)}.tar"
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(name)
            if name == "link":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            if name == "device":
                member.type = tarfile.CHRTYPE
            archive.addfile(member, io.BytesIO())
        yield f"tar with {name!r}", functools.partial(unpack, path, work / "into")
    path = work / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(50_000_000))
    yield "zip bomb", functools.partial(unpack, path, work / "into")
    (work / "cut.zip").write_bytes(path.read_bytes()[:-30])
    yield "zip cut short", functools.partial(unpack, work / "cut.zip", work / "into")
    (work / "empty.tar").write_bytes(b"")
    yield "empty file", functools.partial(unpack, work / "empty.tar", work / "into")


def _pictures(work: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    from PIL import Image

    from sat_keras import load_image

    Image.new("1", (13_000, 13_000)).save(work / "large.png")
    (work / "script.jpg").write_bytes(b"%!PS-Adobe-3.0\nshowpage\n")
    (work / "text.png").write_text("<svg/>")
    (work / "empty.jpg").touch()
    os.mkfifo(work / "pipe.jpg")
    (work / "device.jpg").symlink_to("/dev/zero")
    (work / "loop.jpg").symlink_to(work / "loop.jpg")
    (work / "folder.jpg").mkdir()
    cases = {
        "169 million pixels": "large.png",
        "PostScript": "script.jpg",
        "SVG": "text.png",
        "empty file": "empty.jpg",
        "named pipe": "pipe.jpg",
        "/dev/zero": "device.jpg",
        "link to itself": "loop.jpg",
        "folder": "folder.jpg",
    }
    for case, name in cases.items():
        yield case, functools.partial(load_image, work / name)


def _json(work: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    from sat_keras.captioning.presets import read_description
    from sat_keras.data.features import FeatureCache
    from sat_keras.training.state import read_state

    contents = {
        "deeply nested": "[" * 100_000,
        "a list": "[]",
        "a number of a million digits": "1" * 1_000_000,
        "NUL bytes": "\0" * 1000,
        "null": "null",
        "wrong types": '{"format": [], "epochs": {}, "config": 3, "grid_shape": "x"}',
    }
    for number, (case, text) in enumerate(contents.items()):
        folder = work / f"json-{number}"
        folder.mkdir()
        for name in ("state.json", "config.json", "manifest.json"):
            (folder / name).write_text(text, encoding="utf-8")
        yield f"state, {case}", functools.partial(read_state, folder)
        yield f"config, {case}", functools.partial(read_description, folder)
        yield f"manifest, {case}", functools.partial(FeatureCache, folder)


def _models(work: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    import keras

    path = work / "lambda.keras"
    model = keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda x: x)])
    model.save(path)
    yield "Python code in a layer", functools.partial(_load_model, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    text = parts["config.json"].decode()
    parts["config.json"] = text.replace("keras.layers", "os").replace("Lambda", "system").encode()
    with zipfile.ZipFile(work / "system.keras", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    yield "a layer that is os.system", functools.partial(_load_model, work / "system.keras")
    (work / "empty.keras").touch()
    yield "empty file", functools.partial(_load_model, work / "empty.keras")


def _load_model(path: Path) -> None:
    """Loads a model file as the folder of a training."""
    from sat_keras import Config, load_pretrained
    from sat_keras.data.files import write_json

    folder = path.with_suffix("")
    folder.mkdir()
    encoder = {"weights": None, "fingerprint": "", "in_model": False}
    config = Config.tiny().to_dict()
    write_json(folder / "config.json", {"format": 1, "config": config, "encoder": encoder})
    (folder / "model.keras").write_bytes(path.read_bytes())
    load_pretrained(folder, encoder=False)
