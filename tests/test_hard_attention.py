"""Hard attention: the estimator against every sequence enumerated, its draws, and its use.

`enumeration.py` has the oracle: exact gradient, and exact mean and variance of every estimator.
"""

import keras
import numpy as np
import pytest
from enumeration import CONFIG, SEQUENCES, batch, enumeration, force, make
from gradients import gradients, numpy, random, weight_gradients
from keras import ops
from seeding import fix_seed
from tracing import functions_run_eagerly

from sat_keras.backend.gumbel import Sampling
from sat_keras.config.config import Config
from sat_keras.paper.attention import BahdanauAttention
from sat_keras.paper.captioner import Captioner
from sat_keras.paper.hard_attention import HardAttention
from sat_keras.paper.reinforce import Reinforce, location_entropy

pytestmark = pytest.mark.long

SAMPLES = 20_000


def estimate(captioner, captions=1):
    """The gradient of -loss by the decoder's weights, one after the other."""
    x, y = batch(captions)

    def loss():
        outputs = captioner(x, training=True)
        return captioner.compute_loss(x, ops.convert_to_tensor(y), outputs)

    found = weight_gradients(captioner.decoder, loss)
    weights = captioner.decoder.trainable_variables
    return -np.concatenate([numpy(found[w.path]).astype("float64").ravel() for w in weights])


def deviations(captioner, expected, variance, number=SAMPLES):
    """How many of its own standard errors the mean of many samples is off, weight by weight.

    Weights that no sequence has a say in have no variance: they must be equal.
    """
    found = estimate(captioner)
    is_exact = variance < 1e-12
    np.testing.assert_allclose(found[is_exact], expected[is_exact], atol=1e-4)
    return (found - expected)[~is_exact] / np.sqrt(variance[~is_exact] / number)


def is_unbiased(deviation):
    """Every weight within 5 standard errors, and all together as far off as chance allows."""
    return np.abs(deviation).max() < 5 and 0.05 < np.mean(deviation**2) < 3


# The estimator: on average it is the gradient of the variational lower bound


def test_the_toy_is_no_trivial_one():
    exact = enumeration()
    np.testing.assert_allclose(exact.p.sum(), 1, rtol=1e-12)
    assert 0.01 < exact.p.max() < 0.5
    assert exact.log_p.sum(-1).std() > 0.3  # where it looks matters to the words
    assert np.abs(exact.mean(exact.d_log_p.sum(1)) - exact.bound).max() > 0.05  # and to the bound


@pytest.mark.parametrize("reward", ["caption", "rest"])
@pytest.mark.parametrize("baseline", [0.0, -2.0])
def test_estimators_mean_is_the_bounds_gradient(reward, baseline):
    """The mathematics alone: sums over all sequences against differences of the bound."""
    exact = enumeration()
    mean = exact.mean(exact.estimates(reward, baseline))
    np.testing.assert_allclose(mean, exact.bound, atol=1e-8)


def test_entropy_is_that_of_the_paths_own_weights():
    exact = enumeration()
    captioner = make(score_weight=0.0, entropy_weight=0.5)
    force(captioner, SEQUENCES[[5]])
    expected = exact.estimates(score_weight=0.0, entropy_weight=0.5)[5]
    np.testing.assert_allclose(estimate(captioner), expected, atol=1e-4)


@pytest.mark.parametrize("reward", ["caption", "rest"])
@pytest.mark.parametrize("baseline", ["none", "average"])
def test_estimate_of_one_sequence_is_exact(reward, baseline):
    exact = enumeration()
    captioner = make(reward=reward, baseline=baseline, score_weight=0.3, entropy_weight=0.2)
    captioner.reinforce.average.assign(-1.5)
    expected = exact.estimates(reward, -1.5 if baseline == "average" else 0.0, 0.3, 0.2)
    for sequence in (0, 11):
        force(captioner, SEQUENCES[[sequence]])
        np.testing.assert_allclose(estimate(captioner), expected[sequence], atol=2e-4)


@pytest.mark.parametrize("reward", ["caption", "rest"])
@pytest.mark.parametrize("baseline", ["none", "average"])
def test_mean_of_many_samples_is_the_bounds_gradient(reward, baseline):
    exact = enumeration()
    captioner = make(reward=reward, baseline=baseline, attention_samples=SAMPLES)
    average = exact.mean(exact.log_p).mean()
    captioner.reinforce.average.assign(average)
    each = exact.estimates(reward, average if baseline == "average" else 0.0)
    variance = exact.mean((each - exact.bound) ** 2)
    assert is_unbiased(deviations(captioner, exact.bound, variance))


def test_the_other_samples_are_a_baseline_too():
    """Two samples a caption of many captions; pairs of sequences enumerated for the variance."""
    exact = enumeration()
    captioner = make(attention_samples=2, baseline="samples")
    reward = exact.log_p.sum(-1)
    d_log_p, d_log_s = exact.d_log_p.sum(1), exact.d_log_s.sum(1)
    difference = reward[:, None] - reward
    pairs = (
        d_log_p[:, None]
        + d_log_p
        + difference[..., None] * d_log_s[:, None]
        - difference[..., None] * d_log_s
    ) / 2
    p = exact.p[:, None] * exact.p
    np.testing.assert_allclose(np.tensordot(p, pairs, axes=2), exact.bound, atol=1e-8)
    variance = np.tensordot(p, (pairs - exact.bound) ** 2, axes=2)
    found = estimate(captioner, captions=SAMPLES // 2) - exact.bound
    is_exact = variance < 1e-12
    assert is_unbiased(found[~is_exact] / np.sqrt(variance[~is_exact] / (SAMPLES // 2)))
    # Less than half of one sample's without a baseline: it is worth more than a second sample.
    alone = exact.mean((exact.estimates() - exact.bound) ** 2).sum()
    assert variance.sum() < alone / 2


def test_baseline_and_rest_lower_the_variance():
    exact = enumeration()
    average = exact.mean(exact.log_p).mean()

    def variance(*options):
        return exact.mean((exact.estimates(*options) - exact.bound) ** 2).sum()

    assert variance("caption", average) < 0.5 * variance("caption")
    assert variance("rest") < 0.7 * variance("caption")


def flip_sign(captioner):
    captioner.reinforce.score_weight = -1.0


def leave_out_the_locations(captioner):
    captioner.reinforce.score_weight = 0.0


def reward_only_the_word(captioner):
    """As the authors' code without RL_sumCost does."""
    captioner.reinforce.advantage = lambda log_probability, weight: log_probability


def draw_evenly(captioner):
    attention = captioner.decoder.attention
    draw = attention.draw

    def even(*args, **kwargs):
        sampling = draw(*args, **kwargs)
        return Sampling(1e4 * sampling.noise, sampling.expected)

    attention.draw = even


@pytest.mark.parametrize(
    "damage", [flip_sign, leave_out_the_locations, reward_only_the_word, draw_evenly]
)
def test_a_broken_estimator_fails_the_check(damage):
    """Which the unbroken one passes, in `test_mean_of_many_samples_is_the_bounds_gradient`."""
    exact = enumeration()
    captioner = make(attention_samples=SAMPLES, baseline="average")
    average = exact.mean(exact.log_p).mean()
    captioner.reinforce.average.assign(average)
    variance = exact.mean((exact.estimates("caption", average) - exact.bound) ** 2)
    damage(captioner)
    found = estimate(captioner) - exact.bound
    is_exact = variance < 1e-12
    assert not is_unbiased(found[~is_exact] / np.sqrt(variance[~is_exact] / SAMPLES))


# The objective


def objective(**options):
    layer = Reinforce(score_weight=1.0, entropy_weight=0.0, **options)
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(4), (2, 2, 3)).astype("float32")
    call = {
        "log_probability": -generator.random((2, 2, 3)).astype("float32"),
        "attention_weights": weights,
        "locations": generator.integers(0, 4, (2, 2, 3)).astype("int32"),
        "sampled": np.array([[1], [0]], "float32"),
        "weight": np.array([[[1, 1, 1], [1, 1, 0]]] * 2, "float32"),
    }
    return layer, call


def tensors(call):
    return {name: ops.convert_to_tensor(value) for name, value in call.items()}


def test_average_follows_the_minibatches_after_their_use():
    layer, call = objective()
    drawn = call["log_probability"][0] * call["weight"][0]
    now = drawn.sum() / 5
    without = Reinforce(score_weight=1.0, entropy_weight=0.0, baseline="none")
    first = layer(**tensors(call), training=True)
    np.testing.assert_allclose(numpy(first), numpy(without(**tensors(call))), rtol=1e-5)
    np.testing.assert_allclose(float(layer.average), 0.1 * now, rtol=1e-5)
    second = layer(**tensors(call), training=True)
    assert np.abs(numpy(second) - numpy(first))[0].min() > 1e-3
    np.testing.assert_allclose(float(layer.average), 0.19 * now, rtol=1e-5)
    layer(**tensors(call), training=False)
    layer(**tensors({**call, "sampled": np.zeros((2, 1), "float32")}), training=True)
    np.testing.assert_allclose(float(layer.average), 0.19 * now, rtol=1e-5)


def test_pictures_of_the_expected_context_have_no_score():
    layer, call = objective(baseline="none")
    found = numpy(layer(**tensors(call)))
    assert np.abs(found[0]).min() > 0.01
    np.testing.assert_array_equal(found[1], 0)


def test_padding_has_no_part():
    layer, call = objective(baseline="none", reward="rest")
    layer.entropy_weight = 1.0
    expected = numpy(layer(**tensors(call)))
    call["log_probability"][:, 1, 2] = -50
    call["locations"][:, 1, 2] = 0
    call["attention_weights"][:, 1, 2] = [0, 0, 1, 0]
    np.testing.assert_allclose(numpy(layer(**tensors(call))), expected)


def test_reward_is_no_path_for_gradients():
    layer, call = objective()
    call = tensors(call)

    def loss(log_probability, attention_weights):
        return ops.sum(
            layer(**{**call, "log_probability": log_probability * 1.0}, training=False)
            + 0 * ops.sum(attention_weights)
            + 0 * ops.sum(log_probability)
        )

    found = gradients(loss, [call["log_probability"], call["attention_weights"]])
    np.testing.assert_array_equal(numpy(found[0]), 0)


def test_entropy_and_its_gradient():
    weights = np.array([[0.5, 0.25, 0.25], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], "float32")
    found = numpy(location_entropy(ops.convert_to_tensor(weights)))
    np.testing.assert_allclose(found, [1.5 * np.log(2), 0, np.log(3)], rtol=1e-6, atol=1e-6)
    (gradient,) = gradients(lambda x: ops.sum(location_entropy(x)), [weights])
    assert np.isfinite(numpy(gradient)).all()
    np.testing.assert_allclose(numpy(gradient)[0], -np.log(weights[0]) - 1, rtol=1e-5)


def test_one_sample_is_no_baseline():
    with pytest.raises(ValueError, match=r"draw 2 or more \(`attention_samples`\). Received: 1"):
        make(baseline="samples")


# The draws


def test_regions_are_drawn_as_often_as_their_weights_say():
    weights = np.array([0.7, 0.2, 0.1 - 1e-4, 1e-4], "float32")
    number = 50_000
    noise, expected = HardAttention(2, seed=0, expected_probability=0.0).draw(
        (1, number, 4), training=True
    )
    chosen = numpy(ops.argmax(ops.log(weights) + noise[0], axis=-1))
    found = np.bincount(chosen, minlength=4) / number
    assert (np.abs(found - weights) < 5 * np.sqrt(weights * (1 - weights) / number)).all()
    np.testing.assert_array_equal(numpy(expected), 0)


def test_steps_and_captions_draw_by_themselves():
    attention = HardAttention(2, seed=0)
    noise = numpy(attention.draw((3, 2, 4, 5), training=True).noise)
    assert len(np.unique(noise)) == noise.size
    again = numpy(HardAttention(2, seed=0).draw((3, 2, 4, 5), training=True).noise)
    np.testing.assert_array_equal(noise, again)
    assert not np.isin(numpy(attention.draw((3, 2, 4, 5), training=True).noise), noise).any()


def test_the_coin_is_the_pictures_or_the_batchs():
    pictures = HardAttention(2, expected_probability=0.3, seed=0)
    coins = numpy(pictures.draw((2000, 1, 1), training=True).expected)
    assert coins.shape == (2000, 1, 1)
    assert abs(coins.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)
    batches = HardAttention(2, expected_per="batch", seed=0)
    coins = [numpy(batches.draw((8, 1, 1), training=True).expected) for _ in range(40)]
    assert all(coin.min() == coin.max() for coin in coins)
    assert 0.2 < np.mean(coins) < 0.8


# The layer


def layers(**options):
    """Soft and hard attention with the same weights, and the arguments of a call."""
    query, annotations = random(2, 3, 4, seed=1), random(2, 6, 5, seed=2)
    soft, hard = BahdanauAttention(3), HardAttention(3, seed=0, **options)
    soft(query, annotations)
    hard.build(query.shape, annotations.shape)
    for weight, value in zip(soft.trainable_variables, (3, 0.5, 2, 4), strict=True):
        weight.assign(random(*weight.shape, seed=4, scale=value))
    hard.set_weights(soft.get_weights())
    return soft, hard, query, annotations


def test_layer_is_soft_attention_by_default_outside_training():
    soft, hard, query, annotations = layers()
    for x, y in zip(hard(query, annotations), soft(query, annotations), strict=True):
        np.testing.assert_array_equal(numpy(x), numpy(y))


@pytest.mark.parametrize("inference", ["argmax", "sampled"])
def test_layer_looks_at_one_region(inference):
    soft, hard, query, annotations = layers(inference=inference)
    context, weights = map(numpy, hard(query, annotations))
    np.testing.assert_array_equal(weights, numpy(soft(query, annotations)[1]))
    distance = np.abs(context[:, :, None] - annotations[:, None]).max(-1)  # (2, 3, 6)
    np.testing.assert_array_equal(distance.min(-1), 0)
    if inference == "argmax":
        np.testing.assert_array_equal(distance.argmin(-1), weights.argmax(-1))


@pytest.mark.parametrize("expected", [0.0, 0.999999])
def test_gradient_reaches_the_weights_by_the_expected_context_only(expected):
    _, hard, query, annotations = layers(expected_probability=expected)
    found = weight_gradients(hard, lambda: ops.sum(hard(query, annotations, training=True)[0] ** 2))
    largest = [0.0 if g is None else np.abs(numpy(g)).max() for g in found.values()]
    assert max(largest) < 1e-12 if expected == 0 else min(largest) > 1e-3


def test_layer_is_saved_with_its_options():
    options = {"samples": 3, "expected_probability": 0.2, "expected_per": "batch"}
    hard = HardAttention(3, **options, inference="argmax", seed=5)
    copy = HardAttention.from_config(hard.get_config())
    assert copy.get_config() == hard.get_config()
    assert (copy.samples, copy.inference, copy.seed) == (3, "argmax", 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples", 0), ("expected_probability", 1.0), ("expected_per", "word"), ("inference", "one")],
)
def test_impossible_options_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must .*Received: {name}="):
        HardAttention(3, **{name: value})


# The captioner


def test_samples_are_rows_of_their_own():
    captioner = make(attention_samples=4)
    x, y = batch(captions=2)
    outputs = captioner(x, training=True)
    assert outputs["logits"].shape == (1, 8, 3, 6)
    assert outputs["locations"].shape == (1, 8, 3)
    assert captioner(x, training=False)["logits"].shape == (1, 2, 3, 6)
    assert len(np.unique(numpy(outputs["locations"])[0], axis=0)) > 1
    weights = random(1, 2, 3, seed=8) ** 2
    loss = captioner.compute_loss(x, y, outputs, weights)
    one = make(attention_samples=1)
    rows = one.compute_loss(x, np.repeat(y, 4, 1), outputs, np.repeat(weights, 4, 1))
    np.testing.assert_allclose(float(loss), float(rows), rtol=1e-6)


def test_samples_of_a_caption_share_their_dropout():
    """Or the other samples' reward would differ by more than where they look."""
    captioner = make(attention_samples=2, dropout=0.5, embedding_dropout=0.5)
    force(captioner, SEQUENCES[[5, 5, 7, 7]])
    logits = numpy(captioner(batch(captions=2)[0], training=True)["logits"])[0]
    np.testing.assert_allclose(logits[0::2], logits[1::2], rtol=1e-5)
    assert (
        logits[0] != numpy(captioner(batch(captions=2)[0], training=True)["logits"])[0, 0]
    ).any()


@pytest.fixture(scope="module")
def looked():
    """A captioner trained on pictures that have a word's colour in one region, marked."""
    fix_seed(0)
    config = CONFIG.replace(
        grid_shape=(2, 2), feature_dim=4, hidden_dim=16, embedding_dim=8, attention_dim=8,
        vocabulary_size=8, attention_samples=4, expected_probability=0.5, baseline="samples",
        reward="rest", entropy_weight=0.01, seed=1,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    region, word = generator.integers(0, 4, 256), generator.integers(0, 3, 256)
    annotations = np.eye(4)[generator.integers(0, 3, (256, 4))]  # other words elsewhere
    annotations[np.arange(256), region] = np.eye(4)[word] + np.eye(4)[3]
    x = {"annotations": annotations.astype("float32"), "token_ids": np.full((256, 1, 2), 2)}
    x["token_ids"][:, 0, 1] = 4 + word
    y = np.stack([4 + word, np.full(256, 3)], -1)[:, None]
    captioner = Captioner(config)
    captioner.compile(keras.optimizers.Adam(0.02))
    with functions_run_eagerly(False):
        history = captioner.fit(x, y, batch_size=64, epochs=25, shuffle=False, verbose=0).history
    return captioner, history, x, y, region


def test_fit_learns_where_to_look(looked):
    captioner, history, x, _, region = looked
    assert {"entropy", "baseline", "cross_entropy", "penalty", "loss"} == set(history)
    assert history["cross_entropy"][-1] < 0.1 < history["cross_entropy"][0]
    peak = numpy(captioner(x)["attention_weights"])[:, 0, 0].argmax(-1)
    assert (peak == region).mean() > 0.95
    assert history["entropy"][-1] < history["entropy"][0] < 1.4


def test_evaluation_is_of_the_expected_context(looked):
    captioner, _, x, y, _ = looked
    logs = captioner.evaluate(x, y, verbose=0, return_dict=True)
    log_p = ops.log_softmax(captioner(x)["logits"])
    chosen = np.take_along_axis(numpy(log_p), y[..., None], -1)
    np.testing.assert_allclose(logs["cross_entropy"], -chosen.mean(), rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], -chosen.mean() * 2, rtol=1e-4)
    assert 0 < logs["entropy"] < np.log(4)


def test_baseline_is_saved_and_copied(looked, tmp_path):
    from sat_keras.training.pretrained import copy_captioner

    captioner = looked[0]
    average = float(captioner.reinforce.average)
    assert average < -0.001
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    assert float(loaded.reinforce.average) == average
    assert float(copy_captioner(captioner, None, "float32").reinforce.average) == average


def test_noise_goes_on_where_it_was_saved(tmp_path):
    first, second = make(), make()
    shape = (2, 3, 2, 3)
    first.decoder.attention.draw(shape, training=True)
    first.save_weights(tmp_path / "captioner.weights.h5")
    second.load_weights(tmp_path / "captioner.weights.h5")
    noise = [numpy(x.decoder.attention.draw(shape, training=True).noise) for x in (first, second)]
    np.testing.assert_array_equal(*noise)


@pytest.mark.parametrize("context", ["expected", "argmax", "sampled"])
def test_search_uses_the_context(looked, context):
    captioner, _, x, _, _ = looked
    annotations = x["annotations"][:8]
    result = captioner.search(annotations, beam_size=3, max_length=3, context=context, seed=4)
    best = numpy(result.token_ids)[:, 0]
    # Teacher forcing of the captions found, in the same context, gives their log-probability.
    attention = captioner.decoder.attention
    previous = np.concatenate([np.full((8, 1), 2), best[:, :-1]], axis=1)[:, None]
    if context == "sampled":
        record = numpy(result.record["attention_weights"])[:, 0]
        assert len(np.unique(record[:, 0].argmax(-1))) > 1
    else:
        attention.inference = context
        outputs = captioner({"annotations": annotations, "token_ids": previous})
        log_p = numpy(ops.log_softmax(outputs["logits"]))
        attention.inference = "expected"
        chosen = np.take_along_axis(log_p[:, 0], best[..., None], -1)[..., 0]
        inside = np.arange(best.shape[1]) < numpy(result.lengths)[:, :1]
        np.testing.assert_allclose(
            (chosen * inside).sum(-1), numpy(result.log_probability)[:, 0], atol=1e-4
        )


def test_sampled_search_is_seeded():
    captioner = make()
    x = {"annotations": np.repeat(batch()[0]["annotations"], 16, axis=0)}

    def log_p(seed):
        found = captioner.search(
            x["annotations"], beam_size=2, max_length=3, context="sampled", seed=seed
        )
        return numpy(found.log_probability)[:, 0]

    np.testing.assert_array_equal(log_p(1), log_p(1))
    assert (log_p(1) != log_p(2)).any()
    assert len(np.unique(log_p(1))) > 1  # every picture draws its own
    assert (log_p(None) != log_p(None)).any()


def test_soft_attention_has_no_other_context():
    captioner = Captioner(Config.tiny().replace(vocabulary_size=8))
    with pytest.raises(ValueError, match="attention='hard'.*Received: context='argmax'"):
        captioner.search(np.zeros((1, 4, 8), "float32"), context="argmax")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_training_in_half_precision(policy):
    fix_seed(0)
    captioner = Captioner(
        CONFIG.replace(attention_samples=2, expected_probability=0.5), dtype=policy
    )
    captioner.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    x, y = batch(captions=2)
    for _ in range(3):
        logs = captioner.train_on_batch(x, y, return_dict=True)
        assert all(np.isfinite(value) for value in logs.values())
    assert all(np.isfinite(numpy(w.value)).all() for w in captioner.trainable_weights)


@pytest.mark.graph
def test_two_runs_with_one_seed_agree_compiled_or_not():
    x, y = batch(captions=2)
    options = {"attention_samples": 2, "expected_probability": 0.5, "seed": 3}
    found = []
    for is_eager, runs in ((False, 2), (True, 1)):
        captioner = make(**options)
        captioner.compile(keras.optimizers.SGD(0.01), run_eagerly=is_eager)
        for _ in range(runs):  # without compiling anew
            for mine, its in zip(captioner.variables, make(**options).variables, strict=True):
                mine.assign(its)
            with functions_run_eagerly(is_eager):
                for _ in range(2):
                    captioner.train_on_batch(x, y)
            found.append(np.concatenate([w.ravel() for w in captioner.get_weights()]))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4, atol=1e-6)
