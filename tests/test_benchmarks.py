"""Runs the benchmarks at tiny sizes and checks what they return, not how fast they are."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import growth, measure, profile, searching, sizes, table, training, versions
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner

README = table.README.read_text(encoding="utf-8")
TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "red", "circle"])
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


def is_spread(value):
    return value.keys() == {"median", "low", "high"} and value["low"] <= value["high"]


# What is run, kept and shown


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Results file and README in a temporary folder."""
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path / "results.json")
    readme = tmp_path / "README.md"
    readme.write_text(README, encoding="utf-8")
    monkeypatch.setattr(benchmarks, "update_readme", lambda *x: table.update_readme(*x, readme))
    return benchmarks.RESULTS, readme


def test_a_part_that_fails_loses_no_other(files, monkeypatch, capsys):
    results, readme = files
    before = {
        "loader_share": {"median": 0.5, "low": 0.5, "high": 0.5},
        "machine": measure.machine(),
    }
    results.write_text(json.dumps(before))

    def run_part(module, *arguments, timeout):
        if module == "benchmarks.loading":
            raise RuntimeError("no pictures")
        if module == "benchmarks.encoding":
            raise subprocess.TimeoutExpired(module, timeout)
        return {"caption_seconds": {"median": 0.25, "low": 0.125, "high": 1.0}, module: 1}

    monkeypatch.setattr(benchmarks, "run_part", run_part)
    assert benchmarks.main([]) == 1
    assert "loading: no pictures" in capsys.readouterr().err
    found = json.loads(results.read_text())
    assert found["loader_share"]["median"] == 0.5
    assert found["minutes"].keys() == benchmarks.PARTS.keys() - {"loading", "features"}
    text = readme.read_text(encoding="utf-8")
    row = (
        "| pixels to caption, model loaded | - | <= 0.4 s | 0.25 s<br><sub>0.12 s to 1.00 s</sub> |"
    )
    assert row in text.splitlines()


def test_every_machine_has_its_own_results(files, monkeypatch):
    """The latest machine has `results.json` and the first column."""
    results, readme = files
    rows = []
    for name, seconds in (
        ("A, AVX2, 2 cores", 1.0),
        ("B, AVX2, AMX, 2 cores", 2.0),
        ("A, AVX2, 2 cores", 3.0),
    ):
        monkeypatch.setattr(benchmarks, "machine", lambda name=name: name)
        found = {} if seconds == 3.0 else {"caption_seconds": seconds}
        monkeypatch.setattr(benchmarks, "run_part", lambda *x, timeout, found=found: found)
        assert benchmarks.main(["starting"]) == 0
        assert json.loads(results.read_text())["machine"] == name
        lines = readme.read_text(encoding="utf-8").splitlines()
        rows += [line.rpartition("0.4 s")[2] for line in lines if line.startswith("| pixels")]
    assert rows == [" | 1.00 s |", " | 2.00 s | 1.00 s |", " | 1.00 s | 2.00 s |"]
    assert sorted(path.name for path in results.parent.glob("*.json")) == [
        "results-b-avx2-amx-2-cores.json",
        "results.json",
    ]
    assert "| what | against | to reach | measured | B, AMX |" in lines
    how = "measured on B, AVX2, AMX, 2 cores by `python -m benchmarks`, 0 minutes."
    assert f"Column B, AMX: {how}" in lines


def test_parts_can_be_run_alone(files, monkeypatch):
    called = []

    def run_part(*command, timeout):
        called.append(command)
        return {}

    monkeypatch.setattr(benchmarks, "run_part", run_part)
    assert benchmarks.main(["growth", "training"]) == 0
    assert called == [benchmarks.PARTS["growth"], benchmarks.PARTS["training"]]
    with pytest.raises(SystemExit):
        benchmarks.main(["speed"])


def test_every_part_has_a_module():
    for module, *_ in benchmarks.PARTS.values():
        assert importlib.util.find_spec(module) is not None


def test_tables_are_what_the_results_say(tmp_path):
    file = measure.FOLDER / "results.json"
    results = json.loads(file.read_text()) if file.is_file() else None
    if results is None:
        assert "| to reach |" not in README
        return
    copy = tmp_path / "README.md"
    copy.write_text(README, encoding="utf-8")
    table.update_readme(results, table.others(), copy)
    assert copy.read_text(encoding="utf-8") == README


def test_tables_are_replaced_and_the_text_stays(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(README, encoding="utf-8")
    for milliseconds in 1.0, 2.0:
        results = {
            "machine": "a machine",
            "command": "python -m benchmarks",
            "profile": {"step": {"whole": milliseconds}, "search": {"whole": 3.0, "other": 1.0}},
        }
        table.update_readme(results, path=copy)
    lines = copy.read_text(encoding="utf-8").splitlines()
    assert "| whole | 2.0 | 3.0 |" in lines
    assert "| other |  | 1.0 |" in lines
    assert not any("| whole | 1.0" in line for line in lines)
    assert [line for line in README.splitlines() if not line.startswith("|")][:9] == lines[:9]


def test_a_part_that_fails_is_told_of():
    with pytest.raises(RuntimeError, match=r"benchmarks\.nothing failed"):
        measure.run_part("benchmarks.nothing", timeout=60)


# What is measured


def test_rounds_are_in_turns_and_summarised():
    order = []
    functions = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = measure.in_turns(functions, 3, warmup=1)
    assert "".join(order) == "ab" + "ab" * 3
    assert {name: values.shape for name, values in seconds.items()} == {"a": (3,), "b": (3,)}
    assert measure.spread(np.arange(11)) == {"median": 5.0, "low": 1.0, "high": 9.0}


def test_flops_are_those_of_the_matrix_products():
    one = sizes.Sizes(1, 1, 1, vocabulary_size=7, num_regions=3, feature_dim=5, width=2)
    keys, initial, context = 3 * 5 * 2, 5 * 4, 3 * 5
    lstm = 2 * 8 + 2 * 11 + 5 * 8
    rest = 3 * 2 + 2 * 2 + 5 * 2 + 2 * 7
    assert one.flops() == 2 * (2 * (keys + initial + context) + 3 * (lstm + rest))


def test_training_compares_side_by_side(monkeypatch):
    steps = []

    def train_step(of, precision="float32"):
        steps.append((of, precision))
        return lambda: None

    monkeypatch.setattr(training, "train_step", train_step)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no PyTorch
    found = training.side_by_side(2, training.SMALL)
    assert len(steps) == 4
    assert all(is_spread(value) for value in found.pop("captions_per_second").values())
    assert found.keys() >= {"training_vs_roofline", "training_low_precision_speedup"}
    assert all(map(is_spread, found.values()))


@needs_torch
def test_training_is_compared_with_pytorch(monkeypatch):
    monkeypatch.setattr(training, "train_step", lambda *args: lambda: None)
    found = training.side_by_side(1, training.SMALL)
    assert is_spread(found["training_vs_pytorch"])
    assert is_spread(found["training_vs_pytorch_without_sharing"])


@needs_torch
@pytest.mark.parametrize("options", [{}, {"tie_embeddings": True, "normalize_annotations": True}])
def test_the_loop_finds_the_same_captions(options):
    keras.utils.set_random_seed(2)
    captioner = Captioner(Config.tiny().replace(max_length=4, beam_size=5, **options), TOKENIZER)
    generator = np.random.default_rng(2)
    for variable in captioner.trainable_variables:
        variable.assign(generator.normal(scale=0.8, size=variable.shape))
    annotations = generator.normal(size=(12, 4, 8)).astype("float32")
    expected = [caption.text for caption in captioner.caption(annotations=annotations)]
    assert len(set(expected)) > 3
    assert searching.loop(captioner, annotations)["texts"] == expected


@needs_torch
def test_the_loop_knows_what_it_does_not_know():
    captioner = Captioner(Config.tiny().replace(use_word_query=True), TOKENIZER)
    with pytest.raises(ValueError, match=r"with such a decoder\. Received: "):
        searching.loop(captioner, np.zeros((1, 4, 8), "float32"))


def test_share_of_same_captions():
    assert searching.share_of_same(["a", "b", "c"], ["a", "c"]) == 0.5


def test_growth_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "FIGURE", tmp_path / "growth.svg")
    series = {10: 1.0, 20: 2.0}
    growth.plot(dict.fromkeys([*growth.LABELS, "memory"], series))
    assert "<svg" in growth.FIGURE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("model/while/body/_1/Tensordot/MatMul:_MklMatMul", "matrix products"),
        ("model/key/Tensordot/BatchMatMulV2:BatchMatMulV2", "matrix products"),
        ("CpuExecutable::ExecuteAsyncOnStream", "compiled loops"),
        ("model/while/concat:ConcatV2", "moving memory"),
        ("model/TopKV2:TopKV2", "softmax, top k"),
        ("model/add:AddV2", "other operations"),
        ("ExecutorState::Process", None),
        ("EagerLocalExecute: __inference_step_20", None),
        ("multiply_exponential_fusion", None),
    ],
)
def test_profile_tells_operations_apart(event, kind):
    assert profile.kind(event) == kind


@pytest.mark.integration
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_accelerator_runs_without_tensorflow():
    script = (
        "import sys; sys.modules['tensorflow'] = sys.modules['torch'] = None\n"
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name, find=importlib.util.find_spec: "
        "None if name == 'torch' else find(name)\n"
        "from benchmarks import accelerator; accelerator.main(['--small', '--rounds', '1'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=measure.REPOSITORY,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles sooner
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    found = json.loads(done.stdout)
    assert found["small"].keys() == {"float32", "bfloat16"}
    for precision in found["small"].values():
        assert all(map(is_spread, precision.values()))


def test_the_interval_of_versions_holds_the_median():
    low, high = versions.interval(np.array([0.9, 1.0, 1.0, 1.1, 1.2]))
    assert 0.9 <= low <= 1.0 <= high <= 1.2


def test_a_version_that_does_not_run_is_named(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise SystemExit('broken')")
    with pytest.raises(RuntimeError, match=f"does not run. Received: {tmp_path}"):
        versions.start(tmp_path)


@pytest.mark.integration
def test_a_worker_runs_blocks_until_it_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(versions, "SAMPLE", tmp_path / "pictures.npy")
    np.save(versions.SAMPLE, np.ones((2, 196, 512), "float32"))
    small = {"pictures": 2, "captions": 2, "steps": 3, "vocabulary_size": 9, "width": 2}
    worker = versions.start(versions.REPOSITORY, small, dict.fromkeys(versions.REPEATS, 1))
    for kind in versions.REPEATS:
        versions.block(worker, kind)()
    with pytest.raises(RuntimeError, match="does not run. Received: nothing"):
        versions.block(worker, "nothing")()
    worker.communicate()
