"""Tasks in forked workers, a few at once. A task returns rows, which are added by attack."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torture import table
from torture.table import Row

Task = Callable[[], list[Row]]
CHUNK = 10  # attempts in a task


def chunks(trials: int) -> list[range]:
    """Returns the numbers of the attempts of each task.

    Args:
        trials: Integer, number of all attempts.
    """
    return [range(i, min(i + CHUNK, trials)) for i in range(0, trials, CHUNK)]


def run(tasks: Sequence[Task], workers: int, folder: Path) -> Iterator[list[Row]]:
    """Runs tasks, each in a forked process, and yields their rows as they finish.

    Args:
        tasks: The tasks.
        workers: Integer, number of tasks that run at once.
        folder: Folder for the rows.

    Raises:
        RuntimeError: If a task fails. What it attacks cannot make it fail.
    """
    waiting = list(enumerate(tasks))[::-1]
    running: dict[int, int] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            number, task = waiting.pop()
            running[_start(task, folder / f"rows-{number}.json")] = number
        pid, status = os.wait()
        number = running.pop(pid)
        if status:
            raise RuntimeError(f"Task {number} failed with status {status}; see above")
        yield table.load(folder / f"rows-{number}.json")


def _start(task: Task, path: Path) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        start = time.monotonic()
        rows = task()
        rows[0].seconds += time.monotonic() - start
        table.save(rows, path)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
