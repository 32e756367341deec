"""`sat-keras features`: computes annotation vectors before a training."""

import argparse

from sat_keras.cli import options
from sat_keras.cli.files import check_writable, note
from sat_keras.cli.inputs import dataset_of, default_features, encoder_weights, load_splits

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


def run(arguments: argparse.Namespace) -> None:
    """Computes annotation vectors as the arguments say."""
    import keras

    from sat_keras.data.features import extract_features
    from sat_keras.training.pretrained import make_encoder

    config = options.make_config(arguments)
    config = config.replace(encoder_trainable=config.split_layer or False)
    dataset = dataset_of(arguments)
    out = arguments.out or default_features(dataset["name"])
    check_writable(out)
    table = load_splits(dataset, [arguments.split] if arguments.split else ("train", "dev"))
    keras.utils.set_random_seed(config.seed)
    encoder = make_encoder(config, encoder_weights(arguments, config), config.frozen_precision)
    if config.split_layer:
        encoder = encoder.make_stem()
    for split, part in table.groupby("split", sort=False):
        note(arguments, f"{split}: {part['image_id'].nunique()} pictures")
        cache = extract_features(
            part,
            encoder,
            out,
            mirror=config.mirror and split == "train",
            allow_truncated=arguments.allow_truncated,
            progress=not arguments.quiet,
        )
    print(f"{len(cache)} pictures by {encoder.describe()} are in {cache.directory}.")
