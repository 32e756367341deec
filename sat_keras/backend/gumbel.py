"""Random choice by the Gumbel-max trick: `argmax_i (log p_i + g_i)` is `i` with probability p_i."""

from typing import Any, NamedTuple

import keras
from keras import ops


def gumbel_noise(shape: Any, seed: Any) -> Any:
    """Draws standard Gumbel noise `-log(-log(u))`.

    Args:
        shape: Tuple of integers or tensors.
        seed: Integer or `keras.random.SeedGenerator`.

    Returns:
        Float32 tensor.
    """
    uniform = keras.random.uniform(shape, 1e-20, 1.0, dtype="float32", seed=seed)
    return -ops.log(-ops.log(uniform))


def draw_locations(weights: Any, noise: Any) -> Any:
    """Draws regions by the Gumbel-max trick, `s = argmax_i (log alpha_i + g_i)`.

    Args:
        weights, noise: Attention weights and Gumbel noise, shape `(..., num_regions)`.

    Returns:
        Locations, int32 tensor of shape `(...)`.
    """
    scores = ops.log(weights) + ops.cast(noise, weights.dtype)
    return ops.cast(ops.argmax(scores, axis=-1), "int32")


class Sampling(NamedTuple):
    """The random numbers that choose hard attention's regions, drawn before the loop over steps.

    Attributes:
        noise: Tensor of shape `(..., batch_size, num_queries, num_regions)`: Gumbel noise to draw
            regions, 0 for the likeliest. `None` where every context is the expected one.
        expected: Tensor of shape `(batch_size, 1, 1)`, 1 for the pictures whose context is the
            expected one; `None` with `noise=None`.
    """

    noise: Any = None
    expected: Any = None

    @property
    def draws(self) -> bool:
        """Whether any region is chosen at all."""
        return self.noise is not None

    def at(self, step: Any, queries: int | None = None) -> "Sampling":
        """Returns the noise of one step, of the first few queries.

        Args:
            step: Integer or scalar tensor.
            queries: Integer, or `None` for all.

        Returns:
            A `Sampling` whose noise has the shape `(batch_size, queries, num_regions)`.
        """
        if not self.draws:
            return self
        return Sampling(ops.take(self.noise, step, axis=0)[:, :queries], self.expected)
