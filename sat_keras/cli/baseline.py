"""`sat-keras baseline`: scores captions of other pictures, and those of templates."""

import argparse
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sat_keras.cli import options
from sat_keras.cli.evaluate import scene_scores
from sat_keras.cli.files import check_target, write_captions, write_results
from sat_keras.cli.inputs import (
    dataset_of,
    default_features,
    encoder_weights,
    label,
    load_splits,
    with_encoder_sizes,
)
from sat_keras.cli.scores import caption_scores, print_results
from sat_keras.config.fields import COUNT

SUMMARY = "Score captions that no captioner wrote: what a model must beat."
USAGE = "NAME --dataset NAME"
EXAMPLES = ""
NAMES = ("random", "nearest", "consensus", "embedding", "templates")


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "name",
        metavar="NAME",
        choices=NAMES,
        help="random: a train caption; nearest: a caption of the most similar train picture; "
        "consensus: of the captions of similar train pictures, the one most similar to the others; "
        "embedding: the train caption nearest in a visual-semantic embedding, which is trained; "
        "templates: detected words in a pattern (needs --detectors)",
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
    group.add_argument(
        "--models",
        type=options.path,
        metavar="DIR",
        help="folder of what is trained, once (embedding; default: outputs/DATASET-baselines)",
    )
    group.add_argument(
        "--detectors",
        type=options.path,
        metavar="MODEL",
        help="captioner whose word detectors are read, trained by `train --system maximum-entropy` "
        "(templates)",
    )
    group.add_argument("--out", type=options.path, metavar="FILE.json", help="file for the scores")
    group.add_argument(
        "--captions", type=options.path, metavar="FILE.json", help="file for the captions"
    )
    options.add_overwrite(group)
    options.add_fields(group, options.FEATURE_FIELDS)


def run(arguments: argparse.Namespace) -> None:
    """Scores a baseline as the arguments say."""
    from sat_keras.datasets import load_objects
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
    table = load_splits(dataset, ("train",))
    train = references_of(table)
    references = references_of(load_splits(dataset, (arguments.split,)))
    candidates, settings, training = _captions(arguments, config, dataset, table, train, references)
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
        **training,
        **caption_scores(candidates, references),
    }
    if dataset["name"] == "scenes":
        objects = load_objects(load_splits(dataset, (arguments.split,)))
        results["scenes"] = scene_scores(candidates, objects, {})
    print_results(results)
    write_results(out, results)
    write_captions(arguments.captions, candidates)


def _captions(
    arguments: argparse.Namespace,
    config: Any,
    dataset: Any,
    table: Any,
    train: Any,
    references: Any,
) -> tuple[Mapping[str, str], dict[str, Any], dict[str, Any]]:
    """Returns a baseline's captions of the pictures of `references`, its settings and training."""
    from sat_keras.baselines import retrieval as baselines
    from sat_keras.data.features import extract_features
    from sat_keras.training.pretrained import make_encoder

    if arguments.name == "random":
        return baselines.random_captions(list(references), train, config.seed), {}, {}
    encoder = make_encoder(config, encoder_weights(arguments, config), config.precision)
    cache = extract_features(
        load_splits(dataset, ("train", arguments.split)),
        encoder,
        arguments.features or default_features(dataset["name"]),
        allow_truncated=arguments.allow_truncated,
        progress=not arguments.quiet,
    )
    if arguments.name == "embedding":
        config = with_encoder_sizes(config, encoder, arguments)
        return _embedding(arguments, config, dataset, table, cache, list(references))
    if arguments.name == "templates":
        return _templates(arguments, table, cache, list(references))
    most = 1 if arguments.name == "nearest" else max(arguments.neighbours)
    neighbours = baselines.nearest_pictures(cache, list(references), list(train), most)
    if arguments.name == "nearest":
        return baselines.nearest_captions(neighbours, train, config.seed), {}, {}
    settings = list(itertools.product(arguments.neighbours, arguments.agreeing))
    found = baselines.consensus_captions(neighbours, train, settings)
    return *_best_setting(found, references), {}


def _embedding(
    arguments: argparse.Namespace,
    config: Any,
    dataset: Any,
    table: Any,
    cache: Any,
    image_ids: Any,
) -> tuple[Mapping[str, str], dict[str, Any], dict[str, Any]]:
    """Returns the captions nearest in the embedding, which is trained unless its file exists."""
    import keras

    from sat_keras.baselines.embedding_retrieval import embedding_captions, train_embedding
    from sat_keras.captioning.presets import save_model
    from sat_keras.data.files import read_json, write_json
    from sat_keras.data.tokenizer import Tokenizer

    folder = Path(arguments.models or f"outputs/{label(dataset['name'])}-baselines")
    path, record = folder / "embedding.keras", folder / "embedding.json"
    tokenizer = Tokenizer.from_captions(table["caption"], config.vocabulary_size, config.min_count)
    folder.mkdir(parents=True, exist_ok=True)
    if not record.is_file():
        start = time.perf_counter()
        save_model(train_embedding(table, tokenizer, cache, config), path)
        write_json(record, {"seconds": round(time.perf_counter() - start, 1)})
    model = keras.saving.load_model(path, compile=False)
    if model.vocabulary_size != tokenizer.vocabulary_size:
        raise ValueError(
            f"The embedding {path} is of other captions; name another folder with --models. "
            f"Received: {model.vocabulary_size} words, expected {tokenizer.vocabulary_size}"
        )
    found = embedding_captions(
        model, tokenizer, cache, image_ids, table["caption"], config.max_length
    )
    training = {"parameters": model.count_params(), "training": read_json(record)}
    return found, {}, training


def _templates(
    arguments: argparse.Namespace, table: Any, cache: Any, image_ids: Any
) -> tuple[Mapping[str, str], dict[str, Any], dict[str, Any]]:
    """Returns sentences of detected words."""
    from sat_keras.baselines import MaximumEntropy, Templates
    from sat_keras.data.tokenizer import normalize
    from sat_keras.training.captioning import annotate_pictures
    from sat_keras.training.folder import read_run
    from sat_keras.training.pretrained import load_pretrained, pretrained_folder

    if arguments.detectors is None:
        raise ValueError(
            "Templates need word detectors; train them by `sat-keras train --system "
            "maximum-entropy` and name its folder with --detectors. Received: --detectors none"
        )
    captioner = load_pretrained(arguments.detectors, encoder=False)
    if not isinstance(captioner, MaximumEntropy):
        raise ValueError(
            "--detectors must name a captioner of the system maximum-entropy. "
            f"Received: {arguments.detectors}, system {captioner.config.system}"
        )
    templates = Templates(caption.split() for caption in normalize(list(table["caption"])))
    annotations = annotate_pictures(captioner, cache, image_ids)
    found = captioner.detector.predict(annotations, verbose=0)["probabilities"]
    words = captioner.detector.words
    captions = {
        image_id: templates.caption(dict(zip(words, map(float, row), strict=True)))
        for image_id, row in zip(image_ids, found, strict=True)
    }
    run = read_run(pretrained_folder(arguments.detectors))
    parameters = captioner.detector.count_params()
    return captions, {}, {"parameters": parameters, "training": {"seconds": run.get("seconds")}}


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
