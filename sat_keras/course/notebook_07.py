"""Checks of the exercises of `07_flickr8k`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sat_keras.course.checking import NotYetError, exercise, number, require, result_of
from sat_keras.evaluation.metrics import bleu_statistics


@exercise(1)
def known_words(answer: Any, asked: Sequence[str], vocabulary: Sequence[str]) -> str:
    """Checks which of the asked words are in the vocabulary, in the order asked."""
    require(
        not isinstance(answer, str) and hasattr(answer, "__iter__"),
        f"Expected a list of words, such as ['rocket']. Received: {answer!r}",
    )
    found, known = list(answer), [word for word in asked if word in set(vocabulary)]
    for word in found:
        require(
            isinstance(word, str),
            f"Expected words. Received: {word!r}; `tokenizer.get_vocabulary()` has the words.",
        )
        require(word in asked, f"{word!r} was not asked: {', '.join(asked)}.")
        require(word in known, f"{word!r} is not in the vocabulary: the tokenizer gives <unk>.")
    for word in known:
        require(word in found, f"{word!r} is missing: it is in `tokenizer.get_vocabulary()`.")
    in_order = isinstance(answer, (set, frozenset)) or found == known
    require(in_order, f"Give each word once, in the order {', '.join(asked)}.")
    others = ", ".join(word for word in asked if word not in known)
    return f"The model cannot write: {others or 'none of these'}."


@exercise(2)
def megabytes(answer: Any, num_pictures: int, num_regions: int, feature_dim: int) -> str:
    """Checks the size of the annotation vectors of a data set in float16."""
    found, one = number(answer, "a number of megabytes"), num_regions * feature_dim * 2
    true = num_pictures * one / 1e6
    mistakes = {
        "That is float32, of 4 bytes; float16 has 2.": 2 * true,
        "That counts numbers; each has 2 bytes.": true / 2,
        "That is in units of 2^20 bytes, asked are 10^6.": true * 1e6 / 2**20,
        "That is in gigabytes.": true / 1e3,
        "That is in bytes.": true * 1e6,
        "That is a single picture.": one / 1e6,
    }
    for message, mistake in mistakes.items():
        require(not np.isclose(found, mistake, rtol=1e-3), message)
    message = f"{num_pictures} pictures of {num_regions} regions of {feature_dim} numbers differ"
    require(np.isclose(found, true, rtol=1e-2), f"{message} from {answer}.")
    return f"{true:.0f} MB. They are cached on disk, not in memory."


@exercise(3)
def bleu1(answer: Callable[..., Any]) -> str:
    """Checks a function of candidates and references that returns BLEU-1 of both protocols."""
    texts = "a dog runs", "the the the cat"
    captions = (
        ("a brown dog runs fast", "the dog is running on grass"),
        ("the cat sat on the mat", "a cat on the mat"),
    )
    candidates = [text.split() for text in texts]
    references = [[text.split() for text in each] for each in captions]
    result = result_of(answer, candidates, references)
    if not isinstance(result, (tuple, list, np.ndarray)) or len(result) != 2:
        raise NotYetError("Return two numbers: BLEU-1 without and with the brevity penalty.")
    found = [number(each, "a percentage") for each in result]
    matches, length, closest = bleu_statistics(candidates, references, 1).sum(axis=0)[[0, 2, 3]]
    precision = matches / length
    true = [100 * precision, 100 * precision * np.exp(1 - closest / length)]
    unclipped = 100.0  # every word of the candidates is in a reference
    a_picture = 100 * np.mean([3 / 3, 3 / 4])
    require(
        not np.allclose(found, np.divide(true, 100), rtol=1e-3),
        "Those are shares: return percentages.",
    )
    require(not np.allclose(found, true[::-1], rtol=1e-3), "Without the penalty comes first.")
    require(
        not np.isclose(found[0], unclipped),
        "'the' counts as often as one reference has it, here 2 times of 3: clip the count.",
    )
    require(
        not np.isclose(found[0], a_picture),
        "BLEU is one ratio of the whole corpus: sum over the pictures first.",
    )
    require(np.isclose(found[0], true[0], rtol=1e-3), f"The precision is {true[0]:.1f} %.")
    longest = 100 * precision * np.exp(1 - 12 / length)
    require(
        not np.isclose(found[1], longest, rtol=1e-3),
        "Of each picture's references take the length closest to the candidate's.",
    )
    require(
        np.isclose(found[1], true[1], rtol=1e-3),
        f"The penalty is exp(1 - {closest:.0f} / {length:.0f}): lengths of the whole corpus.",
    )
    return f"{true[0]:.1f} in the protocol `paper`, {true[1]:.1f} in `coco`."


@exercise(4)
def two_beams(answer: Any, captioner: Any, annotations: Any) -> str:
    """Checks the captions found with one beam and with ten, of at most ten words."""
    is_pair = not isinstance(answer, str) and hasattr(answer, "__len__") and len(answer) == 2
    require(is_pair, f"Expected two captions, of 1 and of 10 beams. Received: {answer!r}")
    found = [getattr(each, "text", each) for each in answer]

    def texts(max_length: int | None) -> list[str]:
        options = {"annotations": annotations, "max_length": max_length}
        return [captioner.caption(**options, beam_size=size)[0].text for size in (1, 10)]

    true = texts(10)
    require(found != true[::-1] or found == true, "One beam comes first.")
    if found != true:
        require(found != texts(None), "Captions of at most ten words: `max_length=10`.")
        for name, mine, right in zip(("one beam", "ten beams"), found, true, strict=True):
            require(mine == right, f"With {name} it is another caption. Received: {mine!r}")
    return "The wider beam finds " + ("the same." if true[0] == true[1] else "another caption.")
