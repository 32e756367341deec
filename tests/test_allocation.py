"""Freed memory is kept: counted in page faults, in a process of its own."""

import platform
import subprocess
import sys

import pytest

from sat_keras.backend.memory import keep_freed_memory

PROGRAM = """
import resource, sys, threading
import numpy as np
from sat_keras.backend.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()


def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def work():  # in a thread, as tf.data works
    for turn in range(20):
        if turn == 10:
            before = page_faults()
        [np.ones(13 << 20, "uint8") for _ in range(3)]
    print(page_faults() - before)


thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_freed_memory_is_kept():
    faults = {
        mode: int(subprocess.check_output([sys.executable, "-c", PROGRAM, mode], text=True))
        for mode in ("keep", "as it is")
    }
    assert faults["keep"] < 100 < 3000 < faults["as it is"]


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_freed_memory()
