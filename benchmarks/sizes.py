"""The timed training step: sizes, minibatch and number of operations."""

import dataclasses

import keras
import numpy as np

from sat_keras.config.config import Config
from sat_keras.fast.optimizer import FusedAdam
from sat_keras.paper.captioner import Captioner


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a step; the defaults are those of the table in `README.md`.

    Attributes:
        pictures: Integer, pictures of a minibatch.
        captions: Integer, captions of a picture that share its annotation vectors.
        steps: Integer, words of a caption.
        vocabulary_size: Integer.
        num_regions, feature_dim: Integers, annotation vectors of a picture and their size.
        width: Integer, size of embedding, attention and LSTM.
    """

    pictures: int = 64
    captions: int = 1
    steps: int = 16
    vocabulary_size: int = 8000
    num_regions: int = 196
    feature_dim: int = 512
    width: int = 512

    @property
    def rows(self):
        """Integer, captions of the minibatch."""
        return self.pictures * self.captions

    def config(self):
        """Returns the `Config` of a model of these sizes."""
        side = round(self.num_regions**0.5)
        return Config(
            grid_shape=(side, side),
            feature_dim=self.feature_dim,
            vocabulary_size=self.vocabulary_size,
            embedding_dim=self.width,
            attention_dim=self.width,
            hidden_dim=self.width,
        )

    def batch(self, seed=0):
        """Draws a minibatch: annotation vectors, previous words and next words, as arrays."""
        generator = np.random.default_rng(seed)
        annotations = (self.pictures, self.num_regions, self.feature_dim)
        words = (self.pictures, self.captions, self.steps + 1)
        token_ids = generator.integers(4, self.vocabulary_size, words).astype("int32")
        return (
            generator.normal(size=annotations).astype("float32"),
            token_ids[..., :-1],
            token_ids[..., 1:],
        )

    def flops(self):
        """Counts the floating point operations of a step's matrix products.

        The annotation vectors are data: no gradient for them is counted, as none is computed.
        """
        words, width, features = self.rows * self.steps, self.width, self.feature_dim
        regions = self.num_regions
        twice = [  # forward, and one of the two products backward
            (self.pictures * regions, features, width),  # keys
            (self.pictures, features, 2 * width),  # initial state
            (words, regions, features),  # context
        ]
        thrice = [
            (words, width, 4 * width),  # LSTM: word
            (words, width, 5 * width + 1),  # query, gate, LSTM: hidden state
            (words, features, 4 * width),  # LSTM: context
            (words * regions, width, 1),  # scores
            (words, width, width),  # deep output: hidden state
            (words, features, width),  # deep output: context
            (words, width, self.vocabulary_size),
        ]
        return 2 * sum(
            times * m * k * n
            for times, products in ((2, twice), (3, thrice))
            for m, k, n in products
        )

    def tanhs(self):
        """Counts the tanh of a step's forward pass; the backward pass needs none."""
        return self.rows * self.steps * (self.num_regions * self.width + 3 * self.width)


def train_step(sizes, precision="float32"):
    """Returns a function that trains a captioner of these sizes on one minibatch."""
    keras.utils.set_random_seed(0)
    captioner = Captioner(sizes.config(), dtype=precision)
    captioner.compile(
        optimizer=FusedAdam(4e-4),
        jit_compile=keras.backend.backend() == "jax",
    )
    annotations, inputs, targets = map(keras.ops.convert_to_tensor, sizes.batch())
    weight = keras.ops.ones(targets.shape)

    def step():
        return captioner.train_on_batch(
            {"annotations": annotations, "token_ids": inputs}, targets, sample_weight=weight
        )

    return step
