"""Alternating timing, the machine's own rates, and summaries of measurements."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent


def in_turns(functions, rounds, warmup=2, pause=0.0):
    """Times functions alternately, round by round, so that all share the machine's state.

    Args:
        functions: Dictionary of functions without arguments that return when all is done.
        rounds: Integer, calls of each that count.
        warmup: Integer, calls of each before.
        pause: Seconds before every call, in which threads of the one before fall asleep.

    Returns:
        Dictionary of arrays of seconds, shape `(rounds,)`.
    """
    for function in functions.values():
        for _ in range(warmup):
            function()
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            time.sleep(pause)
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values):
    """Returns the median, and the 10th and 90th percentile as low and high, over rounds."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return {
        key: round(float(x), 4)
        for key, x in zip(("median", "low", "high"), (median, low, high), strict=True)
    }


def repeated(function, times):
    """Returns a function that calls another several times, to time short calls."""

    def call():
        for _ in range(times):
            function()

    return call


def tensorflow_rates(dtype="float32", size=2048, elements=(64, 196, 512)):
    """Returns functions to time the rates of matrix products and tanh in TensorFlow.

    Returns:
        Tuple of a dictionary of functions `gemm` and `tanh` and one of the number of operations of
        a call: floating point operations and elements.
    """
    import tensorflow as tf

    left, right = (tf.cast(tf.random.normal((size, size)), dtype) for _ in range(2))
    values = tf.random.normal(elements)
    functions = {
        "gemm": repeated(lambda: tf.matmul(left, right), 2),
        "tanh": repeated(lambda: tf.tanh(values), 4),
    }
    return functions, {"gemm": 2 * 2 * size**3, "tanh": 4 * int(np.prod(elements))}


def run_part(module, *arguments, environment=None, timeout=600):
    """Runs `python -m module` and returns the dictionary it prints as its last line.

    Raises:
        RuntimeError: If it fails; the message is the end of its error output.
        subprocess.TimeoutExpired: If it takes longer than `timeout`, in seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine():
    """Returns one line describing the machine."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        extra = [
            label
            for flag, label in (
                ("avx512f", "AVX-512"),
                ("avx512_bf16", "AVX-512 bfloat16"),
                ("amx_bf16", "AMX bfloat16"),
            )
            if flag in flags.split()
        ]
        if not extra and "avx2" in flags.split():
            extra = ["AVX2"]
        name = ", ".join([*(names[:1] or [name]), *extra])
    return f"{name}, {os.cpu_count()} cores"
