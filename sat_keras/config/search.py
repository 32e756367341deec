"""The fields of a config that define how captions are searched."""

import dataclasses

from sat_keras.config.fields import AMOUNT, COUNT, field, one_of


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Search: beams, length and, for hard attention, the context."""

    context: str = field(
        "expected",
        "Context of hard attention outside training: expected, argmax (of the likeliest region) or "
        "sampled (of a sampled region).",
        one_of("expected", "argmax", "sampled"),
    )
    beam_size: int = field(5, "Beams of the search.", COUNT)
    length_penalty: float = field(
        0.7, "Power of a caption's length that divides its log-probability.", AMOUNT
    )
