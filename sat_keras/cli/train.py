"""`sat-keras train`: trains a captioner, or resumes a training that was stopped."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sat_keras.cli import options
from sat_keras.cli.files import check_writable
from sat_keras.cli.inputs import (
    dataset_of,
    default_features,
    encoder_weights,
    load_splits,
    objects_of,
    with_encoder_sizes,
    words_to_boxes_of,
)
from sat_keras.config.config import Config
from sat_keras.config.fields import COUNT

SUMMARY = "Train a captioner, or resume a training that was stopped."
USAGE = "--dataset NAME --out DIR"
EXAMPLES = """
examples:
  sat-keras train --dataset scenes --out outputs/scenes
  sat-keras train --dataset my_photos --start flickr8k-soft-vgg16 --out outputs/mine
"""
# Fields that the help shows first.
COMMON = ("attention", "epochs", "batch_size", "learning_rate", "seed")
CURVES_FILE = "curves.png"


def add_options(parser: options.Parser) -> None:
    """Adds the command's options: the ten that matter most, others, and those of the config."""
    common = parser.add_argument_group("options that matter most")
    options.add_dataset(common, required=True)
    common.add_argument(
        "--out",
        type=options.path,
        metavar="DIR",
        required=True,
        help="folder for the model, its log and its curves",
    )
    options.add_data_dir(common)
    options.add_preset(common)
    options.add_fields(common, COMMON)
    common.add_argument(
        "--start",
        type=options.path,
        metavar="MODEL",
        help="captioner whose weights to start from: the name of a pretrained one, such as "
        "flickr8k-soft-vgg16, or the folder of a training (default: random weights)",
    )
    others = parser.add_argument_group("other options")
    others.add_argument(
        "--vocabulary",
        choices=("extend", "keep"),
        help="with --start: extend its words by those of the train captions, or keep them, so that "
        "other words are <unk> (default: extend)",
    )
    options.add_features(others)
    others.add_argument(
        "--overwrite", action="store_true", help="delete another training in the folder --out"
    )
    others.add_argument(
        "--devices",
        type=options.number(int, COUNT),
        default=1,
        metavar="N",
        help="GPUs or other devices that share every batch (default: 1)",
    )
    options.add_data(others, required=True)
    options.add_boxes(others)
    options.add_config(parser, without=COMMON)


def run(arguments: argparse.Namespace) -> None:
    """Trains a captioner as the arguments say."""
    import keras

    from sat_keras.backend.memory import keep_freed_memory
    from sat_keras.training import train_captioner
    from sat_keras.training.folder import open_run, recorded_run
    from sat_keras.training.precision import recorded_precision
    from sat_keras.training.pretrained import (
        FORMAT,
        describe_encoder,
        load_pretrained,
        make_encoder,
    )
    from sat_keras.training.signals import sigterm_raises

    keep_freed_memory()
    check_writable(arguments.out)
    dataset = dataset_of(arguments)
    table = load_splits(dataset, ("train", "dev"))
    origin = _origin(arguments)
    config = options.make_config(arguments, origin["config"] if origin else None)
    config = recorded_precision(config, arguments.out, arguments.overwrite)
    weights = encoder_weights(arguments, config, origin and origin["encoder"])
    takes_encoder = _takes_encoder(origin, config, arguments)
    start = arguments.start and load_pretrained(
        arguments.start,
        arguments.encoder_weights,
        encoder=takes_encoder or config.encoder_trainable is True,
    )
    dataset["features"] = str(arguments.features or default_features(dataset["name"]))
    keras.utils.set_random_seed(config.seed)
    encoder = make_encoder(config, weights, config.frozen_precision)
    if takes_encoder:
        encoder.set_weights(start.encoder.get_weights())
    config = with_encoder_sizes(config, encoder, arguments)
    # Frozen layers that no file can restore are saved with the model.
    in_model = config.encoder_trainable is True or weights is None
    if origin and takes_encoder:
        is_same_head = origin["config"].split_layer == config.split_layer
        in_model = in_model or origin["encoder"]["in_model"] or not is_same_head
    description = {
        "format": FORMAT,
        "config": config.to_dict(),
        "encoder": describe_encoder(encoder, weights, in_model),
        "dataset": dataset,
        "start": {"start": arguments.start, **_vocabulary(arguments)},
    }
    if open_run(arguments.out, description, arguments.overwrite):
        print(f"The training in {arguments.out} is finished; train anew with --overwrite.")
        return
    boxes = _boxes(arguments, config, dataset, table) if config.grounding_weight else None
    try:
        with sigterm_raises(), recorded_run(arguments.out, arguments.command_line, config):
            log = train_captioner(
                config,
                table,
                encoder,
                arguments.out,
                features=dataset["features"],
                keep_encoder=in_model,
                allow_truncated=arguments.allow_truncated,
                start=start,
                vocabulary="captions" if start is None else arguments.vocabulary or "extend",
                devices=arguments.devices,
                verbose=_verbosity(arguments.quiet),
                boxes=boxes,
            )
    finally:
        draw_curves(arguments.out)
    best = log.loc[log[f"dev_{config.monitor}"].idxmax()]
    print(
        f"Best of {len(log)} epochs on dev: epoch {int(best['epoch']) + 1}, "
        f"BLEU-4 {best['dev_bleu4']:.2f} %, CIDEr {best['dev_cider']:.3f} (protocol coco). "
        f"The model is in {arguments.out}."
    )


def _origin(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Returns the description of the captioner to start from, if there is one."""
    from sat_keras.training.pretrained import pretrained_folder, read_description

    if arguments.start:
        return read_description(pretrained_folder(arguments.start))
    if arguments.vocabulary:
        raise ValueError(
            "--vocabulary needs a captioner to start from; add --start MODEL. "
            f"Received: --vocabulary {arguments.vocabulary}"
        )
    return None


def _takes_encoder(
    origin: Mapping[str, Any] | None, config: Config, arguments: argparse.Namespace
) -> bool:
    """Returns whether layers of the encoder are only in the file of the captioner to start from.

    A trained encoder of `config` takes all of them without that.
    """
    names = ("encoder", "encoder_layer", "image_size")
    if origin is None or config.encoder_trainable is True:
        return False
    if any(getattr(origin["config"], name) != getattr(config, name) for name in names):
        return False
    is_frozen_file = origin["encoder"]["in_model"] and arguments.encoder_weights is None
    return is_frozen_file or origin["config"].split_layer is not None


def _boxes(arguments: argparse.Namespace, config: Config, dataset: Any, table: Any) -> Any:
    """Returns the boxes of the train captions' words, for supervised attention."""
    from sat_keras.analysis import caption_boxes
    from sat_keras.cnn.resize import PictureResize

    train = table[table["split"] == "train"]
    objects = objects_of(dataset, train, arguments.boxes)
    if objects is None:
        raise ValueError(
            "Supervised attention needs boxes of the train pictures: name them with --boxes, or "
            f"leave out --grounding-weight. Received: no boxes of {dataset['name']}"
        )
    resize = PictureResize(config.image_size, config.resize)
    words_to_boxes = words_to_boxes_of(dataset["name"])
    return caption_boxes(train, objects, words_to_boxes, resize, config.full_stop)


def _vocabulary(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns what `config.json` says about the vocabulary: nothing in the usual case."""
    return {"vocabulary": arguments.vocabulary} if arguments.vocabulary else {}


def draw_curves(folder: str | Path) -> None:
    """Draws the curves of a training's `log.csv`, also of one that was stopped.

    A figure that cannot be drawn is a warning: the training is worth more.

    Args:
        folder: Folder of the training.
    """
    import pandas as pd

    from sat_keras.plots import plot_history, save_figure

    log = Path(folder, "log.csv")
    if not log.is_file():
        return
    try:
        save_figure(plot_history(pd.read_csv(log)), Path(folder, CURVES_FILE))
    except Exception as error:
        print(f"sat-keras: warning: {CURVES_FILE} was not drawn ({error})", file=sys.stderr)


def _verbosity(quiet: bool) -> int:
    """Returns Keras's `verbose`: a progress bar on a terminal, otherwise a line per epoch."""
    if quiet:
        return 0
    return 1 if sys.stdout.isatty() else 2
