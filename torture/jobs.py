"""The commands that are attacked, on pictures of 16 pixels and models of a few weights."""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from torture import children

ENCODER = ("--preset", "tiny", "--image-size", "16", "--encoder-weights", "none")
# Every option with a state: moving averages, seeds of dropout, a schedule, mirrored views.
STATEFUL = (
    *("--min-count", "1", "--max-length", "3", "--beam-size", "1"),
    *("--dropout", "0.2", "--embedding-dropout", "0.2", "--ema-momentum", "0.5"),
    *("--schedule", "cosine", "--mirror", "--epochs", "2", "--batch-size", "4"),
)


@dataclasses.dataclass(frozen=True)
class Job:
    """A command and what is left of it.

    Attributes:
        name: Its name in the table.
        needs: Names of the jobs whose results it reads.
        command: Function from the work folder to the command's result, its exit code.
        result: Function from the work folder to what must be the same after any interruption.
    """

    name: str
    needs: tuple[str, ...]
    command: Callable[[Path], int | None]
    result: Callable[[Path], Any]


def eager_main(*arguments: Any) -> int:
    """Runs `sat-keras` with TensorFlow's functions eager: compiling takes longer than the rest."""
    import tensorflow as tf

    from sat_keras.cli import main

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.run_functions_eagerly(True)
    # Converting functions of pipelines takes a third of the time and changes nothing here.
    command = tf.autograph.experimental.do_not_convert(main)
    return command([str(argument) for argument in (*arguments, "--quiet", "--debug")])


def make_data(folder: Path, pictures: int = 8) -> Path:
    """Draws a data set of one's own: noise with two captions a picture."""
    from PIL import Image

    data = folder / "data"
    data.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["image,caption,split"]
    for number in range(pictures):
        name = f"{number}.png"
        pixels = random.integers(0, 256, (16, 16, 3)).astype("uint8")
        Image.fromarray(pixels).save(data / name)
        split = ["train", "train", "dev", "test"][number % 4]
        lines += [f"{name},a {word} square,{split}" for word in ("red", "small")]
    (data / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return data


def _extract(folder: Path) -> int:
    return eager_main(
        "features", "--dataset", folder / "data", "--out", folder / "features", *ENCODER
    )


def _train(folder: Path) -> int:
    data = ("--dataset", folder / "data", "--features", folder / "features")
    return eager_main("train", *data, "--out", folder / "run", *ENCODER, *STATEFUL)


def _export(folder: Path) -> int:
    return eager_main("export", folder / "run", folder / "export" / "captioner")


def _evaluate(folder: Path) -> int:
    os.environ["PATH"] = ""  # without Java: METEOR and SPICE take seconds and are not attacked
    results, captions = (folder / "evaluation" / f"{name}.json" for name in ("results", "captions"))
    out = ("--out", results, "--captions", captions, "--overwrite")
    return eager_main("evaluate", folder / "run", "--split", "test", "--occlusion", "0", *out)


def _download(folder: Path) -> None:
    from sat_keras.datasets.download import Archive, DataFolder

    source = folder / "published" / "set.zip"
    digest = hashlib.md5(source.read_bytes()).hexdigest()
    archive = Archive("set.zip", "1 MB", urls=(source.as_uri(),), md5=digest)
    DataFolder(folder / "downloads", "set").require(("pictures",), archive)


def publish(folder: Path) -> None:
    """Makes the archive that the download fetches."""
    source = folder / "published" / "set.zip"
    source.parent.mkdir(parents=True)
    random = np.random.default_rng(0)
    with zipfile.ZipFile(source, "w") as archive:
        for number in range(20):
            archive.writestr(f"pictures/{number}.jpg", random.bytes(20_000))


def files_of(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Returns the checksums of the files below a folder by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and ".partial-" not in str(path)
    }


def weights_of(path: Path) -> str:
    """Returns the checksum of the weights in a `.keras` file, whose other parts name objects."""
    with zipfile.ZipFile(path) as archive:
        return hashlib.sha256(archive.read("model.weights.h5")).hexdigest()


def _trained(folder: Path) -> Any:
    state = json.loads((folder / "run" / "state.json").read_text(encoding="utf-8"))
    log = [{k: v for k, v in row.items() if k != "seconds"} for row in state["log"]]
    return state["finished"], log, weights_of(folder / "run" / "model.keras")


def _evaluated(folder: Path) -> Any:
    results = json.loads((folder / "evaluation" / "results.json").read_text(encoding="utf-8"))
    captions = json.loads((folder / "evaluation" / "captions.json").read_text(encoding="utf-8"))
    return sorted(results), captions


JOBS = {
    job.name: job
    for job in (
        Job("extraction", (), _extract, lambda folder: files_of(folder / "features", "*.f16")),
        Job("training", ("extraction",), _train, _trained),
        Job("export", ("training",), _export, lambda folder: files_of(folder / "export")),
        Job("evaluation", ("training",), _evaluate, _evaluated),
        Job("download", (), _download, lambda folder: files_of(folder / "downloads", "*.jpg")),
    )
}
# The folder that a job writes, relative to the work folder.
OUTPUTS = {
    "extraction": "features",
    "training": "run",
    "export": "export",
    "evaluation": "evaluation",
    "download": "downloads",
}


@dataclasses.dataclass
class Prepared:
    """Uninterrupted runs of the jobs.

    Attributes:
        folder: Folder with the data and the output of every job.
        seconds: Dictionary from a job's name to the seconds that it took.
        changes: Dictionary from a job's name to the number of times that it changed its folder.
        results: Dictionary from a job's name to its result.
    """

    folder: Path
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    changes: dict[str, int] = dataclasses.field(default_factory=dict)
    results: dict[str, Any] = dataclasses.field(default_factory=dict)


def prepare(folder: Path, names: Iterable[str] = ()) -> Prepared:
    """Makes the data that jobs read and runs the jobs once.

    Args:
        folder: Folder, which is made.
        names: Names of jobs, by default all of them. Those that they need are run as well.
    """
    make_data(folder)
    publish(folder)
    prepared = Prepared(folder)
    needed = {need for name in names for need in (name, *JOBS[name].needs)}
    needed |= {need for name in needed for need in JOBS[name].needs}
    for job in JOBS.values():
        if names and job.name not in needed:
            continue
        counts, log, start = folder / "changes", folder / "log.txt", time.monotonic()
        run = functools.partial(job.command, folder)
        code = children.run(run, children.counting(folder, counts), log=log)
        if code:
            text = log.read_text(encoding="utf-8")[-3000:]
            raise RuntimeError(f"The job {job.name} must run. Received: exit code {code}\n{text}")
        prepared.seconds[job.name] = time.monotonic() - start
        prepared.changes[job.name] = counts.stat().st_size
        prepared.results[job.name] = job.result(folder)
        counts.unlink()
    return prepared


def copy_for(job: Job, prepared: Path, folder: Path) -> None:
    """Copies a prepared folder without a job's own output, as before the job."""
    shutil.copytree(prepared, folder, ignore=lambda _, names: {OUTPUTS[job.name]} & set(names))


def set_environment() -> None:
    """Sets what every child needs before TensorFlow is imported."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
