"""What the checks of all exercises use: `exercise`, `NotYetError` and converters of answers."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


class NotYetError(AssertionError):
    """A wrong answer. A notebook shows its message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class _OpenError(Exception):
    """The reader's function returns nothing yet."""


def exercise(number: int) -> Callable[[Callable[..., str]], Callable[..., None]]:
    """Makes a check of a function that takes an answer and returns a remark on the right one.

    Args:
        number: Integer, the exercise's number in its notebook.

    Returns:
        Decorator. The check prints that the exercise is open if the answer is `None` or a function
        that returns `None`, and that it is right otherwise.

    Raises:
        NotYetError: Raised by the check if the answer is wrong; the message says what is wrong.
    """

    def decorate(check: Callable[..., str]) -> Callable[..., None]:
        @functools.wraps(check)
        def checked(answer: Any, *context: Any, **options: Any) -> None:
            try:
                remark = None if answer is None else check(answer, *context, **options)
            except _OpenError:
                remark = None
            except NotYetError as error:
                raise NotYetError(f"Exercise {number}: not yet. {error}") from None
            if remark is None:
                print(f"Exercise {number} is yours.")
            else:
                print(f"Exercise {number}: right. {remark}".rstrip())

        return checked

    return decorate


def require(holds: Any, message: str) -> None:
    """Raises `NotYetError` with a message unless a condition holds."""
    if not holds:
        raise NotYetError(message)


def number(answer: Any, what: str = "a number") -> float:
    """Returns an answer as a float; arrays of one element count as numbers."""
    try:
        return float(np.asarray(answer, "float64").reshape(()))
    except (TypeError, ValueError):
        raise NotYetError(f"Expected {what}. Received: {answer!r}") from None


def array(answer: Any, shape: tuple[int, ...], name: str = "The answer") -> np.ndarray:
    """Returns an answer as an array, after a check of its shape; lists and tuples are arrays."""
    try:
        found = np.asarray(answer, "float64")
    except (TypeError, ValueError):
        raise NotYetError(f"Expected an array of shape {shape}. Received: {answer!r}") from None
    require(found.shape == shape, f"{name} must have shape {shape}. Received: shape {found.shape}")
    return found


def result_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what the reader's function returns; an error in it becomes `NotYetError`."""
    require(callable(function), f"`answer` must stay a function. Received: {function!r}")
    try:
        result = function(*arguments)
    except Exception as error:
        raise NotYetError(f"Your function raises {type(error).__name__}: {error}") from None
    if result is None:
        raise _OpenError
    return result


def is_close(answer: Any, expected: Any, relative: float = 1e-3) -> bool:
    """Returns whether an answer equals the expected one, relative to its largest element."""
    scale = float(np.abs(np.asarray(expected)).max())
    return bool(np.allclose(answer, expected, rtol=0, atol=relative * max(scale, 1e-12)))
