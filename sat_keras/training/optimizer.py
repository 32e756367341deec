"""The optimizer of a config."""

from typing import Any

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

    Raises:
        ValueError: If the encoder has a learning rate of its own and that of the decoder is 0.
    """
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, config.epochs * steps_per_epoch)
    options: dict[str, Any] = {
        "name": config.optimizer,
        "learning_rate": rate,
        "global_clipnorm": config.clip_norm / replicas,
        "use_ema": config.ema_momentum > 0,
        "ema_momentum": config.ema_momentum or None,
    }
    if config.encoder_trainable:
        options |= _encoder_options(config, steps_per_epoch, replicas)
    if config.optimizer == "adamw":
        return FusedAdamW(weight_decay=config.weight_decay, **options)
    return {"adam": FusedAdam, "rmsprop": FusedRMSprop}[config.optimizer](**options)


def _encoder_options(config: Config, steps_per_epoch: int, replicas: int) -> dict[str, Any]:
    """Returns the arguments of `FusedUpdate` for an encoder with options of its own."""
    rate, clip_norm = config.encoder_learning_rate, config.encoder_clip_norm
    if rate is None and clip_norm is None and not config.encoder_warmup:
        return {}
    if rate is not None and not config.learning_rate:
        raise ValueError(
            "`learning_rate` must be above 0, since `encoder_learning_rate` follows its schedule. "
            f"Received: learning_rate={config.learning_rate}"
        )
    norms = (config.clip_norm, config.clip_norm if clip_norm is None else clip_norm)
    return {
        "global_clipnorm": None,
        "clip_norms": tuple(norm / replicas for norm in norms),
        "encoder_rate": 1.0 if rate is None else rate / config.learning_rate,
        "encoder_start": config.encoder_warmup * steps_per_epoch,
    }


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
