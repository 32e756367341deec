"""The training step: against the PyTorch tutorial's, against the machine, in low precision."""

import argparse
import importlib.util
import json
import sys

import keras

from benchmarks.measure import in_turns, run_part, spread, tensorflow_rates
from benchmarks.sizes import Sizes, train_step

ALONE, SHARED = Sizes(), Sizes(pictures=13, captions=5)
PAUSE = 0.25


def against_pytorch(rounds):
    """Captions a second, every caption with its own picture and five of them sharing one."""
    from benchmarks import tutorial

    steps = {
        "tutorial": tutorial.train_step(ALONE),
        "alone": train_step(ALONE),
        "shared": train_step(SHARED),
        "shared_bfloat16": train_step(SHARED, "mixed_bfloat16"),
    }
    seconds = in_turns(steps, rounds, pause=PAUSE)
    rows = {name: SHARED.rows if "shared" in name else ALONE.rows for name in steps}
    rates = {name: rows[name] / seconds[name] for name in steps}
    return {
        "training_vs_pytorch": spread(rates["shared"] / rates["tutorial"]),
        "training_vs_pytorch_without_sharing": spread(rates["alone"] / rates["tutorial"]),
        "training_vs_pytorch_bfloat16": spread(rates["shared_bfloat16"] / rates["tutorial"]),
        "captions_per_second": {name: spread(rate) for name, rate in rates.items()},
    }


def against_roofline(rounds):
    """The time that the step's arithmetic takes at the machine's rates, over the step's time."""
    functions, work = tensorflow_rates()
    functions |= {"alone": train_step(ALONE), "shared": train_step(SHARED)}
    seconds = in_turns(functions, rounds, pause=PAUSE)
    rates = {name: work[name] / seconds[name] for name in work}
    shares = {
        name: (sizes.flops() / rates["gemm"] + sizes.tanhs() / rates["tanh"]) / seconds[name]
        for name, sizes in (("alone", ALONE), ("shared", SHARED))
    }
    return {
        "training_vs_roofline": spread(shares["shared"]),
        "training_vs_roofline_without_sharing": spread(shares["alone"]),
        "gemm_gflops": spread(rates["gemm"] / 1e9),
        "tanh_per_ns": spread(rates["tanh"] / 1e9),
    }


def in_low_precision(rounds):
    """The same step in bfloat16."""
    precisions = "float32", "mixed_bfloat16"
    shared = {precision: train_step(SHARED, precision) for precision in precisions}
    seconds = in_turns(shared, rounds, pause=PAUSE)
    alone = {precision: train_step(ALONE, precision) for precision in precisions}
    seconds_alone = in_turns(alone, rounds, pause=PAUSE)
    return {
        "training_low_precision_speedup": spread(seconds["float32"] / seconds["mixed_bfloat16"]),
        "training_low_precision_speedup_without_sharing": spread(
            seconds_alone["float32"] / seconds_alone["mixed_bfloat16"]
        ),
    }


def on_this_backend(rounds):
    """Captions a second of the backend that Keras runs on, without the others beside it."""
    seconds = in_turns({"shared": train_step(SHARED)}, rounds, warmup=3)["shared"]
    return {"captions_per_second": spread(SHARED.rows / seconds)}


def on_other_backends(rounds):
    """The same step on JAX and PyTorch, each in a process of its own."""
    found = {}
    for backend in ("jax", "torch"):
        if importlib.util.find_spec(backend) is not None:
            part = run_part(
                "benchmarks.training",
                *("--part", "on_this_backend", "--rounds", rounds),
                environment={"KERAS_BACKEND": backend},
            )
            found[f"captions_per_second_{backend}"] = part["captions_per_second"]
    return found


PARTS = (against_pytorch, against_roofline, in_low_precision, on_other_backends, on_this_backend)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=[part.__name__ for part in PARTS], required=True)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args(arguments)
    part = next(part for part in PARTS if part.__name__ == options.part)
    if keras.backend.backend() != "tensorflow" and part is not on_this_backend:
        sys.exit("The comparisons are those of the TensorFlow backend.")
    print(json.dumps(part(options.rounds)))


if __name__ == "__main__":
    main()
