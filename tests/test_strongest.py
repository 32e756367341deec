"""The strongest PyTorch peers of the benchmarks compute what sat_keras computes."""

import keras
import numpy as np
import pytest
from gradients import numpy, outputs_and_weight_gradients

from benchmarks import searching, training
from benchmarks.sizes import Sizes
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner

pytestmark = pytest.mark.integration  # tracing by PyTorch takes tens of seconds

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
strongest = pytest.importorskip("benchmarks.strongest")
strongest_search = pytest.importorskip("benchmarks.strongest_search")

SIZES = Sizes(2, 3, 4, vocabulary_size=11, num_regions=4, feature_dim=5, width=6)
OPTIONS = {
    "plain": {},
    "as committed": {"tie_embeddings": True, "normalize_annotations": True},
}
# `aot_eager` traces the function and its gradient as `inductor` does, and compiles nothing.
BACKENDS = [None, "aot_eager"]


def drawn(captioner, scale, seed=3):
    """Gives all weights random values, biases included."""
    generator = np.random.default_rng(seed)
    for variable in captioner.trainable_variables:
        variable.assign(generator.normal(scale=scale, size=variable.shape))
    return captioner


@pytest.fixture(scope="module", params=OPTIONS)
def captioner(request):
    config = SIZES.config().replace(dropout=0.0, **OPTIONS[request.param])
    return drawn(Captioner(config), 0.5)


def ours(captioner):
    """Outputs, loss and gradients by variable path."""
    annotations, inputs, targets = map(keras.ops.convert_to_tensor, SIZES.batch())
    x = {"annotations": annotations, "token_ids": inputs}

    def loss():
        found = captioner(x, training=True)
        value = captioner.compute_loss(x, targets, found)
        return value, (found["logits"], found["attention_weights"], value)

    outputs, gradients = outputs_and_weight_gradients(captioner, loss)
    logits, weights, value = map(numpy, outputs)
    return logits, weights, float(value), {path: numpy(x) for path, x in gradients.items()}


def gradients_of(decoder):
    """The peer's gradients by the names of our variables, in our layout."""
    rows = decoder.of_hidden.weight.grad.split(decoder.widths)
    names = ("query_projection/kernel", "lstm_hidden/kernel", "gate/kernel")
    found = {name: part.T for name, part in zip(names, rows, strict=True)}
    found["gate/bias"] = decoder.gate_bias.grad
    found["score_vector/kernel"] = decoder.score.grad
    found["embedding/embeddings"] = decoder.embedding.weight.grad
    for name, layer in (
        *(("key_projection", decoder.keys), ("lstm_embedding", decoder.of_word)),
        *(("lstm_context", decoder.of_context), ("output_hidden", decoder.output_hidden)),
        *(("output_context", decoder.output_context), ("output_words", decoder.words)),
        *((name, getattr(decoder, name)) for name in ("initial_hidden", "initial_cell")),
    ):
        found[f"{name}/kernel"] = layer.weight.grad.T
        if layer.bias is not None:
            found[f"{name}/bias"] = layer.bias.grad
    return {name: gradient.numpy() for name, gradient in found.items()}


def the_strongest(captioner, backend):
    """The peer's outputs, loss and decoder after a backward pass."""
    decoder = strongest.Decoder(captioner.decoder)
    annotations, inputs, targets = map(torch.as_tensor, SIZES.batch())
    inputs, targets = inputs.long(), targets.long()
    loss_of = strongest.loss_of
    if backend:
        loss_of = torch.compile(loss_of, backend=backend, dynamic=False)
    loss = loss_of(decoder, annotations, inputs, targets)
    loss.backward()
    logits, weights = decoder(annotations, inputs)
    return logits.detach().numpy(), weights.detach().numpy(), loss.item(), decoder


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_and_gradients_are_ours(captioner, backend):
    logits, weights, loss, gradients = ours(captioner)
    its_logits, its_weights, its_loss, decoder = the_strongest(captioner, backend)
    np.testing.assert_allclose(its_logits, logits, atol=1e-4)
    np.testing.assert_allclose(its_weights, weights, atol=1e-4)
    assert its_loss == pytest.approx(loss, rel=1e-5)
    found = gradients_of(decoder)
    for path, gradient in gradients.items():
        (name,) = (name for name in found if path.endswith(name))
        assert np.abs(gradient).max() > 1e-6
        np.testing.assert_allclose(
            found[name].reshape(gradient.shape), gradient, atol=1e-4, err_msg=path
        )


def test_in_bfloat16_the_loss_is_near(captioner):
    _, _, loss, _ = ours(captioner)
    decoder = strongest.Decoder(captioner.decoder)
    annotations, inputs, targets = map(torch.as_tensor, SIZES.batch())
    with torch.autocast("cpu", torch.bfloat16):
        found = strongest.loss_of(decoder, annotations, inputs.long(), targets.long())
    assert found.item() == pytest.approx(loss, rel=0.02)
    assert found.item() != pytest.approx(loss, rel=1e-6)


def test_a_step_trains(captioner):
    step = strongest.train_step(SIZES, captioner)
    losses = [step() for _ in range(4)]
    assert losses == sorted(losses, reverse=True)


def test_training_is_compared_with_the_strongest(monkeypatch):
    monkeypatch.setattr(training, "train_step", lambda *args: lambda: None)
    found = training.against_the_strongest(2, training.SMALL, "aot_eager")
    assert found["captions_per_second_strongest"].keys() >= {
        *("float32", "bfloat16", "strongest_eager_float32", "strongest_compiled_bfloat16")
    }
    for name in ("training_vs_strongest", "training_vs_strongest_bfloat16"):
        assert found[name]["low"] <= found[name]["median"] <= found[name]["high"]


# Search


TOKENIZER = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "red", "circle"])


@pytest.mark.parametrize("options", OPTIONS)
def test_the_captions_are_ours(options, monkeypatch):
    config = Config.tiny().replace(max_length=4, beam_size=5, **OPTIONS[options])
    captioner = drawn(Captioner(config, TOKENIZER), 0.8, seed=2)
    annotations = np.random.default_rng(2).normal(size=(24, 4, 8)).astype("float32")
    expected = [caption.text for caption in captioner.caption(annotations=annotations)]
    assert len(set(expected)) > 3
    assert len({len(text.split()) for text in expected}) > 2  # some pictures leave the batch
    monkeypatch.setattr(searching, "BATCH", 16)  # and the last batch is smaller
    found = searching.strongest_alone(captioner, annotations, "aot_eager")
    assert found["texts"] == {"eager": expected, "compiled": expected}
