"""Captioners with an RNN and without attention: they differ in the cell and in where it sees `v`.

| class | cell | picture vector |
|---|---|---|
| `InitInject` | LSTM | its initial state |
| `GoogleNIC` | LSTM without biases and without tanh of the cell state | its first word |
| `MultimodalRNN` | ReLU | added at the first step, or at every step |
"""

from typing import Any

import keras
from keras import ops

from sat_keras.backend.dense import forget_gate_bias
from sat_keras.baselines.picture_captioner import PictureCaptioner


class RecurrentCaptioner(PictureCaptioner):
    """Captioner whose recurrence is a Keras RNN cell.

    Args:
        *args, **kwargs: Arguments of `PictureCaptioner`.
    """

    cell: Any

    def _set_cell(self, cell: Any) -> None:
        """Builds a cell that reads words. Training loops over it, search calls it."""
        self.cell = cell
        self.loop = keras.layers.RNN(
            cell, return_sequences=True, name="loop", dtype=self.dtype_policy
        )
        self.loop.build((None, None, self.embedding_dim))
        self.built = True

    def next(self, word: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        hidden, states = self.cell(word, states)
        return hidden, list(states)

    def run(self, words: Any, states: list[Any]) -> Any:
        return self.loop(words, initial_state=states)


@keras.saving.register_keras_serializable("sat_keras")
class InitInject(RecurrentCaptioner):
    """LSTM captioner that sees the picture as its initial state ("init-inject").

    With `E y` the embedding of the previous word and `v` the picture vector

    1. `h_0 = tanh(W_h v + b_h)`, `c_0 = tanh(W_c v + b_c)`
    2. `h_t, c_t = LSTM(E y_{t-1}, h_{t-1}, c_{t-1})`
    3. `p(y_t) = softmax(L h_t + b)`

    This is Show, Attend and Tell's decoder without attention, so that the difference between the
    two is what attention is worth. Tanti et al. leave out the tanh of 1 and use a GRU.

    Args:
        *args, **kwargs: Arguments of `PictureCaptioner`.

    Example:

    >>> captioner = InitInject(Config.tiny().replace(vocabulary_size=50, feature_dim=8))
    >>> annotations, token_ids = keras.random.normal((2, 4, 8)), keras.ops.ones((2, 5, 6), "int32")
    >>> captioner({"annotations": annotations, "token_ids": token_ids})["logits"].shape
    (2, 5, 6, 50)

    Reference:
        [Tanti et al., 2018](https://arxiv.org/abs/1703.09137), "Where to put the image in an image
        caption generator".
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shape, units = (None, self.config.feature_dim), self.config.hidden_dim
        dense = keras.layers.Dense
        self.initial_hidden = self.make_layer(
            dense, units, shape, "initial_hidden", activation="tanh"
        )
        self.initial_cell = self.make_layer(dense, units, shape, "initial_cell", activation="tanh")
        self._set_cell(keras.layers.LSTMCell(units, name="cell", dtype=self.dtype_policy))

    def start(self, picture: Any) -> list[Any]:
        return [self.initial_hidden(picture), self.initial_cell(picture)]


@keras.saving.register_keras_serializable("sat_keras")
class GoogleNIC(RecurrentCaptioner):
    """Show and Tell (Google NIC): the picture is the first word of an LSTM.

    1. `m_0, c_0 = LSTM(W_I v, 0, 0)`, not scored
    2. `m_t, c_t = LSTM(E y_{t-1}, m_{t-1}, c_{t-1})`
    3. `p(y_t) = softmax(L m_t + b)`

    with the LSTM of `NICCell`, which has neither biases nor a tanh of the cell state.

    Args:
        *args: Arguments of `PictureCaptioner`.
        use_bias: Boolean, whether the LSTM has biases.
        use_tanh: Boolean, whether `m = o tanh(c)` in place of `m = o c`.
        **kwargs: Arguments of `PictureCaptioner`.

    Example:

    >>> captioner = GoogleNIC(Config.tiny().replace(vocabulary_size=50, feature_dim=8))

    Reference:
        [Vinyals et al., 2015](https://arxiv.org/abs/1411.4555), equations 4 to 11 as notes on the
        paper and the published code of its authors (`im2txt`) give them.
    """

    option_names = ("use_bias", "use_tanh")

    def __init__(
        self, *args: Any, use_bias: bool = False, use_tanh: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.use_bias = use_bias
        self.use_tanh = use_tanh
        self.picture_word = self.make_layer(
            keras.layers.Dense,
            self.embedding_dim,
            (None, self.config.feature_dim),
            "picture_word",
            use_bias=False,
        )
        self._set_cell(
            NICCell(
                self.config.hidden_dim,
                use_bias=use_bias,
                use_tanh=use_tanh,
                name="cell",
                dtype=self.dtype_policy,
            )
        )

    def start(self, picture: Any) -> list[Any]:
        word = self.picture_word(picture)
        zeros = ops.zeros((ops.shape(word)[0], self.config.hidden_dim), word.dtype)
        return self.next(word, [zeros, zeros])[1]


@keras.saving.register_keras_serializable("sat_keras")
class NICCell(keras.Layer):
    """The LSTM of Show and Tell, one step.

    1. `i, f, g, o = W x + U m (+ b)`, split into four
    2. `c = sigmoid(f) c + sigmoid(i) tanh(g)`
    3. `m = sigmoid(o) c`, or `sigmoid(o) tanh(c)` with `use_tanh`

    Args:
        units: Integer, size of `m` and `c`.
        use_bias: Boolean, whether there is a bias `b`, 1 for the forget gate at the start.
        use_tanh: Boolean, see 3.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        inputs: Tensor of shape `(rows, input_dim)`.
        states: List of `m` and `c`, shape `(rows, units)`.

    Returns:
        Tuple of `m` and the list of the new `m` and `c`.

    Reference:
        Vinyals et al. 2015, equations 4 to 8.
    """

    def __init__(
        self, units: int, use_bias: bool = False, use_tanh: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.use_bias = use_bias
        self.use_tanh = use_tanh
        self.state_size = [units, units]
        self.output_size = units

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1], 4 * self.units)
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, 4 * self.units), initializer="orthogonal", name="recurrent_kernel"
        )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(4 * self.units,), initializer=forget_gate_bias, name="bias"
            )
        self.built = True

    def call(self, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        m, c = states
        gates = ops.matmul(inputs, self.kernel) + ops.matmul(m, self.recurrent_kernel)
        if self.use_bias:
            gates = gates + self.bias
        i, f, g, o = ops.split(gates, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        m = ops.sigmoid(o) * (ops.tanh(c) if self.use_tanh else c)
        return m, [m, c]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "use_tanh": self.use_tanh,
        }


@keras.saving.register_keras_serializable("sat_keras")
class MultimodalRNN(RecurrentCaptioner):
    """Multimodal RNN of Karpathy and Li, the row "BRNN" of the paper's Table 1.

    1. `b_v = W_v v`
    2. `h_t = relu(W_x E y_{t-1} + W_h h_{t-1} + b + [t = 1] b_v)`, `h_0 = 0`
    3. `p(y_t) = softmax(L h_t + b)`

    "BRNN" names the model that aligns regions and phrases; this is the generator of the captions.

    Args:
        *args: Arguments of `PictureCaptioner`.
        every_step: Boolean, whether `b_v` is added at every step, as the authors' code (NeuralTalk)
            does by default, or at the first one, as in the paper.
        **kwargs: Arguments of `PictureCaptioner`.

    Example:

    >>> captioner = MultimodalRNN(Config.tiny().replace(vocabulary_size=50, feature_dim=8))

    Reference:
        [Karpathy and Li, 2015](https://arxiv.org/abs/1412.2306), section 3.2. The layout of the
        equations is remembered, not confirmed; symbols and text are the paper's.
    """

    option_names = ("every_step",)

    def __init__(self, *args: Any, every_step: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.every_step = every_step
        self.picture_bias = self.make_layer(
            keras.layers.Dense,
            self.config.hidden_dim,
            (None, self.config.feature_dim),
            "picture_bias",
            use_bias=False,
        )
        self._set_cell(
            MultimodalCell(self.config.hidden_dim, every_step, name="cell", dtype=self.dtype_policy)
        )

    def start(self, picture: Any) -> list[Any]:
        bias = self.picture_bias(picture)
        return [ops.zeros_like(bias), bias]


@keras.saving.register_keras_serializable("sat_keras")
class MultimodalCell(keras.Layer):
    """One step of `MultimodalRNN`: `h = relu(W_x x + W_h h + b + b_v)`.

    Args:
        units: Integer, size of `h`.
        every_step: Boolean, whether `b_v` stays for the next step or becomes 0.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        inputs: Tensor of shape `(rows, input_dim)`.
        states: List of `h` and `b_v`, shape `(rows, units)`.

    Returns:
        Tuple of `h` and the list of the new states.
    """

    def __init__(self, units: int, every_step: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.every_step = every_step
        self.state_size = [units, units]
        self.output_size = units
        self.of_word = keras.layers.Dense(units, name="of_word", dtype=self.dtype_policy)
        # Orthogonal x 0.9: a ReLU recurrence neither vanishes nor explodes at the start.
        self.of_hidden = keras.layers.Dense(
            units,
            use_bias=False,
            kernel_initializer=keras.initializers.Orthogonal(gain=0.9),
            name="of_hidden",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        self.of_word.build(input_shape)
        self.of_hidden.build((None, self.units))
        self.built = True

    def call(self, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        h, b_v = states
        h = ops.relu(self.of_word(inputs) + self.of_hidden(h) + b_v)
        return h, [h, b_v if self.every_step else ops.zeros_like(b_v)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "every_step": self.every_step}
