"""The decoder's loop over the steps of a caption, with its gradient written out.

Automatic differentiation would keep a tensor of shape (batch, captions, regions, attention_dim)
for every step and compute every weight's gradient step by step. Here the backward pass computes
that tensor again, and whatever is a product over the steps is one matrix product after the loop.
"""

import collections
import itertools

from keras import ops

from sat_keras.attention import attention_hidden


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


def attention_recurrence(embedded, hidden, cell, annotations, keys, weights):
    """Look at the picture and update the LSTM, for all steps of a caption.

    For every step, with the embedded word `x` and the previous hidden and cell state `h`, `c`

    1. `e_i = v . tanh(k_i + W_h h)`, `alpha = softmax(e)`, `z_hat = sum_i alpha_i a_i`
    2. `beta = sigmoid(w_beta . h + b)`, `z = beta z_hat`
    3. `i, f, g, o = x + U h + W_z z`, `c = sigmoid(f) c + sigmoid(i) tanh(g)`,
       `h = sigmoid(o) tanh(c)`

    The attention's hidden layer and the matrix products have the dtype of `keys`, everything
    else is float32 at any precision.

    Args:
        embedded: Tensor `x` of shape `(steps, batch_size, captions, 4 * hidden_dim)`, the previous
            words after the LSTM's block for them, its bias included.
        hidden, cell: Tensors of shape `(batch_size, captions, hidden_dim)`, the initial states.
        annotations: Tensor `a` of shape `(batch_size, num_regions, feature_dim)`.
        keys: Tensor `k` of shape `(batch_size, num_regions, attention_dim)`.
        weights: `RecurrenceWeights`.

    Returns:
        Tuple `(hidden, context, attention_weights, gate)` of float32 tensors with one row a step,
        shapes `(steps, batch_size, captions, hidden_dim)`, `(..., feature_dim)`,
        `(..., num_regions)` and `(..., 1)`.

    Reference:
        Xu et al. 2015, equations 1 to 6 and section 4.2.1.
    """
    outputs = _recurrence(
        *(ops.cast(state, "float32") for state in (embedded, hidden, cell)),
        annotations,
        keys,
        *weights,
    )
    steps = _unpack(outputs, _widths(hidden, annotations))
    return steps["hidden"], steps["context"], steps["attention_weights"], steps["gate"]


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


def attention_step(embedded, hidden, cell, annotations, keys, weights):
    """Do one step of `attention_recurrence`.

    Args:
        embedded: Tensor of shape `(batch_size, captions, 4 * hidden_dim)`.
        hidden, cell, annotations, keys, weights: As in `attention_recurrence`.

    Returns:
        Dictionary of float32 tensors of shape `(batch_size, captions, ...)`: the new `hidden` and
        `cell`, the `context` after and `looked` before the gate, `attention_weights`, `gate` and
        the `activations` of the LSTM's gates.
    """
    dtype = keys.dtype
    attention_dim = keys.shape[-1]
    products = ops.matmul(ops.cast(hidden, dtype), weights.kernels)
    query, gate, units = ops.split(products, [attention_dim, attention_dim + 1], axis=-1)
    scores = ops.squeeze(ops.matmul(attention_hidden(query, keys), weights.score_vector), -1)
    attention_weights = ops.softmax(ops.cast(scores, "float32"), axis=-1)
    looked = ops.matmul(ops.cast(attention_weights, dtype), annotations)
    looked = ops.cast(looked, "float32")
    gate = ops.sigmoid(ops.cast(gate, "float32") + weights.gate_bias)
    context = gate * looked
    units = units + ops.matmul(ops.cast(context, dtype), weights.context_kernel)
    hidden, cell, activations = lstm_update(embedded + ops.cast(units, "float32"), cell)
    return {
        "hidden": hidden,
        "cell": cell,
        "context": context,
        "attention_weights": attention_weights,
        "gate": gate,
        "looked": looked,
        "activations": activations,
    }


@ops.custom_gradient
def _recurrence(embedded, hidden, cell, annotations, keys, *weights):
    """Run the loop; see `attention_recurrence`. One output tensor suits every backend."""
    weights = RecurrenceWeights(*weights)

    def step(t, states):
        new = attention_step(
            embedded[t], states["hidden"], states["cell"], annotations, keys, weights
        )
        return {"hidden": new["hidden"], "cell": new["cell"]}, new

    start = {"hidden": hidden, "cell": cell}
    _, outputs = _loop(step, start, _widths(hidden, annotations), ops.shape(embedded)[:3])

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return _backward(upstream, outputs, hidden, cell, annotations, keys, weights)

    return outputs, gradient


def _backward(upstream, outputs, hidden, cell, annotations, keys, weights):
    """Compute the gradient of `_recurrence` for each of its arguments, last step first."""
    dtype = keys.dtype
    dims = hidden.shape[-1], annotations.shape[-1], annotations.shape[1], keys.shape[-1]
    hidden_dim, feature_dim, num_regions, attention_dim = dims
    saved = _unpack(outputs, _widths(hidden, annotations))
    d_saved = _unpack(upstream, _widths(hidden, annotations))
    score_vector = ops.cast(weights.score_vector[:, 0], "float32")
    previous_hidden = ops.cast(ops.concatenate([hidden[None], saved["hidden"][:-1]]), dtype)
    previous_cell = ops.concatenate([cell[None], saved["cell"][:-1]])
    queries = ops.matmul(previous_hidden, weights.kernels[:, :attention_dim])
    local = _local_derivatives(saved, previous_cell)
    kernels_t = ops.transpose(weights.kernels)
    context_kernel_t = ops.transpose(weights.context_kernel)
    annotations_t = ops.transpose(annotations, (0, 2, 1))
    steps = ops.shape(upstream)[0]

    def step(reverse_t, carry):
        t = steps - 1 - reverse_t
        d_hidden = carry["hidden"] + d_saved["hidden"][t]
        d_cell = carry["cell"] + d_hidden * local["cell_of_hidden"][t]
        d_units = ops.concatenate([d_cell, d_cell, d_cell, d_hidden], -1) * local["units"][t]
        d_context = ops.matmul(ops.cast(d_units, dtype), context_kernel_t)
        d_context = ops.cast(d_context, "float32") + d_saved["context"][t]
        d_gate = ops.sum(d_context * saved["looked"][t], -1, keepdims=True) + d_saved["gate"][t]
        d_looked = d_context * saved["gate"][t]
        looked_at = saved["attention_weights"][t]
        d_weight = ops.matmul(ops.cast(d_looked, dtype), annotations_t)
        d_weight = ops.cast(d_weight, "float32") + d_saved["attention_weights"][t]
        d_scores = looked_at * (d_weight - ops.sum(looked_at * d_weight, -1, keepdims=True))
        # d tanh = (1 - tanh^2), and the scores' gradient sums to 0 over the regions: so the
        # squared part is all that reaches the query, and the 1 can wait until after the loop.
        layer = attention_hidden(queries[t], keys)
        scored = layer * ops.cast(ops.expand_dims(d_scores, -1), dtype)
        squared = scored * layer
        d_query = -ops.cast(ops.sum(squared, 2), "float32") * score_vector
        d_products = ops.concatenate([d_query, d_gate * local["gate"][t], d_units], axis=-1)
        carry = {
            "hidden": ops.cast(ops.matmul(ops.cast(d_products, dtype), kernels_t), "float32"),
            "cell": d_cell * local["keep"][t],
            "keys": carry["keys"] + ops.cast(ops.sum(squared, 1), "float32"),
            "score_vector": carry["score_vector"] + ops.cast(ops.sum(scored, (0, 1, 2)), "float32"),
        }
        return carry, {"products": d_products, "looked": d_looked, "scores": d_scores}

    start = {
        "hidden": ops.zeros_like(hidden),
        "cell": ops.zeros_like(cell),
        "keys": ops.zeros_like(keys, dtype="float32"),
        "score_vector": ops.zeros((attention_dim,), "float32"),
    }
    widths = {
        "products": attention_dim + 1 + 4 * hidden_dim,
        "looked": feature_dim,
        "scores": num_regions,
    }
    carry, rows = _loop(step, start, widths, ops.shape(upstream)[:3], reverse=True)
    d = _unpack(rows, widths)
    d_scores = ops.expand_dims(ops.sum(d["scores"], (0, 2)), -1)
    d_keys = (d_scores - carry["keys"]) * score_vector
    return (
        d["products"][..., attention_dim + 1 :],
        carry["hidden"],
        carry["cell"],
        _sum_over_steps(saved["attention_weights"], d["looked"], dtype),
        ops.cast(d_keys, dtype),
        _weight_gradient(previous_hidden, d["products"], dtype),
        _weight_gradient(saved["context"], d["products"][..., attention_dim + 1 :], dtype),
        ops.cast(carry["score_vector"][:, None], dtype),
        ops.sum(d["products"][..., attention_dim], (0, 1, 2))[None],
    )


def _local_derivatives(saved, previous_cell):
    """Compute the derivatives inside the LSTM and the gate, which need no recursion."""
    write, keep, candidate, show = ops.split(saved["activations"], 4, axis=-1)
    shown = ops.tanh(saved["cell"])
    units = [
        candidate * write * (1 - write),
        previous_cell * keep * (1 - keep),
        write * (1 - candidate**2),
        shown * show * (1 - show),
    ]
    return {
        "units": ops.concatenate(units, axis=-1),
        "cell_of_hidden": show * (1 - shown**2),
        "keep": keep,
        "gate": saved["gate"] * (1 - saved["gate"]),
    }


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


def _widths(hidden, annotations):
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
    }


def _unpack(rows, widths):
    """Split packed rows into a dictionary by their widths."""
    ends = list(itertools.accumulate(widths.values()))
    return dict(zip(widths, ops.split(rows, ends[:-1], axis=-1), strict=True))


def _loop(step, carry, widths, leading, reverse=False):
    """Call `carry, outputs = step(t, carry)` for every step, and stack the outputs, packed.

    `keras.ops.scan` wants outputs of the carry's shapes on some backends, which the backward
    pass has not, and nobody differentiates this loop. One packed row is one write a step.
    """
    steps = leading[0]
    rows = ops.zeros((*leading, sum(widths.values())), "float32")

    def body(t, loop):
        carry, rows = loop
        carry, outputs = step(t, carry)
        row = ops.concatenate([outputs[name] for name in widths], axis=-1)
        index = ops.convert_to_tensor(steps - 1 - t if reverse else t, "int32")
        return carry, ops.scatter_update(rows, ops.reshape(index, (1, 1)), row[None])

    return ops.fori_loop(0, steps, body, (carry, rows))
