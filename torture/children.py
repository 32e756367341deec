"""Commands in forked processes that are killed, or fail to write, at a chosen moment.

The parent has imported TensorFlow and has not used it, so that a child starts in milliseconds and
has no threads that are missing.
"""

import contextlib
import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT = 240.0  # seconds after which a child counts as hanging
# What Python reports before it changes a folder. Writes of C libraries are met by `limit_size`.
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
KILLED = -signal.SIGKILL


def run(
    job: Callable[[], Any],
    before: Callable[[], None] | None = None,
    kill_after: float | None = None,
    log: str | os.PathLike = os.devnull,
    number: int = signal.SIGKILL,
) -> int:
    """Runs a function in a child.

    Args:
        job: The function. Its result is the exit code, 0 for `None`.
        before: Function that the child calls first, one of this module's.
        kill_after: Float, seconds after which the child gets a signal.
        log: File for the child's output.
        number: Integer, the signal.

    Returns:
        Integer exit code, or the negative number of the signal that killed the child.

    Raises:
        TimeoutError: If the child hangs.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(job, before, log)
    status = _wait(pid, TIMEOUT if kill_after is None else kill_after)
    if status is None and kill_after is not None:
        os.kill(pid, number)
        status = _wait(pid, TIMEOUT)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise TimeoutError(f"The child must end within {TIMEOUT:.0f} s. Received: {log}")
    return os.waitstatus_to_exitcode(status)


def _child(job: Callable[[], Any], before: Callable[[], None] | None, log: Any) -> None:
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if before:
            before()
        code = job() or 0
        sys.stdout.flush()
    except BaseException:
        with contextlib.suppress(BaseException):
            import traceback

            traceback.print_exc()
    finally:
        os._exit(code)


def _wait(pid: int, seconds: float) -> int | None:
    """Returns the status of a child, or `None` if it still runs after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    return None


def at_change(number: int, folder: Path, act: Callable[[str], None]) -> Callable[[], None]:
    """Returns a function that lets the process act just before it changes a folder the n-th time.

    Args:
        number: Integer from 1.
        folder: The folder.
        act: Function such as `die`.
    """

    def install() -> None:
        left = [number]

        def hook(event: str, arguments: tuple) -> None:
            if _is_change(event, arguments, str(folder)):
                left[0] -= 1
                if left[0] == 0:
                    act(str(arguments[0]))

        sys.addaudithook(hook)

    return install


def counting(folder: Path, into: Path) -> Callable[[], None]:
    """Returns a function that lets the process count its changes of a folder, a byte each."""

    def install() -> None:
        file = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def hook(event: str, arguments: tuple) -> None:
            if _is_change(event, arguments, str(folder)):
                os.write(file, b".")

        sys.addaudithook(hook)

    return install


def _is_change(event: str, arguments: tuple, folder: str) -> bool:
    if event == "open":
        path, mode, flags = arguments
        writes = any(x in str(mode) for x in "wax+") or (mode is None and flags & 3)
        return bool(writes) and folder in str(path)
    return event in _CHANGES and folder in str(arguments[0])


def limit_size(size: int, deadly: bool) -> Callable[[], None]:
    """Returns a function that limits the size of every file that the process writes.

    Args:
        size: Integer, bytes.
        deadly: Boolean, whether the write that reaches it kills the process, in the middle of the
            write; otherwise it fails as on a full disk.
    """

    def install() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return install


def die(path: str = "") -> None:
    """Kills the process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full(path: str) -> None:
    """Fails as a new file on a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
