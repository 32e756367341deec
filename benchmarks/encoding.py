"""Feature extraction by VGG16 against the machine's rate of matrix products."""

import argparse
import json

import keras
import numpy as np

from benchmarks.measure import in_turns, spread, tensorflow_rates
from sat_keras.paper.encoder import ImageEncoder

PICTURES = 32


def flops(model):
    """Counts the floating point operations of a CNN's convolutions for one picture."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, rows, columns, filters = layer.output.shape
            total += 2 * rows * columns * filters * int(np.prod(layer.kernel.shape[:3]))
    return total


def extraction(precision, pictures):
    """Returns an encoder as `sat_keras.data.features` runs it, and a function that encodes."""
    encoder = ImageEncoder("VGG16", weights=None, dtype=precision)
    model = keras.Sequential([keras.Input(pictures.shape[1:], dtype="uint8"), encoder])
    model.compile(jit_compile=False)
    return encoder, lambda: model.predict_on_batch(pictures)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    pictures = np.random.default_rng(0).integers(0, 256, (PICTURES, 224, 224, 3)).astype("uint8")
    functions, work = tensorflow_rates()
    encoder, functions["float32"] = extraction("float32", pictures)
    _, functions["bfloat16"] = extraction("mixed_bfloat16", pictures)
    seconds = in_turns(functions, options.rounds)
    ideal = PICTURES * flops(encoder.cnn) * seconds["gemm"] / work["gemm"]
    found = {
        "features_vs_roofline": spread(ideal / seconds["float32"]),
        "features_low_precision_speedup": spread(seconds["float32"] / seconds["bfloat16"]),
        "features_per_second": {
            precision: spread(PICTURES / seconds[precision])
            for precision in ("float32", "bfloat16")
        },
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
