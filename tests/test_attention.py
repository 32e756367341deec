"""Attention against NumPy's loops over the paper's equations 4 to 6."""

import keras
import numpy as np
import pytest
from gradients import gradients, numpy, random, weight_gradients
from keras import ops

from sat_keras.paper.attention import BahdanauAttention

BATCH, QUERIES, REGIONS = 2, 3, 5
HIDDEN, FEATURES, ATTENTION = 4, 6, 7


@pytest.fixture
def attention():
    layer = BahdanauAttention(ATTENTION)
    layer(*inputs())
    layer.key_projection.bias.assign(random(ATTENTION, seed=3))  # not its initial zeros
    return layer


def inputs():
    query = random(BATCH, QUERIES, HIDDEN, seed=1)
    return query, random(BATCH, REGIONS, FEATURES, seed=2, scale=2.0)


def paper(layer, query, annotations, mask=None):
    """Context and weights, region by region."""
    w_a, b = map(numpy, (layer.key_projection.kernel, layer.key_projection.bias))
    w_h, v = numpy(layer.query_projection.kernel), numpy(layer.score_vector.kernel)[:, 0]
    contexts = np.zeros((BATCH, QUERIES, FEATURES))
    weights = np.zeros((BATCH, QUERIES, REGIONS))
    for n, c in np.ndindex(BATCH, QUERIES):
        e = np.array([v @ np.tanh(a @ w_a + query[n, c] @ w_h + b) for a in annotations[n]])
        exp = np.exp(e) if mask is None else np.exp(e) * mask[n]
        weights[n, c] = exp / exp.sum()
        contexts[n, c] = (weights[n, c][:, None] * annotations[n]).sum(axis=0)
    return contexts, weights


def assert_close(found, expected, tolerance=1e-5):
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(numpy(x), y, rtol=tolerance, atol=tolerance)


def test_context_and_weights_are_the_papers(attention):
    found = attention(*inputs())
    expected = paper(attention, *inputs())
    assert_close(found, expected)
    assert expected[1].std() > 0.05  # attention that differs from region to region


def test_weights_sum_to_one(attention):
    _, weights = attention(*inputs())
    assert weights.shape == (BATCH, QUERIES, REGIONS)
    np.testing.assert_allclose(numpy(weights).sum(-1), 1, rtol=1e-6)
    assert (numpy(weights) > 0).all()


def test_masked_regions_are_not_looked_at(attention):
    query, annotations = inputs()
    mask = np.array([[True, False, True, True, False], [True, True, False, False, False]])
    found = attention(query, annotations, mask=mask)
    assert_close(found, paper(attention, query, annotations, mask))
    assert (numpy(found[1])[~np.broadcast_to(mask[:, None], found[1].shape)] == 0).all()
    # What is masked may be anything.
    annotations[~mask] = 100.0
    assert_close(attention(query, annotations, mask=mask), map(numpy, found))


@pytest.mark.filterwarnings("error")
def test_a_mask_is_used_up(attention):
    """Keras would warn that the layer destroys it, or hand it on to what it does not fit."""
    outputs = attention(*inputs(), mask=np.ones((BATCH, REGIONS), bool))
    assert [getattr(x, "_keras_mask", None) for x in outputs] == [None, None]


def test_projected_keys_give_the_same(attention):
    query, annotations = inputs()
    keys = attention.project(annotations)
    assert keys.shape == (BATCH, REGIONS, ATTENTION)
    assert_close(attention(query, annotations, keys), map(numpy, attention(query, annotations)))
    # And they are what is used: with all keys alike, every region gets the same.
    _, weights = attention(query, annotations, ops.ones_like(keys))
    np.testing.assert_allclose(numpy(weights), 1 / REGIONS, rtol=1e-6)


def test_queries_of_one_picture_are_independent(attention):
    query, annotations = inputs()
    together = attention(query, annotations)
    for c in range(QUERIES):
        alone = attention(query[:, c : c + 1], annotations)
        assert_close(alone, [numpy(x)[:, c : c + 1] for x in together])


def test_order_of_regions_does_not_matter(attention):
    query, annotations = inputs()
    context, weights = attention(query, annotations)
    order = [3, 1, 4, 0, 2]
    expected = numpy(context), numpy(weights)[:, :, order]
    assert_close(attention(query, annotations[:, order]), expected)


def test_gradient_reaches_every_weight(attention):
    def loss():
        context, _ = attention(*inputs())
        return ops.sum(ops.square(context))

    found = weight_gradients(attention, loss)
    assert len(found) == 4
    for path, gradient in found.items():
        assert np.abs(numpy(gradient)).max() > 1e-4, path


def test_gradient_is_that_of_finite_differences(attention):
    query, annotations = inputs()
    upstream = random(BATCH, QUERIES, FEATURES, seed=4)

    def loss(query, annotations):
        context, _ = attention(query, annotations)
        return ops.sum(context * ops.convert_to_tensor(upstream))

    found = gradients(loss, [query, annotations])
    for index, argument in enumerate((query, annotations)):
        expected = np.zeros(argument.shape)
        for position in np.ndindex(argument.shape):
            values = []
            for change in (1e-5, -1e-5):
                changed = [query.astype("float64"), annotations.astype("float64")]
                changed[index][position] += change
                values.append((paper(attention, *changed)[0] * upstream).sum())
            expected[position] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(numpy(found[index]), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_near_and_masks(attention, policy):
    half = BahdanauAttention(ATTENTION, dtype=policy)
    half(*inputs())
    half.set_weights(attention.get_weights())
    context, weights = half(*inputs())
    assert keras.backend.standardize_dtype(context.dtype) == policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    assert_close((context, weights), map(numpy, attention(*inputs())), tolerance=5e-2)
    mask = np.array([[True, False, False, False, False]] * BATCH)
    _, weights = half(*inputs(), mask=mask)
    np.testing.assert_array_equal(numpy(weights)[..., 0], 1.0)


def test_config_round_trip(attention):
    config = keras.layers.serialize(attention)
    copy = keras.layers.deserialize(config)
    assert copy.attention_dim == ATTENTION
    copy(*inputs())
    copy.set_weights(attention.get_weights())
    assert_close(copy(*inputs()), map(numpy, attention(*inputs())), tolerance=0)


def test_symbolic_shapes_are_the_real_ones():
    query, annotations = (keras.Input(x.shape[1:]) for x in inputs())
    context, weights = BahdanauAttention(ATTENTION)(query, annotations)
    assert context.shape == (None, QUERIES, FEATURES)
    assert weights.shape == (None, QUERIES, REGIONS)


@pytest.mark.parametrize("size", [0, -1, 2.0, "8", None])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"`attention_dim` must be a positive integer.*Received: "):
        BahdanauAttention(size)
