"""The config: what it refuses, what it keeps, and that it survives JSON."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sat_keras.config import Config, ModelConfig, SearchConfig, TrainingConfig
from sat_keras.config.fields import AMOUNT, AMOUNT_OR_NONE, FLAG_OR_NAME

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
CHECKS = {name: field.metadata["check"] for name, field in FIELDS.items()}
CHOICES = {
    name: check.choices
    for name, check in CHECKS.items()
    if check.choices and check.expected.startswith("one of")
}

PRESETS = ("tiny", "scenes", "flickr8k", "finetune", "paper_coco")

counts = st.integers(1, 10_000)
shares = st.floats(0, 1, exclude_max=True)
amounts = st.floats(0, 1e6)
names = st.text(max_size=20)
VALUES = {
    **dict.fromkeys(("encoder", "precision"), names),
    **dict.fromkeys(("encoder_layer", "encoder_precision"), st.none() | names),
    "grid_shape": st.tuples(counts, counts),
    **dict.fromkeys(("vocabulary_size", "initial_dim"), st.none() | counts),
    **{name: st.sampled_from(choices) for name, choices in CHOICES.items()},
    "seed": st.integers(0, 2**31),
}
BY_TYPE = {bool: st.booleans(), int: counts, float: shares}
for _name, _field in FIELDS.items():
    VALUES.setdefault(_name, BY_TYPE.get(_field.type))
    if CHECKS[_name] is AMOUNT:
        VALUES[_name] = amounts
    if CHECKS[_name] is AMOUNT_OR_NONE:
        VALUES[_name] = st.none() | amounts
    if CHECKS[_name] is FLAG_OR_NAME:
        VALUES[_name] = st.booleans() | names.filter(str.strip)


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_survives_json(changes):
    config = Config().replace(**changes)
    copy = Config.from_json(config.to_json())
    assert copy == config
    assert hash(copy) == hash(config)
    assert isinstance(copy.grid_shape, tuple)
    for name, value in changes.items():
        assert getattr(copy, name) == value


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_sound(preset):
    config = getattr(Config, preset)()
    assert Config.from_json(config.to_json()) == config
    assert config.num_regions == math.prod(config.grid_shape)
    assert config.dropout < 1
    assert all(getattr(config, name) in choices for name, choices in CHOICES.items())


def test_presets_are_the_papers_where_they_say_so():
    paper = Config.paper_coco()
    assert (paper.embedding_dim, paper.hidden_dim, paper.attention_dim) == (512, 1800, 512)
    assert (paper.encoder, paper.resize, paper.grid_shape) == ("VGG19", "crop", (14, 14))
    assert (paper.vocabulary_size, paper.batch_size, paper.group) == (10_000, 64, "length")
    assert (paper.penalty_weight, paper.penalty_target) == (1.0, "one")
    assert paper.use_gate
    assert Config.flickr8k().encoder == "VGG16"
    assert Config.scenes().encoder == "scenes"


def test_replace_leaves_the_original():
    config = Config.tiny()
    other = config.replace(hidden_dim=5, grid_shape=[3, 2])
    assert (other.hidden_dim, other.num_regions, config.hidden_dim) == (5, 6, 8)
    assert other.replace(hidden_dim=8, grid_shape=(2, 2)) == config


def test_each_field_is_declared_and_described_once():
    parts = (ModelConfig, TrainingConfig, SearchConfig)
    names = [field.name for part in parts for field in dataclasses.fields(part)]
    assert names == list(FIELDS) == list(Config().to_dict())
    for name, field in FIELDS.items():
        assert field.metadata["description"].endswith("."), name
        assert CHECKS[name].accepts(field.default), name


@pytest.mark.parametrize("kind", ["pretrained", "results"])
def test_committed_files_load(kind, repository):
    paths = list((repository / kind).glob("*/config.json" if kind == "pretrained" else "*.json"))
    configs = [json.loads(path.read_text(encoding="utf-8")).get("config", {}) for path in paths]
    models = [values for values in configs if "hidden_dim" in values]
    assert models
    for values in models:
        # A field that is younger than the file has its default, `full_stop` what was before it.
        expected = {**Config().to_dict(), "full_stop": False, **values}
        assert Config.from_dict(values).to_dict() == expected


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().hidden_dim = 3


def test_unknown_fields_are_named_beside_the_known():
    with pytest.raises(ValueError, match=r"encoder, .*hidden_dim.*Received: \['hiden_dim'\]"):
        Config().replace(hiden_dim=3)
    with pytest.raises(ValueError, match=r"Did you mean hidden_dim\?"):
        Config().replace(hiden_dim=3)
    with pytest.raises(ValueError, match=r"Received: \['from_the_future'\]"):
        Config.from_dict({**Config().to_dict(), "from_the_future": 1})


def test_missing_fields_take_their_defaults():
    assert Config.from_dict({"hidden_dim": 3, "full_stop": True}) == Config(hidden_dim=3)


def test_captioners_of_versions_without_the_field_write_no_full_stop():
    assert Config().full_stop
    assert Config.from_dict({}) == Config(full_stop=False)


IMPOSSIBLE = [
    *[{name: "no such"} for name in CHOICES],
    *[{name: value} for name in ("hidden_dim", "batch_size") for value in (0, -3, 2.5, "8", True)],
    {"hidden_dim": None},
    {"vocabulary_size": 0},
    {"initial_dim": -1},
    *[{"dropout": value} for value in (1.0, -0.1, math.nan, "0.5", None)],
    {"label_smoothing": 1.5},
    {"ema_momentum": 1},
    *[{"learning_rate": value} for value in (-1e-3, math.nan, math.inf, "1e-3")],
    *[{name: -1.0} for name in ("penalty_weight", "clip_norm", "weight_decay", "length_penalty")],
    *[{"grid_shape": value} for value in (4, (4,), (1, 2, 3), (0, 4), (2.0, 2), "22")],
    {"use_gate": "no"},
    {"encoder": None},
    {"encoder_layer": 3},
    *[{"encoder_trainable": value} for value in ("", " ", None, 1)],
    {"encoder_learning_rate": -1},
    {"seed": -1},
    {"seed": 0.5},
]


@pytest.mark.parametrize("change", IMPOSSIBLE, ids=str)
def test_impossible_values_are_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=rf"`{name}` .*must .*Received: {name}="):
        Config.tiny().replace(**change)
