"""A captioner so small that every sequence of locations can be enumerated: the oracle of REINFORCE.

One picture of three regions, one caption of three words: 27 sequences `s`. The model is written
out again in NumPy, float64, for all of them at once; its finite differences are the derivatives
of `log p(y_t | s)`, of `log p(s_t)` and of the entropies, and everything else is sums over `s`.
"""

import functools
import itertools

import keras
import numpy as np

from sat_keras.backend.gumbel import Sampling
from sat_keras.config.config import Config
from sat_keras.paper.captioner import Captioner

REGIONS, STEPS, VOCABULARY = 3, 3, 6
SEQUENCES = np.array(list(itertools.product(range(REGIONS), repeat=STEPS)))
TOKEN_IDS, TARGETS = np.array([2, 4, 5]), np.array([4, 5, 3])
CONFIG = Config.tiny().replace(
    vocabulary_size=VOCABULARY,
    grid_shape=(1, REGIONS),
    feature_dim=3,
    embedding_dim=3,
    hidden_dim=3,
    attention_dim=2,
    penalty_weight=0.0,
    attention="hard",
    expected_probability=0.0,
    score_weight=1.0,
    entropy_weight=0.0,
    baseline="none",
)


def picture():
    return np.random.default_rng(3).normal(size=(REGIONS, CONFIG.feature_dim)).astype("float32")


def make(**changes):
    """The captioner, with weights so large that attention and the words depend on the regions."""
    captioner = Captioner(CONFIG.replace(**changes))
    generator = np.random.default_rng(1)
    for variable in captioner.decoder.trainable_variables:
        variable.assign(generator.normal(scale=1.2, size=variable.shape))
    return captioner


def batch(captions=1):
    """`(x, y)` of the picture with the same caption a number of times."""
    x = {
        "annotations": picture()[None],
        "token_ids": np.tile(TOKEN_IDS, (1, captions, 1)).astype("int32"),
    }
    return x, np.tile(TARGETS, (1, captions, 1)).astype("int32")


def force(captioner, sequences):
    """Let the captioner's rows draw these sequences, `(rows, steps)`, in place of random ones."""
    chosen = np.eye(REGIONS)[np.transpose(sequences)][:, None]  # (steps, 1, rows, regions)
    sampling = Sampling((1e9 * chosen).astype("float32"), np.zeros((1, 1, 1), "float32"))
    sampling = Sampling(*map(keras.ops.convert_to_tensor, sampling))
    captioner.decoder.attention.draw = lambda *args, **kwargs: sampling


def named_weights(captioner):
    """Float64 arrays by name, such as `attention/score_vector/kernel`."""
    return {
        variable.path.partition("decoder/")[2]: np.array(
            keras.ops.convert_to_numpy(variable.value), "float64"
        )
        for variable in captioner.decoder.trainable_variables
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def follow(weights, sequences=SEQUENCES):
    """`log p(y_t | s)`, `log p(s_t)` and `H[s_t]`, each `(sequences, steps)`, from section 3."""
    a = picture().astype("float64")

    def dense(name, x, bias=True):
        return x @ weights[f"{name}/kernel"] + (weights[f"{name}/bias"] if bias else 0)

    keys = dense("attention/key_projection", a)
    h = np.tile(np.tanh(dense("initial_hidden", a.mean(0))), (len(sequences), 1))
    c = np.tile(np.tanh(dense("initial_cell", a.mean(0))), (len(sequences), 1))
    rows = np.arange(len(sequences))
    found = []
    for t in range(STEPS):
        query = dense("attention/query_projection", h, bias=False)
        scores = dense("attention/score_vector", np.tanh(keys + query[:, None]), bias=False)
        alpha = np.exp(scores[..., 0])
        alpha /= alpha.sum(-1, keepdims=True)
        z = sigmoid(dense("gate", h)) * a[sequences[:, t]]
        word = weights["embedding/embeddings"][TOKEN_IDS[t]]
        units = dense("lstm_embedding", word) + dense("lstm_hidden", h, bias=False)
        i, f, g, o = np.split(units + dense("lstm_context", z, bias=False), 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        output = np.tanh(word + dense("output_hidden", h) + dense("output_context", z, bias=False))
        logits = dense("output_words", output)
        log_p = logits[:, TARGETS[t]] - np.log(np.exp(logits).sum(-1))
        entropy = -(alpha * np.log(alpha)).sum(-1)
        found.append((log_p, np.log(alpha[rows, sequences[:, t]]), entropy))
    return tuple(np.stack(column, axis=-1) for column in zip(*found, strict=True))


class Enumeration:
    """All sequences, exactly: values and derivatives by all weights, one after the other.

    Attributes:
        log_p, log_s, entropy: `(sequences, steps)`, see `follow`.
        d_log_p, d_log_s, d_entropy: `(sequences, steps, weights)`.
        p: `(sequences,)`, probability of each sequence.
        bound: Gradient of `sum_s p(s) log p(y | s)`, `(weights,)`, by finite differences of the
            bound itself.
    """

    def __init__(self, captioner):
        weights = named_weights(captioner)
        self.names = list(weights)
        self.log_p, self.log_s, self.entropy = follow(weights)
        self.p = np.exp(self.log_s.sum(-1))
        columns, bound = [], []
        for value in weights.values():
            for index in np.ndindex(value.shape):
                here = value[index]
                value[index] = here + 1e-5
                above = follow(weights)
                value[index] = here - 1e-5
                below = follow(weights)
                value[index] = here
                columns.append([(x - y) / 2e-5 for x, y in zip(above, below, strict=True)])
                bound.append((self.bound_of(above) - self.bound_of(below)) / 2e-5)
        self.d_log_p, self.d_log_s, self.d_entropy = (
            np.stack(column, axis=-1) for column in zip(*columns, strict=True)
        )
        self.bound = np.array(bound)

    @staticmethod
    def bound_of(found):
        log_p, log_s, _ = found
        return (np.exp(log_s.sum(-1)) * log_p.sum(-1)).sum()

    def mean(self, values):
        """The expectation over the sequences of `values`, `(sequences, ...)`."""
        return np.tensordot(self.p, values, axes=1)

    def estimates(self, reward="caption", baseline=0.0, score_weight=1.0, entropy_weight=0.0):
        """The estimate of the bound's gradient from each sequence alone, `(sequences, weights)`.

        `baseline`: log p a word, subtracted as often as the reward has words.
        """
        left = np.arange(STEPS, 0, -1) if reward == "rest" else np.full(STEPS, STEPS)
        onward = np.cumsum(self.log_p[:, ::-1], axis=1)[:, ::-1]
        reward = onward if reward == "rest" else np.repeat(onward[:, :1], STEPS, axis=1)
        advantage = reward - baseline * left
        score = np.einsum("st,stw->sw", advantage, self.d_log_s)
        terms = self.d_log_p.sum(1), score_weight * score, entropy_weight * self.d_entropy.sum(1)
        return sum(terms)


@functools.cache
def enumeration():
    return Enumeration(make())
