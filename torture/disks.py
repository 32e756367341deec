"""Disks that are full or write-protected, and two processes at once."""

import contextlib
import functools
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torture import children, jobs
from torture.pool import Task, chunks
from torture.table import Row

TMPFS_SIZES = 10  # from a page to more than a job needs
LIMITS = (1, 100, 400, 1000, 10_000, 100_000)


def tasks(prepared: jobs.Prepared, trials: int, folder: Path) -> list[Task]:
    """Returns the tasks of each job and kind of disk."""
    found: list[Task] = []
    for name in prepared.results:
        for numbers in chunks(trials // 2 + 1):
            found.append(functools.partial(limited, prepared, name, numbers, folder))
        for attack in (full, read_only):
            found.append(functools.partial(attack, prepared, name, folder))
        found.append(functools.partial(twice, prepared, name, max(1, trials // 10), folder))
    return found


def limited(prepared: jobs.Prepared, name: str, numbers: range, folder: Path) -> list[Row]:
    """Fails a job's changes of its folder, and its writes beyond a size, as a full disk does."""
    row, draw = Row(f"{name}: a write fails"), random.Random(f"{name} {numbers.start}")
    for number in numbers:
        with _work(prepared, name, folder) as work:
            change = 1 + (number - number // 3) % prepared.changes[name]
            before = children.at_change(change, work, children.disk_full)
            if number % 3 == 2:
                before = children.limit_size(draw.choice(LIMITS), False)
            row.add(_fails_then_works(prepared, name, work, before, checked=number % 3 < 2))
    return [row]


def full(prepared: jobs.Prepared, name: str, folder: Path) -> list[Row]:
    """Runs a job on small tmpfs mounts, then again with room."""
    row = Row(f"{name} on a full disk (tmpfs)")
    needed = sum(path.stat().st_size for path in (prepared.folder / jobs.OUTPUTS[name]).rglob("*"))
    for number in range(TMPFS_SIZES):
        kilobytes = round(4 * (max(needed / 2000, 8)) ** (number / (TMPFS_SIZES - 1)))
        with _work(prepared, name, folder) as work:
            target = work / jobs.OUTPUTS[name]
            target.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(target)]
            if subprocess.run(mount, capture_output=True).returncode:
                row.skipped = "mounts need the superuser"
                return [row]
            try:
                grow = ["mount", "-o", "remount,size=64m", str(target)]
                row.add(_fails_then_works(prepared, name, work, None, grow))
            finally:
                subprocess.run(["umount", str(target)], check=False)
    return [row]


def read_only(prepared: jobs.Prepared, name: str, folder: Path) -> list[Row]:
    """Runs a job with a write-protected folder for its results, then with a writable one."""
    row = Row(f"{name} into a write-protected folder")
    with _work(prepared, name, folder) as work:
        target = work / jobs.OUTPUTS[name]
        target.mkdir()
        bind = ["mount", "--bind", str(target), str(target)]
        if subprocess.run(bind, capture_output=True).returncode:
            row.skipped = "mounts need the superuser"
            return [row]
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(target)], check=True)
            writable = ["mount", "-o", "remount,rw,bind", str(target)]
            row.add(_fails_then_works(prepared, name, work, None, writable))
        finally:
            subprocess.run(["umount", str(target)], check=False)
    return [row]


def twice(prepared: jobs.Prepared, name: str, trials: int, folder: Path) -> list[Row]:
    """Runs a job in two processes at once, then once more."""
    row = Row(f"{name} in two processes at once")
    for _ in range(trials):
        with _work(prepared, name, folder) as work:
            run = functools.partial(jobs.JOBS[name].command, work)
            log = work.parent / "log.txt"
            first = os.fork()
            if first == 0:
                os._exit(children.run(run, log=log) != 0)
            children.run(run, log=log)
            os.waitpid(first, 0)
            code = children.run(run, log=log)
            row.add(_difference(prepared, name, work, code, log))
    return [row]


@contextlib.contextmanager
def _work(prepared: jobs.Prepared, name: str, folder: Path) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(dir=folder)) / "work"
    jobs.copy_for(jobs.JOBS[name], prepared.folder, work)
    try:
        yield work
    finally:
        shutil.rmtree(work.parent, ignore_errors=True)


def _fails_then_works(
    prepared: jobs.Prepared,
    name: str,
    work: Path,
    before: object,
    repair: list[str] | None = None,
    checked: bool = True,
) -> str | None:
    """Returns what is wrong with the error of a job, or after the next run; else `None`."""
    run, log = functools.partial(jobs.JOBS[name].command, work), work.parent / "log.txt"
    code = children.run(run, before, log=log)
    last = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
    if code < 0:
        return f"the process crashed (signal {-code})"
    # With a limit of the size the log is cut as well, so that its message is not checked.
    if code and checked and not any(str(part) in last for part in (work, jobs.OUTPUTS[name])):
        return f"the error names no file: {last[:120]}"
    if repair:
        subprocess.run(repair, check=True)
    code = children.run(run, log=log)
    return _difference(prepared, name, work, code, log)


def _difference(prepared: jobs.Prepared, name: str, work: Path, code: int, log: Path) -> str | None:
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
        return f"the next run failed: {last[:120]}"
    same = jobs.JOBS[name].result(work) == prepared.results[name]
    return None if same else "the next run's result differs from an uninterrupted one's"
