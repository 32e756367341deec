"""Base class of captioners without attention, which read a picture as one vector."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.backend.devices import sum_over_devices
from sat_keras.captioning.model import CaptionModel
from sat_keras.captioning.objectives import update_mean
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.decoder import mean_annotation
from sat_keras.paper.encoder import ImageEncoder
from sat_keras.paper.loss import cross_entropies
from sat_keras.search.loop import StepFunction


class PictureCaptioner(CaptionModel):
    """Captioner of a picture vector: embedding, a recurrence over the words, softmax.

    The picture vector is the mean annotation vector, each feature standardised by its mean and
    standard deviation over training pictures (`adapt`). Published systems read the CNN's last
    hidden layer (`fc2` of VGG16), which the committed features lack and which is a grid of 1 x 1
    here. With `E y` the previous word's embedding

        v = (mean_i a_i - mu) / sigma
        h_t, state = recurrence(E y_{t-1}, state),  p(y_t) = softmax(L h_t + b)

    A subclass defines the recurrence: `start`, `next` and `run`. Trains with teacher forcing on the
    batches of `sat_keras.data.loaders`. The loss is `sum_t -log p(y_t)`, averaged over captions,
    and logged beside it is `cross_entropy` in nats a word, as of `Captioner`.

    Args:
        config: A `Config`; `embedding_dim`, `hidden_dim`, `embedding_dropout` (rate of the word
            embeddings), `dropout` (rate of `h_t`) and `label_smoothing` are used.
        tokenizer: `Tokenizer` of the captions, saved with the model.
        encoder: `ImageEncoder`, or `None` to work on annotation vectors only.
        embedding_dim: Integer, size of `E y`, `config.embedding_dim` by default.
        output_dim: Integer, size of `h_t`, `config.hidden_dim` by default.
        tie_embeddings: Boolean, whether `L` is the embedding matrix.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Dictionary of `token_ids`, integers of shape `(batch_size, captions, steps)`, of
            `annotations` or `images`, and optionally of `mask`, as of `Captioner`.
        training: Boolean, whether dropout is active.

    Returns:
        Dictionary of `logits`, shape `(batch_size, captions, steps, vocabulary_size)`, `hidden`,
        the `h` of shape `(batch_size, captions, steps, output_dim)`, and `picture`, the `v` of
        shape `(batch_size, feature_dim)`.

    Raises:
        ValueError: If there is neither a tokenizer nor a `config.vocabulary_size`.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None = None,
        encoder: Any = None,
        embedding_dim: int | None = None,
        output_dim: int | None = None,
        tie_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, encoder, **kwargs)
        self.output_dim = output_dim or config.hidden_dim
        self.tie_embeddings = tie_embeddings
        self.embedding_dim = embedding_dim or config.embedding_dim
        self.embedding = keras.layers.Embedding(
            self.vocabulary_size, self.embedding_dim, name="embedding", dtype=self.dtype_policy
        )
        self.embedding.build(None)
        if tie_embeddings:
            self.output_bias = self.add_weight(
                shape=(self.vocabulary_size,), initializer="zeros", name="output_bias"
            )
        else:
            self.output_words = self.make_layer(
                keras.layers.Dense, self.vocabulary_size, (None, self.output_dim), "output_words"
            )
        # Frozen: moments of minibatches would differ between long and short captions. A feature
        # of a standard deviation below 1e-3 says nothing, and epsilon keeps it small.
        self.standardize = keras.layers.BatchNormalization(
            center=False,
            scale=False,
            epsilon=1e-6,
            trainable=False,
            name="standardize",
            dtype="float32",
        )
        self.standardize.build((None, config.feature_dim))
        self.drop_embedding = keras.layers.Dropout(
            config.embedding_dropout, name="drop_embedding", dtype=self.dtype_policy
        )
        self.drop_hidden = keras.layers.Dropout(
            config.dropout, name="drop_hidden", dtype=self.dtype_policy
        )
        self.cross_entropy_tracker = keras.metrics.Mean("cross_entropy")

    @classmethod
    def make_encoder(
        cls, config: Config, weights: str | os.PathLike | None, dtype: str = "float32"
    ) -> ImageEncoder:
        """Returns the image encoder of a config, see `CaptionModel.make_encoder`."""
        return Captioner.make_encoder(config, weights, dtype)

    def make_layer(
        self, kind: Any, units: int, input_shape: tuple[int | None, ...], name: str, **options: Any
    ) -> Any:
        """Returns a layer of the model's dtype, built.

        Args:
            kind: A `keras.Layer` class.
            units: Integer, its first argument.
            input_shape: Shape of its inputs.
            name: Its name.
            **options: Further arguments.
        """
        layer = kind(units, name=name, dtype=self.dtype_policy, **options)
        layer.build(input_shape)
        return layer

    # The recurrence, defined by a subclass. Its rows are captions: (batch * captions, ...).

    def start(self, picture: Any) -> list[Any]:
        """Returns the recurrence's states before the first word.

        Args:
            picture: Tensor of shape `(rows, feature_dim)`, the picture vector of every caption.

        Returns:
            List of tensors of shape `(rows, ...)`.
        """
        raise NotImplementedError

    def next(self, word: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        """Computes one step of the recurrence.

        Args:
            word: Tensor `E y` of shape `(rows, embedding_dim)`.
            states: The states before it.

        Returns:
            Tuple of `h`, shape `(rows, output_dim)`, and the new states.
        """
        raise NotImplementedError

    def run(self, words: Any, states: list[Any]) -> Any:
        """Computes the recurrence over all steps of teacher forcing.

        Args:
            words: Tensor `E y` of shape `(rows, steps, embedding_dim)`.
            states: The result of `start`.

        Returns:
            Tensor of shape `(rows, steps, output_dim)`, the `h` of every step.
        """
        raise NotImplementedError

    # What all of them share

    def predict_words(self, hidden: Any) -> Any:
        """Computes the logits `L h + b`.

        Args:
            hidden: Tensor of shape `(..., output_dim)`.

        Returns:
            Tensor of shape `(..., vocabulary_size)`.
        """
        if not self.tie_embeddings:
            return self.output_words(hidden)
        matrix = ops.cast(self.embedding.embeddings, self.compute_dtype)
        bias = ops.cast(self.output_bias, self.compute_dtype)
        return ops.tensordot(hidden, ops.transpose(matrix), axes=1) + bias

    def adapt(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Sets `mu` and `sigma` to the moments of the mean annotation vectors of pictures.

        Args:
            batches: Inputs of the call without `token_ids`.
        """
        vectors = [
            ops.convert_to_numpy(
                mean_annotation(ops.cast(self.annotate(x), "float32"), x.get("mask"))
            )
            for x in batches
        ]
        found = np.concatenate(vectors).astype("float32")
        self.standardize.moving_mean.assign(found.mean(axis=0))
        self.standardize.moving_variance.assign(found.var(axis=0))

    def picture_vector(self, annotations: Any, mask: Any = None) -> Any:
        """Computes the picture vector `v`.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            mask: As in the call.

        Returns:
            Tensor of shape `(batch_size, feature_dim)`.
        """
        mean = mean_annotation(ops.cast(annotations, "float32"), mask)
        return ops.cast(self.standardize(mean), self.compute_dtype)

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        picture = self.picture_vector(self.annotate(inputs, training), inputs.get("mask"))
        token_ids = inputs["token_ids"]
        captions, steps = ops.shape(token_ids)[1:]
        # (batch, captions, steps) -> (batch * captions, steps)
        rows = ops.reshape(token_ids, (-1, steps))
        words = self.drop_embedding(self.embedding(rows), training=training)
        hidden = self.run(words, self.start(ops.repeat(picture, captions, axis=0)))
        # (batch * captions, steps, output_dim) -> (batch, captions, steps, output_dim)
        hidden = ops.reshape(hidden, (-1, captions, steps, self.output_dim))
        logits = self.predict_words(self.drop_hidden(hidden, training=training))
        return {"logits": logits, "hidden": hidden, "picture": picture}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the loss of the class's description and updates the logged metric.

        Args:
            x: Not used.
            y: Integer tensor of shape `(batch_size, captions, steps)`, the next words.
            y_pred: The result of the call.
            sample_weight: Tensor of the same shape, 1 at words and ends, 0 at padding. All 1 if it
                is not given.
            training: Whether the loss is smoothed by `config.label_smoothing`.

        Returns:
            Scalar tensor.
        """
        return caption_loss(self, y, y_pred["logits"], sample_weight, training)

    def step_function(
        self,
        annotations: Any,
        steps: int | None = None,
        rows: int | None = None,
        context: str | None = None,
        seed: int | None = None,
        mask: Any = None,
    ) -> tuple[StepFunction, Any]:
        """Returns the step function and the initial states of a search, see `CaptionModel`.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            mask: As in the call.
            steps, rows, context, seed: Not used: nothing is drawn.

        Returns:
            Tuple `(step, states)`, see `sat_keras.search.loop`. The record is empty.
        """
        start = self.start(self.picture_vector(annotations, mask))

        def step(token_ids: Any, states: Any) -> Any:
            beams = token_ids.shape[1]
            # (batch, beams, ...) -> (batch * beams, ...)
            rows = [ops.reshape(x, (-1, *x.shape[2:])) for x in states]
            hidden, rows = self.next(self.embedding(ops.reshape(token_ids, (-1,))), rows)
            logits = ops.reshape(self.predict_words(hidden), (-1, beams, self.vocabulary_size))
            states = [ops.reshape(x, (-1, beams, *x.shape[1:])) for x in rows]
            return ops.log_softmax(ops.cast(logits, "float32"), axis=-1), states, {}

        return step, [ops.expand_dims(x, 1) for x in start]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{x: getattr(self, x) for x in self.option_names}}


def caption_loss(model: Any, y: Any, logits: Any, sample_weight: Any, training: bool) -> Any:
    """Computes `sum_t -log p(y_t)`, averaged over captions, and updates `cross_entropy`.

    Args:
        model: Model with a `config` and a `cross_entropy_tracker`.
        y: Integer tensor of shape `(batch_size, captions, steps)`, the next words.
        logits: Tensor of shape `(batch_size, captions, steps, vocabulary_size)`.
        sample_weight: As of `PictureCaptioner.compute_loss`.
        training: Boolean, whether `config.label_smoothing` applies.

    Returns:
        Scalar tensor.
    """
    weight = ops.ones_like(y) if sample_weight is None else sample_weight
    weight = ops.cast(weight, "float32")
    smoothing = model.config.label_smoothing if training else 0.0
    loss, cross_entropy = cross_entropies(y, logits, smoothing)
    update_mean(model.cross_entropy_tracker, cross_entropy, weight)
    captions = ops.sum(ops.cast(ops.sum(weight, axis=-1) > 0, "float32"))
    return ops.sum(weight * loss) / ops.maximum(sum_over_devices(captions), 1.0)
