"""Training step on one GPU with JAX: absolute, against its rooflines and against PyTorch.

    KERAS_BACKEND=jax python -m benchmarks.accelerator

needs no TensorFlow and no data. Without a GPU it runs on the CPU, best with `--small`.
"""

import argparse
import importlib.util
import json
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
# PyTorch needs memory beside JAX.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import in_turns, spread
from benchmarks.sizes import Sizes, train_step

# All from a step of a few milliseconds to one of a second: 64 captions as in the table, and many.
SIZES = {
    "64": Sizes(),
    "64_shared": Sizes(pictures=13, captions=5),
    "1024_shared": Sizes(pictures=205, captions=5),
}
SMALL = {
    "small": Sizes(
        pictures=4, captions=2, steps=3, vocabulary_size=50, num_regions=9, feature_dim=8, width=8
    )
}


def device_rates(size, elements):
    """Functions to time for the device's rates, and the work of a call of each."""
    square = {
        name: jnp.ones((size, size), dtype)
        for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16))
    }
    vector = jnp.ones((elements,), jnp.float32)
    multiply, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    functions = {name: lambda x=x: multiply(x, x).block_until_ready() for name, x in square.items()}
    functions["memory"] = lambda: copy(vector).block_until_ready()
    work = dict.fromkeys(square, 2 * size**3) | {"memory": 2 * 4 * elements}
    return functions, work


def least_bytes(sizes, element_bytes):
    """Count the bytes that a step must move, if everything but the following stays on the chip.

    Annotation vectors and keys are read in every step, forwards and backwards, the loop's weights
    too; the optimizer reads and writes three float32 numbers a weight and reads its gradient.
    """
    width, features = sizes.width, sizes.feature_dim
    picture = sizes.pictures * sizes.num_regions * (features + width)
    loop = width * (5 * width + 1) + features * 4 * width
    weights = 2 * sizes.vocabulary_size * width + loop + width * (7 * width + 2 * features)
    return 2 * sizes.steps * element_bytes * (picture + loop) + 4 * 7 * weights


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="small sizes, to try it out")
    options = parser.parse_args(arguments)
    functions, work = device_rates(*((128, 10_000) if options.small else (8192, 100_000_000)))
    rates = {
        name: np.median(work[name] / seconds)
        for name, seconds in in_turns(functions, options.rounds).items()
    }
    found = {
        "device": jax.devices()[0].device_kind,
        "gflops": {name: round(rates[name] / 1e9, 1) for name in ("float32", "bfloat16")},
        "memory_gb_per_second": round(rates["memory"] / 1e9, 1),
    }
    for name, sizes in (SMALL if options.small else SIZES).items():
        found[name] = of_sizes(sizes, rates, options.rounds)
    print(json.dumps(found, indent=1))


def of_sizes(sizes, rates, rounds):
    """Captions a second in float32 and bfloat16, as shares of the rooflines, and PyTorch's."""
    steps = {
        "float32": train_step(sizes),
        "bfloat16": train_step(sizes, "mixed_bfloat16"),
    }
    if importlib.util.find_spec("torch") is not None:
        import torch

        from benchmarks import tutorial

        device = "cuda" if torch.cuda.is_available() else "cpu"
        steps["torch_float32"] = tutorial.train_step(sizes, device)
        steps["torch_bfloat16"] = tutorial.train_step(sizes, device, torch.bfloat16)
    seconds = in_turns(steps, rounds, warmup=3)
    found = {}
    for name, values in seconds.items():
        precision = name.split("_")[-1]
        found[name] = {
            "captions_per_second": spread(sizes.rows / values),
            "matrix_roofline": spread(sizes.flops() / rates[precision] / values),
        }
        if name == precision:
            moved = least_bytes(sizes, 4 if precision == "float32" else 2)
            found[name]["memory_roofline"] = spread(moved / rates["memory"] / values)
    if "torch_float32" in seconds:
        for precision in ("float32", "bfloat16"):
            ratio = seconds[f"torch_{precision}"] / seconds[precision]
            found[precision]["against_pytorch"] = spread(ratio)
    return found


if __name__ == "__main__":
    sys.exit(main())
