"""Log-bilinear language models of Kiros et al.: a linear n-gram predictor, gated by the picture."""

from typing import Any

import keras
from keras import ops

from sat_keras.baselines.picture_captioner import PictureCaptioner
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import START_ID


@keras.saving.register_keras_serializable("sat_keras")
class LogBilinear(PictureCaptioner):
    """Multimodal log-bilinear captioner (MLBL), additive or factored (MLBL-F).

    With `r_w` the embedding of a word (row of `R`), `v` the picture vector and a context of the `n`
    last words

    1. `g = relu(J v + b_J)`
    2. `r_hat = sum_{i=1..n} C_i r_{w_i} + M g`, the predicted embedding
    3. additive: `p(w) = softmax(R r_hat + b)`
    4. factored, with `R = W_w W_r^T`: `f = (W_r^T r_hat) * (W_v g)`, `p(w) = softmax(W_w f + b)`

    Input and output share the embeddings, and nothing is recurrent: all steps of a caption are
    independent given its words. Before the first word the context is filled with start tokens.

    Args:
        config: A `Config`; `embedding_dim` is the size of `r_w`, `hidden_dim` that of `g`.
        tokenizer, encoder: As of `PictureCaptioner`.
        context_size: Integer `n`.
        factors: Integer, number of factors, columns of `W_w`, for the factored model; `None` for
            the additive one.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If `context_size` is below 2.

    Example:

    >>> captioner = LogBilinear(Config.tiny().replace(vocabulary_size=50, feature_dim=8))

    Reference:
        Kiros et al. 2014, "Multimodal neural language models", as the authors' published code
        (`multimodal-neural-language-models`) computes it.
    """

    option_names = ("context_size", "factors")

    def __init__(
        self,
        config: Config,
        tokenizer: Any = None,
        encoder: Any = None,
        context_size: int = 5,
        factors: int | None = None,
        **kwargs: Any,
    ) -> None:
        if context_size < 2:
            raise ValueError(
                f"`context_size` must be at least 2. Received: context_size={context_size}"
            )
        size = config.embedding_dim
        super().__init__(
            config,
            tokenizer,
            encoder,
            embedding_dim=factors or size,
            output_dim=factors or size,
            tie_embeddings=True,
            **kwargs,
        )
        self.context_size = context_size
        self.factors = factors
        units = config.hidden_dim
        dense = keras.layers.Dense
        self.read_picture = self.make_layer(
            dense, units, (None, config.feature_dim), "read_picture", activation="relu"
        )
        self.picture_part = self.make_layer(
            dense, size, (None, units), "picture_part", use_bias=False
        )
        # A convolution over the words is the sum of C_i r_{w_i}, for all steps at once.
        self.context_parts = self.make_layer(
            keras.layers.Conv1D,
            size,
            (None, None, size),
            "context_parts",
            kernel_size=context_size,
            use_bias=False,
        )
        if factors:
            self.word_factors = self.add_weight(
                shape=(size, factors), initializer="glorot_uniform", name="word_factors"
            )
            self.picture_factors = self.make_layer(
                dense, factors, (None, units), "picture_factors", use_bias=False
            )
        self.built = True

    def start(self, picture: Any) -> list[Any]:
        g = self.read_picture(picture)
        rows = ops.shape(picture)[0]
        fill = self.embedding(ops.full((rows, self.context_size - 1), START_ID, "int32"))
        states = [fill, self.picture_part(g)]
        return [*states, self.picture_factors(g)] if self.factors else states

    def next(self, word: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        context, *of_picture = states
        window = ops.concatenate([context, ops.expand_dims(word, 1)], axis=1)
        return self._predict(window, of_picture)[:, 0], [window[:, 1:], *of_picture]

    def run(self, words: Any, states: list[Any]) -> Any:
        context, *of_picture = states
        return self._predict(ops.concatenate([context, words], axis=1), of_picture)

    def _predict(self, window: Any, of_picture: list[Any]) -> Any:
        """Computes `r_hat`, or `f` of the factored model, at every complete context."""
        if not self.factors:
            return self.context_parts(window) + ops.expand_dims(of_picture[0], 1)
        factors = ops.cast(self.word_factors, self.compute_dtype)
        r = ops.tensordot(window, ops.transpose(factors), axes=1)
        predicted = self.context_parts(r) + ops.expand_dims(of_picture[0], 1)
        return ops.tensordot(predicted, factors, axes=1) * ops.expand_dims(of_picture[1], 1)


@keras.saving.register_keras_serializable("sat_keras")
class FactoredLogBilinear(LogBilinear):
    """The factored model, MLBL-F, with as many factors as its authors use.

    Args:
        *args: Arguments of `LogBilinear`.
        factors: Integer, number of factors.
        **kwargs: Arguments of `LogBilinear`.
    """

    def __init__(self, *args: Any, factors: int = 50, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "factors": factors})
