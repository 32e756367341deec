"""The command line: training, evaluation, captions, and what compares them, one command each.

Arguments are parsed before Keras is imported, so that help and mistakes in them come at once.
Whatever a user can cause ends in one sentence on stderr and exit code 2; `--debug` shows where it
comes from.
"""

import argparse
import atexit
import contextlib
import dataclasses
import inspect
import itertools
import json
import os
import shlex
import sys
import tempfile
import time
import typing
import warnings
from pathlib import Path

from sat_keras import __version__
from sat_keras.backend.memory import keep_freed_memory
from sat_keras.cli.scores import (
    agreement,
    agreement_options,
    caption_scores,
    compare,
    compare_options,
    print_scores,
    score,
    score_options,
)
from sat_keras.config.config import Config

CHOICES = {
    field.name: field.metadata["check"].choices
    for field in dataclasses.fields(Config)
    if field.metadata["check"].choices
}

PRETRAINED = "flickr8k-soft-vgg16"
# Each data set's preset.
DATASETS = {
    "scenes": "scenes",
    "flickr8k": "flickr8k",
    "flickr30k": "flickr8k",
    "coco2014": "paper_coco",
    "coco2017": "paper_coco",
}
PRESETS = ("scenes", "flickr8k", "paper_coco", "tiny")
SPLITS = ("train", "dev", "test")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# The config's fields in groups of the help, by the first field of each.
_GROUPS = {
    "encoder": "picture encoder",
    "vocabulary_size": "words",
    "embedding_dim": "decoder",
    "attention": "attention and dropout",
    "penalty_weight": "loss",
    "attention_samples": "hard attention",
    "group": "minibatches and optimizer",
    "epochs": "length of training, and choice of the checkpoint",
    "precision": "precision and seed",
    "context": "search",
}
# Hiding regions of so many pictures takes about as long as captioning Flickr8k's dev split.
OCCLUSION_PICTURES = 200
# Those fields that matter to the annotation vectors.
_FEATURE_FIELDS = (
    "encoder",
    "encoder_layer",
    "resize",
    "image_size",
    "mirror",
    "precision",
    "seed",
)


# Commands. Each gets the parsed arguments and returns its exit code, or None for 0.


def train(arguments):
    """Train a captioner, or go on with one that was stopped."""
    import keras

    from sat_keras.training.fit import train_captioner
    from sat_keras.training.folder import open_run, recorded_run
    from sat_keras.training.pretrained import (
        FORMAT,
        describe_encoder,
        load_pretrained,
        make_encoder,
    )

    config = _config(arguments)
    dataset = _dataset(arguments)
    weights = _encoder_weights(arguments, config)
    dataset["features"] = str(arguments.features or _default_features(dataset["name"]))
    keras.utils.set_random_seed(config.seed)
    encoder = make_encoder(config, weights, config.precision)
    config = _with_encoder_sizes(config, encoder, arguments)
    # What no file can give back goes into the model's file.
    in_model = config.encoder_trainable or weights is None
    description = {
        "format": FORMAT,
        "config": config.to_dict(),
        "encoder": describe_encoder(encoder, weights, in_model),
        "dataset": dataset,
        "start": {"start": arguments.start},
    }
    start = arguments.start and load_pretrained(arguments.start, encoder=config.encoder_trainable)
    table = _load_splits(dataset, ("train", "dev"))
    if open_run(arguments.out, description, arguments.overwrite):
        print(f"The training in {arguments.out} is finished; train anew with --overwrite.")
        return
    with recorded_run(arguments.out, arguments.command_line, config):
        log = train_captioner(
            config,
            table,
            encoder,
            arguments.out,
            features=dataset["features"],
            keep_encoder=in_model,
            allow_truncated=arguments.allow_truncated,
            start=start,
            devices=arguments.devices,
            verbose=1 if sys.stdout.isatty() else 2,
        )
    best = log.loc[log[f"dev_{config.monitor}"].idxmax()]
    print(
        f"Best of {len(log)} epochs on dev: epoch {int(best['epoch']) + 1}, "
        f"BLEU-4 {best['dev_bleu4']:.2f} %, CIDEr {best['dev_cider']:.3f} (protocol coco). "
        f"The model is in {arguments.out}."
    )


def evaluate(arguments):
    """Caption a split by search and score it."""
    if not arguments.json:
        _evaluate(arguments)
        return
    with contextlib.redirect_stdout(sys.stderr):
        results = _evaluate(arguments)
    print(json.dumps(results, indent=2))


def _evaluate(arguments):
    """Do what `evaluate` does, tell of it on stdout, and return the results."""
    from sat_keras.data.files import write_json
    from sat_keras.training.fit import caption_pictures, references_of
    from sat_keras.training.folder import read_run
    from sat_keras.training.pretrained import pretrained_folder, read_description

    start = time.perf_counter()
    folder = pretrained_folder(arguments.model)
    description = read_description(folder)
    dataset = _dataset(arguments, description)
    table = _load_splits(dataset, (arguments.split,), arguments.limit)
    objects = _objects(arguments, dataset["name"], table)
    if arguments.report:  # a mistake in its name shows before the work
        Path(arguments.report).mkdir(parents=True, exist_ok=True)
    cache = arguments.features or dataset["features"]
    captioner, source = _captioner_and_source(arguments, folder, description, table, cache)
    references = references_of(table)
    print(f"Captioning {len(references)} {arguments.split} pictures of {dataset['name']} ...")
    search = _search(arguments, captioner.config)
    captions = caption_pictures(captioner, source, list(references), **search)
    captions = dict(zip(references, captions, strict=True))
    # First, as it took longest: what comes after may fail.
    _write_captions(arguments.captions, {i: found.text for i, found in captions.items()})
    scores = _scores(captioner, source, captions, table, references, objects, arguments.occlusion)
    training = read_run(folder) or description["training"]
    seconds = round(time.perf_counter() - start, 1)
    results = {
        "dataset": dataset["name"],
        "split": arguments.split,
        "pictures": len(references),
        "encoder": captioner.config.encoder,
        "attention": captioner.config.attention,
        "context": search["context"],
        "beam": search["beam_size"],
        "length_penalty": search["length_penalty"],
        "precision": arguments.precision,
        **_provenance(arguments, captioner.config, training, seconds),
        **scores,
    }
    _print_results(results)
    path = _results_path(arguments, folder, is_training=description["vocabulary"] is None)
    write_json(path, results)
    print(f"Written to {path}.")
    if arguments.report:
        _report(arguments.report, results, captions, references, table, captioner.config)
    return results


def baseline(arguments):
    """Score captions of other pictures: what a model must beat, without training."""
    from sat_keras.data.files import write_json
    from sat_keras.training.fit import references_of
    from sat_keras.training.folder import hardware, versions

    start = time.perf_counter()
    config = _config(arguments)
    dataset = _dataset(arguments)
    train = references_of(_load_splits(dataset, ("train",)))
    table = _load_splits(dataset, (arguments.split,))
    references = references_of(table)
    candidates, settings = _baseline_captions(arguments, config, dataset, train, references)
    results = {
        "dataset": dataset["name"],
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
    _print_results(results)
    out = arguments.out or f"outputs/{dataset['name']}-{arguments.name}-{arguments.split}.json"
    write_json(out, results)
    print(f"Written to {out}.")
    _write_captions(arguments.captions, candidates)


def caption(arguments):
    """Describe photos in a sentence each and draw where the captioner looked."""
    from sat_keras.data.images import load_image
    from sat_keras.training.pretrained import load_pretrained, pretrained_folder, read_description

    folder = pretrained_folder(arguments.model)
    photos = list(arguments.photos)
    if arguments.split:
        dataset = _dataset(arguments, read_description(folder))
        table = _load_splits(dataset, (arguments.split,), arguments.limit)
        photos += table["image"].unique().tolist()
    if not photos:
        raise ValueError("Expected a PHOTO, or --split for pictures of a data set. Received: none")
    captioner = load_pretrained(folder, arguments.encoder_weights)
    search = _search(arguments, captioner.config)
    num_broken, taken = 0, set()
    for photo in photos:
        try:
            picture = load_image(photo, arguments.allow_truncated)
        except (OSError, ValueError) as error:
            print(f"sat-keras: {_sentence(error)}", file=sys.stderr)
            num_broken += 1
            continue
        (found,) = captioner.caption([picture], **search)
        path = _free_path(Path(arguments.out), Path(photo).stem, taken)
        _draw(captioner, picture, found, path)
        print(f"{photo}: {found.text}\n  attention: {path}")
    return 1 if num_broken else 0


def features(arguments):
    """Compute the annotation vectors of a data set's pictures ahead of a training."""
    import keras

    from sat_keras.data.features import extract_features
    from sat_keras.training.pretrained import make_encoder

    config = _config(arguments).replace(encoder_trainable=False)
    dataset = _dataset(arguments)
    table = _load_splits(dataset, [arguments.split] if arguments.split else ("train", "dev"))
    keras.utils.set_random_seed(config.seed)
    encoder = make_encoder(config, _encoder_weights(arguments, config), config.precision)
    out = arguments.out or _default_features(dataset["name"])
    for split, part in table.groupby("split", sort=False):
        print(f"{split}: {part['image_id'].nunique()} pictures", flush=True)
        cache = extract_features(
            part,
            encoder,
            out,
            mirror=config.mirror and split == "train",
            allow_truncated=arguments.allow_truncated,
        )
    print(f"{len(cache)} pictures by {encoder.describe()} are in {cache.directory}.")


def export(arguments):
    """Write a training's captioner in float16, as it comes with the package."""
    from sat_keras.training.folder import read_run
    from sat_keras.training.pretrained import (
        load_pretrained,
        pretrained_folder,
        read_description,
        save_pretrained,
    )

    folder = pretrained_folder(arguments.model)
    description = read_description(folder)
    captioner = load_pretrained(folder, encoder=False)
    training = {**read_run(folder), "dataset": description.get("dataset", {}).get("name")}
    weights = None if description["encoder"]["in_model"] else "imagenet"
    target = save_pretrained(captioner, arguments.folder, weights, training)
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    print(f"{size:.1f} MB are in {target}.")


# What the commands share


def _config(arguments):
    """The preset with what the command line changes."""
    config = getattr(Config, arguments.preset or DATASETS[arguments.dataset])()
    names = [field.name for field in dataclasses.fields(Config)]
    changes = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    encoder = changes.get("encoder", config.encoder)
    if encoder != config.encoder:
        image_size = 64 if encoder == "scenes" else 224
        changes = {"encoder_layer": None, "image_size": image_size, **changes}
    return config.replace(**changes)


def _with_encoder_sizes(config, encoder, arguments):
    """The config with the encoder's grid and feature size; asking for others is an error."""
    sizes = {"grid_shape": tuple(encoder.grid_shape), "feature_dim": encoder.feature_dim}
    for name, size in sizes.items():
        asked = getattr(arguments, name, size)
        if (tuple(asked) if name == "grid_shape" else asked) != size:
            raise ValueError(
                f"{_flag(name)} must be what the encoder {config.encoder} gives, {size}; leave the "
                f"option out. Received: {asked}"
            )
    return config.replace(**sizes)


def _encoder_weights(arguments, config):
    """`"imagenet"`, a path, or None for random weights, as the scenes' CNN starts with."""
    weights = arguments.encoder_weights
    if weights is None:
        return None if config.encoder == "scenes" else "imagenet"
    return None if weights == "none" else weights


def _default_features(dataset_name):
    return Path("outputs", "features", dataset_name)


def _dataset(arguments, description=None):
    """What `_load_splits` takes: as the command line says, else as the captioner was trained."""
    recorded = (description or {}).get("dataset", {})
    name = arguments.dataset or recorded.get("name")
    if name is None:
        raise ValueError(
            f"A pretrained captioner needs a data set: add --dataset {{{','.join(DATASETS)}}}. "
            f"Received: {arguments.model}"
        )
    if name != recorded.get("name"):
        recorded = {}
    dataset = {"name": name, "limit": recorded.get("limit", arguments.limit)}
    for key, default in (("data_dir", "data"), ("splits", None)):
        given = getattr(arguments, key)
        dataset[key] = recorded.get(key, default) if given is None else given
    features = recorded.get("features")
    return {**dataset, "features": features if features and Path(features).is_dir() else None}


def _load_splits(dataset, splits, limit=None):
    """The captions table of some splits, of the first `limit` pictures of each."""
    import pandas as pd

    from sat_keras.datasets import load_dataset, scenes

    options = {}
    if dataset["name"] == "scenes" and dataset["limit"]:  # then no more need be drawn
        sizes = scenes.NUM_IMAGES.items()
        options["num_images"] = {name: min(dataset["limit"], size) for name, size in sizes}
    limit = limit or dataset["limit"]
    tables = []
    for split in splits:
        table = load_dataset(
            dataset["name"],
            dataset["data_dir"],
            splits=dataset["splits"],
            only=split,
            **options,
        )
        tables.append(table[table["image_id"].isin(table["image_id"].unique()[:limit])])
    return pd.concat(tables, ignore_index=True)


def _captioner_and_source(arguments, folder, description, table, cache):
    """A captioner and what it reads: the feature cache where there is one, else pixels."""
    from sat_keras.data.features import extract_features
    from sat_keras.data.loaders import PictureSource
    from sat_keras.training.pretrained import load_pretrained, make_encoder

    options = {"allow_truncated": arguments.allow_truncated}
    if description["encoder"]["in_model"] or cache is None:
        captioner = load_pretrained(folder, arguments.encoder_weights, dtype=arguments.precision)
        return captioner, PictureSource(table, captioner.encoder.resize_images, **options)
    captioner = load_pretrained(folder, encoder=False, dtype=arguments.precision)
    config = captioner.config
    weights = arguments.encoder_weights or description["encoder"]["weights"]
    # In the precision of the training, so that its annotation vectors are found in the cache.
    encoder = make_encoder(config, weights, config.precision)
    return captioner, extract_features(table, encoder, cache, **options)


def _search(arguments, config):
    """Beam size, length penalty and context: the command line's, else the config's."""
    asked = {
        "beam_size": arguments.beam_size,
        "length_penalty": arguments.length_penalty,
        "context": arguments.context,
    }
    return {
        name: getattr(config, name) if value is None else value for name, value in asked.items()
    }


def _provenance(arguments, config, training, seconds):
    """How results came about: the training's part, where it is known, and the evaluation's."""
    from sat_keras.training.folder import hardware, versions

    commands = [training.get("command"), arguments.command_line]
    return {
        "seed": config.seed,
        "command": " && ".join(filter(None, commands)),
        "config": config.to_dict(),
        "seconds": round(training.get("seconds", 0) + seconds, 1),
        "seconds_of_evaluation": seconds,
        "hardware": hardware(),
        "versions": versions(),
        "training": training,
    }


def _baseline_captions(arguments, config, dataset, train, references):
    """Captions by a baseline of the pictures of `references`, and how they were chosen."""
    from sat_keras.baselines import retrieval as baselines
    from sat_keras.data.features import extract_features
    from sat_keras.training.pretrained import make_encoder

    if arguments.name == "random":
        return baselines.random_captions(list(references), train, config.seed), {}
    encoder = make_encoder(config, _encoder_weights(arguments, config), config.precision)
    cache = extract_features(
        _load_splits(dataset, ("train", arguments.split)),
        encoder,
        arguments.features or _default_features(dataset["name"]),
        allow_truncated=arguments.allow_truncated,
    )
    most = 1 if arguments.name == "nearest" else max(arguments.neighbours)
    neighbours = baselines.nearest_pictures(cache, list(references), list(train), most)
    if arguments.name == "nearest":
        return baselines.nearest_captions(neighbours, train, config.seed), {}
    settings = list(itertools.product(arguments.neighbours, arguments.agreeing))
    found = baselines.consensus_captions(neighbours, train, settings)
    return _best_setting(found, references)


def _best_setting(found, references):
    """Of consensus captions by `(k, m)` those with the highest CIDEr, and the account."""
    from sat_keras.evaluation.scores import score_captions

    tried = []
    for k, m in found:
        scores = score_captions(found[k, m], references)["coco"]
        shown = {name: round(scores[name], 4) for name in ("bleu4", "cider")}
        tried.append({"neighbours": k, "agreeing": m, **shown})
        print("{neighbours} neighbours, {agreeing} agreeing: CIDEr {cider:.3f}".format(**tried[-1]))
    best = max(tried, key=lambda setting: setting["cider"])
    k, m = best["neighbours"], best["agreeing"]
    return found[k, m], {"neighbours": k, "agreeing": m, "tried": tried}


def _write_captions(path, captions):
    """Captions by image id in COCO's format, if a file was asked for."""
    from sat_keras.data.files import write_json

    if path:
        write_json(path, [{"image_id": i, "caption": text} for i, text in captions.items()])


def _scores(captioner, source, captions, table, references, objects, occlusion):
    """Everything that is measured: the captions, and the attention behind their words."""
    from sat_keras.analysis.summary import score_attention

    results = caption_scores({key: found.text for key, found in captions.items()}, references)
    attention = score_attention(captioner, source, captions, table, objects, occlusion)
    results["attention_scores"] = attention
    if objects is not None and "shape" in objects:
        results["scenes"] = _scene_scores(captions, objects, attention)
    return results


def _objects(arguments, dataset_name, table):
    """Where the pictures' objects are, if that is known."""
    from sat_keras.datasets import load_boxes, load_objects

    if dataset_name == "scenes":
        return load_objects(table)
    if not arguments.boxes:
        return None
    objects = load_boxes(arguments.boxes, set(table["image_id"]))
    if objects.empty:
        raise ValueError(
            "Expected the boxes of these pictures: name the files of this data set's split. "
            f"Received: --boxes {' '.join(arguments.boxes)}, none of {table['image_id'].iloc[0]}"
        )
    return objects


def _scene_scores(captions, objects, attention):
    """Shares, in percent, of true content words and of attention in the named objects' boxes."""
    from sat_keras.datasets.scenes import caption_accuracy

    counts = [
        caption_accuracy(captions[image_id].text, things)
        for image_id, things in objects.groupby("image_id")
    ]
    num_correct, num_words = map(sum, zip(*counts, strict=True))
    return {
        "content_words": num_words,
        "content_word_accuracy": 100 * num_correct / max(num_words, 1),
        "object_words": attention["object_words"],
        **{
            name: attention[name]
            for measure in ("pointing_accuracy", "attention_mass")
            for name in (measure, f"{measure}_uniform")
            if name in attention
        },
    }


def _print_results(results):
    """The scores of captions and of attention."""
    print_scores(results)
    if "scenes" in results:
        print(f"content words that are true: {results['scenes']['content_word_accuracy']:.1f} %")
    if "attention_scores" in results:
        _print_attention(results["attention_scores"])


def _print_attention(scores):
    """The scores of attention, one a line, with intervals and baselines."""
    from sat_keras.analysis.measures import unit_of

    print(f"{'attention':28}{'mean':>8}{'95 %':>16}{'uniform':>10}{'centre':>8}")
    for name, ends in scores["intervals"].items():
        if name.endswith(("_uniform", "_centre")):
            continue
        unit = unit_of(name)
        digits = 1 if unit == "%" else 3
        numbers = [scores[name], *(scores.get(f"{name}_{base}") for base in ("uniform", "centre"))]
        value, uniform, centre = ("" if x is None else f"{x:.{digits}f}" for x in numbers)
        span = "-".join(f"{end:.{digits}f}" for end in ends)
        label = f"{name.replace('_', ' ')} ({unit})" if unit else name
        print(f"{label:28}{value:>8}{span:>16}{uniform:>10}{centre:>8}")


def _report(folder, results, captions, references, table, config):
    from sat_keras.cnn.resize import PictureResize
    from sat_keras.plots.report import write_report

    paths = dict(zip(table["image_id"], table["image"], strict=True))
    resize = PictureResize(config.image_size, config.resize)
    path = write_report(folder, results, captions, references, paths, resize)
    print(f"The report is {path}.")


def _results_path(arguments, folder, is_training):
    """Where the results go: beside a training's model, of a shared captioner to outputs/."""
    if arguments.out:
        return Path(arguments.out)
    if is_training:
        return folder / f"results-{arguments.split}.json"
    return Path("outputs", f"{folder.name}-{arguments.split}.json")


def _free_path(folder, stem, taken):
    """The path of a figure that no other photo of this command has."""
    names = (f"{stem}.png" if n == 1 else f"{stem}-{n}.png" for n in range(1, len(taken) + 2))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return folder / name


def _draw(captioner, picture, found, path):
    from sat_keras.plots import describe_attention, plot_attention, save_figure

    seen = captioner.encoder.resize_images(picture)
    figure = plot_attention(seen, found.words, found.attention, found.gate, title=found.text)
    save_figure(figure, path, describe_attention(found.words, found.attention))


# Arguments


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, as all others of this program."""

    def error(self, message):
        raise ValueError(f"{message}; see `{self.prog} --help`")


def _parser():
    parser = _Parser(
        prog="sat-keras",
        description="Show, Attend and Tell: image captioning with visual attention.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sat-keras {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for run, add_options, usage in (
        (train, _train_options, "--dataset NAME --out DIR"),
        (evaluate, _evaluate_options, "MODEL"),
        (baseline, _baseline_options, "NAME --dataset NAME"),
        (caption, _caption_options, "PHOTO ..."),
        (features, _features_options, "--dataset NAME"),
        (export, _export_options, "MODEL FOLDER"),
        (score, score_options, "CAPTIONS REFERENCES"),
        (compare, compare_options, "RESULTS RESULTS"),
        (agreement, agreement_options, ""),
    ):
        summary = inspect.getdoc(run)
        command = commands.add_parser(
            run.__name__,
            help=summary[0].lower() + summary.rstrip(".")[1:],
            description=summary,
            usage=f"%(prog)s {usage} [option ...]",
            allow_abbrev=False,
        )
        command.set_defaults(run=run, needs_keras=run not in (score, compare))
        add_options(command)
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def _train_options(parser):
    _add_dataset(parser, required=True)
    _add_preset(parser)
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for the model, its log and its curves"
    )
    _add_features(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="delete another training in the folder --out"
    )
    parser.add_argument(
        "--start",
        metavar="MODEL",
        help="captioner to take the first weights from, such as one with soft attention for "
        "--attention hard: a folder, or the name of a pretrained one (default: random weights)",
    )
    parser.add_argument(
        "--devices",
        type=_positive,
        default=1,
        metavar="N",
        help="GPUs or other devices that share every minibatch (default: 1)",
    )
    _add_config(parser)


def _evaluate_options(parser):
    _add_model(parser, positional=True)
    parser.add_argument(
        "--split", choices=SPLITS, default="dev", help="what to caption (default: dev)"
    )
    _add_dataset(parser, required=False)
    _add_features(parser)
    _add_search(parser)
    parser.add_argument(
        "--out",
        metavar="FILE.json",
        help="file for the scores (default: results-SPLIT.json in the folder MODEL)",
    )
    parser.add_argument("--captions", metavar="FILE.json", help="file for the captions")
    parser.add_argument(
        "--report", metavar="DIR", help="folder for a page of scores, captions and attention"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the results as JSON on stdout, and everything else on stderr",
    )
    parser.add_argument(
        "--boxes",
        nargs="+",
        metavar="PATH",
        help="where the objects are: Flickr30k Entities' folder, or files of COCO's instances "
        "(default: known for scenes alone)",
    )
    parser.add_argument(
        "--occlusion",
        type=_count,
        default=OCCLUSION_PICTURES,
        metavar="N",
        help="pictures to hide regions of, to see what words rest on; 0 for none (default: "
        f"{OCCLUSION_PICTURES})",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="dtype policy to decode in (default: float32, whatever the training's was)",
    )


def _baseline_options(parser):
    parser.add_argument(
        "name",
        metavar="NAME",
        choices=("random", "nearest", "consensus"),
        help="random: a train caption; nearest: one of the train picture that looks most alike; "
        "consensus: of the captions of alike train pictures the one that most others resemble",
    )
    _add_dataset(parser, required=True)
    _add_preset(parser)
    parser.add_argument(
        "--split", choices=SPLITS[1:], default="dev", help="what to caption (default: dev)"
    )
    _add_features(parser)
    parser.add_argument(
        "--neighbours",
        type=_positive,
        nargs="+",
        metavar="K",
        default=[90],
        help="alike train pictures whose captions vote; of several numbers the one with the "
        "highest CIDEr is taken (consensus; default: 90)",
    )
    parser.add_argument(
        "--agreeing",
        type=_positive,
        nargs="+",
        metavar="M",
        default=[125],
        help="captions that a caption must resemble, or several numbers (consensus; default: 125)",
    )
    parser.add_argument("--out", metavar="FILE.json", help="file for the scores")
    parser.add_argument("--captions", metavar="FILE.json", help="file for the captions")
    _add_config(parser, _FEATURE_FIELDS)


def _caption_options(parser):
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="picture file")
    _add_model(parser, positional=False)
    parser.add_argument(
        "--split", choices=SPLITS, help="caption pictures of the model's data set, see --limit"
    )
    _add_dataset(parser, required=False)
    _add_search(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        default=os.path.join("outputs", "captions"),
        help="folder for the attention figures (default: outputs/captions)",
    )


def _features_options(parser):
    _add_dataset(parser, required=True)
    _add_preset(parser)
    parser.add_argument("--split", choices=SPLITS, help="one split only (default: train and dev)")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the cache (default: outputs/features/DATASET)"
    )
    _add_config(parser, _FEATURE_FIELDS)


def _export_options(parser):
    _add_model(parser, positional=True)
    parser.add_argument("folder", metavar="FOLDER", help="folder to write, such as pretrained/NAME")


def _add_dataset(parser, required):
    trained = "" if required else " (default: what the model was trained on)"
    parser.add_argument(
        "--dataset", choices=DATASETS, required=required, help=f"name of the data set{trained}"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="its folder, or the one above it (default: data)"
    )
    parser.add_argument(
        "--splits", metavar="FILE", help="Karpathy's split file, or 'karpathy' to download it"
    )
    parser.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help="only the first N pictures of a split, for a quick try",
    )
    parser.add_argument(
        "--encoder-weights",
        metavar="WEIGHTS",
        help="imagenet (Keras downloads them), a file's path, or none for random weights "
        + ("(default: imagenet; none for scenes)" if required else "(default: as in training)"),
    )
    parser.add_argument(
        "--allow-truncated",
        action="store_true",
        help="use truncated JPEG files as far as they go, rather than stop at them",
    )


def _add_preset(parser):
    parser.add_argument(
        "--preset", choices=PRESETS, help="config to start from (default: the data set's)"
    )


def _add_features(parser):
    parser.add_argument(
        "--features",
        metavar="DIR",
        help="folder of the cache of a frozen encoder's annotation vectors, computed where they "
        "are missing (default: outputs/features/DATASET in training, then the training's)",
    )


def _add_model(parser, positional):
    about = "a training's folder, or the name of a pretrained captioner"
    if positional:
        parser.add_argument("model", metavar="MODEL", help=about)
    else:
        parser.add_argument(
            "--model", metavar="MODEL", default=PRETRAINED, help=f"{about} (default: {PRETRAINED})"
        )


def _add_search(parser):
    parser.add_argument(
        "--beam-size", type=_positive, metavar="N", help="beams of the search (default: as trained)"
    )
    parser.add_argument(
        "--length-penalty",
        type=float,
        metavar="X",
        help="power of the length that a log-probability is divided by (default: as trained)",
    )
    parser.add_argument(
        "--context",
        choices=CHOICES["context"],
        help="what hard attention looks at: the expected context, its likeliest region, or a drawn "
        "one (default: as trained)",
    )


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def _count(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value}")
    return value


def _add_config(parser, names=None):
    """One option for each field of the config, with its type, choices, help and defaults."""
    hints, about = typing.get_type_hints(Config), _field_help()
    group = parser
    for field in dataclasses.fields(Config):
        if names is None and field.name in _GROUPS:
            group = parser.add_argument_group(_GROUPS[field.name])
        if names is None or field.name in names:
            group.add_argument(
                _flag(field.name),
                dest=field.name,
                default=argparse.SUPPRESS,
                help=f"{about.get(field.name, '')} (default: {_defaults(field.name)})",
                **_value_options(field.name, hints[field.name]),
            )


def _flag(name):
    return "--" + name.replace("_", "-")


def _value_options(name, hint):
    """How argparse reads a field of this type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is tuple:
        return {"type": int, "nargs": 2, "metavar": ("ROWS", "COLUMNS")}
    choices = PRECISIONS if name == "precision" else CHOICES.get(name)
    if choices:
        return {"choices": choices}
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    metavar = {int: "N", float: "X", str: "NAME"}[kinds[0]]
    is_optional = type(None) in typing.get_args(hint)
    return {"type": _or_none(kinds[0]) if is_optional else kinds[0], "metavar": metavar}


def _or_none(kind):
    """`kind`, with "none" for None."""

    def parse(text):
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = f"{kind.__name__} or none"
    return parse


def _field_help():
    """What each field of the config is, in plain text."""
    return {
        field.name: field.metadata["description"].rstrip(".").replace("`", "").replace("%", "%%")
        for field in dataclasses.fields(Config)
    }


def _defaults(name):
    """The field's value in each preset, once if all agree."""
    values = {preset: _shown(getattr(getattr(Config, preset)(), name)) for preset in PRESETS}
    if len(set(values.values())) == 1:
        return values[PRESETS[0]]
    return ", ".join(f"{preset} {value}" for preset, value in values.items())


def _shown(value):
    """A default as it is typed."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


# Errors, warnings and the noise of imports


def main(argv=None):
    """Run the command line.

    Args:
        argv: List of arguments without the program's name, `sys.argv`'s by default.

    Returns:
        Integer exit code: 0, 1 if some photos could not be captioned, 2 for an error that the user
        can mend, 130 after Ctrl-C, 141 if whoever read the output stopped reading.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    keep_freed_memory()
    try:
        return _run(argv)
    except BrokenPipeError:
        # As in `sat-keras ... | head -1`. What Python still writes at its exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nStopped. What was finished is kept; the same command goes on.", file=sys.stderr)
        return 130
    except Exception as error:
        if "--debug" in argv:
            raise
        print(f"sat-keras: error: {_sentence(error)}", file=sys.stderr)
        return 2


def program():
    """The program `sat-keras`: `main`, then an end that spares the second of taking all apart.

    Returns:
        What `main` returns.
    """
    ended = []

    def leave():
        if ended:  # otherwise an exception is on its way out
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended[0])

    atexit.register(leave)  # what is registered first runs last, so nothing else is left out
    ended.append(main())
    return ended[0]


def _run(argv):
    """Runs a command; what it printed has left the program when it returns, or exits for --help."""
    try:
        with _short_warnings():
            arguments = _parser().parse_args(argv)
            arguments.command_line = shlex.join(["sat-keras", *argv])
            if arguments.needs_keras:
                _import_quietly()
            return arguments.run(arguments) or 0
    finally:
        sys.stdout.flush()


def _sentence(error):
    """An error in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    is_ours = isinstance(error, (ValueError, OSError, FloatingPointError))
    if not is_ours or len(text) > 1000:
        return f"{text[:300]} ({type(error).__name__}; --debug shows where it comes from)"
    return text


@contextlib.contextmanager
def _short_warnings():
    """Shows this package's warnings as one line and leaves out other packages'."""
    package = str(Path(__file__).resolve().parents[1])

    def show(message, category, filename, *_):
        if str(Path(filename).resolve()).startswith(package):
            print(f"sat-keras: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def _import_quietly():
    """Imports Keras and its backend without what they write to stderr; an error is shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what goes wrong is raised anyway
    os.environ.setdefault("MPLBACKEND", "Agg")
    with _quiet_stderr():
        import sat_keras.training.fit  # noqa: F401


@contextlib.contextmanager
def _quiet_stderr():
    """Holds back what is written to file descriptor 2, by C++ too; shows it after an error."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
