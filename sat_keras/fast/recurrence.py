"""The decoder's loop over the steps of a caption, with its gradient written out.

The equations are those of `sat_keras.paper.decoder.AttentionDecoder.recurrent_step`.

Automatic differentiation keeps a tensor of shape (batch, captions, regions, attention_dim) for
every step and computes every weight's gradient step by step. Here the backward pass recomputes that
tensor inside loops that XLA fuses, so that it is never written to memory (`backend.xla`), and sums
over the steps are one matrix product after the loop.

The attention's hidden layer is computed as

    tanh(k_i + q) = 1 - 2 s_i,  s_i = 1 / (1 + exp(2 k_i) exp(2 q))

The exponentials are taken once for each region and once for each caption and step. What remains for
each pair of the two is a product and a quotient, less than half the work of a tanh. The constant 1
changes neither the softmax nor its gradient, which sums to 0 over the regions, so that only `s`
appears below.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from sat_keras.backend.scan import scan, unpack
from sat_keras.backend.xla import fused, has_fusion

# exp(2 * 43) and its inverse are float32 numbers, and tanh is 1 long before.
LARGEST_KEY = 43.0

# Lengths of a sum over regions that XLA unrolls. VGG's 196 regions are 14 rows of 14.
ROWS = range(4, 17)

# exp of it is 0 in float32.
MASKED_SCORE = -1e9


class RecurrenceWeights(NamedTuple):
    """The weights of a step.

    Attributes:
        kernels: All kernels that multiply the hidden state, side by side for one matrix product:
            `W_h` of the attention, `w_beta` of the gate (if there is one) and `U` of the LSTM,
            shape `(hidden_dim, attention_dim + has_gate + 4 * hidden_dim)`.
        context_kernel: `W_z` of the LSTM, shape `(feature_dim, 4 * hidden_dim)`.
        score_vector: `v` of the attention, shape `(attention_dim, 1)`.
        gate_bias: `b` of the gate, shape `(1,)`, float32; `None` without a gate.
    """

    kernels: Any
    context_kernel: Any
    score_vector: Any
    gate_bias: Any = None


class Words(NamedTuple):
    """What the previous words contribute to the steps, each in float32 with the steps first.

    Attributes:
        lstm: Tensor of shape `(steps, batch_size, captions, 4 * hidden_dim)`, the word's block of
            the LSTM, its bias included.
        query_gate: Tensor of shape `(steps, batch_size, captions, attention_dim + has_gate)`, the
            word's parts of query and gate, or `None` where they do not know the word.
    """

    lstm: Any
    query_gate: Any = None


class Choice(NamedTuple):
    """What decides hard attention's regions, for all steps.

    Attributes:
        noise: Tensor of shape `(steps, batch_size, captions, num_regions)`, Gumbel noise.
        expected: Tensor of shape `(batch_size, 1, 1)`, 1 for pictures with the expected context.
    """

    noise: Any
    expected: Any


class Inputs(NamedTuple):
    """All tensors of the loop; `None` for what a model does not have."""

    lstm: Any
    query_gate: Any
    hidden: Any
    cell: Any
    annotations: Any
    keys: Any
    kernels: Any
    context_kernel: Any
    score_vector: Any
    gate_bias: Any
    mask_bias: Any
    noise: Any
    expected: Any

    @property
    def weights(self) -> RecurrenceWeights:
        """The weights among them."""
        return RecurrenceWeights(
            self.kernels, self.context_kernel, self.score_vector, self.gate_bias
        )

    def at(self, t: Any) -> tuple[Words, Choice | None]:
        """Returns the words and the choice of one step."""
        query_gate = None if self.query_gate is None else self.query_gate[t]
        choice = None if self.noise is None else Choice(self.noise[t], self.expected)
        return Words(self.lstm[t], query_gate), choice


def attention_recurrence(
    words: Words,
    hidden: Any,
    cell: Any,
    annotations: Any,
    keys: Any,
    weights: RecurrenceWeights,
    mask: Any = None,
    choice: Choice | None = None,
) -> dict[str, Any]:
    """Attends to the picture and updates the LSTM, for all steps of a caption.

    For every step, with the previous word's block `x` and the previous states `h`, `c`

    1. `e_i = v . tanh(k_i + W_h h)`, `alpha = softmax(e)`, `z_hat = sum_i alpha_i a_i`
    2. `beta = sigmoid(w_beta . h + b)`, `z = beta z_hat`
    3. `i, f, g, o = x + U h + W_z z`, `c = sigmoid(f) c + sigmoid(i) tanh(g)`,
       `h = sigmoid(o) tanh(c)`

    `words.query_gate` is added to `W_h h` and `w_beta . h`. With `choice`, hard attention: a drawn
    region's annotation vector replaces `z_hat`, and no gradient flows from it to `alpha`.

    Matrix products have the dtype of the weights, everything else is float32 at any precision.

    Args:
        words: `Words` of all steps.
        hidden, cell: Tensors of shape `(batch_size, captions, hidden_dim)`, the initial states.
        annotations: Tensor `a` of shape `(batch_size, num_regions, feature_dim)`.
        keys: Tensor `k` of shape `(batch_size, num_regions, attention_dim)`.
        weights: `RecurrenceWeights`.
        mask: Optional boolean tensor of shape `(batch_size, num_regions)`, `False` for padding.
        choice: `Choice` of all steps, `None` for soft attention.

    Returns:
        Dictionary of float32 tensors with one row a step: `hidden`, shape
        `(steps, batch_size, captions, hidden_dim)`, `context`, `(..., feature_dim)`,
        `attention_weights`, `(..., num_regions)`, and `gate`, `(..., 1)`.

    Reference:
        Xu et al. 2015, equations 1 to 6 and section 4.2.1.
    """
    inputs = Inputs(
        lstm=words.lstm,
        query_gate=words.query_gate,
        hidden=ops.cast(hidden, "float32"),
        cell=ops.cast(cell, "float32"),
        annotations=annotations,
        keys=keys,
        **weights._asdict(),
        mask_bias=mask_bias(mask),
        noise=choice and choice.noise,
        expected=choice and choice.expected,
    )
    present = [name for name, value in inputs._asdict().items() if value is not None]
    run = _recurrence(tuple(present))
    outputs = run(*(getattr(inputs, name) for name in present))
    steps = unpack(outputs, _widths(inputs))
    return {name: steps[name] for name in ("hidden", "context", "attention_weights", "gate")}


def mask_bias(mask: Any) -> Any:
    """Returns what is added to the scores: 0, or a large negative number at padding.

    Args:
        mask: Boolean tensor of shape `(batch_size, num_regions)`, or `None`.

    Returns:
        Float32 tensor of shape `(batch_size, 1, num_regions)`, or `None`.
    """
    return None if mask is None else ops.where(ops.expand_dims(mask, 1), 0.0, MASKED_SCORE)


@fused
def lstm_update(units: Any, cell: Any) -> Any:
    """Updates the LSTM from the pre-activations of its four gates.

    Args:
        units: Tensor of shape `(..., 4 * hidden_dim)`: input, forget, candidate and output, the
            order of `keras.layers.LSTM` and `torch.nn.LSTMCell`.
        cell: Tensor of shape `(..., hidden_dim)`, the previous cell state.

    Returns:
        Tuple `(hidden, cell, activations)`, the new states and the gates' activations, shape
        `(..., 4 * hidden_dim)`.
    """
    i, f, g, o = ops.split(units, 4, axis=-1)
    i, f, o = ops.sigmoid(i), ops.sigmoid(f), ops.sigmoid(o)
    g = ops.tanh(g)
    cell = f * cell + i * g
    activations = ops.concatenate([i, f, g, o], axis=-1)
    return o * ops.tanh(cell), cell, activations


@fused
def attention_factors(keys: Any) -> Any:
    """Computes `exp(2 k)`, the factor of a key or a query in the attention's hidden layer.

    Args:
        keys: Tensor of any shape.

    Returns:
        Float32 tensor of the same shape.
    """
    return ops.exp(2 * ops.clip(ops.cast(keys, "float32"), -LARGEST_KEY, LARGEST_KEY))


def attention_step(
    words: Words,
    hidden: Any,
    cell: Any,
    annotations: Any,
    factors: Any,
    weights: RecurrenceWeights,
    mask_bias: Any = None,
    choice: Choice | None = None,
) -> dict[str, Any]:
    """Computes one step of `attention_recurrence`.

    Args:
        words: `Words` of this step.
        hidden, cell, annotations, weights: As there.
        factors: Tensor `attention_factors(keys)`.
        mask_bias: Result of the function `mask_bias`, or `None`.
        choice: `Choice` of this step, or `None`.

    Returns:
        Dictionary of float32 tensors of shape `(batch_size, captions, ...)`: the new `hidden` and
        `cell`, the `context` after and `ungated` before the gate, `attention_weights`, `gate` and
        the `activations` of the LSTM's gates; with `choice` also `locations`, shape
        `(batch_size, captions, 1)`.
    """
    dtype = weights.kernels.dtype
    products = ops.matmul(ops.cast(hidden, dtype), weights.kernels)
    attention_dim = factors.shape[-1]
    width = attention_dim + (weights.gate_bias is not None)
    query_gate = products[..., :width]
    if words.query_gate is not None:
        query_gate = ops.cast(query_gate, "float32") + words.query_gate
    masks = () if mask_bias is None else (mask_bias,)
    attention_weights = _attend(
        query_gate[..., :attention_dim], factors, weights.score_vector, *masks
    )
    selection, located = attention_weights, {}
    if choice is not None:
        locations = ops.argmax(ops.log(attention_weights) + choice.noise, axis=-1)
        selection = _select(attention_weights, locations, choice.expected)
        located = {"locations": ops.cast(ops.expand_dims(locations, -1), "float32")}
    ungated = ops.matmul(ops.cast(selection, dtype), annotations)
    ungated = ops.cast(ungated, "float32")
    if weights.gate_bias is None:
        gate, context = ops.ones_like(ungated[..., :1]), ungated
    else:
        gate, context = _open_gate(query_gate[..., attention_dim], ungated, weights.gate_bias)
    update = ops.matmul(ops.cast(context, dtype), weights.context_kernel)
    hidden, cell, activations = _update_lstm(words.lstm, products[..., width:], update, cell)
    return {
        "hidden": hidden,
        "cell": cell,
        "context": context,
        "attention_weights": attention_weights,
        "gate": gate,
        "ungated": ungated,
        "activations": activations,
        **located,
    }


def _select(weights: Any, locations: Any, expected: Any) -> Any:
    """Returns `alpha` for pictures with the expected context, else the region's one-hot vector."""
    chosen = ops.one_hot(locations, weights.shape[-1], dtype=weights.dtype)
    return expected * weights + (1 - expected) * chosen


def _sigmoids(queries: Any, factors: Any) -> Any:
    """Computes `s_i` of the module's description from the factors of queries and keys.

    Args:
        queries: Tensor of shape `(..., batch_size, captions, attention_dim)`.
        factors: Tensor of shape `(batch_size, num_regions, attention_dim)`.

    Returns:
        Tensor of shape `(..., batch_size, captions, num_regions, attention_dim)`.
    """
    return 1 / (1 + ops.expand_dims(queries, -2) * ops.expand_dims(factors, 1))


@fused
def _attend(query: Any, factors: Any, score_vector: Any, *mask_bias: Any) -> Any:
    """Computes the attention weights."""
    query = attention_factors(query)
    score_vector = -2 * ops.cast(score_vector[:, 0], "float32")
    scores = ops.matmul(_sigmoids(query, factors), score_vector)
    return ops.softmax(sum(mask_bias, scores), axis=-1)


@fused
def _open_gate(product: Any, ungated: Any, bias: Any) -> Any:
    """Computes the gate and the gated context."""
    gate = ops.sigmoid(ops.cast(ops.expand_dims(product, -1), "float32") + bias)
    return gate, gate * ungated


@fused
def _update_lstm(embedded: Any, products: Any, update: Any, cell: Any) -> Any:
    """Adds what reaches the LSTM's gates and updates it."""
    units = embedded + ops.cast(products, "float32") + ops.cast(update, "float32")
    return lstm_update(units, cell)


def _recurrence(present: tuple[str, ...]) -> Callable[..., Any]:
    """Returns the loop as a function with a gradient of the tensors that are present.

    Args:
        present: Fields of `Inputs` that are not `None`, in order.

    Returns:
        Function of these tensors. It returns one tensor, which suits every backend's custom
        gradients; `unpack` splits it.
    """

    def collect(tensors: Any) -> Inputs:
        return Inputs(
            **{**dict.fromkeys(Inputs._fields), **dict(zip(present, tensors, strict=True))}
        )

    @ops.custom_gradient
    def run(*tensors: Any) -> Any:
        inputs = collect(tensors)
        outputs = _forward(inputs)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            upstream = args[0] if upstream is None else upstream
            found = _backward(upstream, outputs, inputs)
            # Noise and mask have no gradient.
            return tuple(
                found[name] if name in found else ops.zeros_like(value)
                for name, value in zip(present, tensors, strict=True)
            )

        return outputs, gradient

    return run


def _forward(inputs: Inputs) -> Any:
    """Runs the loop; returns the packed outputs of all steps."""
    factors = attention_factors(inputs.keys)

    def step(t: Any, last: dict[str, Any]) -> dict[str, Any]:
        words, choice = inputs.at(t)
        return attention_step(
            words,
            last["hidden"],
            last["cell"],
            inputs.annotations,
            factors,
            inputs.weights,
            inputs.mask_bias,
            choice,
        )

    start = {"hidden": inputs.hidden, "cell": inputs.cell}
    return scan(step, start, ops.shape(inputs.lstm)[0], _widths(inputs))


def _backward(upstream: Any, outputs: Any, inputs: Inputs) -> dict[str, Any]:
    """Computes the gradient of the loop by field of `Inputs`, last step first."""
    kernels, annotations = inputs.kernels, inputs.annotations
    dtype = kernels.dtype
    attention_dim = inputs.keys.shape[-1]
    has_gate = inputs.gate_bias is not None
    saved, d_saved = (unpack(rows, _widths(inputs)) for rows in (outputs, upstream))
    factors = attention_factors(inputs.keys)
    score_vector = ops.cast(inputs.score_vector[:, 0], "float32")
    previous_hidden = ops.concatenate([inputs.hidden[None], saved["hidden"][:-1]])
    previous_hidden = ops.cast(previous_hidden, dtype)
    previous_cell = ops.concatenate([inputs.cell[None], saved["cell"][:-1]])
    queries = _queries(inputs, previous_hidden)
    kernels_t = ops.transpose(kernels)
    context_kernel_t = ops.transpose(inputs.context_kernel)
    annotations_t = ops.transpose(annotations, (0, 2, 1))
    widths = _gradient_widths(inputs)
    units, cells = _lstm_derivatives(saved["activations"], saved["cell"], previous_cell)

    def step(t: Any, later: dict[str, Any]) -> dict[str, Any]:
        d_hidden = later["hidden"] + d_saved["hidden"][t]
        d_units, d_cell = _lstm_gradient(d_hidden, later["cell"], units[t], cells[t])
        d_context = ops.matmul(ops.cast(d_units, dtype), context_kernel_t)
        d_ungated = ops.cast(d_context, "float32") + d_saved["context"][t]
        d_gate = []
        if has_gate:
            of_logit, d_ungated = _gate_gradient(
                d_ungated, d_saved["gate"][t], saved["gate"][t], saved["ungated"][t]
            )
            d_gate = [of_logit]
        d_weights = ops.cast(ops.matmul(ops.cast(d_ungated, dtype), annotations_t), "float32")
        if inputs.noise is not None:  # drawn regions have no gradient
            d_weights = inputs.expected * d_weights
        d_scores, d_query = _attention_gradient(
            d_weights + d_saved["attention_weights"][t],
            saved["attention_weights"][t],
            queries[t],
            factors,
            score_vector,
        )
        d_products = ops.concatenate([d_query, *d_gate, d_units], axis=-1)
        d_hidden = ops.matmul(ops.cast(d_products, dtype), kernels_t)
        return {
            "hidden": ops.cast(d_hidden, "float32"),
            "cell": d_cell,
            "products": d_products,
            "ungated": d_ungated,
            "scores": d_scores,
        }

    start = {"hidden": ops.zeros_like(inputs.hidden), "cell": ops.zeros_like(inputs.cell)}
    d = unpack(scan(step, start, ops.shape(upstream)[0], widths, reverse=True), widths)
    d_keys, d_score_vector = _key_gradients(queries, factors, d["scores"])
    width = attention_dim + has_gate
    d_query_gate, d_lstm = d["products"][..., :width], d["products"][..., width:]
    selection = _selection(inputs, saved)
    return {
        "lstm": d_lstm,
        "query_gate": d_query_gate,
        "hidden": d["hidden"][0],
        "cell": d["cell"][0],
        "annotations": _sum_over_steps(selection, d["ungated"], dtype),
        "keys": ops.cast(d_keys * score_vector, inputs.keys.dtype),
        "kernels": _weight_gradient(previous_hidden, d["products"], dtype),
        "context_kernel": _weight_gradient(saved["context"], d_lstm, dtype),
        "score_vector": ops.cast(d_score_vector[:, None], dtype),
        "gate_bias": ops.sum(d_query_gate[..., width - 1], (0, 1, 2))[None],
    }


def _queries(inputs: Inputs, previous_hidden: Any) -> Any:
    """Computes `exp(2 q)` of all steps again."""
    attention_dim = inputs.keys.shape[-1]
    queries = ops.tensordot(previous_hidden, inputs.kernels[:, :attention_dim], axes=1)
    if inputs.query_gate is not None:
        queries = ops.cast(queries, "float32") + inputs.query_gate[..., :attention_dim]
    return attention_factors(queries)


def _selection(inputs: Inputs, saved: dict[str, Any]) -> Any:
    """Returns the weights that the contexts were summed with, of all steps."""
    if inputs.noise is None:
        return saved["attention_weights"]
    locations = ops.cast(saved["locations"][..., 0], "int32")
    return _select(saved["attention_weights"], locations, inputs.expected)


@fused
def _lstm_derivatives(activations: Any, cell: Any, previous_cell: Any) -> Any:
    """Computes the derivatives inside the LSTM that need no recursion.

    Returns:
        Tuple of the derivatives of the cell state (three times) and of the hidden state by their
        pre-activations, `(..., 4 * hidden_dim)`, and of the hidden and the cell state by the cell
        state and the previous cell state, `(..., 2 * hidden_dim)`.
    """
    i, f, g, o = ops.split(activations, 4, axis=-1)
    tanh_cell = ops.tanh(cell)
    units = [
        g * i * (1 - i),
        previous_cell * f * (1 - f),
        i * (1 - g**2),
        tanh_cell * o * (1 - o),
    ]
    cells = [o * (1 - tanh_cell**2), f]
    return ops.concatenate(units, axis=-1), ops.concatenate(cells, axis=-1)


@fused
def _lstm_gradient(d_hidden: Any, d_cell: Any, units: Any, cells: Any) -> Any:
    """Returns the gradients with respect to the pre-activations and the previous cell state."""
    cell_of_hidden, f = ops.split(cells, 2, axis=-1)
    d_cell = d_cell + d_hidden * cell_of_hidden
    d_units = ops.concatenate([d_cell, d_cell, d_cell, d_hidden], axis=-1) * units
    return d_units, d_cell * f


@fused
def _gate_gradient(d_context: Any, d_gate: Any, gate: Any, ungated: Any) -> Any:
    """Returns the gradients with respect to the gate logit and the ungated context."""
    d_gate = d_gate + ops.sum(d_context * ungated, axis=-1, keepdims=True)
    return d_gate * gate * (1 - gate), d_context * gate


def _attention_gradient(
    d_weights: Any, weights: Any, query: Any, factors: Any, score_vector: Any
) -> Any:
    """Returns the gradients with respect to the scores and the query."""
    d_scores, d_query = _sum_over_rows(d_weights, weights, query, factors, score_vector)
    return d_scores, ops.sum(d_query, axis=2)


@fused
def _sum_over_rows(
    d_weights: Any, weights: Any, query: Any, factors: Any, score_vector: Any
) -> Any:
    """Computes `_attention_gradient` up to the last sum, which is over rows of regions.

    The derivative of tanh is `1 - tanh^2 = 4 s (1 - s)`.

    XLA unrolls a short sum and vectorises it over 16 features. A sum over all regions stays a
    loop, which takes three times as long.
    """
    d_scores = weights * (d_weights - ops.sum(weights * d_weights, axis=-1, keepdims=True))
    regions = factors.shape[1]
    # One row of all regions where no length divides them: slower, but writes no large tensor.
    row = max((length for length in ROWS if regions % length == 0), default=regions)
    shape = (regions // row, row, factors.shape[-1])
    sigmoids = 1 / (1 + query[:, :, None, None] * ops.reshape(factors, (-1, 1, *shape)))
    scored = ops.reshape(d_scores, (*ops.shape(d_scores)[:2], *shape[:2], 1))
    return d_scores, 4 * score_vector * ops.sum(scored * (sigmoids * (1 - sigmoids)), axis=3)


def _key_gradients(queries: Any, factors: Any, d_scores: Any) -> Any:
    """Sums the gradients of the keys and the score vector over all steps and captions.

    Returns:
        Tuple `(d_keys, d_score_vector)`, the first without its factor `v`.
    """
    if has_fusion():
        sums = [_sum_slopes(queries, factors, d_scores), _sum_sigmoids(queries, factors, d_scores)]
    else:
        sums = _sum_step_by_step(queries, factors, d_scores)
    slopes, sigmoids = (ops.sum(x, axis=1) for x in sums)
    return 4 * slopes, -2 * ops.sum(ops.sum(sigmoids, axis=1), axis=0)


# Two functions: XLA would write `s` of all steps to memory to compute both sums in one.


@fused
def _sum_slopes(queries: Any, factors: Any, d_scores: Any) -> Any:
    """Sums `d_e_i s_i (1 - s_i)` over the steps: `(batch, captions, regions, attention_dim)`."""
    sigmoids = _sigmoids(queries, factors)
    return ops.sum(ops.expand_dims(d_scores, -1) * (sigmoids * (1 - sigmoids)), axis=0)


@fused
def _sum_sigmoids(queries: Any, factors: Any, d_scores: Any) -> Any:
    """Sums `d_e_i s_i` over the steps: `(batch, captions, regions, attention_dim)`."""
    return ops.sum(ops.expand_dims(d_scores, -1) * _sigmoids(queries, factors), axis=0)


def _sum_step_by_step(queries: Any, factors: Any, d_scores: Any) -> Any:
    """Computes both sums in the memory of one step, where XLA does not fuse them."""

    def add(t: Any, sums: Any) -> Any:
        sigmoids = _sigmoids(queries[t], factors)
        scored = ops.expand_dims(d_scores[t], -1) * sigmoids
        return sums[0] + scored * (1 - sigmoids), sums[1] + scored

    zeros = ops.zeros_like(_sigmoids(queries[0], factors))
    return ops.fori_loop(0, ops.shape(queries)[0], add, (zeros, zeros))


def _weight_gradient(inputs: Any, d_outputs: Any, dtype: Any) -> Any:
    """Sums `inputs^T d_outputs` over steps, pictures and captions in one matrix product."""
    inputs = ops.reshape(ops.cast(inputs, dtype), (-1, inputs.shape[-1]))
    d_outputs = ops.reshape(ops.cast(d_outputs, dtype), (-1, d_outputs.shape[-1]))
    return ops.matmul(ops.transpose(inputs), d_outputs)


def _sum_over_steps(weights: Any, d_ungated: Any, dtype: Any) -> Any:
    """Computes the annotation vectors' gradient `sum_t alpha_t^T d z_t`, picture by picture."""

    def rows(x: Any) -> Any:  # (steps, batch, captions, width) -> (batch, steps * captions, width)
        x = ops.transpose(ops.cast(x, dtype), (1, 0, 2, 3))
        return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))

    return ops.matmul(ops.transpose(rows(weights), (0, 2, 1)), rows(d_ungated))


def _widths(inputs: Inputs) -> dict[str, int]:
    """Returns name and width of everything that a forward step saves."""
    hidden_dim, feature_dim = inputs.hidden.shape[-1], inputs.annotations.shape[-1]
    return {
        "hidden": hidden_dim,
        "context": feature_dim,
        "attention_weights": inputs.annotations.shape[1],
        "gate": 1,
        "cell": hidden_dim,
        "ungated": feature_dim,
        "activations": 4 * hidden_dim,
        **({} if inputs.noise is None else {"locations": 1}),
    }


def _gradient_widths(inputs: Inputs) -> dict[str, int]:
    """Returns name and width of everything that a backward step saves."""
    hidden_dim = inputs.hidden.shape[-1]
    return {
        "hidden": hidden_dim,
        "cell": hidden_dim,
        "products": inputs.kernels.shape[-1],
        "ungated": inputs.annotations.shape[-1],
        "scores": inputs.annotations.shape[1],
    }
