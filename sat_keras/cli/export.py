"""`sat-keras export`: writes a captioner to share it, or to run it without this package."""

import argparse
from pathlib import Path

from sat_keras.cli import options
from sat_keras.cli.files import check_writable

SUMMARY = "Write a captioner to share it, or to run it without sat-keras."
USAGE = "MODEL FOLDER"
EXAMPLES = ""
# Names of the command line, and Keras's.
FORMATS = {"saved_model": "tf_saved_model", "onnx": "onnx", "litert": "litert"}


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    options.add_model(parser, positional=True)
    parser.add_argument(
        "folder",
        type=options.path,
        metavar="FOLDER",
        help="folder to write, such as pretrained/NAME",
    )
    parser.add_argument(
        "--format",
        choices=("preset", *FORMATS),
        default="preset",
        help="preset: to load and train again with sat-keras; saved_model: pixels in, sentence and "
        "attention out, for TensorFlow alone; onnx, litert: encoder and decoder step as two models "
        "(default: preset)",
    )
    parser.add_argument(
        "--encoder-weights",
        type=options.path,
        metavar="WEIGHTS",
        help="imagenet (Keras downloads them) or a file's path, of a frozen CNN in formats other "
        "than preset (default: as in training)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Exports a captioner as the arguments say."""
    if arguments.format == "preset":
        _export_preset(arguments)
    else:
        _export_model(arguments)


def _export_model(arguments: argparse.Namespace) -> None:
    """Writes a captioner with its encoder, to run without this package."""
    from sat_keras.training.pretrained import load_pretrained, pretrained_folder

    folder = Path(arguments.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"FOLDER must be new or empty; choose another. Received: {folder}")
    if folder.exists():
        folder.rmdir()
    check_writable(folder)
    weights = arguments.encoder_weights
    captioner = load_pretrained(pretrained_folder(arguments.model), weights)
    captioner.export(folder, format=FORMATS[arguments.format])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"{size:.1f} MB are in {folder}.")


def _export_preset(arguments: argparse.Namespace) -> None:
    """Writes a captioner in the form that is shared."""
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
        OSError: If there is no permission or no room to write.
    """
    from sat_keras.training.pretrained import CONFIG_FILE, read_description

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"FOLDER must be a folder to write. Received: the file {folder}")
    check_writable(folder)
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
