"""Runs a decoder by both implementations, for `test_implementations` and its other backends."""

import itertools

import numpy as np
from gradients import numpy, outputs_and_weight_gradients
from keras import ops
from seeding import fix_seed

from sat_keras.paper.decoder import AttentionDecoder

SIZES = {"vocabulary_size": 6, "embedding_dim": 3, "hidden_dim": 4, "attention_dim": 2}
BATCH, CAPTIONS, STEPS, REGIONS, FEATURES = 2, 2, 2, 5, 3

OUTPUTS = (
    {"use_deep_output": False},
    {},
    {"use_output_tanh": False},
    {"tie_embeddings": True},
)
ATTENTION = (
    None,
    {"samples": 2, "expected_probability": 0.5, "seed": 4},
    {"inference": "argmax", "seed": 3},
)


def combinations() -> list[dict]:
    """Every combination of the decoder's switches, of soft and hard attention, and of the mask."""
    product = itertools.product(
        (True, False), (True, False), OUTPUTS, (None, 4), (True, False), ATTENTION, (True, False)
    )
    return [
        {
            "use_gate": use_gate,
            "use_word_query": use_word_query,
            **output,
            "initial_dim": initial_dim,
            "normalize_annotations": normalize,
            "hard_attention": attention,
            "mask": mask,
        }
        for use_gate, use_word_query, output, initial_dim, normalize, attention, mask in product
    ]


def loop_combinations() -> list[dict]:
    """Every combination of what the loop sees: gate, word query, attention and mask.

    The other switches act before or after the loop, in code that both implementations share; they
    take turns, so that each of their combinations occurs.
    """
    seen: dict[tuple, list[dict]] = {}
    for options in combinations():
        attention = options["hard_attention"]
        kind = "soft" if attention is None else attention.get("inference", "sampled")
        key = options["use_gate"], options["use_word_query"], kind, options["mask"]
        seen.setdefault(key, []).append(options)
    return [group[(5 * i) % len(group)] for i, group in enumerate(seen.values())]


def name(options: dict) -> str:
    """A test's id: the switches that are not the defaults."""
    attention = options["hard_attention"]
    kind = "soft" if attention is None else attention.get("inference", "sampled")
    named = {"use_gate": "no-gate", "use_deep_output": "no-deep", "use_output_tanh": "no-tanh"}
    words = [kind, *(word for key, word in named.items() if options.get(key) is False)]
    on = ("tie_embeddings", "use_word_query", "initial_dim", "normalize_annotations", "mask")
    return "-".join(words + [key for key in on if options.get(key)])


def run(options: dict, precision: str) -> list[dict[str, np.ndarray]]:
    """All outputs of teacher forcing in training, and the gradient of every weight.

    Returns:
        List of those of the reference and of those of the fused loop, by one decoder: it chooses
        the loop at every call, and what hard attention draws leaves its seed as it is.
    """
    options = dict(options)
    generator = np.random.default_rng(5)
    token_ids = generator.integers(SIZES["vocabulary_size"], size=(BATCH, CAPTIONS, STEPS))
    annotations = generator.normal(size=(BATCH, REGIONS, FEATURES)).astype("float32")
    mask = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], "bool") if options.pop("mask") else None
    fix_seed(0)
    decoder = AttentionDecoder(**SIZES, **options, dtype=precision, name="decoder")
    decoder.build((None, None, None), (None, REGIONS, FEATURES))
    for weight in decoder.trainable_weights:
        weight.assign(generator.normal(size=weight.shape, scale=0.7))
    # Hard attention draws in training; the likeliest region is a matter of inference.
    training = (options["hard_attention"] or {}).get("inference") != "argmax"

    def loss():
        found = decoder(token_ids.astype("int32"), annotations, mask=mask, training=training)
        total = 0.0
        for key in ("logits", "attention_weights", "gate"):
            value = ops.cast(found[key], "float32")
            weight = np.random.default_rng(len(key)).normal(size=value.shape).astype("float32")
            total = total + ops.sum(value * ops.convert_to_tensor(weight))
        return total, found

    of_both = []
    for implementation in ("reference", "fused"):
        decoder.implementation = implementation
        assert decoder.uses_fused() == (implementation == "fused")
        outputs, gradients = outputs_and_weight_gradients(decoder, loss)
        found = {key: numpy(value) for key, value in outputs.items()}
        for path, gradient in gradients.items():
            found[f"gradient of {path}"] = numpy(ops.cast(gradient, "float32"))
        of_both.append(found)
    return of_both


def assert_equal(options: dict, precision: str) -> None:
    """Outputs and gradients of the two implementations are equal."""
    reference, fused = run(options, precision)
    assert reference.keys() == fused.keys()
    for key, expected in reference.items():
        is_gradient = key.startswith("gradient")
        if precision == "float32":
            # Relative to the tensor's largest number; sums that cancel are as exact as their terms.
            scale = np.abs(expected).max() if is_gradient else 1.0
            np.testing.assert_allclose(
                fused[key], expected, rtol=0, atol=1e-5 * scale + 1e-6, err_msg=key
            )
            continue
        # Half precision: the same roundings in the forward pass, others in the backward pass.
        if is_gradient:
            norm = max(1e-2, np.linalg.norm(expected))
            error = np.linalg.norm(fused[key] - expected) / norm
            assert error < (0.1 if "bfloat16" in precision else 0.02), (key, error)
        else:
            # A matrix product that sums in another order may round a number up instead of down.
            is_equal = np.isclose(fused[key], expected, rtol=1e-5, atol=1e-5)
            assert is_equal.mean() > 0.95, (key, is_equal.mean())
            rounding = 2.0**-7 if "bfloat16" in precision else 2.0**-10
            np.testing.assert_allclose(
                fused[key], expected, rtol=2 * rounding, atol=2 * rounding, err_msg=key
            )
