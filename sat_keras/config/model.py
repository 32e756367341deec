"""The fields of a config that define the model: system, CNN, words, decoder, attention."""

import dataclasses
from typing import ClassVar

from sat_keras.config.fields import (
    COUNT,
    COUNT_OR_NONE,
    FLAG,
    FLAG_OR_NAME,
    GRID,
    NAME_OR_NONE,
    SHARE,
    field,
    name,
    one_of,
)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Model: system, picture encoder, words, decoder and attention."""

    # Fields that a training keeps of the captioner it starts from: they decide which weights there
    # are, their shapes, and what the decoder computes with them.
    STRUCTURE: ClassVar[tuple[str, ...]] = (
        *("system", "encoder", "encoder_layer", "resize", "image_size", "grid_shape"),
        *("feature_dim", "embedding_dim", "hidden_dim", "attention_dim", "initial_dim"),
        *("use_gate", "use_deep_output", "use_output_tanh", "tie_embeddings"),
        *("normalize_annotations", "use_word_query"),
    )

    system: str = field(
        "show-attend-tell",
        "Captioning model: show-attend-tell, or one of Table 1 that has no attention and reads the "
        "mean annotation vector.",
        one_of(
            *("show-attend-tell", "init-inject", "nic", "multimodal-rnn", "log-bilinear"),
            *("factored-log-bilinear", "visual-memory", "maximum-entropy"),
        ),
    )

    # Picture encoder
    encoder: str = field(
        "VGG19", 'Name of a `keras.applications` CNN, or "scenes" for the small one.', name()
    )
    encoder_layer: str | None = field(
        None,
        "Name of the CNN's layer that gives the annotation vectors, None for the usual one.",
        NAME_OR_NONE,
    )
    encoder_trainable: bool | str = field(
        False,
        "Whether the CNN is trained too, from pixels; or the name of its first layer that is, from "
        "the cached output of the layers below it.",
        FLAG_OR_NAME,
    )
    resize: str = field(
        "crop",
        "How a picture becomes square: crop (resize the shorter side, take the centre), squash "
        "(resize both sides) or pad (resize the longer side; attention masks the padding).",
        one_of("crop", "squash", "pad"),
    )
    image_size: int = field(224, "Height and width of the CNN's input, in pixels.", COUNT)
    grid_shape: tuple[int, int] = field(
        (14, 14), "Rows and columns of the grid of annotation vectors.", GRID
    )
    feature_dim: int = field(512, "Size of an annotation vector.", COUNT)

    # Words
    vocabulary_size: int | None = field(
        10_000, "Largest number of token ids, None for no limit.", COUNT_OR_NONE
    )
    min_count: int = field(
        1, "Words that occur less often in the train captions become <unk>.", COUNT
    )
    full_stop: bool = field(
        True, "Whether a full stop at the end of a caption is a word, as in the paper.", FLAG
    )
    max_length: int = field(
        20, "Longest caption in words. Training truncates longer captions.", COUNT
    )

    # Decoder
    embedding_dim: int = field(512, "Size of the word embedding.", COUNT)
    hidden_dim: int = field(512, "Size of the LSTM's hidden and cell state.", COUNT)
    attention_dim: int = field(512, "Size of the hidden layer of the attention MLP.", COUNT)
    initial_dim: int | None = field(
        None,
        "Size of a ReLU layer before the MLPs of the initial state, None for no such layer.",
        COUNT_OR_NONE,
    )
    use_gate: bool = field(True, "Whether the gate beta scales the context.", FLAG)
    use_deep_output: bool = field(
        True, "Whether the output layer sees word and context beside the hidden state.", FLAG
    )
    use_output_tanh: bool = field(True, "Whether the deep output has a tanh.", FLAG)
    tie_embeddings: bool = field(
        False, "Whether input and output share the embedding matrix.", FLAG
    )
    normalize_annotations: bool = field(
        False, "Whether each annotation vector is normalised to mean 0 and variance 1.", FLAG
    )
    use_word_query: bool = field(
        False, "Whether attention and gate see the previous word beside the hidden state.", FLAG
    )
    attention: str = field(
        "soft",
        "soft: the expected context; hard: one sampled region, trained by REINFORCE.",
        one_of("soft", "hard"),
    )

    # Dropout layers
    dropout: float = field(
        0.5, "Dropout rate of the hidden state and of the deep output's hidden layer.", SHARE
    )
    embedding_dropout: float = field(0.0, "Dropout rate of the word embeddings.", SHARE)
    annotation_dropout: float = field(
        0.0,
        "Dropout rate of the annotation vectors' features, the same ones in all regions of a "
        "picture.",
        SHARE,
    )

    @property
    def split_layer(self) -> str | None:
        """Name of the first layer of a CNN that is trained in part, or `None`."""
        return self.encoder_trainable if isinstance(self.encoder_trainable, str) else None

    @property
    def num_regions(self) -> int:
        """Integer, number of annotation vectors of a picture."""
        return self.grid_shape[0] * self.grid_shape[1]
