"""Checks of the exercises of `01_preprocessing`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sat_keras.course.checking import (
    NotYetError,
    array,
    exercise,
    is_close,
    number,
    require,
    result_of,
)
from sat_keras.data.loaders import teacher_forcing
from sat_keras.data.tokenizer import UNK_ID, Tokenizer


@exercise(1)
def smaller_vocabulary(answer: Any, captions: Any, half_size: int) -> str:
    """Checks the smallest `min_count` that leaves at most `half_size` tokens."""
    count = number(answer, "an integer, a `min_count`")
    require(count == int(count) >= 1, f"`min_count` is an integer from 1. Received: {answer!r}")

    def size(minimum: int) -> int:
        return Tokenizer.from_captions(captions, min_count=minimum).vocabulary_size

    found = size(int(count))
    require(found <= half_size, f"{answer} leaves {found} tokens, more than {half_size}: go up.")
    smaller = size(int(count) - 1) if count > 1 else np.inf
    require(smaller > half_size, f"{int(count) - 1} leaves {smaller} tokens, which is enough.")
    return f"It leaves {found} tokens."


@exercise(2)
def shift_and_mask(answer: Callable[..., Any]) -> str:
    """Checks a function of padded ids that returns inputs, targets and weight."""
    padded = np.array([[2, 9, 5, 12, 3, 0, 0], [2, 7, 3, 0, 0, 0, 0], [2, 4, 4, 8, 6, 11, 3]])
    result = result_of(answer, padded)
    try:
        found = dict(zip(("inputs", "targets", "weight"), result, strict=True))
    except (TypeError, ValueError):
        raise NotYetError("Return three arrays: inputs, targets, weight.") from None
    expected = dict(zip(found, teacher_forcing(padded), strict=True))
    for name, mine in found.items():
        true = expected[name].numpy()
        mine = array(mine, true.shape, f"`{name}`")
        if name == "inputs" and np.array_equal(mine, padded[:, :-1]):
            raise NotYetError("The inputs hold the id of <end>, 3; it is never an input.")
        require(np.array_equal(mine, true), f"The {name} of `padded` should be\n{true}")
    return ""


@exercise(3)
def padding_of_small_batches(answer: Any, steps: Any, order: Any) -> str:
    """Checks the share of padding in minibatches of 8 in a given order."""
    share = number(answer, "a share between 0 and 1")
    require(0 <= share <= 1, f"A share lies between 0 and 1, no percentage. Received: {answer!r}")
    steps = np.asarray(steps)[np.asarray(order)]
    batches = np.split(steps, range(8, len(steps), 8))
    computed = sum(len(batch) * batch.max() for batch in batches)
    true = 1 - steps.sum() / computed
    require(
        not np.isclose(share, 1 - true, atol=1e-3), "That is the share of words; asked is padding."
    )
    shorter = 1 - (steps - 1).sum() / sum(len(batch) * (batch.max() - 1) for batch in batches)
    require(not np.isclose(share, shorter, atol=1e-4), "The step of <end> is missing: C + 1 steps.")
    require(is_close(share, true, 1e-2), "Sum the longest caption of every 8, times their number.")
    return f"{100 * true:.1f} %: the longest of 8 is shorter than the longest of 32."


@exercise(4)
def unknown_words(answer: Any, train: Any, dev: Any) -> str:
    """Checks the share of captions with a word outside a vocabulary of 20 tokens."""
    share = number(answer, "a share between 0 and 1")
    require(0 <= share <= 1, f"A share lies between 0 and 1, no percentage. Received: {answer!r}")
    ids = Tokenizer.from_captions(train, vocabulary_size=20)(list(dev)).to_list()
    true = np.mean([UNK_ID in row for row in ids])
    of_words = np.mean([token == UNK_ID for row in ids for token in row[1:-1]])
    require(not np.isclose(share, of_words, atol=1e-3), "That is the share of unknown *words*.")
    require(not np.isclose(share, 1 - true, atol=1e-3), "That is the share without unknown words.")
    require(is_close(share, true, 1e-3), f"Look for the id {UNK_ID} in the ids of every caption.")
    return f"{100 * true:.0f} % of the captions, though only {100 * of_words:.0f} % of the words."
