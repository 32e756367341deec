"""`sat-keras evaluate`: captions a split by search and scores captions and attention."""

import argparse
import contextlib
import contextvars
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sat_keras.cli import options
from sat_keras.cli.files import check_target, note, write_captions, write_results
from sat_keras.cli.inputs import (
    dataset_of,
    entities_of,
    label,
    load_splits,
    objects_of,
    search_options,
    words_to_boxes_of,
)
from sat_keras.cli.scores import caption_scores, print_results
from sat_keras.config.fields import NATURAL
from sat_keras.config.training import PRECISIONS

SUMMARY = "Caption a split by search and score it."
USAGE = "MODEL"
EXAMPLES = """
examples:
  sat-keras evaluate outputs/scenes --split test
  sat-keras evaluate flickr8k-soft-vgg16 --dataset flickr8k --report outputs/report
"""
# Occlusion of so many pictures takes about as long as captioning Flickr8k's dev split.
OCCLUSION_PICTURES = 200


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    options.add_model(parser, positional=True)
    parser.add_argument(
        "--with",
        nargs="+",
        type=options.path,
        default=[],
        dest="others",
        metavar="MODEL",
        help="further captioners of the same encoder and vocabulary: an ensemble, which averages "
        "their word distributions in one search",
    )
    group = parser.add_argument_group("options")
    group.add_argument(
        "--split", choices=options.SPLITS, default="dev", help="what to caption (default: dev)"
    )
    options.add_dataset(group, required=False)
    options.add_data_dir(group)
    options.add_data(group, required=False)
    options.add_features(group)
    options.add_search(group)
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="dtype policy of the decoder (default: float32, whatever the training's was)",
    )
    options.add_boxes(group)
    group.add_argument(
        "--occlusion",
        type=options.number(int, NATURAL),
        default=OCCLUSION_PICTURES,
        metavar="N",
        help="pictures to hide regions of, which measures what words depend on; 0 for none "
        f"(default: {OCCLUSION_PICTURES})",
    )
    group.add_argument(
        "--ranking",
        type=options.number(int, NATURAL),
        default=0,
        metavar="N",
        help="pictures to rank by the probability of each one's first reference, which takes time "
        "with the square of N; 0 for none (default: 0)",
    )
    group.add_argument(
        "--pointing",
        nargs="+",
        type=options.path,
        default=[],
        metavar="MODEL",
        help="captioners with attention whose maps are compared with MODEL's word detectors "
        "(system maximum-entropy), where boxes are known",
    )
    _add_output(parser.add_argument_group("output"))


def _add_output(group: options.Group) -> None:
    group.add_argument(
        "--out",
        type=options.path,
        metavar="FILE.json",
        help="file for the scores (default: results-SPLIT.json in the folder MODEL)",
    )
    group.add_argument(
        "--captions", type=options.path, metavar="FILE.json", help="file for the captions"
    )
    group.add_argument(
        "--report",
        type=options.path,
        metavar="DIR",
        help="folder for a page of scores, captions and attention",
    )
    group.add_argument(
        "--json",
        action="store_true",
        help="print the results as JSON on stdout, and everything else on stderr",
    )
    options.add_overwrite(group)


def run(arguments: argparse.Namespace) -> None:
    """Evaluates a captioner as the arguments say."""
    if not arguments.json:
        _evaluate(arguments)
        return
    with contextlib.redirect_stdout(sys.stderr):
        results = _evaluate(arguments)
    print(json.dumps(results, indent=2))


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes and prints the results, and returns them."""
    from sat_keras.analysis import ground_captions
    from sat_keras.cnn.resize import PictureResize
    from sat_keras.training import caption_pictures, references_of
    from sat_keras.training.folder import read_run
    from sat_keras.training.pretrained import pretrained_folder, read_description

    start = time.perf_counter()
    folder = pretrained_folder(arguments.model)
    description = read_description(folder)
    path = _results_path(arguments, folder, is_training=description["vocabulary"] is None)
    _check_arguments(arguments, path, description["config"].system)
    dataset = dataset_of(arguments, description)
    table = load_splits(dataset, (arguments.split,), arguments.limit)
    entities = entities_of(dataset, arguments.boxes)
    objects = objects_of(dataset, table, arguments.boxes)
    cache = arguments.features or dataset["features"]
    captioner, source = _captioner_and_source(arguments, folder, description, table, cache)
    references = references_of(table)
    text = (
        f"Captioning {len(references)} {arguments.split} pictures of {label(dataset['name'])} ..."
    )
    note(arguments, text)
    search = search_options(arguments, captioner.config)
    found = caption_pictures(captioner, source, list(references), **search)
    captions = dict(zip(references, found, strict=True))
    # Search takes the longest, so its captions are written before anything else can fail.
    write_captions(arguments.captions, {i: caption.text for i, caption in captions.items()})
    is_scenes = dataset["name"] == "scenes"
    words_to_boxes = words_to_boxes_of(dataset["name"])
    boxes = None
    if objects is not None:
        resize = PictureResize(captioner.config.image_size, captioner.config.resize)
        boxes = ground_captions(captions, table, objects, words_to_boxes, resize)
    scores = _scores(
        *(captioner, source, captions, table, references, objects, boxes, entities),
        # The train scenes would have to be drawn.
        train=None if is_scenes else _train_captions(dataset),
        is_scenes=is_scenes,
        occlusion=arguments.occlusion,
        ranking=arguments.ranking,
    )
    if arguments.pointing:
        scores["word_maps"] = _word_maps(
            arguments, captioner, source, table, objects, words_to_boxes
        )
    training = read_run(folder) or description["training"]
    has_attention = "attention_scores" in scores
    results = {
        "dataset": label(dataset["name"]),
        "split": arguments.split,
        "pictures": len(references),
        "encoder": captioner.config.encoder,
        "system": captioner.config.system,
        "members": 1 + len(arguments.others),
        "attention": captioner.config.attention if has_attention else None,
        "context": search["context"],
        "beam": search["beam_size"],
        "length_penalty": search["length_penalty"],
        "precision": arguments.precision,
        "parameters": sum(math.prod(weight.shape) for weight in captioner.own_weights),
        **_provenance(arguments, captioner.config, training, time.perf_counter() - start),
        **scores,
    }
    print_results(results)
    write_results(path, results)
    if arguments.report:
        _report(arguments.report, results, captions, references, table, captioner.config, boxes)
    return results


def _results_path(arguments: argparse.Namespace, folder: Path, is_training: bool) -> Path:
    """Returns the results' path: beside a training's model, of a shared captioner in outputs/."""
    if arguments.out:
        return Path(arguments.out)
    if is_training:
        return folder / f"results-{arguments.split}.json"
    return Path("outputs", f"{folder.name}-{arguments.split}.json")


def _check_arguments(arguments: argparse.Namespace, path: Path, system: str) -> None:
    """Raises an error, before any work, for results that cannot be written or computed."""
    if arguments.pointing and system != "maximum-entropy":
        raise ValueError(
            "--pointing compares attention with word detectors: MODEL must be a captioner of the "
            f"system maximum-entropy. Received: {arguments.model}, system {system}"
        )
    check_target("--out", path, arguments.overwrite)
    check_target("--captions", arguments.captions, arguments.overwrite)
    if arguments.report:
        check_target("--report", Path(arguments.report, "index.html"), arguments.overwrite)
        Path(arguments.report).mkdir(parents=True, exist_ok=True)


def _captioner_and_source(
    arguments: argparse.Namespace, folder: Path, description: Any, table: Any, cache: Any
) -> tuple[Any, Any]:
    """Returns a captioner and its input: the feature cache where there is one, else pixels."""
    from sat_keras.data.extraction import extract_features
    from sat_keras.data.loaders import PictureSource
    from sat_keras.training.pretrained import load_pretrained, make_encoder

    truncated = {"allow_truncated": arguments.allow_truncated}
    names = [folder, *arguments.others] if arguments.others else folder
    if description["encoder"]["in_model"] or cache is None:
        captioner = load_pretrained(names, arguments.encoder_weights, dtype=arguments.precision)
        encoder = captioner.encoder
        assert encoder is not None  # the folder has one, or the CNN was just made
        source = PictureSource(
            table, encoder.resize_images, region_mask=encoder.region_mask, **truncated
        )
        return captioner, source
    captioner = load_pretrained(names, encoder=False, dtype=arguments.precision)
    config = captioner.config
    weights = arguments.encoder_weights or description["encoder"]["weights"]
    # The precision of the training's cache, so that it has these annotation vectors.
    encoder, name = make_encoder(config, weights, config.frozen_precision), "annotations"
    if config.split_layer:
        encoder, name = encoder.make_stem(), "features"
    return captioner, extract_features(
        table, encoder, cache, progress=not arguments.quiet, input_name=name, **truncated
    )


def _scores(
    captioner: Any,
    source: Any,
    captions: Any,
    table: Any,
    references: Any,
    objects: Any,
    boxes: Any,
    entities: Path | None,
    train: Sequence[str] | None,
    is_scenes: bool,
    occlusion: int,
    ranking: int,
) -> dict[str, Any]:
    """Returns the scores of the captions and of the attention behind their words."""
    texts = {key: found.text for key, found in captions.items()}
    # METEOR is a process of its own: it runs while attention is scored. Progress needs the context.
    with ThreadPoolExecutor(1) as pool:
        in_context = contextvars.copy_context().run
        of_captions = pool.submit(in_context, caption_scores, texts, references, train)
        of_attention: dict[str, Any] = {}
        if all(found.attention is not None for found in captions.values()):
            of_attention = _attention_scores(
                captioner, source, captions, table, boxes, entities, occlusion, ranking
            )
    results = {**of_captions.result(), **of_attention}
    if is_scenes:
        results["scenes"] = scene_scores(texts, objects, results.get("attention_scores", {}))
    return results


def _attention_scores(
    captioner: Any,
    source: Any,
    captions: Any,
    table: Any,
    boxes: Any,
    entities: Path | None,
    occlusion: int,
    ranking: int,
) -> dict[str, Any]:
    """Returns the scores of the attention behind the words, and behind the phrases of Entities."""
    from sat_keras.analysis import score_attention, score_phrases
    from sat_keras.datasets import load_phrases

    results: dict[str, Any] = {
        "attention_scores": score_attention(
            captioner, source, captions, table, boxes, occlusion, ranking
        )
    }
    sentences = load_phrases(entities, list(captions)) if entities else ()
    if sentences:
        results["phrases"] = score_phrases(captioner, source, captions, table, sentences)
    return results


def _train_captions(dataset: Mapping[str, Any]) -> list[str] | None:
    """Returns the train captions of a data set, `None` if it has no train split."""
    try:
        return load_splits(dataset, ("train",))["caption"].tolist()
    except ValueError:
        return None


def scene_scores(
    captions: Mapping[str, str], objects: Any, attention: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns shares, in percent, of true content words and of attention in the objects' boxes.

    Args:
        captions: Captions by image id.
        objects: Table of the scenes' objects.
        attention: Result of `score_attention`, empty for captions without attention.
    """
    from sat_keras.datasets.scenes import caption_accuracy

    counts = [
        caption_accuracy(captions[image_id], things)
        for image_id, things in objects.groupby("image_id")
    ]
    num_correct, num_words = map(sum, zip(*counts, strict=True))
    return {
        "content_words": num_words,
        "content_word_accuracy": 100 * num_correct / max(num_words, 1),
        **{
            name: attention[name]
            for name in (
                *("object_words", "pointing_accuracy", "pointing_accuracy_uniform"),
                *("attention_mass", "attention_mass_uniform"),
            )
            if name in attention
        },
    }


def _provenance(
    arguments: argparse.Namespace, config: Any, training: Any, seconds: float
) -> dict[str, Any]:
    """Returns how the results were made: the training, where it is known, and the evaluation."""
    from sat_keras.training.folder import hardware, versions

    seconds = round(seconds, 1)
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


def _word_maps(
    arguments: argparse.Namespace,
    captioner: Any,
    source: Any,
    table: Any,
    objects: Any,
    words_to_boxes: Any,
) -> dict[str, Any]:
    """Returns the pointing of the captioner's word detectors beside that of attention."""
    from sat_keras.analysis import score_word_maps
    from sat_keras.training.pretrained import load_pretrained

    if objects is None:
        note(arguments, "The word maps are not compared: no boxes are known (see --boxes).")
        return {}
    with_encoder = source.input_name == "images"
    attending = {
        Path(name).name: load_pretrained(name, arguments.encoder_weights, encoder=with_encoder)
        for name in arguments.pointing
    }
    return score_word_maps(captioner, attending, source, table, objects, words_to_boxes)


def _report(
    folder: str, results: Any, captions: Any, references: Any, table: Any, config: Any, boxes: Any
) -> None:
    from sat_keras.cnn.resize import PictureResize
    from sat_keras.plots import write_report

    paths = dict(zip(table["image_id"], table["image"], strict=True))
    resize = PictureResize(config.image_size, config.resize)
    named = None if boxes is None else dict(zip(captions, boxes, strict=True))
    path = write_report(folder, results, captions, references, paths, resize, named)
    print(f"The report is {path}.")
