"""The fields of a config that define the training: loss, REINFORCE, batches, optimizer, length."""

import dataclasses

from sat_keras.config.fields import (
    AMOUNT,
    AMOUNT_OR_NONE,
    COUNT,
    FLAG,
    NAME_OR_NONE,
    NATURAL,
    SHARE,
    field,
    name,
    one_of,
)

# Keras dtype policies: "auto" is none, it becomes one of them where a training starts.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
AUTO = "auto"
# What the caches of the presets hold: their precision before there was "auto". It must not depend
# on the machine, or a cache would be computed anew on the next one.
_CACHED_WITH_AUTO = "mixed_bfloat16"


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Training: loss, REINFORCE, batches, optimizer and number of epochs."""

    # Loss
    penalty_weight: float = field(
        1.0, "lambda, the weight of the doubly stochastic penalty.", AMOUNT
    )
    penalty_target: str = field(
        "one",
        "tau, the sum of a region's attention weights over a caption that has no penalty: one for "
        "1, length for (words of the caption) / (number of regions).",
        one_of("one", "length"),
    )
    label_smoothing: float = field(
        0.0, "Share of the target probability that is spread over all words.", SHARE
    )

    grounding_weight: float = field(
        0.0,
        "lambda_g, the weight of supervised attention: words that name an object are to look into "
        "its boxes, where these are known.",
        AMOUNT,
    )

    objective: str = field(
        "likelihood",
        "likelihood of the references, or cider: CIDEr-D of sampled captions (self-critical), from "
        "a captioner to start from and in batches of whole pictures.",
        one_of("likelihood", "cider"),
    )
    caption_samples: int = field(
        5, "Captions that are sampled of each picture, with the objective cider.", COUNT
    )
    cross_entropy_weight: float = field(
        0.0, "Weight of the references' cross-entropy beside CIDEr-D.", AMOUNT
    )

    # REINFORCE, of hard attention only
    attention_samples: int = field(
        1, "N, sequences of regions sampled for each caption by hard attention.", COUNT
    )
    expected_probability: float = field(
        0.5, "How often hard attention takes the expected context in training.", SHARE
    )
    expected_per: str = field(
        "picture",
        "Whether that choice is made once a picture or once a batch.",
        one_of("picture", "batch"),
    )
    score_weight: float = field(0.1, "lambda_r, the weight of the score-function term.", AMOUNT)
    entropy_weight: float = field(
        0.002,
        "lambda_e, the weight of the attention's entropy, summed over the words.",
        AMOUNT,
    )
    reward: str = field(
        "caption",
        "Reward of a sampled region: log p of the whole caption, or of the rest, from its own word "
        "on, which has less variance.",
        one_of("caption", "rest"),
    )
    baseline: str = field(
        "average",
        "What is subtracted from the reward: the moving average of log p per word times the words; "
        "the mean of the caption's other samples, if there are two or more; or none.",
        one_of("average", "samples", "none"),
    )

    # Batches
    group: str = field(
        "length",
        "Batches of captions of one length, or of whole pictures with all their captions.",
        one_of("length", "picture"),
    )
    batch_size: int = field(64, "Captions per batch.", COUNT)
    mirror: bool = field(
        False,
        'Whether half of the pictures are mirrored, with "left" and "right" of their captions '
        "swapped.",
        FLAG,
    )

    # Optimizer
    optimizer: str = field("adam", "Optimizer.", one_of("adam", "adamw", "rmsprop"))
    learning_rate: float = field(4e-4, "Learning rate at the start.", AMOUNT)
    schedule: str = field(
        "constant",
        "Learning rate over time: constant, or cosine to decay to 0 over the epochs.",
        one_of("constant", "cosine"),
    )
    weight_decay: float = field(0.0, "Decoupled weight decay, of adamw only.", AMOUNT)
    clip_norm: float = field(5.0, "Largest global norm of the gradient.", AMOUNT)
    encoder_learning_rate: float | None = field(
        None,
        "Learning rate of a trained CNN at the start, on the same schedule; None for "
        "learning_rate.",
        AMOUNT_OR_NONE,
    )
    encoder_clip_norm: float | None = field(
        None,
        "Largest global norm of a trained CNN's gradient, clipped by itself; None for clip_norm, "
        "of the joint gradient if the CNN has no other option of its own.",
        AMOUNT_OR_NONE,
    )
    encoder_warmup: int = field(
        0, "Epochs at the start in which a trained CNN stays as it is.", NATURAL
    )
    ema_momentum: float = field(
        0.0,
        "Momentum of the moving average of the weights that is evaluated and saved, 0 for none.",
        SHARE,
    )

    # Length, choice of the checkpoint, precision
    epochs: int = field(30, "Largest number of passes over the train captions.", COUNT)
    patience: int = field(5, "Epochs without a better dev score after which training stops.", COUNT)
    monitor: str = field(
        "cider", "Dev score that chooses the checkpoint.", one_of("cider", "bleu4")
    )
    precision: str = field(
        "float32",
        "Keras dtype policy of the training; auto for float32 or mixed_bfloat16, whichever makes "
        "the faster training step where the training starts.",
        name(AUTO, *PRECISIONS),
    )
    encoder_precision: str | None = field(
        None,
        "Keras dtype policy of the CNN's frozen layers, and so of the cache; None for that of the "
        "training, with auto mixed_bfloat16.",
        NAME_OR_NONE,
    )
    seed: int = field(0, "Seed of initial weights, batches and dropout.", NATURAL)

    @property
    def frozen_precision(self) -> str:
        """Name of the dtype policy of the CNN's frozen layers, whose output is cached."""
        if self.encoder_precision is not None:
            return self.encoder_precision
        return _CACHED_WITH_AUTO if self.precision == AUTO else self.precision
