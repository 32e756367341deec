"""Visual memory of Chen and Zitnick (Mind's Eye), the row "CMU/MS Research" of Table 1."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from sat_keras.backend.devices import sum_over_devices
from sat_keras.baselines.recurrent import RecurrentCaptioner
from sat_keras.config.config import Config
from sat_keras.data.tokenizer import Tokenizer


@keras.saving.register_keras_serializable("sat_keras")
class VisualMemory(RecurrentCaptioner):
    """Two RNNs: one writes the caption, one remembers what the words say about the picture.

    1. `s_t = sigmoid(W_sw E y_{t-1} + W_ss s_{t-1} + W_sv v + b_s)`, the language state
    2. `u_t = sigmoid(W_uw E y_{t-1} + W_uu u_{t-1} + b_u)`, the visual memory, of the words alone
    3. `v'_t = W_vu u_t + b_v`, the picture vector reconstructed from the memory
    4. `p(y_t) = softmax(L [s_t; u_t] + b)`

    The loss is `sum_t -log p(y_t) + reconstruction_weight * sum_t mean((v - v'_t)^2)`.

    This is after the paper, not the paper: no code of it is public, and its equations are
    remembered, not confirmed. Word classes and maximum-entropy n-gram features are left out.

    Args:
        config, tokenizer, encoder: As of `PictureCaptioner`.
        reconstruction_weight: Float, weight of the reconstruction error.
        **kwargs: Arguments of `PictureCaptioner`.

    Example:

    >>> captioner = VisualMemory(Config.tiny().replace(vocabulary_size=50, feature_dim=8))

    Reference:
        [Chen and Zitnick, 2015](https://arxiv.org/abs/1411.5654).
    """

    option_names = ("reconstruction_weight",)

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None = None,
        encoder: Any = None,
        reconstruction_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, encoder, output_dim=2 * config.hidden_dim, **kwargs)
        self.reconstruction_weight = reconstruction_weight
        units, feature_dim = config.hidden_dim, config.feature_dim
        self.picture_part = self.make_layer(
            keras.layers.Dense, units, (None, feature_dim), "picture_part", use_bias=False
        )
        self.reconstruction = self.make_layer(
            keras.layers.Dense, feature_dim, (None, units), "reconstruction"
        )
        self.reconstruction_tracker = keras.metrics.Mean("reconstruction")
        self._set_cell(VisualMemoryCell(units, name="cell", dtype=self.dtype_policy))

    def start(self, picture: Any) -> list[Any]:
        of_picture = self.picture_part(picture)
        return [ops.zeros_like(of_picture), ops.zeros_like(of_picture), of_picture]

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        outputs = super().call(inputs, training=training)
        memory = outputs["hidden"][..., self.config.hidden_dim :]
        # (batch, 1, 1, feature_dim)
        picture = outputs["picture"][:, None, None]
        error = ops.mean((picture - self.reconstruction(memory)) ** 2, axis=-1)
        return {**outputs, "reconstruction_error": error}

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
            x, y, y_pred, sample_weight, training: As of `PictureCaptioner`.

        Returns:
            Scalar tensor.
        """
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        weight = ops.ones_like(y) if sample_weight is None else sample_weight
        weight = ops.cast(weight, "float32")
        error = ops.sum(weight * ops.cast(y_pred["reconstruction_error"], "float32"))
        self.reconstruction_tracker.update_state(error / ops.maximum(ops.sum(weight), 1.0))
        captions = sum_over_devices(ops.sum(ops.cast(ops.sum(weight, axis=-1) > 0, "float32")))
        return loss + self.reconstruction_weight * error / ops.maximum(captions, 1.0)


@keras.saving.register_keras_serializable("sat_keras")
class VisualMemoryCell(keras.Layer):
    """One step of `VisualMemory`: equations 1 and 2.

    Args:
        units: Integer, size of `s` and of `u`.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        inputs: Tensor of shape `(rows, input_dim)`.
        states: List of `s`, `u` and `W_sv v`, shape `(rows, units)`.

    Returns:
        Tuple of `[s; u]`, shape `(rows, 2 * units)`, and the list of the new states.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, units, units]
        self.output_size = 2 * units

        def dense(name: str, use_bias: bool, initializer: str) -> keras.layers.Dense:
            return keras.layers.Dense(
                units,
                use_bias=use_bias,
                kernel_initializer=initializer,
                name=name,
                dtype=self.dtype_policy,
            )

        self.language_word = dense("language_word", True, "glorot_uniform")
        self.language_state = dense("language_state", False, "orthogonal")
        self.memory_word = dense("memory_word", True, "glorot_uniform")
        self.memory_state = dense("memory_state", False, "orthogonal")

    def build(self, input_shape: Any) -> None:
        self.language_word.build(input_shape)
        self.memory_word.build(input_shape)
        self.language_state.build((None, self.units))
        self.memory_state.build((None, self.units))
        self.built = True

    def call(self, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        s, u, of_picture = states
        s = ops.sigmoid(self.language_word(inputs) + self.language_state(s) + of_picture)
        u = ops.sigmoid(self.memory_word(inputs) + self.memory_state(u))
        return ops.concatenate([s, u], axis=-1), [s, u, of_picture]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
