"""`sat-keras features`: computes annotation vectors before a training."""

import argparse
import functools
import shlex
from collections.abc import Callable
from typing import Any

from sat_keras.cli import options
from sat_keras.cli.files import check_writable, note
from sat_keras.cli.inputs import dataset_of, default_features, encoder_weights, load_splits
from sat_keras.config.config import Config

SUMMARY = "Compute the annotation vectors of a data set's pictures before a training."
USAGE = "--dataset NAME"
EXAMPLES = ""


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    group = parser.add_argument_group("options")
    options.add_dataset(group, required=True)
    options.add_data_dir(group)
    options.add_data(group, required=True)
    options.add_preset(group)
    group.add_argument(
        "--split", choices=options.SPLITS, help="one split only (default: train and dev)"
    )
    group.add_argument(
        "--out",
        type=options.path,
        metavar="DIR",
        help="folder of the cache (default: outputs/features/DATASET)",
    )
    options.add_fields(group, (*options.FEATURE_FIELDS, "encoder_trainable"))
    group.add_argument(
        "--beam",
        type=shlex.split,
        metavar="OPTIONS",
        help="run as a pipeline of Apache Beam with these options in one argument, such as "
        '"--direct_num_workers=2 --direct_running_mode=multi_processing" (extra `beam`)',
    )


def run(arguments: argparse.Namespace) -> None:
    """Computes annotation vectors as the arguments say."""
    config = options.make_config(arguments)
    config = config.replace(encoder_trainable=config.split_layer or False)
    dataset = dataset_of(arguments)
    out = arguments.out or default_features(dataset["name"])
    check_writable(out)
    make = functools.partial(_make_encoder, config, encoder_weights(arguments, config))
    extract = _extraction(arguments, make)
    table = load_splits(dataset, [arguments.split] if arguments.split else ("train", "dev"))
    for split, part in table.groupby("split", sort=False):
        note(arguments, f"{split}: {part['image_id'].nunique()} pictures")
        cache = extract(
            part,
            directory=out,
            mirror=config.mirror and split == "train",
            allow_truncated=arguments.allow_truncated,
        )
    print(f"{len(cache)} pictures by {cache.encoder} are in {cache.directory}.")


def _extraction(arguments: argparse.Namespace, make: Callable[[], Any]) -> Callable[..., Any]:
    """Returns the function that extracts features as the arguments say."""
    if arguments.beam is None:
        from sat_keras.data.extraction import extract_features

        return functools.partial(extract_features, encoder=make(), progress=not arguments.quiet)
    from sat_keras.data.beam_extraction import extract_features_with_beam

    return functools.partial(extract_features_with_beam, make_encoder=make, options=arguments.beam)


def _make_encoder(config: Config, weights: Any) -> Any:
    """Returns the encoder, or its frozen layers; with random weights always the same ones."""
    import keras

    from sat_keras.training.pretrained import make_encoder

    keras.utils.set_random_seed(config.seed)
    encoder = make_encoder(config, weights, config.frozen_precision)
    return encoder.make_stem() if config.split_layer else encoder
