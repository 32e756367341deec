"""Exports run without this package and give the captioner's captions."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras import Captioner, beam_search
from sat_keras.cli import main

BEAMS = 2
PROGRAM = """
import json, sys
import numpy as np
import tensorflow as tf
sys.modules["sat_keras"] = None
pictures = np.load(sys.argv[2])
served = tf.saved_model.load(sys.argv[1])
found = served.serve(pictures)
print(json.dumps({
    "sentence": [x.decode() for x in found["sentence"].numpy()],
    "words": [[w.decode() for w in row] for row in found["words"].numpy()],
    "attention": found["attention"].numpy().tolist(),
    "gate": found["gate"].numpy().tolist(),
}))
"""

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports of TensorFlow"),
]


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(1).integers(0, 256, (2, 20, 24, 3)).astype("uint8")


@pytest.fixture(scope="module")
def expected(pixel_captioner, pictures):
    captions = pixel_captioner.caption(list(pictures))
    assert any(caption.words for caption in captions)
    return captions


@pytest.fixture(scope="module")
def model(pixel_captioner, tmp_path_factory):
    """The folder of the captioner, as commands read it."""
    folder = tmp_path_factory.mktemp("model")
    return str(pixel_captioner.save_to_preset(folder, encoder_weights=None))


def test_a_saved_model_needs_no_sat_keras(pixel_captioner, pictures, expected, tmp_path):
    pixel_captioner.export(tmp_path / "exported")
    np.save(tmp_path / "pictures.npy", pictures)
    program = [sys.executable, "-c", PROGRAM, tmp_path / "exported", tmp_path / "pictures.npy"]
    output = subprocess.run(program, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    found = json.loads(output.stdout)
    assert found["sentence"] == [caption.text for caption in expected]
    for row, caption in enumerate(expected):
        count = len(caption.words)
        assert found["words"][row][:count] == caption.words
        assert set(found["words"][row][count:]) <= {""}
        np.testing.assert_allclose(found["attention"][row][:count], caption.attention, atol=1e-5)
        np.testing.assert_allclose(found["gate"][row][:count], caption.gate, atol=1e-5)


def onnx_runtime(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]

    def run(inputs):
        named = {f"args_0_{name}": x for name, x in inputs.items()}
        feed = named if len(named) > 1 else {session.get_inputs()[0].name: inputs["images"]}
        return dict(zip(names, session.run(None, feed), strict=True))

    return run


def litert_runtime(path):
    import tensorflow as tf

    signature = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    names = list(signature.get_input_details())

    def run(inputs):  # in alphabetical order: args_0, args_0_1, ...
        return signature(**dict(zip(names, (inputs[k] for k in sorted(inputs)), strict=True)))

    return run


@pytest.mark.parametrize(
    ("format", "suffix", "runtime", "package"),
    [
        ("onnx", ".onnx", onnx_runtime, "tf2onnx"),
        ("litert", ".tflite", litert_runtime, "tensorflow"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_encoder_and_step_run_in_their_own_runtime(
    pixel_captioner, model, pictures, expected, tmp_path, format, suffix, runtime, package
):
    """Exported by the command line."""
    pytest.importorskip(package)
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    assert main(["export", model, str(tmp_path / "exported"), "--format", format]) == 0
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {
        *(f"start{suffix}", f"step{suffix}", "vocabulary.json")
    }
    words = json.loads((tmp_path / "exported" / "vocabulary.json").read_text())
    start, step = (
        runtime(str(tmp_path / "exported" / f"{name}{suffix}")) for name in ("start", "step")
    )
    for picture, caption in zip(pictures, expected, strict=True):
        resized = ops.convert_to_numpy(pixel_captioner.encoder.resize_images(picture)).astype(
            "uint8"
        )
        first = start({"images": resized[None]})
        fixed = {name: first[name] for name in ("annotations", "keys")}

        def advance(token_ids, states, fixed=fixed):
            beams = token_ids.shape[1]
            inputs = {"token_ids": token_ids, **states}
            inputs = {
                name: np.repeat(ops.convert_to_numpy(x), BEAMS // beams, axis=1)
                for name, x in inputs.items()
            }
            inputs["token_ids"] = inputs["token_ids"].astype("int32")
            found = {k: x[:, :beams] for k, x in step({**inputs, **fixed}).items()}
            states = {name: ops.convert_to_tensor(found[name]) for name in ("hidden", "cell")}
            return ops.convert_to_tensor(found["log_probabilities"]), states, {}

        result = beam_search(
            advance,
            {name: ops.convert_to_tensor(first[name]) for name in ("hidden", "cell")},
            start_id=words["start"],
            end_id=words["end"],
            max_length=pixel_captioner.config.max_length + 1,
            beam_size=words["beams"],
            length_penalty=pixel_captioner.config.length_penalty,
            forbidden_ids=words["forbidden"],
        )
        ids = ops.convert_to_numpy(result.token_ids)[0, 0]
        said = [words["words"][i] for i in ids if words["words"][i] and i != words["end"]]
        assert said == caption.words


def test_what_cannot_be_exported_is_refused(pixel_captioner, tmp_path):
    with pytest.raises(ValueError, match="format.*Received"):
        pixel_captioner.export(tmp_path / "exported", format="coreml")
    without = Captioner(pixel_captioner.config, pixel_captioner.tokenizer)
    with pytest.raises(ValueError, match=r"encoder.*Received"):
        without.export(tmp_path / "exported")


def test_the_command_line_exports_a_saved_model_into_a_new_folder(model, tmp_path):
    command = ["export", model, str(tmp_path / "saved_model"), "--format", "saved_model"]
    assert main(command) == 0
    assert main(command) == 2  # not empty
    import tensorflow as tf

    assert tf.saved_model.contains_saved_model(tmp_path / "saved_model")
