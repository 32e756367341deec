"""Memory that one minibatch frees is kept for the next."""

import ctypes
import sys

# Numbers from glibc's malloc.h; its manual, "Malloc Tunable Parameters", says what they do.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Tell the C library to give freed memory to the next request and not back to the system.

    A minibatch of annotation vectors takes some 30 MB on its way from disk. By default glibc hands
    them back when the minibatch is done and asks for them anew, and the system then clears them
    page by page: 7,000 page faults a step, which took longer than reading. The process's peak stays
    what it was. Every command of `sat-keras` begins with this; call it first in a program that
    trains.

    Returns:
        Whether the allocator is glibc's and took the settings; others are left as they are.

    Example:

    >>> keep_freed_memory()
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl, another C library, has none
    if mallopt is None:
        return False
    settings = {_M_TRIM_THRESHOLD: 1 << 30, _M_TOP_PAD: 64 << 20, _M_MMAP_THRESHOLD: 32 << 20}
    return all(mallopt(name, size) for name, size in settings.items())
