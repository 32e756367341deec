"""From annotation vectors to words: the LSTM decoder with attention."""

import keras
from keras import ops

from sat_keras.backend.dense import RowDense
from sat_keras.fast.recurrence import (
    RecurrenceWeights,
    attention_factors,
    attention_recurrence,
    attention_step,
)
from sat_keras.paper.attention import BahdanauAttention
from sat_keras.paper.hard_attention import HardAttention


@keras.saving.register_keras_serializable("sat_keras")
class AttentionDecoder(keras.Layer):
    """LSTM decoder of Show, Attend and Tell, which looks at the picture before every word.

    With `E y` the embedding of the previous word and `a` the annotation vectors, a step is

    1. `z_hat, alpha = attention(h, a)`, the context before the gate
    2. `beta = sigmoid(w_beta . h + b)`, the gate, and `z = beta z_hat`, the context
    3. `i, f, g, o = T [E y; h; z]`, `c = sigmoid(f) c + sigmoid(i) tanh(g)` and
       `h = sigmoid(o) tanh(c)`, the LSTM
    4. `logits = L_o tanh(E y + L_h h + L_z z)`, the deep output

    and `c_0 = tanh(MLP_c(mean_i a_i))`, `h_0 = tanh(MLP_h(mean_i a_i))`. Only what depends on
    the previous step stays inside the loop over the steps: the words' part of `T` and the deep
    output are each one matrix product for all steps.

    The axis `captions` of every tensor below holds the captions of one picture in training and
    its beams in search. They share the picture's annotation vectors and projected keys.

    Args:
        vocabulary_size: Integer, number of token ids.
        embedding_dim: Integer, size `m` of the word embedding.
        hidden_dim: Integer, size `n` of the LSTM's hidden and cell state.
        attention_dim: Integer, size of the attention's hidden layer.
        dropout: Float in [0, 1), share of the hidden state and of the deep output's hidden layer
            that is dropped in training.
        embedding_dropout: Float in [0, 1), the same for the word embeddings.
        annotation_dropout: Float in [0, 1), share of the annotation vectors' features that is
            dropped in training, each in all regions of a picture.
        initial_dim: Integer or `None`: size of a ReLU layer under both initial state's MLPs (as
            in the authors' code), or one tanh layer each.
        use_gate: Boolean, `False` leaves out the gate (`beta = 1`).
        use_deep_output: Boolean, `False` computes `logits = L_o h`.
        use_output_tanh: Boolean, `False` leaves out the deep output's tanh, as the paper's
            equation 7 does. The authors' code has it.
        tie_embeddings: Boolean, `True` uses the embedding matrix as `L_o`.
        normalize_annotations: Boolean, `True` brings every annotation vector to mean 0 and
            variance 1 first. VGG's have norms from 30 to 400, which drive tanh and gates into
            saturation.
        use_word_query: Boolean, `True` lets attention and gate know the previous word as well:
            `attention([h; E y], a)` and `sigmoid(w_beta . [h; E y] + b)`. The paper's `h` was
            computed before that word was chosen: after "a red" it does not know which of two
            things is meant.
        hard_attention: Dictionary of the options of `HardAttention`, `None` for soft attention.
        **kwargs: Arguments of `keras.Layer`.

    Call arguments:
        token_ids: Integer tensor of shape `(batch_size, captions, steps)`, the previous words
            (teacher forcing).
        annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
        training: Boolean, whether dropout is active and hard attention draws regions.

    Returns:
        Dictionary of `logits`, shape `(batch_size, captions, steps, vocabulary_size)`,
        `attention_weights`, shape `(batch_size, captions, steps, num_regions)`, and `gate`, shape
        `(batch_size, captions, steps)`. Of hard attention that draws or takes the likeliest region
        also `locations`, the regions, int32, shape `(batch_size, captions, steps)`, and `sampled`,
        shape `(batch_size, 1)`, 0 for the pictures whose context is the expected one; in training
        every caption then has `samples` rows one after the other in place of one.

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
        vocabulary_size,
        embedding_dim,
        hidden_dim,
        attention_dim,
        dropout=0.0,
        embedding_dropout=0.0,
        annotation_dropout=0.0,
        initial_dim=None,
        use_gate=True,
        use_deep_output=True,
        use_output_tanh=True,
        tie_embeddings=False,
        normalize_annotations=False,
        use_word_query=False,
        hard_attention=None,
        **kwargs,
    ):
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
        if tie_embeddings and not use_deep_output:
            raise ValueError(
                "`tie_embeddings=True` needs the deep output, whose hidden layer has the "
                "embedding's size: set `use_deep_output=True`. Received: use_deep_output=False"
            )

        def dense(units, name, **options):
            return RowDense(units, name=name, dtype=self.dtype_policy, **options)

        def drop(rate, name):
            return keras.layers.Dropout(rate, name=name, dtype=self.dtype_policy)

        self.embedding = keras.layers.Embedding(
            vocabulary_size,
            embedding_dim,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=embedding_dim**-0.5),
            name="embedding",
            dtype=self.dtype_policy,
        )
        # Without gain and bias: every map of the annotation vectors has its own.
        self.normalize = keras.layers.LayerNormalization(
            center=False, scale=False, name="normalize", dtype=self.dtype_policy
        )
        kind = BahdanauAttention if hard_attention is None else HardAttention
        self.attention = kind(
            attention_dim, **(hard_attention or {}), name="attention", dtype=self.dtype_policy
        )
        self.gate = dense(1, "gate", activation="sigmoid") if use_gate else None
        # The words' parts of the query and of the gate.
        self.word_query = (
            dense(attention_dim + use_gate, "word_query", use_bias=False)
            if use_word_query
            else None
        )
        self.initial_shared = (
            dense(initial_dim, "initial_shared", activation="relu") if initial_dim else None
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
        if use_deep_output:
            self.output_hidden = dense(embedding_dim, "output_hidden")
            self.output_context = dense(embedding_dim, "output_context", use_bias=False)
        self.output_words = None if tie_embeddings else dense(vocabulary_size, "output_words")
        self.drop_output = drop(dropout, "drop_output")
        self.drop_hidden = drop(dropout, "drop_hidden")
        self.drop_embedding = drop(embedding_dropout, "drop_embedding")
        self.drop_annotations = keras.layers.SpatialDropout1D(
            annotation_dropout, name="drop_annotations", dtype=self.dtype_policy
        )

    def build(self, token_ids_shape, annotations_shape):
        feature_dim = annotations_shape[-1]
        hidden, embedding = (None, None, self.hidden_dim), (None, None, self.embedding_dim)
        context = (None, None, feature_dim)
        self.embedding.build(token_ids_shape)
        self.normalize.build(annotations_shape)
        self.attention.build(hidden, annotations_shape)
        mean = (None, feature_dim)
        if self.initial_shared:
            self.initial_shared.build(mean)
            mean = (None, self.initial_dim)
        self.initial_hidden.build(mean)
        self.initial_cell.build(mean)
        self.lstm_embedding.build(embedding)
        self.lstm_hidden.build(hidden)
        self.lstm_context.build(context)
        if self.gate:
            self.gate.build(hidden)
        if self.word_query:
            self.word_query.build(embedding)
        if self.use_deep_output:
            self.output_hidden.build(hidden)
            self.output_context.build(context)
        if self.output_words:
            self.output_words.build(embedding if self.use_deep_output else hidden)

    def read_annotations(self, annotations, training=False):
        """Prepare a picture's annotation vectors, once for all steps, captions and beams.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`, as the encoder
                computes it.
            training: Boolean, whether dropout is active.

        Returns:
            Tuple of the annotation vectors that all other methods take, of the same shape, and
            their keys, shape `(batch_size, num_regions, attention_dim)`.
        """
        annotations = ops.cast(annotations, self.compute_dtype)
        if self.normalize_annotations:
            annotations = self.normalize(annotations)
        annotations = self.drop_annotations(annotations, training=training)
        return annotations, self.attention.project(annotations)

    def initial_state(self, annotations, captions=1):
        """Predict the LSTM's state before the first word from the mean annotation vector.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            captions: Integer, number of captions a picture that start from this state.

        Returns:
            Tuple `(hidden, cell)` of tensors of shape `(batch_size, captions, hidden_dim)`.
        """
        mean = ops.mean(annotations, axis=1)
        if self.initial_shared:
            mean = self.initial_shared(mean)
        states = self.initial_hidden(mean), self.initial_cell(mean)
        states = (ops.cast(ops.expand_dims(state, 1), "float32") for state in states)
        return tuple(ops.repeat(state, captions, axis=1) for state in states)

    def recurrence_weights(self):
        """Collect the weights of a step, in the dtype that the step computes in.

        Returns:
            A `sat_keras.fast.recurrence.RecurrenceWeights`.
        """
        if self.gate:
            gate_kernel, gate_bias = self.gate.kernel, self.gate.bias
        else:  # a gate that is always open: sigmoid(30) is 1 in float32
            gate_kernel, gate_bias = ops.zeros((self.hidden_dim, 1)), ops.full((1,), 30.0)
        query_kernel = self.attention.query_projection.kernel
        kernels = ops.concatenate([query_kernel, gate_kernel, self.lstm_hidden.kernel], axis=-1)
        return RecurrenceWeights(
            kernels=ops.cast(kernels, self.compute_dtype),
            context_kernel=ops.cast(self.lstm_context.kernel, self.compute_dtype),
            score_vector=ops.cast(self.attention.score_vector.kernel, self.compute_dtype),
            gate_bias=ops.cast(gate_bias, "float32"),
        )

    def _read_words(self, embedded):
        """Compute what the embedded words put into the recurrence, for any number of steps."""
        read = self.lstm_embedding(embedded)
        if self.word_query:
            no_gate = [] if self.gate else [ops.zeros_like(embedded[..., :1])]
            read = ops.concatenate([self.word_query(embedded), *no_gate, read], axis=-1)
        return read

    def predict_words(self, embedded, hidden, context, training=False):
        """Compute the deep output, step 4 of the class's equations, for any number of steps.

        Args:
            embedded: Tensor of shape `(..., embedding_dim)`, the embedded previous words.
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
            output = embedded + self.output_hidden(output) + self.output_context(context)
            if self.use_output_tanh:
                output = ops.tanh(output)
            output = self._drop(self.drop_output, output, training)
        if self.tie_embeddings:
            kernel = ops.transpose(self.embedding.embeddings)
            return ops.tensordot(output, ops.cast(kernel, self.compute_dtype), axes=1)
        return self.output_words(output)

    def _drop(self, layer, x, training):
        """Drop the same units in all samples of a caption: only their regions tell them apart."""
        samples = self.attention.samples
        if not training or samples == 1:
            return layer(x, training=training)
        mask = layer(ops.ones_like(x[:, ::samples]), training=training)
        return x * ops.repeat(mask, samples, axis=1)

    def prepare_steps(self, keys, words=None):
        """Compute what all steps of a search have in common.

        Args:
            keys: Tensor of shape `(batch_size, num_regions, attention_dim)`.
            words: Integer, how many words the steps will read in all, or `None` for a great many.
                From the vocabulary's size on all its words are read beforehand, once.

        Returns:
            Tuple of the keys' `attention_factors`, the `recurrence_weights`, and what the
            vocabulary's words put into the recurrence or `None`, for `step`.
        """
        read = None
        if words is None or words >= self.vocabulary_size:
            vocabulary = ops.cast(self.embedding.embeddings, self.compute_dtype)
            read = ops.cast(self._read_words(vocabulary), "float32")
        return attention_factors(keys), self.recurrence_weights(), read

    def step(self, token_ids, states, annotations, keys, sampling=None, prepared=None):
        """Decode one word further, as search does.

        Args:
            token_ids: Integer tensor of shape `(batch_size, captions)`, the previous words.
            states: Dictionary of `hidden` and `cell`, shape `(batch_size, captions, hidden_dim)`.
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.
            keys: Tensor of shape `(batch_size, num_regions, attention_dim)`.
            sampling: One step's `sat_keras.paper.attention.Sampling`, `None` for the expected context.
            prepared: `prepare_steps(keys)`, `None` to do that here.

        Returns:
            Tuple of the logits, shape `(batch_size, captions, vocabulary_size)`, the new states
            and a dictionary of `attention_weights`, shape `(batch_size, captions, num_regions)`,
            and `gate`, shape `(batch_size, captions)`.
        """
        factors, weights, vocabulary = prepared or self.prepare_steps(keys, words=0)
        embedded = self.embedding(token_ids)
        if vocabulary is None:
            read = ops.cast(self._read_words(embedded), "float32")
        else:
            read = ops.take(vocabulary, token_ids, axis=0)
        new = attention_step(
            read,
            states["hidden"],
            states["cell"],
            annotations,
            factors,
            weights,
            sampling,
        )
        logits = self.predict_words(embedded, new["hidden"], new["context"])
        record = {"attention_weights": new["attention_weights"], "gate": new["gate"][..., 0]}
        return logits, {"hidden": new["hidden"], "cell": new["cell"]}, record

    def call(self, token_ids, annotations, training=False):
        annotations, keys = self.read_annotations(annotations, training=training)
        embedded = self.drop_embedding(self.embedding(token_ids), training=training)
        if training and self.attention.samples > 1:
            embedded = ops.repeat(embedded, self.attention.samples, axis=1)
        batch_size, rows, steps = ops.shape(embedded)[:3]
        hidden, cell = self.initial_state(annotations, rows)
        shape = (steps, batch_size, rows, annotations.shape[1])
        sampling = self.attention.draw(shape, training)
        found = attention_recurrence(
            ops.transpose(self._read_words(embedded), (2, 0, 1, 3)),
            hidden,
            cell,
            annotations,
            keys,
            self.recurrence_weights(),
            sampling,
        )
        hidden, context, weights, gate = (ops.transpose(x, (1, 2, 0, 3)) for x in found[:4])
        logits = self.predict_words(embedded, hidden, context, training)
        outputs = {"logits": logits, "attention_weights": weights, "gate": gate[..., 0]}
        if sampling is not None:
            outputs["locations"] = ops.transpose(found[4], (1, 2, 0))
            outputs["sampled"] = 1 - sampling.expected[..., 0]
        return outputs

    def compute_output_shape(self, token_ids_shape, annotations_shape):
        return {
            "logits": (*token_ids_shape, self.vocabulary_size),
            "attention_weights": (*token_ids_shape, annotations_shape[1]),
            "gate": tuple(token_ids_shape),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
            "hidden_dim": self.hidden_dim,
            "attention_dim": self.attention_dim,
            "dropout": self.dropout,
            "embedding_dropout": self.embedding_dropout,
            "annotation_dropout": self.annotation_dropout,
            "initial_dim": self.initial_dim,
            "use_gate": self.use_gate,
            "use_deep_output": self.use_deep_output,
            "use_output_tanh": self.use_output_tanh,
            "tie_embeddings": self.tie_embeddings,
            "normalize_annotations": self.normalize_annotations,
            "use_word_query": self.use_word_query,
            "hard_attention": self.hard_attention,
        }


@keras.saving.register_keras_serializable("sat_keras")
def forget_gate_bias(shape, dtype=None):
    """Start the LSTM's biases at 0, those of the forget gate at 1, so that it remembers.

    Args:
        shape: Tuple `(4 * hidden_dim,)`.
        dtype: Data type of the result.

    Returns:
        Tensor of that shape.

    Reference:
        Jozefowicz et al. 2015, as `unit_forget_bias` of `keras.layers.LSTM`.
    """
    quarter = shape[0] // 4
    parts = ops.zeros(quarter, dtype), ops.ones(quarter, dtype), ops.zeros(2 * quarter, dtype)
    return ops.concatenate(parts)
