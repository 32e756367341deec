"""The `keras.Model`: picture in; sentence, attention weights and gate out."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.backend.devices import one_device, sum_over_devices
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID, Tokenizer
from sat_keras.paper.decoder import AttentionDecoder
from sat_keras.paper.encoder import ImageEncoder
from sat_keras.paper.hard_attention import Reinforce, location_entropy
from sat_keras.paper.loss import cross_entropies, doubly_stochastic_penalty
from sat_keras.search.search import beam_search

FILE_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Caption:
    """A sentence about a picture, with the attention weights of each of its words.

    Attributes:
        text: The sentence.
        words: List of its words.
        attention: Array of shape `(num_words, rows, columns)`, the attention weights of each word
            over the annotation grid. Each map sums to 1.
        gate: Array of shape `(num_words,)`, the gate beta of each word, 0 to 1.
        log_probability: Float, the caption's log-probability in nats, including the end token.
    """

    text: str
    words: list[str]
    attention: np.ndarray
    gate: np.ndarray
    log_probability: float


@keras.saving.register_keras_serializable("sat_keras")
class Captioner(keras.Model):
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

    Args:
        config: A `Config`.
        tokenizer: `Tokenizer` of the captions, saved with the model.
        encoder: `ImageEncoder`, or `None` to work on annotation vectors only.
        implementation: `"auto"`, `"reference"` or `"fused"`, see `AttentionDecoder`.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Dictionary of `token_ids`, integers of shape `(batch_size, captions, steps)`, and of
            either `annotations`, shape `(batch_size, num_regions, feature_dim)`, or `images`, RGB
            in 0..255, shape `(batch_size, height, width, 3)`. Optional `mask`, booleans of shape
            `(batch_size, num_regions)`, `False` for regions that are padding: they get no
            attention, and neither the initial state nor the penalty counts them.
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
        super().__init__(**kwargs)
        self.searches = _Searches()
        self.config = config
        self.tokenizer = tokenizer
        self.encoder = encoder
        if encoder is not None:
            expected = (tuple(config.grid_shape), config.feature_dim)
            if (tuple(encoder.grid_shape), encoder.feature_dim) != expected:
                raise ValueError(
                    "The encoder's grid and feature size must be those of the config: use "
                    "`config.replace(grid_shape=encoder.grid_shape, "
                    "feature_dim=encoder.feature_dim)`. Received: "
                    f"encoder {encoder.grid_shape}, {encoder.feature_dim}; config {expected}"
                )
        vocabulary_size = tokenizer.vocabulary_size if tokenizer else config.vocabulary_size
        if vocabulary_size is None:
            raise ValueError(
                "The number of words must come from somewhere: give the captioner a `tokenizer`, "
                "or the config a `vocabulary_size`. Received: tokenizer=None, vocabulary_size=None"
            )
        self.decoder = AttentionDecoder(
            vocabulary_size=vocabulary_size,
            embedding_dim=config.embedding_dim,
            hidden_dim=config.hidden_dim,
            attention_dim=config.attention_dim,
            dropout=config.dropout,
            embedding_dropout=config.embedding_dropout,
            annotation_dropout=config.annotation_dropout,
            initial_dim=config.initial_dim,
            use_gate=config.use_gate,
            use_deep_output=config.use_deep_output,
            use_output_tanh=config.use_output_tanh,
            tie_embeddings=config.tie_embeddings,
            normalize_annotations=config.normalize_annotations,
            use_word_query=config.use_word_query,
            hard_attention=self._hard_attention(),
            implementation=implementation,
            dtype=self.dtype_policy,
            name="decoder",
        )
        self.decoder.build((None, None, None), (None, config.num_regions, config.feature_dim))
        self.cross_entropy_tracker = keras.metrics.Mean("cross_entropy")
        self.penalty_tracker = keras.metrics.Mean("penalty")
        self.reinforce = None
        if config.attention == "hard":
            self.entropy_tracker = keras.metrics.Mean("entropy")
            self.baseline_tracker = keras.metrics.Mean("baseline")
            self.reinforce = Reinforce(
                score_weight=config.score_weight,
                entropy_weight=config.entropy_weight,
                reward=config.reward,
                baseline=config.baseline,
                samples=config.attention_samples,
                name="reinforce",
                dtype="float32",
            )
        self.built = True

    def _hard_attention(self):
        """Returns the options of `HardAttention`, or `None` for soft attention."""
        config = self.config
        if config.attention == "soft":
            return None
        return {
            "samples": config.attention_samples,
            "expected_probability": config.expected_probability,
            "expected_per": config.expected_per,
            "inference": config.context,
            "seed": config.seed,
        }

    def copy_weights(self, other):
        """Copies the weights of a captioner of the same config, except those of its encoder.

        Args:
            other: A `Captioner`.
        """
        self.decoder.set_weights(other.decoder.get_weights())
        if self.reinforce:
            self.reinforce.set_weights(other.reinforce.get_weights())

    def annotate(self, inputs, training=False):
        """Returns the annotation vectors of a batch, encoding its pictures if it has none.

        Args:
            inputs: Dictionary with `annotations` or `images`, as in the call.
            training: Boolean, whether a trainable encoder is in training.

        Returns:
            Tensor of shape `(batch_size, num_regions, feature_dim)`.
        """
        if "annotations" in inputs:
            return ops.cast(inputs["annotations"], self.compute_dtype)
        if self.encoder is None:
            raise ValueError(
                "A captioner without an encoder needs `annotations`: give them, or an `encoder` "
                f"for `images`. Received: inputs {sorted(inputs)}"
            )
        return self.encoder(inputs["images"], training=training)

    def call(self, inputs, training=False):
        annotations = self.annotate(inputs, training=training)
        return self.decoder(
            inputs["token_ids"], annotations, mask=inputs.get("mask"), training=training
        )

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Computes the loss of the class's description and updates the logged metrics.

        Args:
            x: Dictionary of the call's inputs, whose `mask` the penalty reads; or `None`.
            y: Integer tensor of shape `(batch_size, captions, steps)`, the next words.
            y_pred: The result of the call.
            sample_weight: Tensor of the same shape, 1 at words and ends, 0 at padding. All 1 if it
                is not given.
            training: Whether the loss is smoothed by `config.label_smoothing`.

        Returns:
            Scalar tensor.
        """
        weight = ops.ones_like(y) if sample_weight is None else sample_weight
        weight = ops.cast(weight, "float32")
        if training and self.decoder.attention.samples > 1:  # a row for each of the samples
            samples = self.decoder.attention.samples
            y, weight = ops.repeat(y, samples, axis=1), ops.repeat(weight, samples, axis=1)
        words = ops.sum(weight, axis=-1)
        captions = ops.sum(ops.cast(words > 0, "float32"))

        smoothing = self.config.label_smoothing if training else 0.0
        word_loss, cross_entropy = cross_entropies(y, y_pred["logits"], smoothing)
        word_loss, cross_entropy = weight * word_loss, weight * cross_entropy

        mask = (x or {}).get("mask")
        penalty = doubly_stochastic_penalty(
            y_pred["attention_weights"], weight, self.config.penalty_target, mask
        )
        total_words = ops.sum(words)
        self.cross_entropy_tracker.update_state(
            ops.sum(cross_entropy) / ops.maximum(total_words, 1.0), sample_weight=total_words
        )
        self.penalty_tracker.update_state(
            ops.sum(penalty) / ops.maximum(captions, 1.0), sample_weight=captions
        )
        loss = ops.sum(word_loss) + self.config.penalty_weight * ops.sum(penalty)
        if self.reinforce:
            loss = loss + ops.sum(self._hard_terms(-cross_entropy, y_pred, weight, training))
        return loss / ops.maximum(sum_over_devices(captions), 1.0)

    def _hard_terms(self, log_probability, y_pred, weight, training):
        """Returns hard attention's part of the loss of every row, 0 outside training."""
        attention_weights = ops.cast(y_pred["attention_weights"], "float32")
        words = ops.sum(weight)
        entropy = ops.sum(weight * location_entropy(attention_weights)) / ops.maximum(words, 1.0)
        self.entropy_tracker.update_state(entropy, sample_weight=words)
        self.baseline_tracker.update_state(self.reinforce.average)
        if not training:
            return ops.zeros(())
        drawn = y_pred["locations"], y_pred["sampled"]
        return self.reinforce(log_probability, attention_weights, *drawn, weight, training=True)

    def generate(
        self,
        annotations,
        beam_size=None,
        length_penalty=None,
        max_length=None,
        context=None,
        seed=None,
        num_results=None,
        mask=None,
    ):
        """Searches the best captions of a batch of annotated pictures.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            beam_size: Integer, beams of the search, `config.beam_size` by default.
            length_penalty: Float, see `sat_keras.search.beam_search`, `config.length_penalty`
                by default.
            max_length: Integer, most words of a caption, `config.max_length` by default.
            context: `"expected"`, `"argmax"` or `"sampled"`, `config.context` by default. Soft
                attention has the first only.
            seed: Integer for the same draws of a `"sampled"` context at every call, the model's own
                generator by default.
            num_results: Integer, captions a picture, `beam_size` by default. The search ends sooner
                with fewer.
            mask: Boolean tensor of shape `(batch_size, num_regions)`, as in the call.

        Returns:
            A `SearchResult` with the record's `attention_weights`, shape
            `(batch_size, num_results, steps, num_regions)`, and `gate`, shape
            `(batch_size, num_results, steps)`.
        """
        config = self.config
        beam_size = config.beam_size if beam_size is None else beam_size
        steps = (config.max_length if max_length is None else max_length) + 1
        draws = {"steps": steps, "rows": beam_size, "context": context, "seed": seed}
        step, states = self.step_function(annotations, mask=mask, **draws)
        return beam_search(
            step,
            states,
            start_id=START_ID,
            end_id=END_ID,
            pad_id=PAD_ID,
            forbidden_ids=(UNK_ID,),
            beam_size=beam_size,
            length_penalty=config.length_penalty if length_penalty is None else length_penalty,
            max_length=steps,
            num_results=num_results,
        )

    def step_function(self, annotations, steps=None, rows=None, context=None, seed=None, mask=None):
        """Returns the step function and the initial states of a search over annotated pictures.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            steps, rows: Integers, the largest number of steps and of beams or samples, by default
                those of the config. Contexts other than the expected one draw their noise for all
                of them beforehand.
            context, seed, mask: As of `generate`.

        Returns:
            Tuple `(step, states)`, see `sat_keras.search`. The record has `attention_weights` and
            `gate`.

        Example:

        >>> step, states = captioner.step_function(annotations)
        >>> sample_search(step, states, start_id=START_ID, end_id=END_ID, max_length=20)

        Reference:
            Notebook `05_decoding_and_evaluation`.
        """
        annotations, keys = self.decoder.read_annotations(annotations)
        hidden, cell = self.decoder.initial_state(annotations, mask=mask)

        batch_size, num_regions = ops.shape(annotations)[:2]
        steps = self.config.max_length + 1 if steps is None else steps
        rows = self.config.beam_size if rows is None else rows
        known = annotations.shape[0]  # None where a data set's minibatches may differ
        advance = self.decoder.search_step(annotations, keys, mask, known and known * steps * rows)
        shape = (steps, batch_size, rows, num_regions)
        sampling = self.decoder.attention.draw(shape, context=context, seed=seed)

        def step(token_ids, states):
            lstm = {"hidden": states["hidden"], "cell": states["cell"]}
            now = sampling and sampling.at(states["step"][0, 0], token_ids.shape[1])
            logits, lstm, record = advance(token_ids, lstm, now)
            states = {**lstm, "step": states["step"] + 1}
            return ops.log_softmax(ops.cast(logits, "float32"), axis=-1), states, record

        return step, {"hidden": hidden, "cell": cell, "step": ops.zeros((batch_size, 1), "int32")}

    def caption(
        self, images: Any = None, annotations: Any = None, mask: Any = None, **search: Any
    ) -> list[Caption]:
        """Describes each picture in a sentence.

        Args:
            images: RGB pictures in 0..255: an array `(batch_size, height, width, 3)`, or a list of
                arrays `(height, width, 3)` of any sizes.
            annotations: Array of shape `(batch_size, num_regions, feature_dim)`, in place of
                `images`.
            mask: Boolean array of shape `(batch_size, num_regions)`, `False` for padding. An
                encoder with `resize="pad"` provides it for `images`.
            **search: Other arguments of `generate`, such as `beam_size`.

        Returns:
            List of `Caption`, one a picture.

        Raises:
            ValueError: If there is no tokenizer, or neither images nor annotations.

        Example:

        >>> for caption in captioner.caption([photo]):
        ...     print(caption.text)
        """
        if (images is None) == (annotations is None):
            raise ValueError(
                "Expected either `images` or `annotations`. Received: "
                f"images={type(images).__name__}, annotations={type(annotations).__name__}"
            )
        if len(annotations if images is None else images) == 0:
            return []
        encoder = self.encoder
        if images is None:
            inputs = {"annotations": np.asarray(annotations)}
        elif encoder is None:
            inputs = {"images": self.annotate({"images": images})}  # raises, naming the remedy
        else:
            resized = [ops.convert_to_numpy(encoder.resize_images(x)) for x in images]
            inputs = {"images": np.stack(resized)}
            if mask is None and encoder.resize == "pad":
                mask = [encoder.region_mask(*np.shape(x)[:2]) for x in images]
        if mask is not None:
            inputs["mask"] = np.asarray(mask, "bool")
        return self.read(caption_search(self, **search).predict(inputs, verbose=0))

    def read(self, found):
        """Converts the result of `CaptionSearch.predict` to captions.

        Args:
            found: Dictionary of arrays, see `CaptionSearch`.

        Returns:
            List of `Caption`, the best one of each picture.
        """
        if self.tokenizer is None:
            raise ValueError(
                "Sentences need a tokenizer: make the captioner with one. Received: tokenizer=None"
            )
        return [self._read_one(*row) for row in zip(*(found[name] for name in FOUND), strict=True)]

    def _read_one(self, token_ids, log_probability, attention_weights, gate):
        text = self.tokenizer.detokenize(token_ids)
        words = text.split()
        maps = np.reshape(attention_weights[: len(words)], (-1, *self.config.grid_shape))
        return Caption(text, words, maps, gate[: len(words)], float(log_probability))

    def get_config(self):
        return {
            **super().get_config(),
            "file_format": FILE_FORMAT,
            "config": self.config.to_dict(),
            "tokenizer": self.tokenizer.get_config() if self.tokenizer else None,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "implementation": self.decoder.implementation,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        file_format = config.pop("file_format", None)
        if file_format != FILE_FORMAT:
            raise ValueError(
                f"Expected a model file of format {FILE_FORMAT}, as this version of sat_keras "
                "writes it: load it with the version that saved it, or train again. "
                f"Received: format {file_format}"
            )
        config["config"] = Config.from_dict(config["config"])
        if config["tokenizer"]:
            config["tokenizer"] = Tokenizer.from_config(config["tokenizer"])
        # Passed on, since Keras knows the class only where its module has been imported.
        config["encoder"] = keras.saving.deserialize_keras_object(
            config["encoder"], custom_objects={"sat_keras>ImageEncoder": ImageEncoder}
        )
        return cls(**config)


FOUND = ("token_ids", "log_probability", "attention_weights", "gate")


class CaptionSearch(keras.Model):
    """A captioner's search as a model, so that `predict` compiles it and runs over a data set.

    Args:
        captioner: A `Captioner`.
        **search: Other arguments of `Captioner.generate`, such as `beam_size`.

    Call arguments:
        inputs: Dictionary with `annotations` or `images`, and `mask`, as of `Captioner`.

    Returns:
        Dictionary of each picture's best caption: `token_ids`, shape `(batch_size, steps)`,
        `log_probability`, shape `(batch_size,)`, `attention_weights`, shape
        `(batch_size, steps, num_regions)`, and `gate`, shape `(batch_size, steps)`.
    """

    def __init__(self, captioner, **search):
        super().__init__()
        self.captioner = captioner
        self.search = search
        self.built = True
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def predict(self, *args, **kwargs):
        with one_device():
            return super().predict(*args, **kwargs)

    def call(self, inputs):
        annotations = self.captioner.annotate(inputs)
        result = self.captioner.generate(
            annotations, num_results=1, mask=inputs.get("mask"), **self.search
        )
        return {
            "token_ids": result.token_ids[:, 0],
            "log_probability": result.log_probability[:, 0],
            "attention_weights": result.record["attention_weights"][:, 0],
            "gate": result.record["gate"][:, 0],
        }


def caption_search(captioner: Captioner, **search: Any) -> CaptionSearch:
    """Returns a captioner's `CaptionSearch`, the same one for the same options.

    Compiling a search takes seconds, so the captioner keeps those that it has used.

    Args:
        captioner: A `Captioner`.
        **search: Arguments of `CaptionSearch`.

    Returns:
        A `CaptionSearch`.
    """
    options = tuple(sorted(search.items()))
    searches = captioner.searches.by_options
    if options not in searches:
        searches[options] = CaptionSearch(captioner, **search)
    return searches[options]


class _Searches:
    """The searches that a captioner has compiled. No dictionary: Keras would save its models."""

    def __init__(self) -> None:
        self.by_options: dict[tuple, CaptionSearch] = {}
