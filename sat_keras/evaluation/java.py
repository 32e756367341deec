"""METEOR 1.5 and SPICE, the two Java metrics of the coco-caption toolkit.

Both need Java and `pycocoevalcap`, which contains their programs. SPICE also needs 384 MB of
Stanford's parser, which the toolkit downloads at its first use; this module downloads nothing and
runs SPICE only where these files exist. SPICE needs Java 8 to 14: it writes its output with Java's
JavaScript engine, which Java 15 removed. `unavailable` says what is missing.
"""

import importlib.util
import itertools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sat_keras.backend.progress import track

Tokens = Sequence[str]

_INSTALL = 'install Java and run `pip install "pycocoevalcap>=1.2"`'
_PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_LAST_JAVA = 14  # with a JavaScript engine

# METEOR 1.5's parameters for English: weight of precision against recall, exponent and weight of
# the fragmentation penalty, weight of content words against function words, and weights of matches
# by exact word, stem, synonym and paraphrase.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGES = np.array([1.0, 0.6, 0.8, 0.6])


def unavailable(name: str) -> str | None:
    """Explains why a metric cannot be computed here.

    Args:
        name: `"meteor"` or `"spice"`.

    Returns:
        One sentence that says what to install, or `None` if the metric is available.
    """
    toolkit = _toolkit()
    if toolkit is None or shutil.which("java") is None:
        missing = "pycocoevalcap" if toolkit is None else "Java"
        return f"{name.upper()} is left out: {missing} is not installed; {_INSTALL}"
    return _spice_unavailable(toolkit / "spice" / "lib") if name == "spice" else None


def meteor_statistics(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> np.ndarray:
    """Counts the matches of each picture's best reference for METEOR 1.5.

    Args:
        candidates: Tokens of one candidate a picture.
        references: Tokens of each picture's references, in the same order.

    Returns:
        Float array `(pictures, 6)`: matched words of the candidate and of the reference, lengths
        of the candidate and of the reference, all four weighted by the kind of match and of word;
        number of chunks; number of matched words, the mean of both sides.

    Raises:
        RuntimeError: If METEOR cannot run here or fails.
    """
    lines = []
    for candidate, picture in zip(candidates, references, strict=True):
        # Empty references are skipped. If all are empty, a full stop stands in, which matches
        # nothing.
        texts = [" ".join(tokens) for tokens in picture if tokens] or ["."]
        lines.append(" ||| ".join(["SCORE", *texts, " ".join(candidate)]))
    counts = _run_meteor(lines)
    lengths, functions = counts[:, 0:2], counts[:, 2:4]  # of the candidate, of the reference
    matches = counts[:, 4:20].reshape(-1, len(_STAGES), 2, 2)  # stage, content or function, side
    kinds = np.array([_DELTA, 1 - _DELTA])
    matched = np.einsum("pskt,s,k->pt", matches, _STAGES, kinds)
    weighted = _DELTA * (lengths - functions) + (1 - _DELTA) * functions
    chunks, words = counts[:, 20], counts[:, 21:23]
    # As in METEOR, a candidate equal to its reference has no fragmentation penalty.
    chunks = np.where((chunks == 1) & (lengths == words).all(axis=1), 0, chunks)
    return np.column_stack([matched, weighted, chunks, words.mean(axis=1)])


def meteor_of_sums(sums: np.ndarray) -> np.ndarray:
    """Computes METEOR from sums of `meteor_statistics` over pictures.

    P and R are weighted unigram precision and recall, `matches` the number of matched words and
    `chunks` the number of runs of matches that are contiguous and in the same order on both sides:

        METEOR = (1 - 0.6 (chunks / matches)^0.2) * P R / (0.85 P + 0.15 R)

    Args:
        sums: Array `(..., 6)`. The row of one picture gives its METEOR.

    Returns:
        Float array `(...)` in percent, 0 without any match.

    Reference:
        [Denkowski & Lavie, 2014](https://aclanthology.org/W14-3348/).
    """
    matched, reference_matched, length, reference_length, chunks, words = np.moveaxis(sums, -1, 0)
    precision = matched / np.maximum(length, 1e-9)
    recall = reference_matched / np.maximum(reference_length, 1e-9)
    mean = precision * recall / np.maximum(_ALPHA * precision + (1 - _ALPHA) * recall, 1e-9)
    fragments = chunks / np.maximum(words, 0.5)
    return 100 * mean * (1 - _GAMMA * fragments**_BETA)


def spice(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """Computes SPICE of each picture, in percent. The corpus score is their mean.

    Args:
        candidates: Tokens of one candidate a picture. An empty candidate scores 0.
        references: Tokens of each picture's references, in the same order.

    Returns:
        Float array `(pictures,)`.

    Raises:
        RuntimeError: If SPICE cannot run here or fails.

    Reference:
        [Anderson et al., 2016](https://arxiv.org/abs/1607.08822).
    """
    _check_available("spice")
    from pycocoevalcap.spice import spice as toolkit

    scores = np.zeros(len(candidates))
    filled = [i for i, tokens in enumerate(candidates) if tokens]
    if filled:
        results = {i: [" ".join(candidates[i])] for i in filled}
        truths = {i: [" ".join(tokens) for tokens in references[i]] for i in filled}
        try:
            _, found = toolkit.Spice().compute_score(truths, results)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(
                "SPICE failed; see Java's output above, and check that 8 GB of memory are free and "
                f"that {Path(toolkit.__file__).parent} is writable. Received: {error}"
            ) from error
        scores[filled] = [100 * picture["All"]["f"] for picture in found]
    return np.nan_to_num(scores)


def _toolkit() -> Path | None:
    """Returns the folder of pycocoevalcap, or `None` if it is not installed."""
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders))) if folders else None


def _spice_unavailable(library: Path) -> str | None:
    """Explains why SPICE cannot run although the toolkit and Java are installed, or `None`."""
    if not all((library / file).is_file() for file in _PARSER):
        return (
            f"SPICE is left out: its parser, {' and '.join(_PARSER)}, is not in {library}; "
            "`python -m pycocoevalcap.spice.get_stanford_models` downloads its 384 MB there"
        )
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)  # "1.8.0_312" is Java 8
    if version and int(version[1]) > _LAST_JAVA:
        return (
            f"SPICE is left out: it needs Java 8 to {_LAST_JAVA}, and Java {version[1]} is "
            "installed; put an older one, such as 11, first in PATH"
        )
    return None


def _check_available(name: str) -> None:
    reason = unavailable(name)
    if reason:
        raise RuntimeError(f"{reason}. Received: the metric {name!r}")


def _run_meteor(lines: Sequence[str]) -> np.ndarray:
    """Runs METEOR and returns its 23 counts for each line of input."""
    _check_available("meteor")
    toolkit = _toolkit()
    assert toolkit is not None
    program = [*("java", "-Xmx2G", "-jar", "meteor-1.5.jar"), "-", "-", "-stdio", "-l", "en"]
    program += ["-norm"]
    answers: list[str] = []
    with (
        tempfile.TemporaryFile() as questions,
        tempfile.TemporaryFile() as errors,
    ):
        questions.write("".join(f"{line}\n" for line in lines).encode())
        questions.seek(0)
        pipes: Any = {"stdin": questions, "stdout": subprocess.PIPE, "stderr": errors}
        with subprocess.Popen(program, cwd=toolkit / "meteor", **pipes) as process:
            assert process.stdout is not None
            # METEOR answers line by line. The first answer waits for Java and its tables, which
            # would spoil the estimate of the end.
            first = process.stdout.readline()
            with track(len(lines), "METEOR") as bar:
                for answer in itertools.chain(filter(None, [first]), process.stdout):
                    answers.append(answer.decode(errors="replace"))
                    bar.update(1)
        errors.seek(0)
        said = errors.read().decode(errors="replace").splitlines() or answers
    rows = [answer.split() for answer in answers]
    if process.returncode or len(rows) != len(lines) or any(len(row) != 23 for row in rows):
        raise RuntimeError(
            "METEOR failed; check that `java -version` works and that 2 GB of memory are free. "
            f"Received: {said[-1].strip() if said else 'no output'}"
        )
    return np.array(rows, dtype="float64").reshape(-1, 23)
