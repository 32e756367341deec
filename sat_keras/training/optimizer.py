"""The optimizer of a config."""

import keras

from sat_keras.backend.devices import Devices
from sat_keras.captioning.model import CaptionModel
from sat_keras.config.config import Config
from sat_keras.fast.optimizer import FusedAdam, FusedAdamW, FusedRMSprop


def make_optimizer(config: Config, steps_per_epoch: int, replicas: int = 1) -> keras.Optimizer:
    """Returns the optimizer of a config.

    Args:
        config: A `Config`.
        steps_per_epoch: Integer, batches per epoch, for the schedule of the learning rate.
        replicas: Integer, copies of the model whose clipped gradients Keras sums, see `Devices`.
    """
    rate = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, config.epochs * steps_per_epoch)
    options = {
        "name": config.optimizer,
        "learning_rate": rate,
        "global_clipnorm": config.clip_norm / replicas,
        "use_ema": config.ema_momentum > 0,
        "ema_momentum": config.ema_momentum or None,
    }
    if config.optimizer == "adamw":
        return FusedAdamW(weight_decay=config.weight_decay, **options)
    return {"adam": FusedAdam, "rmsprop": FusedRMSprop}[config.optimizer](**options)


def compile_captioner(
    captioner: CaptionModel, steps_per_epoch: int, devices: Devices | None = None
) -> None:
    """Compiles a captioner with the optimizer of its config.

    On JAX, XLA compiles the whole training step. On TensorFlow it compiles only the parts that are
    faster with it: the whole step would be compiled anew for every caption length.

    Args:
        captioner: A `CaptionModel`.
        steps_per_epoch: Integer, batches per epoch.
        devices: `Devices` in whose `building` context the captioner is compiled, or `None` for one
            device.

    Reference:
        Notebook `04_training`.
    """
    replicas = devices.replicas if devices else 1
    captioner.compile(
        optimizer=make_optimizer(captioner.config, steps_per_epoch, replicas),
        jit_compile=keras.backend.backend() == "jax",
    )
