"""The `keras.Model`: picture in; sentence, attention weights and gate out."""

import os
from typing import Any

import keras
from keras import ops

from sat_keras.backend.devices import sum_over_devices
from sat_keras.captioning.model import CaptionModel
from sat_keras.captioning.objectives import grounding_loss, update_mean, written_logits
from sat_keras.captioning.steps import attention_steps
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.paper.decoder import AttentionDecoder
from sat_keras.paper.encoder import ImageEncoder
from sat_keras.paper.loss import cross_entropies, doubly_stochastic_penalty
from sat_keras.paper.reinforce import Reinforce, location_entropy
from sat_keras.search.loop import StepFunction


@keras.saving.register_keras_serializable("sat_keras")
class Captioner(CaptionModel):
    """Show, Attend and Tell: an image encoder and a decoder with attention.

    Trains with teacher forcing by `fit` on the batches of `sat_keras.data.loaders`. The loss is

        L = mean over captions [ sum_t -log p(y_t) + lambda sum_i (tau - sum_t alpha_ti)^2 ]

    summed over a caption's words and its end, and over the regions `i`. The second term is the
    doubly stochastic penalty with weight `config.penalty_weight`; `tau` is 1, or words / regions
    with `config.penalty_target="length"`. The mean is over the batch's captions. Logged beside
    `loss`: `cross_entropy`, the mean of `-log p(y_t)` over words in nats without label smoothing,
    and `penalty`, the mean over captions of the penalty without lambda.

    With `config.attention="hard"` the training loss adds the terms of `Reinforce` and is the mean
    over a caption's samples. It also logs `entropy`, the mean entropy of the attention weights in
    nats, and `baseline`, the moving average of `log p(y_t)` in nats a word.

    With `config.grounding_weight` the loss adds `grounding_loss` times this weight, summed over the
    words whose boxes are known, and logs `grounding`, its mean over these words.

    Args:
        config: A `Config`.
        tokenizer: `Tokenizer` of the captions, saved with the model.
        encoder: `ImageEncoder`, or `None` to work on annotation vectors only.
        implementation: `"auto"`, `"reference"` or `"fused"`, see `AttentionDecoder`.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Dictionary of `token_ids`, integers of shape `(batch_size, captions, steps)`, and of
            either `annotations`, shape `(batch_size, num_regions, feature_dim)`, or `images`, RGB
            in 0..255, shape `(batch_size, height, width, 3)`, or, with an encoder that is trained
            in part, `features`, the cached output of its stem. Optional `mask`, booleans of shape
            `(batch_size, num_regions)`, `False` for regions that are padding: they get no
            attention, and neither the initial state nor the penalty counts them. `in_boxes`, shape
            `(batch_size, captions, steps, num_regions)`, is read by the loss alone.
        training: Boolean, whether dropout is active.

    Returns:
        Dictionary of `logits`, shape `(batch_size, captions, steps, vocabulary_size)`,
        `attention_weights`, shape `(batch_size, captions, steps, num_regions)`, and `gate`, shape
        `(batch_size, captions, steps)`.

    Raises:
        ValueError: If encoder and config do not fit, there is neither a tokenizer nor a
            `config.vocabulary_size`, or inputs lack what is needed.

    Example:

    >>> from sat_keras import ImageEncoder
    >>> tokenizer = Tokenizer.from_captions(["a red circle", "a blue square"])
    >>> encoder = ImageEncoder("scenes", weights=None, resize="squash", image_size=64)
    >>> captioner = Captioner(Config.scenes(), tokenizer, encoder)
    >>> captioner.caption(np.zeros((1, 64, 64, 3), "uint8"))[0].attention.shape[1:]
    (8, 8)

    Reference:
        Xu et al. 2015, section 3 and equation 14. Notebook `04_training`.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None = None,
        encoder: ImageEncoder | None = None,
        implementation: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, encoder, **kwargs)
        self.decoder = AttentionDecoder(
            vocabulary_size=self.vocabulary_size,
            hard_attention=config.hard_attention_options if config.attention == "hard" else None,
            implementation=implementation,
            **config.decoder_options,
            dtype=self.dtype_policy,
            name="decoder",
        )
        self.decoder.build((None, None, None), (None, config.num_regions, config.feature_dim))
        self.cross_entropy_tracker = keras.metrics.Mean("cross_entropy")
        self.penalty_tracker = keras.metrics.Mean("penalty")
        if config.grounding_weight:
            self.grounding_tracker = keras.metrics.Mean("grounding")
        self.reinforce: Any = None
        if config.attention == "hard":
            self.entropy_tracker = keras.metrics.Mean("entropy")
            self.baseline_tracker = keras.metrics.Mean("baseline")
            self.reinforce = Reinforce(
                **config.reinforce_options, name="reinforce", dtype="float32"
            )
        self.built = True

    @classmethod
    def make_encoder(
        cls, config: Config, weights: str | os.PathLike | None, dtype: str = "float32"
    ) -> ImageEncoder:
        """Returns the image encoder of a config, see `CaptionModel.make_encoder`."""
        return ImageEncoder(config.encoder, weights=weights, dtype=dtype, **config.encoder_options)

    def copy_weights(self, other: "Captioner") -> None:
        """Copies the weights of a captioner of the same config, except those of its encoder."""
        self.decoder.set_weights(other.decoder.get_weights())
        if self.reinforce and other.reinforce:
            self.reinforce.set_weights(other.reinforce.get_weights())

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        annotations = self.annotate(inputs, training=training)
        return self.decoder(
            inputs["token_ids"], annotations, mask=inputs.get("mask"), training=training
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the loss of the class's description and updates the logged metrics.

        Args:
            x: Dictionary of the call's inputs, whose `mask` the penalty reads, whose `advantage`,
                of shape `(batch_size, captions)`, multiplies the cross-entropy of each caption,
                and whose `in_boxes` supervises attention, see `grounding_loss`; or `None`.
            y, sample_weight: Tensors of shape `(batch_size, captions, steps)`, the next words, and
                1 at words and ends, 0 at padding (all 1 by default).
            y_pred: The result of the call.
            training: Whether `config.label_smoothing` applies.

        Returns:
            Scalar tensor.
        """
        x = x or {}
        alpha = ops.cast(y_pred["attention_weights"], "float32")
        weight = ops.cast(ops.ones_like(y) if sample_weight is None else sample_weight, "float32")
        in_boxes = x.get("in_boxes") if self.config.grounding_weight else None
        if training and self.decoder.attention.samples > 1:  # a row for each of the samples
            samples = self.decoder.attention.samples
            y, weight = ops.repeat(y, samples, axis=1), ops.repeat(weight, samples, axis=1)
            in_boxes = None if in_boxes is None else ops.repeat(in_boxes, samples, axis=1)
        is_caption = ops.cast(ops.sum(weight, axis=-1) > 0, "float32")

        logits, smoothing = y_pred["logits"], self.config.label_smoothing if training else 0.0
        advantage = x.get("advantage")
        if advantage is not None:  # of self-critical training
            logits, smoothing = written_logits(logits), 0.0
        word_loss, cross_entropy = cross_entropies(y, logits, smoothing)
        if advantage is not None:
            word_loss = advantage[..., None] * word_loss
        penalty = doubly_stochastic_penalty(
            alpha, weight, self.config.penalty_target, x.get("mask")
        )
        update_mean(self.cross_entropy_tracker, cross_entropy, weight)
        update_mean(self.penalty_tracker, penalty, is_caption)
        loss = ops.sum(weight * word_loss) + self.config.penalty_weight * ops.sum(penalty)
        if in_boxes is not None:
            grounding, has_boxes = grounding_loss(alpha, in_boxes)
            update_mean(self.grounding_tracker, grounding, has_boxes)
            loss = loss + self.config.grounding_weight * ops.sum(grounding)
        if self.reinforce:
            update_mean(self.entropy_tracker, location_entropy(alpha), weight)
            self.baseline_tracker.update_state(self.reinforce.average)
            if training:
                drawn = y_pred["locations"], y_pred["sampled"]
                terms = self.reinforce(-cross_entropy, alpha, *drawn, weight, training=True)
                loss = loss + ops.sum(terms)
        return loss / ops.maximum(sum_over_devices(ops.sum(is_caption)), 1.0)

    def step_function(
        self,
        annotations: Any,
        steps: int | None = None,
        rows: int | None = None,
        context: str | None = None,
        seed: int | None = None,
        mask: Any = None,
    ) -> tuple[StepFunction, Any]:
        """Returns the step function of a search, see `CaptionModel.step_function`."""
        steps = self.config.max_length + 1 if steps is None else steps
        rows = self.config.beam_size if rows is None else rows
        return attention_steps(self.decoder, annotations, steps, rows, context, seed, mask)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "implementation": self.decoder.implementation,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Captioner":
        # Keras knows the class only where its module has been imported.
        with keras.saving.custom_object_scope({"sat_keras>ImageEncoder": ImageEncoder}):
            return super().from_config(config)
