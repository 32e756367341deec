"""Every captioning model through the whole training: one epoch, saved, loaded, captioned."""

import keras
import numpy as np
import pytest
from gradients import numpy

from sat_keras.baselines import PictureCaptioner
from sat_keras.baselines.systems import SYSTEMS, system_of
from sat_keras.config import Config
from sat_keras.data.extraction import extract_features
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.datasets import load_dataset
from sat_keras.training import captioning, load_pretrained, train_captioner
from sat_keras.training.captioning import annotate_pictures, caption_pictures
from sat_keras.training.pretrained import copy_captioner, make_encoder, save_pretrained

PICTURES = {"train": 2, "dev": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The captions table, the encoder and the config of all trainings, and their folder."""
    folder = tmp_path_factory.mktemp("systems")
    table = load_dataset("scenes", folder / "data", num_images={**PICTURES, "test": 0})
    config = Config.tiny().replace(epochs=1, max_length=3, beam_size=2, length_penalty=9.0)
    encoder = make_encoder(config, None)
    config = config.replace(grid_shape=encoder.grid_shape, feature_dim=encoder.feature_dim)
    return table, encoder, config, folder


@pytest.fixture(scope="module", params=SYSTEMS)
def trained(request, data):
    """The captioner of a finished training, and the moments that it standardises pictures by."""
    table, encoder, config, folder = data
    config, out = config.replace(system=request.param), folder / request.param
    log = train_captioner(config, table, encoder, out, features=folder / "features", verbose=0)
    assert len(log) == 1
    assert np.isfinite(log["cross_entropy"]).all()
    captioner = load_model(out)
    assert type(captioner) is SYSTEMS[request.param]
    moments = None
    if isinstance(captioner, PictureCaptioner):  # a test changes the weights
        standardize = captioner.standardize
        moments = [numpy(x) for x in (standardize.moving_mean, standardize.moving_variance)]
    return captioner, moments


@pytest.fixture(scope="module")
def source(data):
    """The annotation vectors of all pictures."""
    table, encoder, _, folder = data
    return extract_features(table, encoder, folder / "features")


def load_model(folder):
    return keras.saving.load_model(folder / "model.keras", compile=False)


def texts(captioner, data, source):
    table = data[0]
    image_ids = table.loc[table["split"] == "dev", "image_id"].unique()
    return [caption.text for caption in caption_pictures(captioner, source, image_ids)]


@pytest.mark.integration
def test_a_shared_captioner_says_the_same(trained, data, source, tmp_path):
    captioner, _ = trained
    generator = np.random.default_rng(1)
    for weight in captioner.own_weights:  # sentences that differ between pictures
        values = generator.normal(size=weight.shape).astype("float16")
        weight.assign(np.abs(values) if weight.path.endswith("variance") else values)
    save_pretrained(captioner, tmp_path / "shared")
    loaded = load_pretrained(tmp_path / "shared", encoder=False)
    assert type(loaded) is type(captioner)
    expected = texts(captioner, data, source)
    assert any(expected)
    assert texts(loaded, data, source) == expected


@pytest.mark.integration
def test_all_batches_of_a_search_have_one_size(trained, data, source, monkeypatch):
    """Pictures repeat in the last one, since another size would be compiled anew."""
    captioner, _ = trained
    image_ids = data[0]["image_id"].unique()
    expected = [caption.text for caption in caption_pictures(captioner, source, image_ids)]
    sizes, make = [], captioning.search_inputs

    def counted(*arguments, **options):
        batches = make(*arguments, **options)
        sizes.extend(len(next(iter(batch.values()))) for batch in batches)
        return batches

    monkeypatch.setattr(captioning, "search_inputs", counted)
    monkeypatch.setattr(captioning, "SEARCH_BATCH", 3)
    found = [caption.text for caption in caption_pictures(captioner, source, image_ids)]
    assert (found, sizes) == (expected, [3, 3])


@pytest.mark.integration
def test_a_picture_vector_is_standardised_over_the_train_pictures(trained, data, source):
    captioner, moments = trained
    if moments is None:
        return
    table = data[0]
    image_ids = table.loc[table["split"] == "train", "image_id"].unique()
    means = annotate_pictures(captioner, source, image_ids).mean(axis=1)
    np.testing.assert_allclose(moments[0], means.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(moments[1], means.var(axis=0), atol=1e-5)


@pytest.mark.integration
def test_captions_have_maps_only_where_the_model_attends(trained, data, source):
    captioner, _ = trained
    found = captioner.caption(annotations=annotate_pictures(captioner, source, ["dev-00000"]))[0]
    if captioner.config.system == "show-attend-tell":
        assert found.attention.shape == (len(found.words), *data[2].grid_shape)
    else:
        assert found.attention is None
        assert found.gate is None
    assert found.sentence in found._repr_html_()


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"show-attend-tell"}))
def test_a_copy_has_the_options_of_the_model(system):
    config = Config.tiny().replace(system=system)
    kind = system_of(config)
    other = {True: False, False: True}
    model = kind(config, Tokenizer.from_captions(["a red circle"]))
    options = {name: getattr(model, name) for name in model.option_names}
    options = {
        name: other[x] if isinstance(x, bool) else (x or 2) + 1 for name, x in options.items()
    }
    model = kind(config, Tokenizer.from_captions(["a red circle"]), **options)
    copy = copy_captioner(model, None, "float16")
    assert {name: getattr(copy, name) for name in copy.option_names} == options
    for mine, its in zip(copy.own_weights, model.own_weights, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-3, atol=1e-3)


def test_the_config_names_every_system():
    assert set(SYSTEMS) == set(Config.__dataclass_fields__["system"].metadata["check"].choices)
    with pytest.raises(ValueError, match="system.*Received"):
        Config().replace(system="neural-talk")


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_attention_is_supervised_where_there_is_some(system):
    config = Config.tiny().replace(system=system, grounding_weight=0.5)
    if system == "show-attend-tell":
        assert system_of(config) is SYSTEMS[system]
    else:
        with pytest.raises(ValueError, match=f"show-attend-tell.*Received: system='{system}'"):
            system_of(config)
