"""Ensembles against their members, and against NumPy means of the members' probabilities."""

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras import Captioner, Config, Tokenizer, load_pretrained
from sat_keras.baselines.recurrent import InitInject
from sat_keras.captioning.ensemble import Ensemble

TOKENIZER = Tokenizer.from_captions(["a red circle", "a blue square is small"])
CONFIG = Config.tiny().replace(grid_shape=(2, 3), feature_dim=4, max_length=4, beam_size=3)
ANNOTATIONS = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
TOKEN_IDS = np.array([[[2, 4, 5]], [[2, 6, 4]], [[2, 7, 8]]], "int32")
INPUTS = {"annotations": ANNOTATIONS, "token_ids": TOKEN_IDS}


def make(seed=0, kind=Captioner, config=CONFIG, tokenizer=TOKENIZER):
    captioner = kind(config, tokenizer)
    captioner(INPUTS)
    generator = np.random.default_rng(seed)
    for weight in captioner.trainable_variables:
        weight.assign(generator.normal(size=weight.shape, scale=0.7))
    return captioner


def softmax(logits):
    x = np.exp(ops.convert_to_numpy(logits).astype("float64"))
    return x / x.sum(axis=-1, keepdims=True)


def test_an_ensemble_of_one_is_its_member():
    member = make()
    ensemble = Ensemble([member])
    mine, its = ensemble.caption(annotations=ANNOTATIONS), member.caption(annotations=ANNOTATIONS)
    for a, b in zip(mine, its, strict=True):
        assert a.text == b.text
        assert a.log_probability == pytest.approx(b.log_probability, abs=1e-5)
        np.testing.assert_allclose(a.attention, b.attention, atol=1e-6)
        np.testing.assert_allclose(a.gate, b.gate, atol=1e-6)
    found = ensemble(INPUTS)
    np.testing.assert_allclose(
        softmax(found["logits"]), softmax(member(INPUTS)["logits"]), atol=1e-6
    )


def test_probabilities_are_the_members_mean():
    members = [make(seed) for seed in range(3)]
    found = Ensemble(members)(INPUTS)
    outputs = [member(INPUTS) for member in members]
    mean = np.mean([softmax(output["logits"]) for output in outputs], axis=0)
    np.testing.assert_allclose(np.exp(ops.convert_to_numpy(found["logits"])), mean, rtol=1e-4)
    for name in ("attention_weights", "gate"):
        mean = np.mean([ops.convert_to_numpy(output[name]) for output in outputs], axis=0)
        np.testing.assert_allclose(ops.convert_to_numpy(found[name]), mean, atol=1e-6)


def test_a_searched_caption_has_the_probability_of_teacher_forcing():
    ensemble = Ensemble([make(1), make(2)])
    result = ensemble.search(ANNOTATIONS, beam_size=3)
    ids = ops.convert_to_numpy(result.token_ids)[:, :1]
    before = np.concatenate([np.full_like(ids[..., :1], 2), ids[..., :-1]], axis=-1)
    logits = ops.convert_to_numpy(
        ensemble({"annotations": ANNOTATIONS, "token_ids": before})["logits"]
    )
    log_p = np.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
    expected = np.where(ids > 0, log_p, 0).sum(axis=-1)[:, 0]
    found = ops.convert_to_numpy(result.log_probability)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_member_without_attention():
    ensemble = Ensemble([make(1), make(2, InitInject)])
    captions = ensemble.caption(annotations=ANNOTATIONS)
    assert all(caption.attention is None for caption in captions)
    assert ensemble.search(ANNOTATIONS).record == {}
    assert set(ensemble(INPUTS)) == {"logits"}


def test_it_is_saved_and_loaded(tmp_path):
    ensemble = Ensemble([make(1), make(2)])
    expected = ensemble.caption(annotations=ANNOTATIONS)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    assert [x.text for x in loaded.caption(annotations=ANNOTATIONS)] == [x.text for x in expected]


def test_trained_captioners_are_loaded_together(tmp_path):
    folders = []
    for seed in range(2):
        folders.append(make(seed).save_to_preset(tmp_path / str(seed)))
    loaded = load_pretrained(folders, encoder=False)
    expected = Ensemble([load_pretrained(folder, encoder=False) for folder in folders])
    np.testing.assert_allclose(
        ops.convert_to_numpy(loaded(INPUTS)["logits"]),
        ops.convert_to_numpy(expected(INPUTS)["logits"]),
        atol=1e-6,
    )


def test_members_that_do_not_fit():
    with pytest.raises(ValueError, match="one captioner or more. Received: none"):
        Ensemble([])
    with pytest.raises(ValueError, match="same `grid_shape`.*Received: "):
        Ensemble([make(), Captioner(CONFIG.replace(grid_shape=(3, 3)), TOKENIZER)])
    with pytest.raises(ValueError, match="one frozen encoder.*Received: "):
        Ensemble([make(), Captioner(CONFIG.replace(encoder_trainable=True), TOKENIZER)])
    with pytest.raises(ValueError, match="same vocabulary.*Received: "):
        Ensemble([make(), Captioner(CONFIG, Tokenizer.from_captions(["a dog"]))])


def test_it_is_not_trained():
    ensemble = Ensemble([make()])
    ensemble.compile("sgd")
    with pytest.raises(NotImplementedError, match="train its members"):
        ensemble.fit(INPUTS, TOKEN_IDS, verbose=0)
