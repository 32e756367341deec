"""How a field of the config is declared: default, description and check in one place."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Check:
    """Condition on the values of a field.

    Args:
        expected: String, completes "must be ...".
        accepts: Callable from a value to whether it is possible.
        choices: Tuple of the names to offer on the command line, empty for any value.
    """

    expected: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises an error if an argument is none of the names that it may have.

    Args:
        name: The argument's name, for the error.
        value: Its value.
        choices: Tuple of the possible names.

    Raises:
        ValueError: If it is another one.
    """
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}"
        )


def field(default: Any, description: str, check: Check) -> Any:
    """Declares a field of a config.

    Args:
        default: Its default value.
        description: What it is, in one sentence. The help of the command line shows it.
        check: `Check` that every value must pass.

    Returns:
        A `dataclasses.field`, whose `metadata` holds `description` and `check`.

    Example:

    >>> @dataclasses.dataclass(frozen=True)
    ... class ModelConfig:
    ...     hidden_dim: int = field(512, "Size of the LSTM's hidden and cell state.", COUNT)
    """
    metadata = {"description": description, "check": check}
    return dataclasses.field(default=default, metadata=metadata)


def one_of(*choices: str) -> Check:
    """Returns the check of a field that has one of a few names."""
    return Check(f"one of {', '.join(map(repr, choices))}", choices.__contains__, choices)


def name(*choices: str) -> Check:
    """Returns the check of a field that has any name; the command line offers `choices`."""
    return Check("a name", lambda value: isinstance(value, str), choices)


def _is_count(value: Any, least: int = 1) -> bool:
    return type(value) is int and value >= least


def _is_number(value: Any, below: float = math.inf) -> bool:
    return type(value) in (int, float) and 0 <= value < below


def _is_grid(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2 and all(map(_is_count, value))


FLAG = Check("True or False", lambda value: type(value) is bool)
FLAG_OR_NAME = Check(
    "True, False or a name",
    lambda value: type(value) is bool or (isinstance(value, str) and value.strip() != ""),
)
COUNT = Check("a whole number, 1 or more", _is_count)
COUNT_OR_NONE = Check(
    "a whole number, 1 or more, or None", lambda value: value is None or _is_count(value)
)
NATURAL = Check("a whole number, 0 or more", lambda value: _is_count(value, least=0))
SHARE = Check("a share, at least 0 and below 1", lambda value: _is_number(value, below=1))
AMOUNT = Check("a number, 0 or more", _is_number)
AMOUNT_OR_NONE = Check(
    "a number, 0 or more, or None", lambda value: value is None or _is_number(value)
)
GRID = Check("a tuple of two whole numbers, the grid's rows and columns, 1 or more", _is_grid)
NAME_OR_NONE = Check("a name or None", lambda value: value is None or isinstance(value, str))
