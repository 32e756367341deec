"""Optimizers whose update of all weights is one XLA program on TensorFlow."""

from typing import Any

import keras

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
    """

    built: bool
    build: Any
    iterations: Any

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Updates the weights, see `keras.Optimizer.apply`."""
        if keras.backend.backend() != "tensorflow":
            return super().apply(grads, trainable_variables)  # type: ignore[misc]
        import tensorflow as tf

        if tf.distribute.has_strategy():
            replica = tf.distribute.get_replica_context()
            grads = replica.all_reduce(tf.distribute.ReduceOp.MEAN, list(grads))
            return super().apply(grads, trainable_variables)  # type: ignore[misc]
        if tf.executing_eagerly() or not has_fusion():
            return super().apply(grads, trainable_variables)  # type: ignore[misc]
        if not self.built:
            self.build(trainable_variables)  # variables cannot be made inside the compiled function
        update = super().apply  # type: ignore[misc]
        tf.function(
            lambda values: update(values, trainable_variables), jit_compile=True, autograph=False
        )(list(grads))
        return self.iterations


@keras.saving.register_keras_serializable("sat_keras")
class FusedAdam(FusedUpdate, keras.optimizers.Adam):
    """`keras.optimizers.Adam`, see `FusedUpdate`."""


@keras.saving.register_keras_serializable("sat_keras")
class FusedAdamW(FusedUpdate, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, see `FusedUpdate`."""


@keras.saving.register_keras_serializable("sat_keras")
class FusedRMSprop(FusedUpdate, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop`, see `FusedUpdate`."""
