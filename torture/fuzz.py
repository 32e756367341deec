"""Random input, drawn by hypothesis: parsers, tokenizer and picture reader.

They may refuse it with a `ValueError` or `OSError` and must raise nothing else. With atheris, which
has no wheels for every Python, the picture reader is fuzzed guided by coverage as well.
"""

import functools
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture import jobs
from torture.pool import Task
from torture.table import Row

EXAMPLES_A_TRIAL = 20
ROOT = Path(__file__).resolve().parents[1]


def tasks(prepared: jobs.Prepared | None, trials: int, folder: Path) -> list[Task]:
    """Returns a task for hypothesis and one for atheris."""
    del prepared
    examples = trials * EXAMPLES_A_TRIAL

    def fuzz_all() -> list[Row]:
        work = Path(tempfile.mkdtemp(dir=folder))
        return [fuzz(name, strategy, read, examples) for name, strategy, read in _targets(work)]

    return [fuzz_all, functools.partial(_atheris, examples * 10, folder)]


def fuzz(name: str, strategy: Any, read: Callable[[Any], Any], examples: int) -> Row:
    """Reads random values.

    Args:
        name: Name of the reader.
        strategy: Hypothesis strategy of its input.
        read: The reader.
        examples: Integer, number of values.
    """
    from hypothesis import HealthCheck, Phase, given, settings

    row = Row(f"random input to {name}")

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(value: Any) -> None:
        try:
            read(value)
        except (ValueError, OSError):
            row.add(None)
        except Exception as error:
            row.add(f"{type(error).__name__}: {str(error)[:60]}")
        else:
            row.add(None)

    run()
    return row


def _targets(work: Path) -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    from hypothesis import strategies as st

    from sat_keras import Tokenizer, load_image
    from sat_keras.datasets.folder import read_captions_file
    from sat_keras.datasets.tables import read_karpathy
    from sat_keras.evaluation.caption_files import read_candidates, read_references

    def through_file(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
        def run(data: bytes) -> Any:
            path = work / name
            path.write_bytes(data)
            return read(path)

        return run

    names = st.sampled_from(["images", "sentences", "raw", "filename", "split", "annotations"])
    keys = names | st.sampled_from(["image_id", "caption", "id", "imgid"]) | st.text(max_size=3)
    leaves = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
    values = st.recursive(
        leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(keys, x, max_size=4)
    )
    documents = values.map(lambda value: json.dumps(value).encode())
    lines = st.lists(st.text(max_size=20), max_size=5).map(lambda x: "\n".join(x).encode("utf-8"))
    header = (lines | st.binary(max_size=60)).map(lambda text: b"image,caption\n" + text)
    yield "candidates", documents | st.binary(), through_file("a.json", read_candidates)
    yield "references", documents | st.binary(), through_file("b.json", read_references)
    yield "Karpathy's splits", documents | st.binary(), through_file("c.json", read_karpathy)
    yield "caption tables", header | lines, through_file("captions.csv", read_captions_file)
    yield "pictures", _pictures(st), through_file("picture.jpg", load_image)
    tokenizer = Tokenizer.from_captions(["a red square", "two dogs run"])
    yield "the tokenizer", st.text(), lambda text: tokenizer.detokenize(tokenizer([text]))


def _pictures(st: Any) -> Any:
    """Returns a strategy of small pictures in which bytes are replaced, and of any bytes."""

    def damaged(data: bytes, changes: list[tuple[int, int]], end: int) -> bytes:
        found = bytearray(data)
        for position, value in changes:
            found[position % len(found)] = value
        return bytes(found[: end or None])

    changes = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6)
    ends = st.just(0) | st.integers(1, 300)
    return st.builds(damaged, st.sampled_from(picture_files()), changes, ends) | st.binary()


def picture_files() -> list[bytes]:
    """Returns a small picture in each format."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype("uint8")
    files = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        files.append(file.getvalue())
    return files


def _atheris(runs: int, folder: Path) -> list[Row]:
    """Fuzzes the picture reader by atheris, where it is installed."""
    row = Row("pictures, guided by coverage (atheris)")
    if importlib.util.find_spec("atheris") is None:
        row.skipped = "atheris is not installed (pip install 'sat-keras[fuzz]', on Linux)"
        return [row]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(picture_files()):
        (corpus / str(number)).write_bytes(data)
    command = [sys.executable, "-m", "torture.guided", f"-runs={runs}", "-seed=1", str(corpus)]
    log = folder / "atheris.txt"
    with log.open("wb") as output:
        code = subprocess.run(command, stdout=output, stderr=output, cwd=ROOT).returncode
    row.tried, row.held = runs, runs
    if code:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        row.held, row.found = runs - 1, [text[-150:]]
    return [row]
