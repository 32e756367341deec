"""Optimizers whose update of all weights is one XLA program on TensorFlow."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from sat_keras.backend.xla import has_fusion


class FusedUpdate:
    """Mixin for a `keras.Optimizer`: compiles the update by XLA and works on several devices.

    Adam with clipping and moving averages passes about thirty times over all weights if TensorFlow
    runs its operations one by one, and less than ten times if XLA compiles them. In eager mode, on
    other backends and where XLA is missing, the update is Keras's.

    Under a TensorFlow distribution strategy Keras clips the gradients of each replica before it
    sums them. This class averages them over the replicas first, so that the gradient of the whole
    batch is clipped. Keras's sum then multiplies the result by the number of replicas: divide
    `global_clipnorm` by it.

    The variables of an encoder that is trained, named by `set_encoder`, may have options of their
    own. Their weight decay is multiplied by their learning rate.

    Args:
        *args: Arguments of the `keras.Optimizer`.
        encoder_rate: Float, the encoder's learning rate divided by that of the other variables.
        encoder_start: Integer, steps at the start in which the encoder stays as it is, while the
            optimizer's moments of its gradient settle.
        clip_norms: Largest global norms of the gradients of the other variables and of the
            encoder's, 0 for any, in place of `global_clipnorm`; or `None`.
        **kwargs: Arguments of the `keras.Optimizer`.
    """

    built: bool
    build: Any
    iterations: Any
    weight_decay: float | None
    assign_sub: Any
    exclude_from_weight_decay: Any
    _var_key: Any
    _trainable_variables: list[Any]

    def __init__(
        self,
        *args: Any,
        encoder_rate: float = 1.0,
        encoder_start: int = 0,
        clip_norms: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.encoder_rate = encoder_rate
        self.encoder_start = encoder_start
        self.clip_norms = None if clip_norms is None else tuple(clip_norms)
        self._encoder_keys: frozenset[Any] = frozenset()

    def set_encoder(self, variables: Iterable[Any]) -> None:
        """Names the encoder's variables, before the optimizer is built."""
        variables = list(variables)
        if self.encoder_rate == 1 and self.encoder_start == 0 and self.clip_norms is None:
            return
        self._encoder_keys = frozenset(map(self._var_key, variables))
        if variables:
            self.exclude_from_weight_decay(var_list=variables)  # `update_step` decays them

    def get_config(self) -> dict[str, Any]:
        names = ("encoder_rate", "encoder_start", "clip_norms")
        config = super().get_config()  # type: ignore[misc]
        return {**config, **{name: getattr(self, name) for name in names}}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a weight, see `keras.Optimizer`."""
        if self._var_key(variable) in self._encoder_keys:
            learning_rate = learning_rate * self.encoder_rate
            if self.encoder_start:
                is_frozen = ops.less(self.iterations, self.encoder_start)
                learning_rate = ops.where(is_frozen, 0.0, learning_rate)
            if self.weight_decay:
                decay = ops.cast(learning_rate * self.weight_decay, variable.dtype)
                self.assign_sub(variable, variable * decay)
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Updates the weights, see `keras.Optimizer.apply`."""
        if keras.backend.backend() != "tensorflow":
            return self._apply(grads, trainable_variables)
        import tensorflow as tf

        if tf.distribute.has_strategy():
            replica = tf.distribute.get_replica_context()
            grads = replica.all_reduce(tf.distribute.ReduceOp.MEAN, list(grads))
            return self._apply(grads, trainable_variables)
        if tf.executing_eagerly() or not has_fusion():
            return self._apply(grads, trainable_variables)
        if not self.built:
            self.build(trainable_variables)  # variables cannot be made inside the compiled function
        update = self._apply
        tf.function(
            lambda values: update(values, trainable_variables), jit_compile=True, autograph=False
        )(list(grads))
        return self.iterations

    def _apply(self, grads: Any, trainable_variables: Any) -> Any:
        """Clips the gradients with `clip_norms` and updates the weights."""
        if self.clip_norms is not None:
            variables = trainable_variables or self._trainable_variables
            grads = self._clip_apart(list(grads), list(variables))
        return super().apply(grads, trainable_variables)  # type: ignore[misc]

    def _clip_apart(self, grads: list[Any], variables: list[Any]) -> list[Any]:
        of_encoder = [self._var_key(variable) in self._encoder_keys for variable in variables]
        for part, largest in zip((False, True), self.clip_norms or (), strict=True):
            at = [i for i, g in enumerate(grads) if g is not None and of_encoder[i] == part]
            if not largest or not at:
                continue
            norm = ops.sqrt(sum(ops.sum(ops.square(grads[i])) for i in at))
            # As in Keras, a norm that is not finite makes the scale NaN.
            scale = largest * ops.minimum(1 / norm, 1 / largest) + (norm - norm)
            for i in at:
                grads[i] = grads[i] * scale
        return grads


@keras.saving.register_keras_serializable("sat_keras")
class FusedAdam(FusedUpdate, keras.optimizers.Adam):
    """`keras.optimizers.Adam`, see `FusedUpdate`."""


@keras.saving.register_keras_serializable("sat_keras")
class FusedAdamW(FusedUpdate, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, see `FusedUpdate`."""


@keras.saving.register_keras_serializable("sat_keras")
class FusedRMSprop(FusedUpdate, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop`, see `FusedUpdate`."""
