"""Training step against PyTorch decoders and the roofline, in float32 and bfloat16."""

import argparse
import importlib.util
import json
import sys

import keras
import numpy as np

from benchmarks.measure import in_turns, run_part, spread, tensorflow_rates
from benchmarks.sizes import Sizes, train_step

# Every caption with its own picture, as in the tutorial, and five of them sharing one.
SIZES = {"alone": Sizes(), "shared": Sizes(pictures=13, captions=5)}
SMALL = {
    name: Sizes(pictures, captions, 3, vocabulary_size=9, num_regions=4, feature_dim=3, width=2)
    for name, pictures, captions in (("alone", 4, 1), ("shared", 2, 2))
}
PAUSE = 0.25


def side_by_side(rounds, sizes=SIZES):
    """Times all variants alternately."""
    functions, work = tensorflow_rates(*(() if sizes is SIZES else ("float32", 8, (8,))))
    for name in sizes:
        functions[name] = train_step(sizes[name])
        functions[f"{name}_bfloat16"] = train_step(sizes[name], "mixed_bfloat16")
    if importlib.util.find_spec("torch") is not None:
        from benchmarks import tutorial

        functions["tutorial"] = tutorial.train_step(sizes["alone"])
    seconds = in_turns(functions, rounds, pause=PAUSE if sizes is SIZES else 0)
    rates = {name: work[name] / seconds[name] for name in work}
    found = {"gemm_gflops": rates["gemm"] / 1e9, "tanh_per_ns": rates["tanh"] / 1e9}
    for name, suffix in (("shared", ""), ("alone", "_without_sharing")):
        low, ideal = f"{name}_bfloat16", ideal_seconds(sizes[name], rates)
        found[f"training_vs_roofline{suffix}"] = ideal / seconds[name]
        found[f"training_low_precision_speedup{suffix}"] = seconds[name] / seconds[low]
        if "tutorial" in seconds:
            # In captions a second: the sizes do not have quite as many.
            plain = seconds["tutorial"] / sizes["alone"].rows * sizes[name].rows
            found[f"training_vs_pytorch{suffix}"] = plain / seconds[name]
            found[f"training_vs_pytorch_bfloat16{suffix}"] = plain / seconds[low]
    captions = {
        name: spread(sizes["shared" if "shared" in name else "alone"].rows / seconds[name])
        for name in seconds.keys() - work.keys()
    }
    return {name: spread(x) for name, x in found.items()} | {"captions_per_second": captions}


def against_the_strongest(rounds, sizes=SIZES, backend="inductor"):
    """Times the step with shared pictures alternately with `strongest`, eager and compiled."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    from benchmarks import strongest
    from sat_keras.paper.captioner import Captioner

    shared = sizes["shared"]
    functions = {
        "float32": train_step(shared),
        "bfloat16": train_step(shared, "mixed_bfloat16"),
    }
    captioner = Captioner(shared.config())
    for precision, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        for name, compiler in (("eager", None), ("compiled", backend)):
            step = strongest.train_step(shared, captioner, dtype, compiler)
            functions[f"strongest_{name}_{precision}"] = step
    seconds = in_turns(functions, rounds, pause=PAUSE if sizes is SIZES else 0)
    found = {}
    for precision, suffix in (("float32", ""), ("bfloat16", "_bfloat16")):
        peers = [seconds[f"strongest_{name}_{precision}"] for name in ("eager", "compiled")]
        best = min(peers, key=np.median)
        found[f"training_vs_strongest{suffix}"] = spread(best / seconds[precision])
    fastest, peers = (
        min((x for name, x in seconds.items() if ("strongest" in name) == theirs), key=np.median)
        for theirs in (False, True)
    )
    found["training_vs_strongest_fastest"] = spread(peers / fastest)
    found["captions_per_second_strongest"] = {
        name: spread(shared.rows / values) for name, values in seconds.items()
    }
    return found


def ideal_seconds(sizes, rates):
    """Returns the time of a step's arithmetic at the machine's rates."""
    return sizes.flops() / rates["gemm"] + sizes.tanhs() / rates["tanh"]


def on_this_backend(rounds, sizes=SIZES):
    """Returns captions a second of Keras's current backend, run alone."""
    seconds = in_turns({"shared": train_step(sizes["shared"])}, rounds, warmup=3)["shared"]
    return {"captions_per_second": spread(sizes["shared"].rows / seconds)}


def on_other_backends(rounds, sizes=SIZES):
    """Runs the same step on JAX and PyTorch, each in its own process."""
    found = {}
    for backend in ("jax", "torch"):
        if importlib.util.find_spec(backend) is not None:
            part = run_part(
                "benchmarks.training",
                *("--part", "on_this_backend", "--rounds", rounds),
                *(() if sizes is SIZES else ("--small",)),
                environment={"KERAS_BACKEND": backend},
            )
            found[f"captions_per_second_{backend}"] = part["captions_per_second"]
    return found


PARTS = (side_by_side, against_the_strongest, on_other_backends, on_this_backend)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=[part.__name__ for part in PARTS], required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--small", action="store_true", help="small sizes, to try it out")
    options = parser.parse_args(arguments)
    part = next(part for part in PARTS if part.__name__ == options.part)
    if keras.backend.backend() != "tensorflow" and part is not on_this_backend:
        sys.exit("The comparisons are those of the TensorFlow backend.")
    print(json.dumps(part(options.rounds, SMALL if options.small else SIZES)))


if __name__ == "__main__":
    main()
