"""The reference loop over the taught layers and the fused loop are one model.

`SAT_KERAS_ALL_COMBINATIONS=1` runs all 384 combinations of switches in place of the 24 of those
that the loop sees.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from gradients import numpy
from implementations import (
    ATTENTION,
    FEATURES,
    REGIONS,
    SIZES,
    assert_equal,
    combinations,
    loop_combinations,
    name,
)
from seeding import fix_seed

from sat_keras.captioning.steps import decoder_step
from sat_keras.config import Config
from sat_keras.fast import choose_implementation
from sat_keras.paper.attention import BahdanauAttention
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.decoder import AttentionDecoder

pytestmark = pytest.mark.long

CASES = combinations() if os.environ.get("SAT_KERAS_ALL_COMBINATIONS") else loop_combinations()
HALF_PRECISION = ["mixed_bfloat16", "mixed_float16"]
# With both values of every switch, and with every kind of attention.
HALF_PRECISION_CASES = CASES if len(CASES) > 24 else [*CASES[::3], *CASES[4:6]]
TOKEN_IDS = np.array([[[1, 2, 3], [4, 5, 1]]], "int32")
# Runs where TensorFlow cannot be imported, unless it is the backend. JAX would compile the loops of
# every combination anew, which takes much longer than to run their operations one by one; in half
# precision some are compiled.
OTHER_BACKEND = """
import contextlib, sys
if sys.argv[1] != "tensorflow":
    sys.modules["tensorflow"] = None
import keras, implementations
assert keras.backend.backend() == sys.argv[1]
cases = implementations.loop_combinations()
one_by_one = contextlib.nullcontext()
if sys.argv[1] == "jax":
    import jax
    one_by_one = jax.disable_jit()
with one_by_one:
    for options in cases:
        implementations.assert_equal(options, "float32")
for options in cases[::8]:
    implementations.assert_equal(options, "mixed_bfloat16")
print(len(cases), "combinations are equal")
"""


def make(implementation="auto", **options):
    fix_seed(0)
    decoder = AttentionDecoder(**SIZES, **options, implementation=implementation)
    decoder.build((None, None, None), (None, REGIONS, FEATURES))
    return decoder


def annotations(seed=0):
    return np.random.default_rng(seed).normal(size=(1, REGIONS, FEATURES)).astype("float32")


def test_the_cases_cover_the_switches():
    assert len(combinations()) == 384
    assert len(loop_combinations()) == 24
    for key in ("use_deep_output", "use_output_tanh", "tie_embeddings", "initial_dim"):
        for cases in (loop_combinations(), HALF_PRECISION_CASES):
            assert len({options.get(key) for options in cases}) == 2, key


@pytest.mark.graph  # the fused loop calls compiled functions
@pytest.mark.parametrize("options", CASES, ids=name)
def test_outputs_and_gradients_are_equal(options):
    assert_equal(options, "float32")


@pytest.mark.parametrize("precision", HALF_PRECISION)
@pytest.mark.parametrize("options", HALF_PRECISION_CASES, ids=name)
def test_outputs_and_gradients_are_equal_in_half_precision(options, precision):
    assert_equal(options, precision)


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_they_are_equal_on_other_backends(backend):
    if backend == keras.backend.backend():
        pytest.skip(f"{backend} is the backend of these tests")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder = Path(__file__).resolve().parent
    search_path = os.pathsep.join(map(str, [folder, folder.parent, *filter(None, sys.path)]))
    done = subprocess.run(
        [sys.executable, "-c", OTHER_BACKEND, backend],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": search_path,
            # By default JAX leaves out roundings to half precision that it finds unnecessary.
            # Without optimizing it compiles sooner.
            "XLA_FLAGS": "--xla_allow_excess_precision=false --xla_backend_optimization_level=0",
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "24 combinations are equal" in done.stdout


# The taught layer runs


@pytest.mark.parametrize("hard_attention", ATTENTION[:2], ids=["soft", "hard"])
def test_reference_calls_the_attention_layer_once_a_step(hard_attention, monkeypatch):
    decoder = make("reference", hard_attention=hard_attention)
    calls = []
    plain = BahdanauAttention.call

    def counted(self, *args, **kwargs):
        calls.append(self)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(BahdanauAttention, "call", counted)
    decoder(TOKEN_IDS, annotations())
    # `ops.scan` may trace its body once for all steps.
    assert len(calls) in (1, TOKEN_IDS.shape[-1])
    assert set(calls) == {decoder.attention}
    del calls[:]
    values, keys = decoder.read_annotations(annotations())
    states = dict(zip(("hidden", "cell"), decoder.initial_state(values), strict=True))
    sampling = decoder.attention.draw((1, 1, REGIONS))
    step, pictures_read = decoder_step(decoder, values, keys)
    step(TOKEN_IDS[:, :1, 0], states, pictures_read, sampling)
    assert calls == [decoder.attention]


def test_fused_does_not_call_it(monkeypatch):
    monkeypatch.setattr(BahdanauAttention, "call", lambda *args, **kwargs: pytest.fail("called"))
    make("fused")(TOKEN_IDS, annotations())


@pytest.mark.graph
@pytest.mark.parametrize("attention", ["soft", "hard"])
def test_search_is_the_same(attention):
    config = Config.tiny().replace(attention=attention, vocabulary_size=9)
    fix_seed(0)
    reference = Captioner(config, implementation="reference")
    fused = Captioner(config, implementation="fused")
    fused.copy_weights(reference)
    values = np.random.default_rng(0).normal(size=(3, 4, 8)).astype("float32")
    mask = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], "bool")
    found, expected = (
        model.search(values, max_length=5, mask=mask) for model in (fused, reference)
    )
    np.testing.assert_array_equal(numpy(found.token_ids), numpy(expected.token_ids))
    np.testing.assert_allclose(numpy(found.score), numpy(expected.score), rtol=1e-5)
    maps = numpy(found.record["attention_weights"])
    np.testing.assert_allclose(maps, numpy(expected.record["attention_weights"]), atol=1e-6)
    assert (maps[:, :, 0][~np.repeat(mask[:, None], maps.shape[1], 1)] == 0).all()


# The choice


def test_auto_is_fused_and_reference_stays_reference():
    assert choose_implementation("auto", make()) == ("fused", None)
    assert choose_implementation("reference", make()) == ("reference", None)


def test_float64_falls_back_with_a_reason():
    decoder = AttentionDecoder(**SIZES, dtype="float64")
    decoder.build((None, None, None), (None, REGIONS, FEATURES))
    chosen, reason = choose_implementation("auto", decoder)
    assert chosen == "reference"
    assert "float64" in reason
    assert keras.backend.standardize_dtype(decoder(TOKEN_IDS, annotations())["gate"].dtype) == (
        "float64"
    )
    with pytest.raises(ValueError, match="float64.*Received: implementation='fused'"):
        choose_implementation("fused", decoder)


def test_quantized_layers_fall_back_with_a_reason():
    config = Config.tiny().replace(vocabulary_size=9)
    captioner = Captioner(config)
    inputs = {"annotations": np.ones((1, 4, 8), "float32"), "token_ids": TOKEN_IDS}
    before = numpy(captioner(inputs)["logits"])
    captioner.quantize("int8")
    chosen, reason = choose_implementation("auto", captioner.decoder)
    assert chosen == "reference"
    assert "int8" in reason
    np.testing.assert_allclose(numpy(captioner(inputs)["logits"]), before, atol=0.03)


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="'auto', 'reference', 'fused'.*Received: .*'eager'"):
        make("eager")


def test_the_implementation_is_in_the_config():
    assert make("reference").get_config()["implementation"] == "reference"
    captioner = Captioner(Config.tiny().replace(vocabulary_size=9), implementation="reference")
    assert Captioner.from_config(captioner.get_config()).decoder.implementation == "reference"


# The mask


@pytest.mark.graph
@pytest.mark.parametrize("implementation", ["reference", "fused"])
@pytest.mark.parametrize("hard_attention", [ATTENTION[0], ATTENTION[2]], ids=["soft", "argmax"])
def test_masked_regions_are_as_if_they_were_not_there(implementation, hard_attention):
    decoder = make(implementation, hard_attention=hard_attention)
    values = annotations()
    mask = np.array([[True, True, False, True, False]])
    found = decoder(TOKEN_IDS, values, mask=mask)
    expected = decoder(TOKEN_IDS, values[:, mask[0]])
    np.testing.assert_allclose(
        numpy(found["logits"]), numpy(expected["logits"]), rtol=1e-5, atol=1e-5
    )
    weights = numpy(found["attention_weights"])
    assert (weights[..., ~mask[0]] == 0).all()
    np.testing.assert_allclose(
        weights[..., mask[0]], numpy(expected["attention_weights"]), rtol=1e-5, atol=1e-6
    )


def test_the_mask_reaches_the_loss():
    config = Config.tiny().replace(vocabulary_size=9, penalty_target="length")
    fix_seed(0)
    captioner = Captioner(config)
    values = np.random.default_rng(0).normal(size=(1, 4, 8)).astype("float32")
    inputs = {"annotations": values, "token_ids": TOKEN_IDS}
    mask = np.array([[True, False, True, True]])

    def loss(inputs):
        y_pred = captioner(inputs)
        return float(captioner.compute_loss(inputs, TOKEN_IDS, y_pred, training=False))

    without = {**inputs, "annotations": values[:, mask[0]]}
    assert loss({**inputs, "mask": mask}) == pytest.approx(loss(without), rel=1e-5)
    assert loss({**inputs, "mask": mask}) != pytest.approx(loss(inputs), rel=1e-3)
