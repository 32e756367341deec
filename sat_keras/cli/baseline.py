"""`sat-keras baseline`: scores captions of other pictures, without training."""

import argparse
import itertools
import time
from collections.abc import Mapping
from typing import Any

from sat_keras.cli import options
from sat_keras.cli.files import check_target, write_captions, write_results
from sat_keras.cli.inputs import (
    dataset_of,
    default_features,
    encoder_weights,
    label,
    load_splits,
)
from sat_keras.cli.scores import caption_scores, print_results
from sat_keras.config.fields import COUNT

SUMMARY = "Score captions of other pictures: what a model must beat, without training."
USAGE = "NAME --dataset NAME"
EXAMPLES = ""
NAMES = ("random", "nearest", "consensus")


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "name",
        metavar="NAME",
        choices=NAMES,
        help="random: a train caption; nearest: a caption of the most similar train picture; "
        "consensus: of the captions of similar train pictures, the one most similar to the others",
    )
    group = parser.add_argument_group("options")
    options.add_dataset(group, required=True)
    options.add_data_dir(group)
    options.add_data(group, required=True)
    options.add_preset(group)
    group.add_argument(
        "--split", choices=options.SPLITS[1:], default="dev", help="what to caption (default: dev)"
    )
    options.add_features(group)
    group.add_argument(
        "--neighbours",
        type=options.number(int, COUNT),
        nargs="+",
        metavar="K",
        default=[90],
        help="similar train pictures whose captions vote; of several numbers the one with the "
        "highest CIDEr is taken (consensus; default: 90)",
    )
    group.add_argument(
        "--agreeing",
        type=options.number(int, COUNT),
        nargs="+",
        metavar="M",
        default=[125],
        help="captions that a caption must resemble, or several numbers (consensus; default: 125)",
    )
    group.add_argument("--out", type=options.path, metavar="FILE.json", help="file for the scores")
    group.add_argument(
        "--captions", type=options.path, metavar="FILE.json", help="file for the captions"
    )
    options.add_overwrite(group)
    options.add_fields(group, options.FEATURE_FIELDS)


def run(arguments: argparse.Namespace) -> None:
    """Scores a baseline as the arguments say."""
    from sat_keras.training import references_of
    from sat_keras.training.folder import hardware, versions

    start = time.perf_counter()
    config = options.make_config(arguments)
    dataset = dataset_of(arguments)
    out = (
        arguments.out or f"outputs/{label(dataset['name'])}-{arguments.name}-{arguments.split}.json"
    )
    check_target("--out", out, arguments.overwrite)
    check_target("--captions", arguments.captions, arguments.overwrite)
    train = references_of(load_splits(dataset, ("train",)))
    references = references_of(load_splits(dataset, (arguments.split,)))
    candidates, settings = _captions(arguments, config, dataset, train, references)
    results = {
        "dataset": label(dataset["name"]),
        "split": arguments.split,
        "pictures": len(references),
        "encoder": None if arguments.name == "random" else config.encoder,
        "attention": None,
        "beam": None,
        "baseline": arguments.name,
        "seed": config.seed,
        "command": arguments.command_line,
        "config": {"seed": config.seed, **settings},
        "seconds": round(time.perf_counter() - start, 1),
        "hardware": hardware(),
        "versions": versions(),
        **caption_scores(candidates, references),
    }
    print_results(results)
    write_results(out, results)
    write_captions(arguments.captions, candidates)


def _captions(
    arguments: argparse.Namespace, config: Any, dataset: Any, train: Any, references: Any
) -> tuple[Mapping[str, str], dict[str, Any]]:
    """Returns a baseline's captions of the pictures of `references`, and its settings."""
    from sat_keras.baselines import retrieval as baselines
    from sat_keras.data.features import extract_features
    from sat_keras.training.pretrained import make_encoder

    if arguments.name == "random":
        return baselines.random_captions(list(references), train, config.seed), {}
    encoder = make_encoder(config, encoder_weights(arguments, config), config.precision)
    cache = extract_features(
        load_splits(dataset, ("train", arguments.split)),
        encoder,
        arguments.features or default_features(dataset["name"]),
        allow_truncated=arguments.allow_truncated,
        progress=not arguments.quiet,
    )
    most = 1 if arguments.name == "nearest" else max(arguments.neighbours)
    neighbours = baselines.nearest_pictures(cache, list(references), list(train), most)
    if arguments.name == "nearest":
        return baselines.nearest_captions(neighbours, train, config.seed), {}
    settings = list(itertools.product(arguments.neighbours, arguments.agreeing))
    found = baselines.consensus_captions(neighbours, train, settings)
    return _best_setting(found, references)


def _best_setting(found: Mapping, references: Any) -> tuple[Mapping[str, str], dict[str, Any]]:
    """Returns the consensus captions with the highest CIDEr, and what was tried."""
    from sat_keras.evaluation import score_captions

    tried = []
    for k, m in found:
        scores = score_captions(found[k, m], references)["coco"]
        shown = {name: round(scores[name], 4) for name in ("bleu4", "cider")}
        tried.append({"neighbours": k, "agreeing": m, **shown})
        print("{neighbours} neighbours, {agreeing} agreeing: CIDEr {cider:.3f}".format(**tried[-1]))
    best = max(tried, key=lambda setting: setting["cider"])
    k, m = best["neighbours"], best["agreeing"]
    return found[k, m], {"neighbours": k, "agreeing": m, "tried": tried}
