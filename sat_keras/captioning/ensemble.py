"""Ensembles: several captioners that write one caption together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops, tree

from sat_keras.captioning.model import CaptionModel
from sat_keras.search.loop import PictureStep, StepFunction


@keras.saving.register_keras_serializable("sat_keras")
class Ensemble(CaptionModel):
    """Averages the word distributions of several captioners in one search.

    `p(y_t | y_1 .. y_{t-1}, a) = 1/M sum_m p_m(y_t | y_1 .. y_{t-1}, a)`

    The members read the same annotation vectors and words; each has its own states. Attention
    weights and gate of a caption are the means of the members', where all have them. The first
    member's config and encoder are those of the ensemble.

    Args:
        members: Captioners of one vocabulary and one frozen encoder.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: As of `Captioner`.

    Returns:
        Dictionary of `logits`, the logarithms of the mean probabilities, and, if all members have
        them, `attention_weights` and `gate`, in the shapes of `Captioner`.

    Raises:
        ValueError: If there is no member, or the members do not fit together.

    Example:

    >>> ensemble = Ensemble([load_pretrained("outputs/seed0"), load_pretrained("outputs/seed1")])
    >>> ensemble.generate("photo.jpg")
    'two dogs run through the grass'

    Reference:
        [Vinyals et al., 2015](https://arxiv.org/abs/1411.4555), section 4.3.
    """

    def __init__(self, members: Sequence[CaptionModel], **kwargs: Any) -> None:
        if not members:
            raise ValueError("An ensemble needs one captioner or more. Received: none")
        first = members[0]
        for member in members[1:]:
            _check_fit(first, member)
        super().__init__(first.config, first.tokenizer, first.encoder, **kwargs)
        self.members = list(members)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        members = [keras.saving.serialize_keras_object(member) for member in self.members]
        return {"name": config["name"], "dtype": config["dtype"], "members": members}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Ensemble":
        config = dict(config)
        members = [keras.saving.deserialize_keras_object(x) for x in config.pop("members")]
        return cls(members, **config)

    @property
    def own_weights(self) -> list[Any]:
        """The members' weights without those of encoders."""
        return [weight for member in self.members for weight in member.own_weights]

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        annotated = {
            **{name: x for name, x in inputs.items() if name != "images"},
            "annotations": self.annotate(inputs, training),
        }
        outputs = [member(annotated, training=training) for member in self.members]
        log_p = [_log_softmax(output["logits"]) for output in outputs]
        records = [
            {name: output[name] for name in ("attention_weights", "gate") if name in output}
            for output in outputs
        ]
        return {"logits": _log_mean(log_p), **_mean_record(records)}

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            "An ensemble is not trained: train its members, one after the other. "
            f"Received: an ensemble of {len(self.members)}"
        )

    def step_function(self, *arguments: Any, **options: Any) -> tuple[StepFunction, Any]:
        """Returns the step function and the initial states of a search, see `CaptionModel`.

        Args:
            *arguments, **options: As of `CaptionModel.step_function`, for every member.

        Returns:
            Tuple `(step, states)`, the states a list of those of the members.
        """
        functions, states = zip(
            *(member.step_function(*arguments, **options) for member in self.members), strict=True
        )

        def mean(found: Sequence[Any]) -> tuple[Any, Any, Any]:
            log_p, states, records = zip(*found, strict=True)
            return _log_mean(log_p), list(states), _mean_record(records)

        def step(token_ids: Any, states: Any) -> Any:
            members = zip(functions, states, strict=True)
            return mean([function(token_ids, state) for function, state in members])

        def picture_step(token_ids: Any, states: Any, pictures: Any) -> Any:
            members = zip(functions, states, pictures, strict=True)
            return mean([member.function(token_ids, state, of) for member, state, of in members])

        if all(isinstance(function, PictureStep) for function in functions):
            pictures = [function.pictures for function in functions]
            return PictureStep(picture_step, pictures), list(states)
        return step, list(states)


def _check_fit(first: CaptionModel, other: CaptionModel) -> None:
    """Raises an error if two captioners cannot read the same words and annotation vectors."""
    if first.config.encoder_trainable or other.config.encoder_trainable:
        raise ValueError(
            "The members of an ensemble read the annotation vectors of one frozen encoder; train "
            "them with `encoder_trainable=False`. Received: encoder_trainable="
            f"{first.config.encoder_trainable!r} and {other.config.encoder_trainable!r}"
        )
    names = ("encoder", "grid_shape", "feature_dim", "resize", "image_size")
    for name in names:
        values = [getattr(model.config, name) for model in (first, other)]
        if values[0] != values[1]:
            raise ValueError(
                f"The members of an ensemble need the same `{name}`; train them on the same "
                f"annotation vectors. Received: {name}={values[0]!r} and {values[1]!r}"
            )
    if first.tokenizer != other.tokenizer or first.vocabulary_size != other.vocabulary_size:
        raise ValueError(
            "The members of an ensemble need the same vocabulary; train them on the same captions. "
            f"Received: {first.vocabulary_size} and {other.vocabulary_size} tokens"
            + (", in another order" if first.vocabulary_size == other.vocabulary_size else "")
        )


def _log_softmax(logits: Any) -> Any:
    return ops.log_softmax(ops.cast(logits, "float32"), axis=-1)


def _log_mean(log_p: Sequence[Any]) -> Any:
    """Returns the logarithm of the mean of probabilities, given their logarithms."""
    stacked = ops.stack([ops.cast(x, "float32") for x in log_p])
    return ops.logsumexp(stacked, axis=0) - math.log(len(log_p))


def _mean_record(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the means of the records' tensors, nothing if a member has none."""
    if any(set(record) != set(records[0]) for record in records):
        return {}
    return tree.map_structure(lambda *x: sum(ops.cast(y, "float32") for y in x) / len(x), *records)
