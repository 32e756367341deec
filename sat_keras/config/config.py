"""`Config`: model, training and search in one frozen object."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

from sat_keras.config.model import ModelConfig
from sat_keras.config.presets import (
    FINETUNE,
    FLICKR8K,
    PAPER_COCO,
    SCENES,
    SELF_CRITICAL,
    TINY,
)
from sat_keras.config.search import SearchConfig
from sat_keras.config.training import TrainingConfig


# A dataclass collects the fields of its last base first: model, training, search.
@dataclasses.dataclass(frozen=True)
class Config(SearchConfig, TrainingConfig, ModelConfig):
    """Sizes, training and search of a captioner.

    A frozen dataclass of plain values. It is saved in a model's file and in a result's JSON, and
    each field is an option of the command line (`--hidden-dim 512`). `ModelConfig`,
    `TrainingConfig` and `SearchConfig` declare and describe the fields; access to them is flat.
    Start from a preset (`tiny`, `scenes`, `flickr8k`, `finetune`, `self_critical`, `paper_coco`)
    and change fields with `replace`.

    Args:
        **fields: Fields of `ModelConfig`, `TrainingConfig` and `SearchConfig`.

    Raises:
        ValueError: If a field has an impossible value. The message says what is possible.

    Example:

    >>> config = Config.flickr8k().replace(hidden_dim=256)
    >>> config == Config.from_json(config.to_json())
    True
    """

    def __post_init__(self) -> None:
        grid_shape: Any = self.grid_shape
        if isinstance(grid_shape, list):  # JSON has no tuples
            object.__setattr__(self, "grid_shape", tuple(grid_shape))
        for field in dataclasses.fields(self):
            check, value = field.metadata["check"], getattr(self, field.name)
            if not check.accepts(value):
                raise ValueError(
                    f"`{field.name}` must be {check.expected}. Received: {field.name}={value!r}"
                )

    def replace(self, **changes: Any) -> "Config":
        """Returns a copy with some fields changed.

        Args:
            **changes: Fields and their new values.

        Raises:
            ValueError: If there is no such field; the message names similar ones, and all of them.
        """
        names = [field.name for field in dataclasses.fields(self)]
        unknown = sorted(set(changes) - set(names))
        if unknown:
            similar = [near for x in unknown for near in difflib.get_close_matches(x, names, n=1)]
            question = f" Did you mean {' or '.join(similar)}?" if similar else ""
            raise ValueError(
                f"Expected fields of Config: {', '.join(names)}.{question} Received: {unknown}"
            )
        return dataclasses.replace(self, **changes)

    def with_precision(self, precision: str) -> "Config":
        """Returns a copy that trains in a precision and reads the same cache as before.

        Args:
            precision: Keras dtype policy, instead of `"auto"`.
        """
        return self.replace(precision=precision, encoder_precision=self.frozen_precision)

    @property
    def encoder_options(self) -> dict[str, Any]:
        """Arguments of `ImageEncoder` beside the CNN, its weights and the dtype."""
        return {
            "layer": self.encoder_layer,
            "resize": self.resize,
            "image_size": self.image_size,
            "trainable": self.encoder_trainable,
            "name": "encoder",
        }

    @property
    def decoder_options(self) -> dict[str, Any]:
        """Arguments of `AttentionDecoder` that are fields of the same name."""
        names = (
            *("embedding_dim", "hidden_dim", "attention_dim", "dropout", "embedding_dropout"),
            *("annotation_dropout", "initial_dim", "use_gate", "use_deep_output"),
            *("use_output_tanh", "tie_embeddings", "normalize_annotations", "use_word_query"),
        )
        return {name: getattr(self, name) for name in names}

    @property
    def hard_attention_options(self) -> dict[str, Any]:
        """Arguments of `HardAttention`."""
        return {
            "samples": self.attention_samples,
            "expected_probability": self.expected_probability,
            "expected_per": self.expected_per,
            "inference": self.context,
            "seed": self.seed,
        }

    @property
    def reinforce_options(self) -> dict[str, Any]:
        """Arguments of `Reinforce`."""
        names = ("score_weight", "entropy_weight", "reward", "baseline")
        return {"samples": self.attention_samples} | {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a flat dictionary of values that JSON knows."""
        return {**dataclasses.asdict(self), "grid_shape": list(self.grid_shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Makes a `Config` from the result of `to_dict`.

        Args:
            values: Fields and their values. A missing field takes its default, except `full_stop`:
                the captioners of versions without that field do not write one.

        Raises:
            ValueError: If there is an unknown field, as in a file of a newer version.
        """
        return cls().replace(**{"full_stop": False, **values})

    def to_json(self) -> str:
        """Returns the fields as a JSON string."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Makes a `Config` from the result of `to_json`."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def tiny(cls) -> "Config":
        """Returns the smallest sensible model, for tests and for trying things out."""
        return cls(**TINY)

    @classmethod
    def scenes(cls) -> "Config":
        """Returns the model of the drawn scenes: a small CNN, trained with the decoder."""
        return cls(**SCENES)

    @classmethod
    def flickr8k(cls) -> "Config":
        """Returns the model of the committed Flickr8k results: frozen VGG16, soft attention."""
        return cls(**FLICKR8K)

    @classmethod
    def finetune(cls) -> "Config":
        """Returns the Flickr8k model, trained on from its weights on a few photos of one's own."""
        return cls(**FINETUNE)

    @classmethod
    def self_critical(cls) -> "Config":
        """Returns the Flickr8k model, trained on from its weights on CIDEr-D."""
        return cls(**SELF_CRITICAL)

    @classmethod
    def paper_coco(cls) -> "Config":
        """Returns the sizes of the authors' COCO script: LSTM 1800, VGG19, 10,000 words."""
        return cls(**PAPER_COCO)
