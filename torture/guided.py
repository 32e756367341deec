"""`python -m torture.guided`: fuzzes the picture reader by atheris, guided by Pillow's coverage."""

import contextlib
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "sat_keras.data.images"]):
    from sat_keras.data.images import load_image


def main() -> None:
    """Reads pictures until an error that is no refusal, or the number of runs is reached."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.jpg")

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with contextlib.suppress(ValueError, OSError):
                load_image(path)

        warnings.simplefilter("ignore")
        atheris.Setup(sys.argv, read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
