"""Kills: at random moments, before every change of the folder, and in the middle of a write.

After each the same command must succeed and leave exactly what an uninterrupted one leaves.
"""

import functools
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture import children, jobs
from torture.table import Row

# Sizes at which a write is cut: of a lock or a state file, of a shard, of a model.
SIZES = (1, 40, 200, 400, 1000, 4000, 20_000, 100_000, 400_000)


def attack(prepared: jobs.Prepared, trials: int, folder: Path) -> Iterator[Row]:
    """Yields a row for each job and kind of kill."""
    for name in prepared.results:
        yield kill_job(prepared, name, "at random moments", trials, folder)
        yield kill_job(prepared, name, "inside its writes", trials, folder)
    if "training" in prepared.results:
        yield kill_job(prepared, "training", "while dev pictures are scored", trials, folder)


def kill_job(
    prepared: jobs.Prepared, name: str, kind: str, trials: int, folder: Path, seed: int = 0
) -> Row:
    """Kills a job in several attempts, each followed by the same command.

    Args:
        prepared: Uninterrupted runs.
        name: Name of the job.
        kind: Kind of kill, a part of the row's name.
        trials: Integer, number of attempts.
        folder: Folder for the attempts.
        seed: Integer, seed of the moments.
    """
    row = Row(f"{name} killed {kind}")
    draw = random.Random(f"{name} {kind} {seed}")
    kills = list(_kills(prepared, name, kind, draw, trials))
    for before, seconds in kills:
        row.add(_attempt(prepared, jobs.JOBS[name], before, seconds, folder))
    return row


def _kills(
    prepared: jobs.Prepared, name: str, kind: str, draw: random.Random, trials: int
) -> Iterator[tuple[Callable[[Path], Callable[[], None]] | None, float | None]]:
    """Yields for each attempt what the child does first, and when it is killed from outside."""
    changes = prepared.changes[name]
    for number in range(trials):
        if kind == "at random moments":
            yield None, draw.uniform(0, prepared.seconds[name])
        elif kind == "while dev pictures are scored":
            delay, epoch = draw.uniform(0, prepared.seconds[name] / 10), draw.choice((1, 2))
            yield (lambda _, e=epoch, d=delay: functools.partial(_die_in_scoring, e, d)), None
        elif number % 3 < 2:  # every change in turn, from a random one
            change = 1 + (draw.randrange(changes) if trials < changes else number % changes)
            yield (lambda f, n=change: children.at_change(n, f, children.die)), None
        else:
            size = draw.choice(SIZES)
            yield (lambda _, s=size: children.limit_size(s, deadly=True)), None


def _die_in_scoring(epoch: int, delay: float) -> None:
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
    prepared: jobs.Prepared, job: jobs.Job, before: Any, seconds: float | None, folder: Path
) -> str | None:
    """Returns what is wrong after a kill and the same command again, or `None`."""
    work = Path(tempfile.mkdtemp(dir=folder)) / "work"
    try:
        jobs.copy_for(job, prepared.folder, work)
        run = functools.partial(job.command, work)
        log = work.parent / "log.txt"
        children.run(run, before and before(work), seconds, log=log)
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
