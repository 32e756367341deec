"""Kills: at random moments, before every change of the folder, and in the middle of a write.

After each the same command must succeed and leave exactly what an uninterrupted one leaves.
"""

import functools
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture import children, jobs
from torture.pool import Task, chunks
from torture.table import Row

# Sizes at which a write is cut: of a lock or a state file, of a shard, of a model.
SIZES = (1, 40, 200, 400, 1000, 4000, 20_000, 100_000, 400_000)
MOMENTS, WRITES = "killed at random moments", "killed inside its writes"
SCORING = "killed while dev pictures are scored"
SIGTERM = "sent SIGTERM at random moments"


def tasks(prepared: jobs.Prepared, trials: int, folder: Path) -> list[Task]:
    """Returns the tasks of each job and kind of kill."""
    kinds = [(name, kind) for name in prepared.results for kind in (MOMENTS, WRITES)]
    if "training" in prepared.results:
        kinds += [("training", SCORING), ("training", SIGTERM)]
    return [
        functools.partial(kill_job, prepared, *kind, numbers, folder)
        for kind in kinds
        for numbers in chunks(trials // 2 + 1 if kind[1] == SIGTERM else trials)
    ]


def kill_job(
    prepared: jobs.Prepared, name: str, kind: str, numbers: range, folder: Path
) -> list[Row]:
    """Kills a job in several attempts, each followed by the same command.

    Args:
        prepared: Uninterrupted runs.
        name: Name of the job.
        kind: Kind of kill, a part of the row's name.
        numbers: Numbers of the attempts.
        folder: Folder for the attempts.
    """
    row = Row(f"{name} {kind}")
    draw = random.Random(f"{name} {kind} {numbers.start}")
    for number in numbers:
        before, seconds = _kill(prepared, name, kind, draw, number)
        is_term = kind == SIGTERM
        row.add(_attempt(prepared, jobs.JOBS[name], before, seconds, is_term, folder))
    return [row]


def _kill(
    prepared: jobs.Prepared, name: str, kind: str, draw: random.Random, number: int
) -> tuple[Callable[[Path], Callable[[], None]] | None, float | None]:
    """Returns what the child of an attempt does first, and when it is killed from outside."""
    changes = prepared.changes[name]
    if kind in (MOMENTS, SIGTERM):
        return None, draw.uniform(0, prepared.seconds[name])
    if kind == SCORING:
        delay, epoch = draw.uniform(0, prepared.seconds[name] / 10), draw.choice((1, 2))
        return (lambda _: functools.partial(die_in_scoring, epoch, delay)), None
    if number % 3 < 2:  # every change in turn
        change = 1 + (number - number // 3) % changes
        return (lambda folder: children.at_change(change, folder, children.die)), None
    size = draw.choice(SIZES)
    return (lambda _: children.limit_size(size, deadly=True)), None


def die_in_scoring(epoch: int, delay: float) -> None:
    """Lets the process die some time after the scoring of an epoch began."""
    from sat_keras.training import callbacks

    original, calls = callbacks.DevScores.on_epoch_end, []

    def score(self: Any, *arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == epoch:
            threading.Timer(delay, children.die).start()
        original(self, *arguments, **options)

    callbacks.DevScores.on_epoch_end = score


def _attempt(
    prepared: jobs.Prepared,
    job: jobs.Job,
    before: Any,
    seconds: float | None,
    is_term: bool,
    folder: Path,
) -> str | None:
    """Returns what is wrong after a kill and the same command again, or `None`."""
    work = Path(tempfile.mkdtemp(dir=folder)) / "work"
    try:
        jobs.copy_for(job, prepared.folder, work)
        run = functools.partial(job.command, work)
        log = work.parent / "log.txt"
        number = signal.SIGTERM if is_term else signal.SIGKILL
        code = children.run(run, before and before(work), seconds, log, number)
        if is_term and code not in (0, 128 + number, -number):  # not handled at the very start
            return f"SIGTERM led to exit code {code}"
        code = children.run(run, log=log)
        if code:
            last = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
            return f"the next run failed: {last[:150]}"
        if job.result(work) != prepared.results[job.name]:
            return "the next run's result differs from an uninterrupted one's"
        return None
    except TimeoutError:
        return "the next run hung"
    finally:
        shutil.rmtree(work.parent, ignore_errors=True)
