"""Captioning models: a `keras.Model` that searches captions by its step function."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.backend.devices import one_device
from sat_keras.captioning.caption import Caption
from sat_keras.captioning.export import FORMATS, export_saved_model, export_steps
from sat_keras.captioning.maps import reduce_picture, seen_box
from sat_keras.captioning.pictures import read_pictures
from sat_keras.captioning.presets import (
    load_preset,
    pretrained_folder,
    pretrained_names,
    read_description,
    save_preset,
)
from sat_keras.config.config import Config
from sat_keras.config.fields import check_choice
from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID, Tokenizer
from sat_keras.fast.optimizer import FusedUpdate
from sat_keras.search.beam import beam_search
from sat_keras.search.loop import SearchResult, StepFunction

FILE_FORMAT = 1
# Pictures that `caption` searches at a time.
BATCH_SIZE = 32


class _Presets:
    """The property `presets` of the class itself, as Python has none."""

    def __get__(self, instance: Any, owner: type) -> dict[str, Any]:
        return {
            name: read_description(pretrained_folder(name))["training"]
            for name in pretrained_names()
        }


class CaptionModel(keras.Model):
    """Base class of captioning models: `caption`, `generate`, `search` and compiled search.

    A subclass defines `step_function`; with `make_encoder` it can be loaded by `from_preset`.
    `presets` is a dictionary of the captioners that come with this package, from the
    name to a description of the training.

    Args:
        config: A `Config`.
        tokenizer: `Tokenizer` of the captions, or `None` for a model of token ids.
        encoder: `ImageEncoder`, or `None` for a model of annotation vectors.
        head: The `head` of an `ImageEncoder` that is trained in part, for a model without this
            encoder that trains it from cached features.
        **kwargs: Arguments of `keras.Model`.
    """

    presets = _Presets()
    # Arguments of a subclass, beside those of this class, that define the model.
    option_names: tuple[str, ...] = ()

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None = None,
        encoder: Any = None,
        head: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if encoder is not None:
            _check_sizes(tuple(encoder.grid_shape), encoder.feature_dim, config)
            head = getattr(encoder, "head", None)
        elif head is not None:
            _check_sizes(tuple(head.output_shape[1:3]), head.output_shape[3], config)
        self.searches = _Searches()
        self.config = config
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.head = head
        self.self_critical: Any = None  # replaces the captions of minibatches, see `train_step`

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids: the tokenizer's, or without one `config.vocabulary_size`."""
        if self.tokenizer:
            return self.tokenizer.vocabulary_size
        if self.config.vocabulary_size is None:
            raise ValueError(
                "The number of words must come from somewhere: give the captioner a `tokenizer`, "
                "or the config a `vocabulary_size`. Received: tokenizer=None, vocabulary_size=None"
            )
        return self.config.vocabulary_size

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, as `keras.Model.compile` without a loss.

        Args:
            optimizer: The optimizer, or its name.
            loss, loss_weights: `None`: the loss is that of the class's description.
            **kwargs: Other arguments of `keras.Model.compile`.

        Raises:
            ValueError: If a loss is given.
        """
        if loss is not None or loss_weights is not None:
            raise ValueError(
                "A captioner computes its own loss: leave out `loss` and `loss_weights`, and choose"
                " its terms by the config (`penalty_weight`, `label_smoothing`, `attention`). "
                f"Received: loss={loss!r}, loss_weights={loss_weights!r}"
            )
        if isinstance(optimizer, FusedUpdate):
            optimizer.set_encoder(self.encoder_variables)
        super().compile(optimizer=optimizer, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was when it was saved."""
        # Keras does so only for models without their own `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        head = self.head if self.encoder is None else None  # an encoder brings its own
        return {
            **super().get_config(),
            "file_format": FILE_FORMAT,
            "config": self.config.to_dict(),
            "tokenizer": self.tokenizer.get_config() if self.tokenizer else None,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(head),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
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
        for part in ("encoder", "head"):  # files of version 0.1.0 have no head
            config[part] = keras.saving.deserialize_keras_object(config.get(part))
        return cls(**config)

    @classmethod
    def from_preset(
        cls,
        name_or_folder: str | os.PathLike,
        encoder_weights: str | os.PathLike | None = None,
        encoder: bool = True,
        dtype: str = "float32",
    ) -> Any:
        """Loads a trained captioner.

        Args:
            name_or_folder: A name in `presets` such as `"flickr8k-soft-vgg16"`, or the folder that
                a training or `save_to_preset` wrote.
            encoder_weights: Weights of its frozen CNN: `"imagenet"` for Keras's download, the path
                of a weights file, or `None` for those it was trained with (`"imagenet"` for the
                captioners that come with this package). Ignored if the encoder was trained as well.
            encoder: Boolean, `False` leaves out a frozen CNN, for use with cached annotation
                vectors: nothing is downloaded.
            dtype: Dtype policy of the computation; that of the training need not be the same.

        Returns:
            An instance of this class.

        Raises:
            FileNotFoundError: If there is no such captioner or no such weights file.
            ValueError: If a file is damaged or of another version, or the weights do not fit.
            ConnectionError: If Keras cannot download the CNN's weights.

        Example:

        >>> captioner = Captioner.from_preset("flickr8k-soft-vgg16")
        >>> captioner.generate("photo.jpg")
        'Two dogs run through the grass.'

        Reference:
            Notebook `07_flickr8k`.
        """
        return load_preset(cls, name_or_folder, encoder_weights, encoder, dtype)

    def save_to_preset(
        self,
        folder: str | os.PathLike,
        encoder_weights: str | None = "imagenet",
        training: dict[str, Any] | None = None,
    ) -> Path:
        """Saves the captioner in float16, without a frozen CNN that Keras can download.

        Args:
            folder: Folder of `config.json` and the weights. It is replaced as a whole once they are
                complete; files of other names are kept.
            encoder_weights: `"imagenet"`, the default weights of the frozen CNN when the captioner
                is loaded, or `None` to save the encoder as well. One that was trained always is
                saved.
            training: Optional dictionary that describes the training, for `config.json`.

        Returns:
            `pathlib.Path` of the folder.

        Raises:
            ValueError: If there is no tokenizer, or no encoder although it is to be saved.

        Example:

        >>> captioner.save_to_preset("pretrained/mine")
        >>> Captioner.from_preset("pretrained/mine")
        """
        return save_preset(self, folder, encoder_weights, training)

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        beam_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Exports the captioner with its encoder, to run without this package.

        Args:
            filepath: Folder to write.
            format: `"tf_saved_model"`: the whole captioner, pixels in; sentence, words, attention
                and gate out. `"onnx"` or `"litert"`: encoder and decoder step as two models, see
                `sat_keras.captioning.export`.
            verbose: Not used; an argument of `keras.Model.export`.
            input_signature: Input of the call for teacher forcing; with it this is
                `keras.Model.export`, which exports logits of given words.
            beam_size: Integer, beams of the search, `config.beam_size` by default.
            **kwargs: Other arguments of `keras.Model.export`, with `input_signature`.

        Raises:
            ValueError: If there is no encoder or no tokenizer, or no such format.
            ImportError: If Keras needs a package for the format.

        Example:

        >>> Captioner.from_preset("flickr8k-soft-vgg16").export("exported")
        >>> served = tf.saved_model.load("exported")
        >>> served.serve(photos)["sentence"]
        """
        if input_signature is not None:
            options = {"verbose": verbose, "input_signature": input_signature, **kwargs}
            super().export(os.fspath(filepath), format=format, **options)
            return
        check_choice("format", format, FORMATS)
        if self.encoder is None or self.tokenizer is None:
            raise ValueError(
                "An export takes pixels and returns sentences: load the captioner with its encoder "
                "and tokenizer, or give `input_signature` to export the call. Received: "
                f"encoder={self.encoder}, tokenizer={self.tokenizer}"
            )
        beams = self.config.beam_size if beam_size is None else beam_size
        if format == "tf_saved_model":
            export_saved_model(self, caption_search(self, beam_size=beams), filepath)
        else:
            export_steps(self, filepath, format, beams)

    def adapt(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Computes what a model must know of training pictures beforehand; nothing by default.

        Args:
            batches: Inputs of the call without `token_ids`.
        """

    @classmethod
    def make_encoder(
        cls, config: Config, weights: str | os.PathLike | None, dtype: str = "float32"
    ) -> Any:
        """Returns the image encoder of a config.

        Args:
            config: A `Config`.
            weights: `"imagenet"`, the path of a weights file, or `None` for random weights.
            dtype: Its dtype policy.

        Returns:
            An `ImageEncoder`.
        """
        raise NotImplementedError

    @property
    def own_weights(self) -> list[Any]:
        """The weights without those of the encoder and its head."""
        parts = [p for p in (self.encoder, self.head, self.self_critical) if p is not None]
        of_parts = {id(weight) for part in parts for weight in part.weights}
        return [weight for weight in self.weights if id(weight) not in of_parts]

    @property
    def encoder_variables(self) -> list[Any]:
        """The variables of the encoder, or of its head, that are trained."""
        part = self.encoder if self.encoder is not None else self.head
        return [] if part is None else part.trainable_variables

    def copy_weights(self, other: Any) -> None:
        """Copies the weights of a captioner of the same config, except those of its encoder."""
        for mine, its in zip(self.own_weights, other.own_weights, strict=True):
            mine.assign(its)

    def copy_encoder(self, other: Any) -> None:
        """Copies the weights of another captioner's encoder, or of its head, if both have one."""
        for part in ("encoder", "head"):
            mine, its = getattr(self, part), getattr(other, part)
            if mine is not None and its is not None:
                mine.set_weights(its.get_weights())

    def annotate(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        """Returns the annotation vectors of a batch, encoding its pictures if it has none.

        Args:
            inputs: Dictionary with `annotations`, `features` or `images`, as in the call.
            training: Boolean, whether a trainable encoder is in training.

        Returns:
            Tensor of shape `(batch_size, num_regions, feature_dim)`.
        """
        if "annotations" in inputs:
            return ops.cast(inputs["annotations"], self.compute_dtype)
        if "features" in inputs and self.head is not None:
            return self._annotate_features(inputs["features"])
        if self.encoder is None or "images" not in inputs:
            raise ValueError(
                "A captioner without an encoder needs `annotations`: give them, or an `encoder` "
                f"for `images`, or a `head` for `features`. Received: inputs {sorted(inputs)}"
            )
        return self.encoder(inputs["images"], training=training)

    def _annotate_features(self, features: Any) -> Any:
        """Runs the head on cached features, `(batch_size, positions, channels)`."""
        features = ops.reshape(features, (-1, *self.head.input_shape[1:]))
        features = ops.cast(features, self.head.inputs[0].dtype)
        # Batch normalisation runs in inference mode, as below the head.
        annotations = self.head(features, training=False)
        shape = (-1, self.config.num_regions, self.config.feature_dim)
        return ops.cast(ops.reshape(annotations, shape), self.compute_dtype)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function of training steps, see `keras.Model`.

        The optimizer's variables are made before it: TensorFlow would trace a step that makes
        variables twice, which takes as long as many steps.

        Args:
            force: Boolean, whether a function that was made before is replaced.
        """
        optimizer = self.optimizer
        is_new = self.built and optimizer is not None and not optimizer.built
        if is_new and keras.backend.backend() == "tensorflow":
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def train_step(self, *arguments: Any) -> Any:
        """Trains on a minibatch, whose captions `self_critical` replaces if it is set.

        Args:
            *arguments: The minibatch; on JAX after the variables' values.
        """
        if self.self_critical is None:
            return super().train_step(*arguments)
        *state, data = arguments
        if not state:
            return super().train_step(self.self_critical.minibatch(self, data))
        state, data = _call_with_state(self, state[0], data)
        return super().train_step(state, data)

    def step_function(
        self,
        annotations: Any,
        steps: int | None = None,
        rows: int | None = None,
        context: str | None = None,
        seed: int | None = None,
        mask: Any = None,
    ) -> tuple[StepFunction, Any]:
        """Returns the step function and the initial states of a search over annotated pictures.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            steps, rows: Integers, the largest number of steps and of beams or samples, by default
                those of the config.
            context, seed, mask: As of `search`.

        Returns:
            Tuple `(step, states)`, see `sat_keras.search.loop`. The record of a model with
            attention has `attention_weights` and `gate`, that of another model is empty.
        """
        raise NotImplementedError

    def search(
        self,
        annotations: Any,
        beam_size: int | None = None,
        length_penalty: float | None = None,
        max_length: int | None = None,
        context: str | None = None,
        seed: int | None = None,
        num_results: int | None = None,
        mask: Any = None,
    ) -> SearchResult:
        """Searches the best captions of a batch of annotated pictures.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            beam_size: Integer, beams of the search, `config.beam_size` by default.
            length_penalty: Float, see `sat_keras.beam_search`, `config.length_penalty`
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
            A `SearchResult`. The record of a model with attention has `attention_weights`, shape
            `(batch_size, num_results, steps, num_regions)`, and `gate`, shape
            `(batch_size, num_results, steps)`.
        """
        config = self.config
        beam_size = config.beam_size if beam_size is None else beam_size
        steps = (config.max_length if max_length is None else max_length) + 1
        step, states = self.step_function(annotations, steps, beam_size, context, seed, mask)
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

    def caption(
        self,
        images: Any = None,
        annotations: Any = None,
        mask: Any = None,
        num_results: int | None = None,
        **search: Any,
    ) -> Any:
        """Describes each picture in a sentence.

        Args:
            images: One picture or many. One is the path of a file, an `http` address, a
                `PIL.Image.Image`, or an RGB array `(height, width, 3)` with values in 0..255. Many
                are a list of these, of any sizes, an array `(batch_size, height, width, 3)`, or
                the path of a folder, whose pictures are taken in the order of their names.
            annotations: Array of shape `(batch_size, num_regions, feature_dim)`, in place of
                `images`.
            mask: Boolean array of shape `(batch_size, num_regions)`, `False` for padding. An
                encoder with `resize="pad"` provides it for `images`.
            num_results: Integer, captions of each picture, at most `beam_size`, or `None` for the
                best one.
            **search: Other arguments of `search`, such as `beam_size`.

        Returns:
            A `Caption` for one picture, a list of `Caption` for many. With `num_results`, a list
            of captions, the best first, takes the place of each `Caption`.

        Raises:
            ValueError: If there is no tokenizer, neither images nor annotations, or something is
                no picture. The message names it.
            FileNotFoundError: If there is no such file.
            ConnectionError: If an address cannot be read.

        Example:

        >>> captioner.caption("photo.jpg").text
        'two dogs run through the grass'
        >>> [caption.text for caption in captioner.caption("photo.jpg", num_results=2)]
        ['two dogs run through the grass', 'two dogs are running through the grass']
        """
        if (images is None) == (annotations is None):
            raise ValueError(
                "Expected either `images` or `annotations`. Received: "
                f"images={type(images).__name__}, annotations={type(annotations).__name__}"
            )
        if num_results is not None:
            search["num_results"] = num_results
        is_one, shown = False, None
        if images is None:
            inputs = {"annotations": np.asarray(annotations)}
        else:
            inputs, shown, is_one = self._read_inputs(images, needs_mask=mask is None)
        number = len(next(iter(inputs.values())))
        if number == 0:
            return []
        if mask is not None:
            inputs["mask"] = np.asarray(mask, "bool")
        model = caption_search(self, **search)
        # Each size of a batch is compiled anew: pictures repeat in the last one.
        size = min(number, BATCH_SIZE)
        rows = (np.arange(number + -number % size) % number).reshape(-1, size)
        # Without a data set, which takes longer to make than a few captions to search.
        parts = [model.predict_on_batch({key: x[at] for key, x in inputs.items()}) for at in rows]
        found = {name: np.concatenate([part[name] for part in parts])[:number] for name in parts[0]}
        captions = self.read(found, shown)
        return captions[0] if is_one else captions

    def generate(
        self, images: Any = None, num_results: int | None = None, **options: Any
    ) -> str | list[str] | list[list[str]]:
        """Describes each picture in a sentence, as the tasks of KerasHub do.

        Args:
            images: One picture or many, as of `caption`.
            num_results: Integer, sentences of each picture, or `None` for the best one.
            **options: Other arguments of `caption`, such as `beam_size` or `max_length`.

        Returns:
            A string for one picture, a list of strings for many. With `num_results`, a list of
            strings, the best first, takes the place of each string.

        Raises:
            ValueError, FileNotFoundError, ConnectionError: As `caption`.

        Example:

        >>> captioner.generate("photo.jpg")
        'Two dogs run through the grass.'
        """

        def sentences(found: Any) -> Any:
            return [sentences(x) for x in found] if isinstance(found, list) else found.sentence

        return sentences(self.caption(images, num_results=num_results, **options))

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        is_picture = isinstance(x, (str, os.PathLike, list, tuple)) or hasattr(x, "shape")
        if is_picture or (isinstance(x, Mapping) and "token_ids" not in x):
            raise ValueError(
                "`predict` computes the logits of given words, from a dictionary of `token_ids` "
                "and `images` or `annotations`. For sentences about pictures use `generate` or "
                f"`caption`. Received: {sorted(x) if isinstance(x, Mapping) else type(x).__name__}"
            )
        return super().predict(x, *args, **kwargs)

    def read(self, found: Mapping[str, Any], shown: Any = None) -> list[Any]:
        """Converts the result of `CaptionSearch.predict` to captions.

        Args:
            found: Dictionary of arrays, see `CaptionSearch`.
            shown: Optional sequence of `(image, seen)`, these fields of each picture's captions.

        Returns:
            List of `Caption`, the best one of each picture; a list of lists, the best one first, if
            the search had `num_results`.
        """
        if self.tokenizer is None:
            raise ValueError(
                "Sentences need a tokenizer: make the captioner with one. Received: tokenizer=None"
            )
        rows = _rows(found)
        shown = [(None, None)] * len(rows) if shown is None else shown
        _check_probabilities(found["log_probability"])
        if np.ndim(found["log_probability"]) == 1:
            return [self._read_one(row, *show) for row, show in zip(rows, shown, strict=True)]
        # Where fewer captions are possible, the search fills up with rows of probability 0.
        return [
            [self._read_one(x, *show) for x in _rows(row) if np.isfinite(x["log_probability"])]
            for row, show in zip(rows, shown, strict=True)
        ]

    def _read_one(self, found: Mapping[str, Any], image: Any, seen: Any) -> Caption:
        assert self.tokenizer is not None
        text = self.tokenizer.detokenize(found["token_ids"])
        words = text.split()
        maps, gate = None, None
        if "attention_weights" in found:
            maps = np.reshape(
                found["attention_weights"][: len(words)], (-1, *self.config.grid_shape)
            )
            gate = found["gate"][: len(words)]
        return Caption(text, words, maps, gate, float(found["log_probability"]), image, seen)

    def _read_inputs(self, images: Any, needs_mask: bool) -> tuple[dict[str, Any], list, bool]:
        """Returns the inputs of the search, the captions' `(image, seen)`, and if it is one."""
        encoder = self.encoder
        if encoder is None:
            self.annotate({"images": images})  # raises, naming the remedy
        pictures, is_one = read_pictures(images)
        resized, shown, masks = [], [], []
        for picture in pictures:  # one at a time: photos of a folder may not fit in memory
            resized.append(ops.convert_to_numpy(encoder.resize_images(picture)))
            masks.append(encoder.region_mask(*picture.shape[:2]))
            shown.append(
                reduce_picture(picture, seen_box(encoder.resize_images, *picture.shape[:2]))
            )
        inputs = {"images": np.stack(resized) if resized else np.zeros((0, 1, 1, 3), "uint8")}
        if needs_mask and encoder.resize == "pad" and masks:
            inputs["mask"] = np.stack(masks)
        return inputs, shown, is_one


def _call_with_state(model: CaptionModel, state: Any, data: Any) -> tuple[Any, Any]:
    """Samples captions with the values that JAX passes to a training step.

    Args:
        model: The model in training.
        state: Values of its trainable, non-trainable, optimizer's and metrics' variables.
        data: Minibatch.

    Returns:
        Tuple of the state with the values that the call changed, and the new minibatch.
    """
    trainable, other, optimizer, metrics = state
    variables = model.trainable_variables, model.non_trainable_variables, model.metrics_variables
    values = (trainable, other, metrics)
    pairs = [
        pair for x, y in zip(variables, values, strict=True) for pair in zip(x, y, strict=True)
    ]
    with keras.StatelessScope(state_mapping=pairs) as scope:
        data = model.self_critical.minibatch(model, data)
    _, other, metrics = ([scope.get_current_value(v) for v in group] for group in variables)
    return (trainable, other, optimizer, metrics), data


def _check_sizes(grid_shape: tuple[int, int], feature_dim: int, config: Config) -> None:
    """Raises an error where an encoder and a config do not fit."""
    expected = (tuple(config.grid_shape), config.feature_dim)
    if (grid_shape, feature_dim) != expected:
        raise ValueError(
            "The encoder's grid and feature size must be those of the config: use "
            "`config.replace(grid_shape=encoder.grid_shape, feature_dim=encoder.feature_dim)`. "
            f"Received: encoder {grid_shape}, {feature_dim}; config {expected}"
        )


def _check_probabilities(log_probabilities: np.ndarray) -> None:
    """Raises an error where the best caption of a picture has no probability."""
    best = np.asarray(log_probabilities).reshape(len(log_probabilities), -1).max(axis=-1)
    if not np.isfinite(best).all():
        raise ValueError(
            "Captions need annotation vectors and weights that are finite; compute the features "
            "again, or get the model's files again. Received: no probability for the pictures at "
            f"positions {np.flatnonzero(~np.isfinite(best))[:10].tolist()}"
        )


def _rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a dictionary for each row of a dictionary of arrays."""
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


class CaptionSearch(keras.Model):
    """A captioner's search as a model, so that `predict` compiles it and runs over a data set.

    Args:
        captioner: A `CaptionModel`.
        num_results: Integer, captions of each picture, or `None` for the best one.
        **search: Other arguments of `CaptionModel.search`, such as `beam_size`.

    Call arguments:
        inputs: Dictionary with `annotations` or `images`, and `mask`, as of `Captioner`.

    Returns:
        Dictionary of each picture's best caption: `token_ids`, shape `(batch_size, steps)`,
        `log_probability`, shape `(batch_size,)`, and of a model with attention
        `attention_weights`, shape `(batch_size, steps, num_regions)`, and `gate`, shape
        `(batch_size, steps)`. With `num_results` they have a second axis of that size, the best
        caption first.
    """

    def __init__(
        self, captioner: CaptionModel, num_results: int | None = None, **search: Any
    ) -> None:
        super().__init__()
        self.captioner = captioner
        self.num_results = num_results
        self.search = search
        self.built = True
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with one_device():
            return super().predict(*args, **kwargs)

    def predict_on_batch(self, x: Mapping[str, Any]) -> Any:
        """Searches the captions of one batch, see `keras.Model.predict_on_batch`.

        Args:
            x: Dictionary of arrays, the call's inputs.

        Returns:
            Dictionary of arrays, the call's result.
        """
        with one_device():
            return super().predict_on_batch(x)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        annotations = self.captioner.annotate(inputs)
        result = self.captioner.search(
            annotations,
            num_results=self.num_results or 1,
            mask=inputs.get("mask"),
            **self.search,
        )
        found = {
            "token_ids": result.token_ids,
            "log_probability": result.log_probability,
            **result.record,
        }
        if self.num_results is None:
            return {name: x[:, 0] for name, x in found.items()}
        return found


def caption_search(captioner: CaptionModel, **search: Any) -> CaptionSearch:
    """Returns a captioner's `CaptionSearch`, the same one for the same options.

    Compiling a search takes seconds, so the captioner keeps those that it has used.

    Args:
        captioner: A `CaptionModel`.
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
