"""Captioning models: a `keras.Model` that searches captions by its step function."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from sat_keras.backend.devices import one_device
from sat_keras.captioning.caption import Caption
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID, Tokenizer
from sat_keras.search.beam import beam_search
from sat_keras.search.loop import SearchResult, StepFunction


class CaptionModel(keras.Model):
    """Base class of captioning models: `generate`, `caption` and compiled search.

    A subclass defines `annotate` and `step_function`.

    Args:
        config: A `Config`.
        tokenizer: `Tokenizer` of the captions, or `None` for a model of token ids.
        encoder: `ImageEncoder`, or `None` for a model of annotation vectors.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None = None,
        encoder: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.searches = _Searches()
        self.config = config
        self.tokenizer = tokenizer
        self.encoder = encoder

    def annotate(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
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
            context, seed, mask: As of `generate`.

        Returns:
            Tuple `(step, states)`, see `sat_keras.search.loop`. The record has `attention_weights`
            and `gate`.
        """
        raise NotImplementedError

    def generate(
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
            A `SearchResult` with the record's `attention_weights`, shape
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

    def read(self, found: Mapping[str, Any]) -> list[Caption]:
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
        captions = []
        for token_ids, log_probability, weights, gate in zip(
            *(found[x] for x in FOUND), strict=True
        ):
            text = self.tokenizer.detokenize(token_ids)
            words = text.split()
            maps = np.reshape(weights[: len(words)], (-1, *self.config.grid_shape))
            captions.append(Caption(text, words, maps, gate[: len(words)], float(log_probability)))
        return captions


FOUND = ("token_ids", "log_probability", "attention_weights", "gate")


class CaptionSearch(keras.Model):
    """A captioner's search as a model, so that `predict` compiles it and runs over a data set.

    Args:
        captioner: A `CaptionModel`.
        **search: Other arguments of `CaptionModel.generate`, such as `beam_size`.

    Call arguments:
        inputs: Dictionary with `annotations` or `images`, and `mask`, as of `Captioner`.

    Returns:
        Dictionary of each picture's best caption: `token_ids`, shape `(batch_size, steps)`,
        `log_probability`, shape `(batch_size,)`, `attention_weights`, shape
        `(batch_size, steps, num_regions)`, and `gate`, shape `(batch_size, steps)`.
    """

    def __init__(self, captioner: CaptionModel, **search: Any) -> None:
        super().__init__()
        self.captioner = captioner
        self.search = search
        self.built = True
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with one_device():
            return super().predict(*args, **kwargs)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
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
