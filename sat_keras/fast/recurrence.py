"""The decoder's loop over the steps of a caption, with its gradient written out.

Automatic differentiation would keep a tensor of shape (batch, captions, regions, attention_dim)
for every step and compute every weight's gradient step by step. Here the backward pass computes
that tensor again, inside loops that never write it to memory (`fusion`), and whatever is a sum over
the steps is computed for all of them after the loop.

The attention's hidden layer is computed as

    tanh(k_i + q) = 1 - 2 s_i,  s_i = 1 / (1 + exp(2 k_i) exp(2 q))

The exponentials are taken once for every region and once for every caption's step; what is left for
every pair of the two is a product and a quotient, less than half the work of a tanh. As the softmax
does not see the 1, nor does its gradient, which sums to 0 over the regions, only `s` appears below.
"""

import collections
import itertools

from keras import ops

from sat_keras.backend.xla import fused, has_fusion
from sat_keras.paper.hard_attention import Sampling, mix_selection, select_regions

# exp(2 * 43) and its inverse are float32 numbers, and tanh is 1 long before.
LARGEST_KEY = 43.0

# Lengths of a sum over regions that XLA unrolls. VGG's 196 regions are 14 rows of 14.
ROWS = range(4, 17)


class RecurrenceWeights(
    collections.namedtuple(
        "RecurrenceWeights", ["kernels", "context_kernel", "score_vector", "gate_bias"]
    )
):
    """The weights of a step.

    Attributes:
        kernels: All that multiplies the hidden state, side by side, so that it is one matrix
            product: `W_h` of the attention, `w_beta` of the gate and `U` of the LSTM, shape
            `(hidden_dim, attention_dim + 1 + 4 * hidden_dim)`.
        context_kernel: `W_z` of the LSTM, shape `(feature_dim, 4 * hidden_dim)`.
        score_vector: `v` of the attention, shape `(attention_dim, 1)`.
        gate_bias: `b` of the gate, shape `(1,)`, float32. Large, it holds the gate open.
    """

    __slots__ = ()


def attention_recurrence(embedded, hidden, cell, annotations, keys, weights, sampling=None):
    """Look at the picture and update the LSTM, for all steps of a caption.

    For every step, with the embedded word `x` and the previous hidden and cell state `h`, `c`

    1. `e_i = v . tanh(k_i + W_h h)`, `alpha = softmax(e)`, `z_hat = sum_i alpha_i a_i`
    2. `beta = sigmoid(w_beta . h + b)`, `z = beta z_hat`
    3. `i, f, g, o = x + U h + W_z z`, `c = sigmoid(f) c + sigmoid(i) tanh(g)`,
       `h = sigmoid(o) tanh(c)`

    Where the word has parts for the query and the gate too, `W_h h` and `w_beta . h` above are the
    sums with them.

    With `sampling`, hard attention: a drawn region's annotation vector takes the place of `z_hat`.
    No gradient flows from there to `alpha`, only through the expected contexts and through whatever
    is done with the attention weights that are returned.

    The matrix products have the dtype of the weights, everything else is float32 at any precision.

    Args:
        embedded: Tensor `x` of shape `(steps, batch_size, captions, 4 * hidden_dim)`, the previous
            words after the LSTM's block for them, its bias included. If it is as wide as
            `weights.kernels`, the words' parts of query and gate come first.
        hidden, cell: Tensors of shape `(batch_size, captions, hidden_dim)`, the initial states.
        annotations: Tensor `a` of shape `(batch_size, num_regions, feature_dim)`.
        keys: Tensor `k` of shape `(batch_size, num_regions, attention_dim)`.
        weights: `RecurrenceWeights`.
        sampling: `sat_keras.paper.attention.Sampling` with the noise of all steps, `None` for soft
            attention.

    Returns:
        Tuple `(hidden, context, attention_weights, gate)` of float32 tensors with one row a step,
        shapes `(steps, batch_size, captions, hidden_dim)`, `(..., feature_dim)`,
        `(..., num_regions)` and `(..., 1)`. With `sampling` fifth the `locations`, int32, shape
        `(steps, batch_size, captions)`.

    Reference:
        Xu et al. 2015, equations 1 to 6 and section 4.2.1.
    """
    outputs = _recurrence(
        *(ops.cast(value, "float32") for value in (embedded, hidden, cell)),
        annotations,
        keys,
        *weights,
        *(sampling or ()),
    )
    steps = _unpack(outputs, _widths(hidden, annotations, sampling))
    found = steps["hidden"], steps["context"], steps["attention_weights"], steps["gate"]
    return found if sampling is None else (*found, ops.cast(steps["locations"][..., 0], "int32"))


@fused
def lstm_update(units, cell):
    """Update the LSTM from the pre-activations of its four gates.

    Args:
        units: Tensor of shape `(..., 4 * hidden_dim)`: input, forget, candidate and output, the
            order of `keras.layers.LSTM` and `torch.nn.LSTMCell`.
        cell: Tensor of shape `(..., hidden_dim)`, the previous cell state.

    Returns:
        Tuple `(hidden, cell, activations)`, the new states and the gates' activations, shape
        `(..., 4 * hidden_dim)`.
    """
    write, keep, candidate, show = ops.split(units, 4, axis=-1)
    write, keep, show = ops.sigmoid(write), ops.sigmoid(keep), ops.sigmoid(show)
    candidate = ops.tanh(candidate)
    cell = keep * cell + write * candidate
    activations = ops.concatenate([write, keep, candidate, show], axis=-1)
    return show * ops.tanh(cell), cell, activations


@fused
def attention_factors(keys):
    """Compute `exp(2 k)`, what keys or queries put into the attention's hidden layer.

    Args:
        keys: Tensor of any shape.

    Returns:
        Float32 tensor of the same shape.
    """
    return ops.exp(2 * ops.clip(ops.cast(keys, "float32"), -LARGEST_KEY, LARGEST_KEY))


def attention_step(embedded, hidden, cell, annotations, factors, weights, sampling=None):
    """Do one step of `attention_recurrence`.

    Args:
        embedded: One step of `embedded` in `attention_recurrence`.
        hidden, cell, annotations, weights: As there.
        factors: Tensor `attention_factors(keys)`.
        sampling: `Sampling` with the noise of this step, or `None`.

    Returns:
        Dictionary of float32 tensors of shape `(batch_size, captions, ...)`: the new `hidden` and
        `cell`, the `context` after and `looked` before the gate, `attention_weights`, `gate` and
        the `activations` of the LSTM's gates; with `sampling` also `locations`, shape
        `(batch_size, captions, 1)`.
    """
    dtype = weights.kernels.dtype
    products = ops.matmul(ops.cast(hidden, dtype), weights.kernels)
    attention_dim = factors.shape[-1]
    glance = _add_words(products[..., : attention_dim + 1], embedded, products.shape[-1])
    attention_weights = _attend(glance, factors, weights.score_vector)
    selection, located = attention_weights, {}
    if sampling is not None:
        selection, locations = select_regions(attention_weights, *sampling)
        located = {"locations": ops.cast(ops.expand_dims(locations, -1), "float32")}
    looked = ops.matmul(ops.cast(selection, dtype), annotations)
    looked = ops.cast(looked, "float32")
    gate, context = _open_gate(glance[..., attention_dim], looked, weights.gate_bias)
    update = ops.matmul(ops.cast(context, dtype), weights.context_kernel)
    hidden, cell, activations = _update_lstm(embedded, products, update, cell)
    return {
        "hidden": hidden,
        "cell": cell,
        "context": context,
        "attention_weights": attention_weights,
        "gate": gate,
        "looked": looked,
        "activations": activations,
        **located,
    }


def _sigmoids(queries, factors):
    """Compute `s_i` of the module's description from factors of queries and keys.

    Args:
        queries: Tensor of shape `(..., batch_size, captions, attention_dim)`.
        factors: Tensor of shape `(batch_size, num_regions, attention_dim)`.

    Returns:
        Tensor of shape `(..., batch_size, captions, num_regions, attention_dim)`.
    """
    return 1 / (1 + ops.expand_dims(queries, -2) * ops.expand_dims(factors, 1))


def _add_words(products, embedded, width):
    """Add the words' parts of query and gate, in `embedded` if it has this width."""
    if embedded.shape[-1] < width:
        return products
    return ops.cast(products, "float32") + embedded[..., : products.shape[-1]]


@fused
def _attend(glance, factors, score_vector):
    """Compute the attention weights from the query, which the gate's product follows."""
    query = attention_factors(glance[..., : factors.shape[-1]])
    score_vector = -2 * ops.cast(score_vector[:, 0], "float32")
    return ops.softmax(ops.matmul(_sigmoids(query, factors), score_vector), axis=-1)


@fused
def _open_gate(product, looked, bias):
    """Compute the gate and the context behind it."""
    gate = ops.sigmoid(ops.cast(ops.expand_dims(product, -1), "float32") + bias)
    return gate, gate * looked


@fused
def _update_lstm(embedded, products, update, cell):
    """Add up what reaches the LSTM's gates and update it."""
    width = update.shape[-1]
    embedded, products = embedded[..., -width:], products[..., -width:]
    units = embedded + ops.cast(products, "float32") + ops.cast(update, "float32")
    return lstm_update(units, cell)


@ops.custom_gradient
def _recurrence(embedded, hidden, cell, annotations, keys, *rest):
    """Run the loop; see `attention_recurrence`. One output tensor suits every backend."""
    number = len(RecurrenceWeights._fields)
    weights = RecurrenceWeights(*rest[:number])
    sampling = Sampling(*rest[number:]) if rest[number:] else None
    widths = _widths(hidden, annotations, sampling)
    factors = attention_factors(keys)

    def step(t, last):
        now = sampling and Sampling(sampling.noise[t], sampling.expected)
        return attention_step(
            embedded[t], last["hidden"], last["cell"], annotations, factors, weights, now
        )

    start = {"hidden": hidden, "cell": cell}
    outputs = _scan(step, start, ops.shape(embedded)[0], widths)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        found = _backward(
            upstream, outputs, embedded, hidden, cell, annotations, keys, weights, sampling
        )
        return *found, *map(ops.zeros_like, sampling or ())  # the noise has no gradient

    return outputs, gradient


def _backward(upstream, outputs, embedded, hidden, cell, annotations, keys, weights, sampling):
    """Compute the gradient of `_recurrence` for each of its arguments, last step first."""
    dtype = weights.kernels.dtype
    attention_dim = keys.shape[-1]
    saved = _unpack(outputs, _widths(hidden, annotations, sampling))
    d_saved = _unpack(upstream, _widths(hidden, annotations, sampling))
    factors = attention_factors(keys)
    score_vector = ops.cast(weights.score_vector[:, 0], "float32")
    previous_hidden = ops.cast(ops.concatenate([hidden[None], saved["hidden"][:-1]]), dtype)
    previous_cell = ops.concatenate([cell[None], saved["cell"][:-1]])
    queries = ops.tensordot(previous_hidden, weights.kernels[:, :attention_dim], axes=1)
    queries = attention_factors(_add_words(queries, embedded, weights.kernels.shape[-1]))
    kernels_t = ops.transpose(weights.kernels)
    context_kernel_t = ops.transpose(weights.context_kernel)
    annotations_t = ops.transpose(annotations, (0, 2, 1))
    widths = _gradient_widths(hidden, annotations, keys)

    units, cells = _lstm_derivatives(saved["activations"], saved["cell"], previous_cell)

    def step(t, later):
        d_hidden = later["hidden"] + d_saved["hidden"][t]
        d_units, d_cell = _lstm_gradient(d_hidden, later["cell"], units[t], cells[t])
        d_context = ops.matmul(ops.cast(d_units, dtype), context_kernel_t)
        d_context = ops.cast(d_context, "float32") + d_saved["context"][t]
        d_gate, d_looked = _gate_gradient(
            d_context, d_saved["gate"][t], saved["gate"][t], saved["looked"][t]
        )
        d_weights = ops.matmul(ops.cast(d_looked, dtype), annotations_t)
        d_weights = _through_selection(d_weights, sampling) + d_saved["attention_weights"][t]
        d_scores, d_query = _attention_gradient(
            d_weights, saved["attention_weights"][t], queries[t], factors, score_vector
        )
        d_products = ops.concatenate([d_query, d_gate, d_units], axis=-1)
        d_hidden = ops.matmul(ops.cast(d_products, dtype), kernels_t)
        return {
            "hidden": ops.cast(d_hidden, "float32"),
            "cell": d_cell,
            "products": d_products,
            "looked": d_looked,
            "scores": d_scores,
        }

    start = {"hidden": ops.zeros_like(hidden), "cell": ops.zeros_like(cell)}
    d = _unpack(_scan(step, start, ops.shape(upstream)[0], widths, reverse=True), widths)
    d_keys, d_score_vector = _key_gradients(queries, factors, d["scores"])
    return (
        d["products"][..., -embedded.shape[-1] :],
        d["hidden"][0],
        d["cell"][0],
        _sum_over_steps(_selection(saved, sampling), d["looked"], dtype),
        ops.cast(d_keys * score_vector, keys.dtype),
        _weight_gradient(previous_hidden, d["products"], dtype),
        _weight_gradient(saved["context"], d["products"][..., attention_dim + 1 :], dtype),
        ops.cast(d_score_vector[:, None], dtype),
        ops.sum(d["products"][..., attention_dim], (0, 1, 2))[None],
    )


def _selection(saved, sampling):
    """What the context was made of: the attention weights, or the drawn regions."""
    if sampling is None:
        return saved["attention_weights"]
    locations = ops.cast(saved["locations"][..., 0], "int32")
    return mix_selection(saved["attention_weights"], locations, sampling.expected)


def _through_selection(d_selection, sampling):
    """What reaches the attention weights, in float32: nothing by way of a drawn region."""
    d_selection = ops.cast(d_selection, "float32")
    return d_selection if sampling is None else sampling.expected * d_selection


@fused
def _lstm_derivatives(activations, cell, previous_cell):
    """Compute the derivatives inside the LSTM that need no recursion.

    Returns:
        Tuple of the derivatives of the cell state (three times) and of the hidden state by their
        pre-activations, `(..., 4 * hidden_dim)`, and of the hidden and the cell state by the cell
        state and the previous cell state, `(..., 2 * hidden_dim)`.
    """
    write, keep, candidate, show = ops.split(activations, 4, axis=-1)
    shown = ops.tanh(cell)
    units = [
        candidate * write * (1 - write),
        previous_cell * keep * (1 - keep),
        write * (1 - candidate**2),
        shown * show * (1 - show),
    ]
    cells = [show * (1 - shown**2), keep]
    return ops.concatenate(units, axis=-1), ops.concatenate(cells, axis=-1)


@fused
def _lstm_gradient(d_hidden, d_cell, units, cells):
    """Go back through the LSTM: gradients of its pre-activations and its previous cell state."""
    cell_of_hidden, keep = ops.split(cells, 2, axis=-1)
    d_cell = d_cell + d_hidden * cell_of_hidden
    d_units = ops.concatenate([d_cell, d_cell, d_cell, d_hidden], axis=-1) * units
    return d_units, d_cell * keep


# 1 - tanh^2 = 4 s (1 - s)


@fused
def _gate_gradient(d_context, d_gate, gate, looked):
    """Go back through the gate: gradients of its pre-activation and of what is behind it."""
    d_gate = d_gate + ops.sum(d_context * looked, axis=-1, keepdims=True)
    return d_gate * gate * (1 - gate), d_context * gate


def _attention_gradient(d_weights, weights, query, factors, score_vector):
    """Go back through softmax and scores: gradients of the scores and of the query."""
    d_scores, d_query = _sum_over_rows(d_weights, weights, query, factors, score_vector)
    return d_scores, ops.sum(d_query, axis=2)


@fused
def _sum_over_rows(d_weights, weights, query, factors, score_vector):
    """Do all but the last sum of `_attention_gradient`, which is over rows of regions.

    XLA unrolls a short sum and computes 16 features at a time in it. One over all regions it
    leaves a loop that takes three times as long.
    """
    d_scores = weights * (d_weights - ops.sum(weights * d_weights, axis=-1, keepdims=True))
    regions = factors.shape[1]
    # All regions in one row where no length divides them: slower, but nothing large is written.
    row = max((length for length in ROWS if regions % length == 0), default=regions)
    shape = (regions // row, row, factors.shape[-1])
    sigmoids = 1 / (1 + query[:, :, None, None] * ops.reshape(factors, (-1, 1, *shape)))
    scored = ops.reshape(d_scores, (*ops.shape(d_scores)[:2], *shape[:2], 1))
    return d_scores, 4 * score_vector * ops.sum(scored * (sigmoids * (1 - sigmoids)), axis=3)


def _key_gradients(queries, factors, d_scores):
    """Sum the gradients of the keys and the score vector over all steps and captions.

    Returns:
        Tuple `(d_keys, d_score_vector)`, the first without its factor `v`.
    """
    if has_fusion():
        sums = [_sum_slopes(queries, factors, d_scores), _sum_sigmoids(queries, factors, d_scores)]
    else:
        sums = _sum_step_by_step(queries, factors, d_scores)
    slopes, sigmoids = (ops.sum(x, axis=1) for x in sums)
    return 4 * slopes, -2 * ops.sum(ops.sum(sigmoids, axis=1), axis=0)


# Two functions, for XLA would write `s` of all steps to memory to compute both sums in one.


@fused
def _sum_slopes(queries, factors, d_scores):
    """Sum `d_e_i s_i (1 - s_i)` over the steps: `(batch, captions, regions, attention_dim)`."""
    sigmoids = _sigmoids(queries, factors)
    return ops.sum(ops.expand_dims(d_scores, -1) * (sigmoids * (1 - sigmoids)), axis=0)


@fused
def _sum_sigmoids(queries, factors, d_scores):
    """Sum `d_e_i s_i` over the steps: `(batch, captions, regions, attention_dim)`."""
    return ops.sum(ops.expand_dims(d_scores, -1) * _sigmoids(queries, factors), axis=0)


def _sum_step_by_step(queries, factors, d_scores):
    """Do what the two above do in the memory of one step, where nothing is fused."""

    def add(t, sums):
        sigmoids = _sigmoids(queries[t], factors)
        scored = ops.expand_dims(d_scores[t], -1) * sigmoids
        return sums[0] + scored * (1 - sigmoids), sums[1] + scored

    zeros = ops.zeros_like(_sigmoids(queries[0], factors))
    return ops.fori_loop(0, ops.shape(queries)[0], add, (zeros, zeros))


def _weight_gradient(inputs, d_outputs, dtype):
    """Sum `inputs^T d_outputs` over steps, pictures and captions in one matrix product."""
    inputs = ops.reshape(ops.cast(inputs, dtype), (-1, inputs.shape[-1]))
    d_outputs = ops.reshape(ops.cast(d_outputs, dtype), (-1, d_outputs.shape[-1]))
    return ops.matmul(ops.transpose(inputs), d_outputs)


def _sum_over_steps(weights, d_looked, dtype):
    """Compute the annotation vectors' gradient `sum_t alpha_t^T d z_t`, picture by picture."""

    def rows(x):  # (steps, batch, captions, width) -> (batch, steps * captions, width)
        x = ops.transpose(ops.cast(x, dtype), (1, 0, 2, 3))
        return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))

    return ops.matmul(ops.transpose(rows(weights), (0, 2, 1)), rows(d_looked))


def _widths(hidden, annotations, sampling):
    """Name and width of everything that a forward step saves, in the order it is packed in."""
    hidden_dim, feature_dim = hidden.shape[-1], annotations.shape[-1]
    return {
        "hidden": hidden_dim,
        "context": feature_dim,
        "attention_weights": annotations.shape[1],
        "gate": 1,
        "cell": hidden_dim,
        "looked": feature_dim,
        "activations": 4 * hidden_dim,
        **({} if sampling is None else {"locations": 1}),
    }


def _gradient_widths(hidden, annotations, keys):
    """The same for a step backwards."""
    hidden_dim, attention_dim = hidden.shape[-1], keys.shape[-1]
    return {
        "hidden": hidden_dim,
        "cell": hidden_dim,
        "products": attention_dim + 1 + 4 * hidden_dim,
        "looked": annotations.shape[-1],
        "scores": annotations.shape[1],
    }


def _unpack(rows, widths):
    """Split packed rows into a dictionary by their widths."""
    ends = list(itertools.accumulate(widths.values()))
    return dict(zip(widths, ops.split(rows, ends[:-1], axis=-1), strict=True))


def _scan(step, start, steps, widths, reverse=False):
    """Compute `parts = step(t, parts)` for every step, and stack the parts, packed.

    On TensorFlow `keras.ops.scan` wants outputs of the carry's shape, so that here they are one and
    the same: a packed row of everything that the next step or somebody else needs.

    Args:
        step: Function of a step's number and a dictionary of what it needs of the step before.
        start: Dictionary of what the first step needs.
        steps: Integer or scalar tensor.
        widths: Dictionary of all parts' names and widths.
        reverse: Boolean, whether the last step comes first.

    Returns:
        Tensor of shape `(steps, batch_size, captions, sum of the widths)`.
    """
    ends = dict(zip(widths, itertools.accumulate(widths.values()), strict=True))

    def body(row, t):
        last = {name: row[..., ends[name] - widths[name] : ends[name]] for name in start}
        new = step(t, last)
        row = ops.concatenate([new[name] for name in widths], axis=-1)
        return row, row

    zero = ops.zeros_like(start["hidden"][..., :1])
    row = [start.get(name, ops.repeat(zero, width, axis=-1)) for name, width in widths.items()]
    row = ops.concatenate(row, axis=-1)
    return ops.scan(body, row, ops.arange(steps), reverse=reverse)[1]
