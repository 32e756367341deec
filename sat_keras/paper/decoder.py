"""The LSTM decoder: equations 1 to 3 and 7, the initial state, and the gate of section 4.2.1."""

from typing import Any

import keras
from keras import ops

from sat_keras import fast
from sat_keras.backend.dense import RowDense, embedding_matrix, float_dtype, forget_gate_bias
from sat_keras.backend.gumbel import Sampling, draw_locations
from sat_keras.backend.scan import scan, unpack
from sat_keras.paper.attention import BahdanauAttention
from sat_keras.paper.hard_attention import HardAttention

States = dict[str, Any]


@keras.saving.register_keras_serializable("sat_keras")
class AttentionDecoder(keras.Layer):
    """LSTM decoder of Show, Attend and Tell, which attends to the picture before every word.

    With `E y` the embedding of the previous word and `a` the annotation vectors, a step is

    1. `z_hat, alpha = attention(h, a)`, the context before the gate (equations 4 to 6)
    2. `beta = sigmoid(w_beta . h + b)`, the gate, and `z = beta z_hat`, the context
    3. `i, f, g, o = T [E y; h; z]` (equation 1), `c = sigmoid(f) c + sigmoid(i) tanh(g)` (2),
       `h = sigmoid(o) tanh(c)` (3), the LSTM
    4. `logits = L_o tanh(E y + L_h h + L_z z)`, the deep output (equation 7)

    and `c_0 = tanh(MLP_c(mean_i a_i))`, `h_0 = tanh(MLP_h(mean_i a_i))`. `recurrent_step` is
    steps 1 to 3 as they stand here, `predict_words` is 4.

    The axis `captions` of every tensor below holds the captions of one picture in training and
    its beams in search. They share the picture's annotation vectors and projected keys.

    Args:
        vocabulary_size: Integer, number of token ids.
        embedding_dim, hidden_dim, attention_dim: Integers, sizes `m` of the word embedding, `n` of
            the LSTM's hidden and cell state, and of the attention's hidden layer.
        dropout: Float in [0, 1), dropout rate of the hidden state and of the deep output's hidden
            layer.
        embedding_dropout, annotation_dropout: Floats in [0, 1), dropout rates of the word
            embeddings and of the annotation vectors' features (the same ones in all regions).
        initial_dim: Integer, size of a ReLU layer under both MLPs of the initial state (as in the
            authors' code), or `None` for one tanh layer each.
        use_gate: Boolean, `False` leaves out the gate (`beta = 1`).
        use_deep_output: Boolean, `False` computes `logits = L_o h`.
        use_output_tanh: Boolean, `False` leaves out the deep output's tanh, as the paper's
            equation 7 does. The authors' code has it.
        tie_embeddings: Boolean, `True` uses the embedding matrix as `L_o`.
        normalize_annotations: Boolean, `True` normalises every annotation vector to mean 0 and
            variance 1. VGG's have norms from 30 to 400, which saturate tanh and gates.
        use_word_query: Boolean, `True` adds the previous word to the query of attention and gate:
            `attention([h; E y], a)` and `sigmoid(w_beta . [h; E y] + b)`. The paper's `h` was
            computed before that word was chosen.
        hard_attention: Dictionary of the options of `HardAttention`, `None` for soft attention.
        implementation: `"reference"` loops over `recurrent_step`; `"fused"` runs the same
            equations faster, with the gradient written out; `"auto"` is `"fused"` where that
            supports the layer, see `sat_keras.fast.choose_implementation`.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        token_ids: Integer tensor of shape `(batch_size, captions, steps)`, the previous words
            (teacher forcing).
        annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
        mask: Optional boolean tensor of shape `(batch_size, num_regions)`, `False` for regions
            that are padding.
        training: Boolean, whether dropout is active and hard attention draws regions.

    Returns:
        Dictionary of `logits`, shape `(batch_size, captions, steps, vocabulary_size)`,
        `attention_weights`, shape `(batch_size, captions, steps, num_regions)`, and `gate`, shape
        `(batch_size, captions, steps)`. Where hard attention chooses regions also `locations`,
        int32, shape `(batch_size, captions, steps)`, and `sampled`, shape `(batch_size, 1)`, 0 for
        the pictures whose context is the expected one; in training every caption then has
        `samples` rows in place of one.

    Example:

    >>> decoder = AttentionDecoder(
    ...     vocabulary_size=100, embedding_dim=16, hidden_dim=32, attention_dim=8
    ... )
    >>> annotations = keras.random.normal((2, 196, 512))
    >>> outputs = decoder(keras.ops.ones((2, 5, 12), "int32"), annotations)
    >>> outputs["logits"].shape
    (2, 5, 12, 100)

    Reference:
        Xu et al. 2015, section 3.1.2 and equations 1 to 3, 7 and 13 to 15. Notebook
        `03_decoder_and_loss`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        hidden_dim: int,
        attention_dim: int,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        annotation_dropout: float = 0.0,
        initial_dim: int | None = None,
        use_gate: bool = True,
        use_deep_output: bool = True,
        use_output_tanh: bool = True,
        tie_embeddings: bool = False,
        normalize_annotations: bool = False,
        use_word_query: bool = False,
        hard_attention: dict[str, Any] | None = None,
        implementation: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.hidden_dim = hidden_dim
        self.attention_dim = attention_dim
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.annotation_dropout = annotation_dropout
        self.initial_dim = initial_dim
        self.use_gate = use_gate
        self.use_deep_output = use_deep_output
        self.use_output_tanh = use_output_tanh
        self.tie_embeddings = tie_embeddings
        self.normalize_annotations = normalize_annotations
        self.use_word_query = use_word_query
        self.hard_attention = hard_attention
        self.implementation = fast.check_implementation(implementation)
        if tie_embeddings and not use_deep_output:
            raise ValueError(
                "`tie_embeddings=True` needs the deep output, whose hidden layer has the "
                "embedding's size: set `use_deep_output=True`. Received: use_deep_output=False"
            )
        self._make_layers()

    def _make_layers(self) -> None:
        """Creates the layers; those that a switch leaves out are `None`."""

        def dense(units: Any, name: str, used: Any = True, **options: Any) -> Any:
            return RowDense(units, name=name, dtype=self.dtype_policy, **options) if used else None

        def drop(rate: float, name: str) -> keras.layers.Dropout:
            return keras.layers.Dropout(rate, name=name, dtype=self.dtype_policy)

        embedding_dim, hidden_dim = self.embedding_dim, self.hidden_dim
        self.embedding = keras.layers.Embedding(
            self.vocabulary_size,
            embedding_dim,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=embedding_dim**-0.5),
            name="embedding",
            dtype=self.dtype_policy,
        )
        # Without gain and bias: every layer that reads the annotation vectors has its own.
        self.normalize = keras.layers.LayerNormalization(
            center=False, scale=False, name="normalize", dtype=self.dtype_policy
        )
        kind = BahdanauAttention if self.hard_attention is None else HardAttention
        self.attention = kind(
            self.attention_dim,
            **(self.hard_attention or {}),
            name="attention",
            dtype=self.dtype_policy,
        )
        # Pre-activation of beta, in float32 at any precision.
        self.gate = dense(1, "gate", self.use_gate, float_outputs=True)
        # The previous word's parts of the query and of the gate.
        self.word_query = dense(
            self.attention_dim + self.use_gate, "word_query", self.use_word_query, use_bias=False
        )
        self.initial_shared = dense(
            self.initial_dim, "initial_shared", self.initial_dim, activation="relu"
        )
        self.initial_hidden = dense(hidden_dim, "initial_hidden", activation="tanh")
        self.initial_cell = dense(hidden_dim, "initial_cell", activation="tanh")
        # The LSTM's matrix T, in the three blocks that multiply E y, h and z. Order of the gates:
        # input, forget, candidate, output, as in keras.layers.LSTM and torch.nn.LSTMCell.
        self.lstm_embedding = dense(
            4 * hidden_dim, "lstm_embedding", bias_initializer=forget_gate_bias
        )
        self.lstm_hidden = dense(
            4 * hidden_dim, "lstm_hidden", use_bias=False, kernel_initializer="orthogonal"
        )
        self.lstm_context = dense(4 * hidden_dim, "lstm_context", use_bias=False)
        deep = self.use_deep_output
        self.output_hidden = dense(embedding_dim, "output_hidden", deep)
        self.output_context = dense(embedding_dim, "output_context", deep, use_bias=False)
        self.output_words = dense(self.vocabulary_size, "output_words", not self.tie_embeddings)
        self.drop_output = drop(self.dropout, "drop_output")
        self.drop_hidden = drop(self.dropout, "drop_hidden")
        self.drop_embedding = drop(self.embedding_dropout, "drop_embedding")
        self.drop_annotations = keras.layers.SpatialDropout1D(
            self.annotation_dropout, name="drop_annotations", dtype=self.dtype_policy
        )

    def build(self, token_ids_shape: Any, annotations_shape: Any, **_: Any) -> None:
        feature_dim = annotations_shape[-1]
        hidden, embedding = (None, None, self.hidden_dim), (None, None, self.embedding_dim)
        context, mean = (None, None, feature_dim), (None, self.initial_dim or feature_dim)
        self.attention.build(hidden, annotations_shape)
        for layer, shape in (
            (self.embedding, token_ids_shape),
            (self.normalize, annotations_shape),
            (self.initial_shared, (None, feature_dim)),
            (self.initial_hidden, mean),
            (self.initial_cell, mean),
            (self.lstm_embedding, embedding),
            (self.lstm_hidden, hidden),
            (self.lstm_context, context),
            (self.gate, hidden),
            (self.word_query, embedding),
            (self.output_hidden, hidden),
            (self.output_context, context),
            (self.output_words, embedding if self.use_deep_output else hidden),
        ):
            if layer is not None:
                layer.build(shape)

    # Before the loop, once for a picture

    def read_annotations(self, annotations: Any, training: bool = False) -> tuple[Any, Any]:
        """Prepares a picture's annotation vectors, once for all steps, captions and beams.

        Args:
            annotations, training: As in the call.

        Returns:
            Tuple of the annotation vectors that all other methods take, of the same shape, and
            their keys, shape `(batch_size, num_regions, attention_dim)`.
        """
        annotations = ops.cast(annotations, self.compute_dtype)
        if self.normalize_annotations:
            annotations = self.normalize(annotations)
        annotations = self.drop_annotations(annotations, training=training)
        return annotations, self.attention.project(annotations)

    def initial_state(
        self, annotations: Any, captions: Any = 1, mask: Any = None
    ) -> tuple[Any, Any]:
        """Predicts the LSTM's state before the first word from the mean annotation vector.

        Args:
            annotations: The result of `read_annotations`.
            captions: Integer, number of captions of a picture that start from this state.
            mask: As in the call. The mean is over the regions that are `True`.

        Returns:
            Tuple `(hidden, cell)` of tensors of shape `(batch_size, captions, hidden_dim)`.
        """
        mean = mean_annotation(annotations, mask)
        if self.initial_shared:
            mean = self.initial_shared(mean)
        dtype = float_dtype(self.compute_dtype)

        def repeat(state: Any) -> Any:  # (batch, hidden_dim) -> (batch, captions, hidden_dim)
            return ops.repeat(ops.cast(ops.expand_dims(state, 1), dtype), captions, axis=1)

        return repeat(self.initial_hidden(mean)), repeat(self.initial_cell(mean))

    # One step: the equations

    def recurrent_step(
        self,
        word: Any,
        states: States,
        annotations: Any,
        keys: Any,
        mask: Any = None,
        sampling: Sampling | None = None,
    ) -> tuple[States, dict[str, Any]]:
        """Attends to the picture and updates the LSTM: steps 1 to 3 of the class's equations.

        Args:
            word: Tensor `E y` of shape `(batch_size, captions, embedding_dim)`.
            states: Dictionary of `hidden` and `cell`, shape `(batch_size, captions, hidden_dim)`.
            annotations, keys: The results of `read_annotations`.
            mask: As in the call.
            sampling: One step's `Sampling`; `None` for soft attention.

        Returns:
            Tuple of the new states and a dictionary of the `context`, shape
            `(batch_size, captions, feature_dim)`, `attention_weights`, shape
            `(batch_size, captions, num_regions)`, and `gate`, shape `(batch_size, captions, 1)`.
        """
        h, c = states["hidden"], states["cell"]
        of_query, of_gate = self._word_parts(word)
        drawn = {} if sampling is None else {"sampling": sampling}
        z_hat, alpha = self.attention(  # (4) to (6)
            h, annotations, keys=keys, mask=mask, query_bias=of_query, **drawn
        )
        beta = self._gate(h, of_gate)
        z = beta * ops.cast(z_hat, h.dtype)  # section 4.2.1
        parts = self.lstm_embedding(word), self.lstm_hidden(h), self.lstm_context(z)
        # (batch, captions, 4 * hidden_dim) -> 4 x (batch, captions, hidden_dim)
        i, f, g, o = ops.split(sum(ops.cast(part, h.dtype) for part in parts), 4, axis=-1)  # (1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)  # (2)
        h = ops.sigmoid(o) * ops.tanh(c)  # (3)
        return {"hidden": h, "cell": c}, {"context": z, "attention_weights": alpha, "gate": beta}

    def predict_words(self, word: Any, hidden: Any, context: Any, training: bool = False) -> Any:
        """Computes the deep output (equation 7), for any number of steps.

        Args:
            word: Tensor `E y` of shape `(..., embedding_dim)`, the embedded previous words.
            hidden: Tensor of shape `(..., hidden_dim)`.
            context: Tensor of shape `(..., feature_dim)`, after the gate.
            training: Boolean, whether dropout is active.

        Returns:
            Tensor of logits of shape `(..., vocabulary_size)`.
        """
        hidden = ops.cast(hidden, self.compute_dtype)
        context = ops.cast(context, self.compute_dtype)
        output = self._drop(self.drop_hidden, hidden, training)
        if self.use_deep_output:
            output = word + self.output_hidden(output) + self.output_context(context)
            if self.use_output_tanh:
                output = ops.tanh(output)
            output = self._drop(self.drop_output, output, training)
        if self.output_words:
            return self.output_words(output)
        return ops.tensordot(output, ops.transpose(embedding_matrix(self.embedding)), axes=1)

    def step(
        self,
        token_ids: Any,
        states: States,
        annotations: Any,
        keys: Any,
        mask: Any = None,
        sampling: Sampling | None = None,
    ) -> tuple[Any, States, dict[str, Any]]:
        """Decodes one word further: embedding, `recurrent_step`, `predict_words`.

        Args:
            token_ids: Integer tensor of shape `(batch_size, captions)`, the previous words.
            states, annotations, keys, mask, sampling: As of `recurrent_step`.

        Returns:
            Tuple of the logits, shape `(batch_size, captions, vocabulary_size)`, the new states
            and a dictionary of `attention_weights`, shape `(batch_size, captions, num_regions)`,
            and `gate`, shape `(batch_size, captions)`.
        """
        word = self.embedding(token_ids)
        states, found = self.recurrent_step(word, states, annotations, keys, mask, sampling)
        logits = self.predict_words(word, states["hidden"], found["context"])
        record = {"attention_weights": found["attention_weights"], "gate": found["gate"][..., 0]}
        return logits, states, record

    # All steps

    def call(
        self, token_ids: Any, annotations: Any, mask: Any = None, training: bool = False
    ) -> dict[str, Any]:
        annotations, keys = self.read_annotations(annotations, training=training)
        return self.decode(token_ids, annotations, keys, mask, training)

    def decode(
        self, token_ids: Any, annotations: Any, keys: Any, mask: Any = None, training: bool = False
    ) -> dict[str, Any]:
        """Computes all steps of teacher forcing from what `read_annotations` returns.

        Args:
            token_ids, mask, training: As in the call.
            annotations, keys: The results of `read_annotations`. With the keys of another picture
                attention looks elsewhere, as in `sat_keras.analysis.worth`.

        Returns:
            The dictionary of the call.
        """
        words = self.drop_embedding(self.embedding(token_ids), training=training)
        if training and self.attention.samples > 1:
            words = ops.repeat(words, self.attention.samples, axis=1)
        batch_size, rows, steps = ops.shape(words)[:3]
        hidden, cell = self.initial_state(annotations, rows, mask)
        sampling = self.attention.draw((steps, batch_size, rows, annotations.shape[1]), training)
        arguments = (words, {"hidden": hidden, "cell": cell}, annotations, keys, mask, sampling)
        found = fast.run_steps(self, *arguments) if self.uses_fused() else self._loop(*arguments)
        # (steps, batch, captions, width) -> (batch, captions, steps, width)
        found = {name: ops.transpose(x, (1, 2, 0, 3)) for name, x in found.items()}
        outputs = {
            "logits": self.predict_words(words, found["hidden"], found["context"], training),
            "attention_weights": found["attention_weights"],
            "gate": found["gate"][..., 0],
        }
        if sampling is not None and sampling.draws:
            noise = ops.transpose(sampling.noise, (1, 2, 0, 3))
            outputs["locations"] = draw_locations(found["attention_weights"], noise)
            outputs["sampled"] = 1 - sampling.expected[..., 0]
        return outputs

    def _loop(
        self, words: Any, states: States, annotations: Any, keys: Any, mask: Any, sampling: Any
    ) -> dict[str, Any]:
        """Runs `recurrent_step` for all steps and stacks its results along a first axis."""
        words = ops.transpose(words, (2, 0, 1, 3))  # (steps, batch, captions, embedding_dim)
        num_regions, feature_dim = annotations.shape[1:]
        widths = {"hidden": self.hidden_dim, "cell": self.hidden_dim, "context": feature_dim}
        widths |= {"attention_weights": num_regions, "gate": 1}

        def step(t: Any, last: States) -> dict[str, Any]:
            now = sampling and sampling.at(t)
            new, found = self.recurrent_step(words[t], last, annotations, keys, mask, now)
            return {**new, **found}

        return unpack(scan(step, states, ops.shape(words)[0], widths), widths)

    def uses_fused(self) -> bool:
        """Returns whether the fused loop runs; see `sat_keras.fast.choose_implementation`."""
        return fast.choose_implementation(self.implementation, self)[0] == "fused"

    def _gate(self, h: Any, of_word: Any) -> Any:
        """Computes `beta = sigmoid(w_beta . h + b)`, shape `(batch, captions, 1)`."""
        if self.gate is None:
            return ops.ones_like(h[..., :1])
        return ops.sigmoid(ops.cast(self.gate(h), h.dtype) + of_word)

    def _word_parts(self, word: Any) -> tuple[Any, Any]:
        """Returns the previous word's parts of the query and of the gate's pre-activation."""
        if self.word_query is None:
            return None, 0.0
        parts = ops.cast(self.word_query(word), float_dtype(self.compute_dtype))
        return parts[..., : self.attention_dim], parts[..., self.attention_dim :]

    def _drop(self, layer: keras.layers.Dropout, x: Any, training: bool) -> Any:
        """Drops the same units in all samples of a caption, which differ only in their regions."""
        samples = self.attention.samples
        if not training or samples == 1:
            return layer(x, training=training)
        mask = layer(ops.ones_like(x[:, ::samples]), training=training)
        return x * ops.repeat(mask, samples, axis=1)

    def compute_output_shape(
        self, token_ids_shape: Any, annotations_shape: Any, **_: Any
    ) -> dict[str, Any]:
        return {
            "logits": (*token_ids_shape, self.vocabulary_size),
            "attention_weights": (*token_ids_shape, annotations_shape[1]),
            "gate": tuple(token_ids_shape),
        }

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        return None  # the mask is of the regions

    def get_config(self) -> dict[str, Any]:
        names = (
            *("vocabulary_size", "embedding_dim", "hidden_dim", "attention_dim", "dropout"),
            *("embedding_dropout", "annotation_dropout", "initial_dim", "use_gate"),
            *("use_deep_output", "use_output_tanh", "tie_embeddings", "normalize_annotations"),
            *("use_word_query", "hard_attention", "implementation"),
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def mean_annotation(annotations: Any, mask: Any = None) -> Any:
    """Computes the mean annotation vector of the regions that are on the picture.

    Args:
        annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
        mask: Boolean tensor of shape `(batch_size, num_regions)`, `False` for padding.

    Returns:
        Tensor of shape `(batch_size, feature_dim)`.
    """
    if mask is None:
        return ops.mean(annotations, axis=1)
    weight = ops.cast(ops.expand_dims(mask, -1), annotations.dtype)  # (batch, regions, 1)
    return ops.sum(weight * annotations, axis=1) / ops.sum(weight, axis=1)
