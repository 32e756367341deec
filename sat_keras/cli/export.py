"""`sat-keras export`: writes the captioner of a training in the form that is shared."""

import argparse
from pathlib import Path

from sat_keras.cli import options

SUMMARY = "Write the captioner of a training in float16, to share it."
USAGE = "MODEL FOLDER"
EXAMPLES = ""


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    options.add_model(parser, positional=True)
    parser.add_argument(
        "folder",
        type=options.path,
        metavar="FOLDER",
        help="folder to write, such as pretrained/NAME",
    )


def run(arguments: argparse.Namespace) -> None:
    """Exports a captioner as the arguments say."""
    from sat_keras.training.folder import read_run
    from sat_keras.training.pretrained import (
        load_pretrained,
        pretrained_folder,
        read_description,
        save_pretrained,
    )

    folder = pretrained_folder(arguments.model)
    check_folder(arguments.folder)
    description = read_description(folder)
    captioner = load_pretrained(folder, encoder=False)
    training = {**read_run(folder), "dataset": description.get("dataset", {}).get("name")}
    weights = None if description["encoder"]["in_model"] else "imagenet"
    target = save_pretrained(captioner, arguments.folder, weights, training)
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    print(f"{size:.1f} MB are in {target}.")


def check_folder(folder: str | Path) -> None:
    """Refuses a folder with files that are not an exported captioner's.

    Args:
        folder: Path of the folder to write. It may be missing.

    Raises:
        ValueError: If it is a file, holds a training, or files of the same names.
    """
    from sat_keras.training.pretrained import CONFIG_FILE, read_description

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"FOLDER must be a folder to write. Received: the file {folder}")
    taken = [CONFIG_FILE, "decoder.weights.h5", "captioner.weights.h5"]
    if not any((folder / name).exists() for name in taken):
        return
    try:
        is_exported = read_description(folder)["vocabulary"] is not None
    except (OSError, ValueError):
        is_exported = False
    if not is_exported:
        raise ValueError(
            "FOLDER must be new, empty, or hold an exported captioner to replace; choose another. "
            f"Received: {folder}, which holds something else"
        )
