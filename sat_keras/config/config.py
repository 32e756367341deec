"""Every choice of a model and its training, in one frozen object."""

import dataclasses
import json
import math


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes, data, training and search of a captioner.

    A frozen dataclass of plain values: it goes into a model's file and into a result's JSON as
    it is, and each field is an option of the command line (`--hidden-dim 512`). Start from a
    preset (`tiny`, `scenes`, `flickr8k`, `paper_coco`) and change fields with `replace`.

    Attributes:
        encoder: Name of a `keras.applications` CNN, or `"scenes"` for the small one.
        encoder_layer: Name of the layer whose output are the annotation vectors, `None` for the
            CNN's usual one.
        encoder_trainable: Whether the CNN is trained as well (from pixels, not from a cache).
        resize: `"crop"` (shorter side, then the centre) or `"squash"` (both sides).
        image_size: Height and width of the picture that the CNN sees, in pixels.
        grid_shape: Rows and columns of the annotation grid.
        feature_dim: Size of an annotation vector.
        vocabulary_size: Largest number of token ids, `None` for no limit.
        min_count: Words seen less often in the train captions become `<unk>`.
        max_length: Longest caption in words. Longer ones are cut in training.
        embedding_dim: Size of the word embedding.
        hidden_dim: Size of the LSTM's hidden and cell state.
        attention_dim: Size of the attention's hidden layer.
        initial_dim: Size of the ReLU layer under the initial state's MLPs, `None` for none.
        use_gate: Whether the gate beta scales the context.
        use_deep_output: Whether word and context reach the output beside the hidden state.
        use_output_tanh: Whether the deep output has a tanh.
        tie_embeddings: Whether the embedding matrix is also the output's.
        normalize_annotations: Whether every annotation vector is brought to mean 0 and variance 1.
        use_word_query: Whether attention and gate know the word before, beside the hidden state.
        attention: `"soft"`, or `"hard"`: looks at one drawn region, and learns by REINFORCE.
        attention_samples: Sequences of regions drawn for a caption, N.
        expected_probability: How often the expected context replaces the drawn region's.
        expected_per: Whether that coin is tossed for every `"picture"` or once a `"batch"`.
        score_weight: Lambda_r, the weight of the score-function term.
        entropy_weight: Lambda_e, the weight of the attention's entropy, summed over the words.
        reward: What a region is rewarded for: log p of the whole `"caption"`, or of the `"rest"`
            from its own word on, which varies less.
        baseline: What is subtracted from the reward: the moving `"average"` of log p a word, times
            the words; the mean of the caption's other `"samples"`, of two or more; or `"none"`.
        context: Context outside training: `"expected"`, `"argmax"` (of the likeliest region) or
            `"sampled"`.
        dropout: Share dropped of the hidden state and of the deep output's hidden layer.
        embedding_dropout: Share dropped of the word embeddings.
        annotation_dropout: Share dropped of the annotation vectors' features, in all regions of a
            picture the same ones.
        penalty_weight: Lambda, the weight of the doubly stochastic penalty.
        penalty_target: Tau, the attention a region should get over a caption: `"one"` for 1,
            `"length"` for the caption's words / regions.
        label_smoothing: Share of the target probability spread over all words.
        group: Minibatches of captions of one `"length"`, or of whole pictures with all their
            captions (`"picture"`).
        batch_size: Captions a minibatch.
        mirror: Whether a picture is shown mirrored half of the time ("left" and "right" of its
            caption swapped).
        optimizer: `"adam"`, `"adamw"` or `"rmsprop"`.
        learning_rate: Its step size at the start.
        schedule: `"constant"`, or `"cosine"` to fall to 0 over the epochs.
        weight_decay: Decoupled weight decay, of `adamw` only.
        clip_norm: Largest norm of a gradient, over all weights.
        ema_momentum: Momentum of the moving average of the weights that is evaluated and saved,
            0 for none.
        epochs: Largest number of passes over the train captions.
        patience: Epochs without a better dev score after which training stops.
        monitor: Dev score that chooses the checkpoint: `"cider"` or `"bleu4"`.
        beam_size: Beams of the search.
        length_penalty: Power of the caption's length that its log-probability is divided by.
        precision: Keras dtype policy of training and of the annotation vectors it reads:
            `"float32"`, `"mixed_bfloat16"`, ...
        seed: Seed of weights, minibatches and dropout.

    Raises:
        ValueError: If a field has an impossible value. The message names it and what is possible.

    Example:

    >>> config = Config.flickr8k().replace(hidden_dim=256)
    >>> config == Config.from_json(config.to_json())
    True
    """

    encoder: str = "VGG19"
    encoder_layer: str | None = None
    encoder_trainable: bool = False
    resize: str = "crop"
    image_size: int = 224
    grid_shape: tuple[int, int] = (14, 14)
    feature_dim: int = 512
    vocabulary_size: int | None = 10_000
    min_count: int = 1
    max_length: int = 20
    embedding_dim: int = 512
    hidden_dim: int = 512
    attention_dim: int = 512
    initial_dim: int | None = None
    use_gate: bool = True
    use_deep_output: bool = True
    use_output_tanh: bool = True
    tie_embeddings: bool = False
    normalize_annotations: bool = False
    use_word_query: bool = False
    attention: str = "soft"
    attention_samples: int = 1
    expected_probability: float = 0.5
    expected_per: str = "picture"
    score_weight: float = 0.1
    entropy_weight: float = 0.002
    reward: str = "caption"
    baseline: str = "average"
    context: str = "expected"
    dropout: float = 0.5
    embedding_dropout: float = 0.0
    annotation_dropout: float = 0.0
    penalty_weight: float = 1.0
    penalty_target: str = "one"
    label_smoothing: float = 0.0
    group: str = "length"
    batch_size: int = 64
    mirror: bool = False
    optimizer: str = "adam"
    learning_rate: float = 4e-4
    schedule: str = "constant"
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    ema_momentum: float = 0.0
    epochs: int = 30
    patience: int = 5
    monitor: str = "cider"
    beam_size: int = 5
    length_penalty: float = 0.7
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.grid_shape, list):  # as it comes from JSON
            object.__setattr__(self, "grid_shape", tuple(self.grid_shape))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(map(repr, choices))}. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
        for expected, is_possible, names in RULES:
            for name in names:
                if not is_possible(getattr(self, name)):
                    raise ValueError(
                        f"`{name}` must be {expected}. Received: {name}={getattr(self, name)!r}"
                    )

    @property
    def num_regions(self):
        """Integer, number of annotation vectors of a picture."""
        return self.grid_shape[0] * self.grid_shape[1]

    def replace(self, **changes):
        """Return a copy with some fields changed.

        Args:
            **changes: Fields and their new values.

        Returns:
            A `Config`.

        Raises:
            ValueError: If there is no such field, with the names of all fields.
        """
        unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(self)})
        if unknown:
            raise ValueError(
                f"Expected fields of Config: {', '.join(self.to_dict())}. Received: {unknown}"
            )
        return dataclasses.replace(self, **changes)

    def to_dict(self):
        """Return the fields as a dictionary of values that JSON knows."""
        return {**dataclasses.asdict(self), "grid_shape": list(self.grid_shape)}

    @classmethod
    def from_dict(cls, values):
        """Make a `Config` from `to_dict`'s result.

        Args:
            values: Dictionary of fields. A missing one takes its default.

        Returns:
            A `Config`.

        Raises:
            ValueError: If there is an unknown field, as in a file of a newer version.
        """
        return cls().replace(**values)

    def to_json(self):
        """Return the fields as a JSON string."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text):
        """Make a `Config` from `to_json`'s result."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def tiny(cls):
        """Return the smallest sensible model, for tests and for trying things out."""
        return cls(
            encoder="scenes",
            resize="squash",
            image_size=16,
            grid_shape=(2, 2),
            feature_dim=8,
            vocabulary_size=None,
            embedding_dim=8,
            hidden_dim=8,
            attention_dim=8,
            dropout=0.0,
            batch_size=8,
            epochs=2,
        )

    @classmethod
    def scenes(cls):
        """Return the model of the drawn scenes: a small CNN, trained with the decoder."""
        return cls(
            encoder="scenes",
            encoder_trainable=True,
            resize="squash",
            image_size=64,
            grid_shape=(8, 8),
            feature_dim=128,
            vocabulary_size=None,
            max_length=20,
            embedding_dim=64,
            hidden_dim=128,
            attention_dim=32,
            use_output_tanh=False,
            normalize_annotations=True,
            use_word_query=True,
            dropout=0.1,
            embedding_dropout=0.1,
            # The penalty holds attention on the whole picture: here a few cells matter.
            penalty_weight=0.0,
            group="picture",
            batch_size=80,
            mirror=True,
            learning_rate=1e-3,
            schedule="cosine",
            epochs=24,
            patience=24,
            beam_size=3,
        )

    @classmethod
    def flickr8k(cls):
        """Return the model of the committed Flickr8k results: frozen VGG16, soft attention."""
        return cls(
            encoder="VGG16",
            resize="squash",
            min_count=5,
            attention_dim=256,
            tie_embeddings=True,
            normalize_annotations=True,
            embedding_dropout=0.4,
            annotation_dropout=0.2,
            # At 1 the penalty holds attention on the whole picture.
            penalty_weight=0.01,
            label_smoothing=0.1,
            mirror=True,
            learning_rate=1e-3,
            schedule="cosine",
            ema_momentum=0.998,
            epochs=13,
            monitor="bleu4",
            precision="mixed_bfloat16",
        )

    @classmethod
    def paper_coco(cls):
        """Return the sizes of the authors' COCO script: LSTM 1800, VGG19, 10,000 words."""
        return cls(hidden_dim=1800, max_length=30)


CHOICES = {
    "resize": ("crop", "squash"),
    "attention": ("soft", "hard"),
    "expected_per": ("picture", "batch"),
    "reward": ("caption", "rest"),
    "baseline": ("average", "samples", "none"),
    "context": ("expected", "argmax", "sampled"),
    "penalty_target": ("one", "length"),
    "group": ("length", "picture"),
    "optimizer": ("adam", "adamw", "rmsprop"),
    "schedule": ("constant", "cosine"),
    "monitor": ("cider", "bleu4"),
}


def _is_count(value, least=1):
    return type(value) is int and value >= least


def _is_number(value, below=math.inf):
    return type(value) in (int, float) and 0 <= value < below


# What a value must be, the test of it, and the fields that it is about.
RULES = (
    (
        "a whole number, 1 or more",
        _is_count,
        (
            *("image_size", "feature_dim", "min_count", "max_length"),
            *("embedding_dim", "hidden_dim", "attention_dim", "attention_samples"),
            *("batch_size", "epochs", "patience", "beam_size"),
        ),
    ),
    (
        "a whole number, 1 or more, or None",
        lambda value: value is None or _is_count(value),
        ("vocabulary_size", "initial_dim"),
    ),
    ("a whole number, 0 or more", lambda value: _is_count(value, least=0), ("seed",)),
    (
        "a share, at least 0 and below 1",
        lambda value: _is_number(value, below=1),
        (
            *("dropout", "embedding_dropout", "annotation_dropout"),
            *("label_smoothing", "ema_momentum", "expected_probability"),
        ),
    ),
    (
        "a number, 0 or more",
        _is_number,
        (
            *("penalty_weight", "score_weight", "entropy_weight"),
            *("learning_rate", "weight_decay", "clip_norm", "length_penalty"),
        ),
    ),
    (
        "a tuple of two whole numbers, the grid's rows and columns, 1 or more",
        lambda value: type(value) is tuple and len(value) == 2 and all(map(_is_count, value)),
        ("grid_shape",),
    ),
    (
        "True or False",
        lambda value: type(value) is bool,
        (
            *("encoder_trainable", "mirror"),
            *("use_gate", "use_deep_output", "use_output_tanh"),
            *("tie_embeddings", "normalize_annotations", "use_word_query"),
        ),
    ),
    ("a name", lambda value: isinstance(value, str), ("encoder", "precision")),
    ("a name or None", lambda value: value is None or isinstance(value, str), ("encoder_layer",)),
)
