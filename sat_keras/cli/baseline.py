"""`sat-keras baseline`: scores captions of other pictures, templates and re-ranked sentences."""

import argparse
import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
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

SUMMARY = "Score captions that no captioner wrote, or that need more than one: what to beat."
USAGE = "NAME --dataset NAME"
EXAMPLES = ""
NAMES = ("people", "random", "nearest", "consensus", "embedding", "templates", "reranked")


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "name",
        metavar="NAME",
        choices=NAMES,
        help="people: one caption of each picture against its others; random: a train caption; "
        "nearest: a caption of the most similar train picture; "
        "consensus: of the captions of similar train pictures, the one most similar to the others; "
        "embedding: the train caption nearest in a visual-semantic embedding, which is trained; "
        "templates: detected words in a pattern (needs --detectors); reranked: of a captioner's "
        "likeliest sentences the one of the best tuned score (needs --detectors)",
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
        help="folder of the embedding, which is trained once (embedding, reranked; default: "
        "outputs/DATASET-baselines)",
    )
    group.add_argument(
        "--detectors",
        type=options.path,
        metavar="MODEL",
        help="captioner whose word detectors, or sentences, are read, trained by `train --system "
        "maximum-entropy` (templates, reranked)",
    )
    group.add_argument(
        "--sentences",
        type=options.number(int, COUNT),
        metavar="M",
        default=100,
        help="likeliest sentences of a picture to choose from (reranked; default: 100)",
    )
    group.add_argument(
        "--tuning",
        type=options.number(int, COUNT),
        metavar="N",
        default=500,
        help="train pictures, drawn at random, to tune the score on (reranked; default: 500)",
    )
    group.add_argument("--out", type=options.path, metavar="FILE.json", help="file for the scores")
    group.add_argument(
        "--captions", type=options.path, metavar="FILE.json", help="file for the captions"
    )
    options.add_overwrite(group)
    options.add_fields(group, options.FEATURE_FIELDS)


def run(arguments: argparse.Namespace) -> None:
    """Scores a baseline as the arguments say."""
    from sat_keras.baselines.retrieval import people_captions
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
    candidates: Mapping[str, str]
    settings: dict[str, Any] = {}
    training: dict[str, Any] = {}
    if arguments.name == "people":
        candidates, references = people_captions(references, config.seed)
    else:
        candidates, settings, training = _captions(
            arguments, config, dataset, table, train, references
        )
    results = {
        "dataset": label(dataset["name"]),
        "split": arguments.split,
        "pictures": len(references),
        "encoder": None if arguments.name in ("people", "random") else config.encoder,
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
        **caption_scores(candidates, references, table["caption"]),
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
    from sat_keras.data.extraction import extract_features
    from sat_keras.training.pretrained import make_encoder

    if arguments.name == "random":
        return baselines.random_captions(list(references), train, config.seed), {}, {}
    encoder = make_encoder(config, encoder_weights(arguments, config), config.frozen_precision)
    cache = extract_features(
        load_splits(dataset, ("train", arguments.split)),
        encoder,
        arguments.features or default_features(dataset["name"]),
        allow_truncated=arguments.allow_truncated,
        progress=not arguments.quiet,
    )
    if arguments.name in ("embedding", "reranked"):
        config = with_encoder_sizes(config, encoder, arguments)
    if arguments.name == "embedding":
        return _embedding(arguments, config, dataset, table, cache, list(references))
    if arguments.name == "templates":
        return _templates(arguments, table, cache, list(references))
    if arguments.name == "reranked":
        return _reranked(arguments, config, dataset, table, cache, list(references))
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
    """Returns the captions nearest in the embedding."""
    from sat_keras.baselines.embedding_retrieval import embedding_captions

    model, tokenizer, seconds = _trained_embedding(arguments, config, dataset, table, cache)
    found = embedding_captions(
        model, tokenizer, cache, image_ids, table["caption"], config.max_length
    )
    return found, {}, {"parameters": model.count_params(), "training": {"seconds": seconds}}


def _trained_embedding(
    arguments: argparse.Namespace, config: Any, dataset: Any, table: Any, cache: Any
) -> tuple[Any, Any, float]:
    """Returns embedding, tokenizer and seconds of training; trains unless its file exists."""
    import keras

    from sat_keras.baselines.embedding_retrieval import train_embedding
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
    return model, tokenizer, read_json(record)["seconds"]


def _templates(
    arguments: argparse.Namespace, table: Any, cache: Any, image_ids: Any
) -> tuple[Mapping[str, str], dict[str, Any], dict[str, Any]]:
    """Returns sentences of detected words."""
    from sat_keras.baselines import Templates
    from sat_keras.data.tokenizer import normalize
    from sat_keras.training.captioning import annotate_pictures

    captioner, seconds = _captioner(arguments)
    templates = Templates(caption.split() for caption in normalize(list(table["caption"])))
    annotations = annotate_pictures(captioner, cache, image_ids)
    found = captioner.detector.predict(annotations, verbose=0)["probabilities"]
    words = captioner.detector.words
    captions = {
        image_id: templates.caption(dict(zip(words, map(float, row), strict=True)))
        for image_id, row in zip(image_ids, found, strict=True)
    }
    parameters = captioner.detector.count_params()
    return captions, {}, {"parameters": parameters, "training": {"seconds": seconds}}


def _captioner(arguments: argparse.Namespace) -> tuple[Any, float | None]:
    """Returns the captioner that `--detectors` names, and its seconds of training if known."""
    from sat_keras.baselines import MaximumEntropy
    from sat_keras.training.folder import read_run
    from sat_keras.training.pretrained import load_pretrained, pretrained_folder

    if arguments.detectors is None:
        raise ValueError(
            f"The baseline {arguments.name} needs word detectors; train them by `sat-keras train "
            "--system maximum-entropy` and name its folder with --detectors. "
            "Received: --detectors none"
        )
    captioner = load_pretrained(arguments.detectors, encoder=False)
    if not isinstance(captioner, MaximumEntropy):
        raise ValueError(
            "--detectors must name a captioner of the system maximum-entropy. "
            f"Received: {arguments.detectors}, system {captioner.config.system}"
        )
    return captioner, read_run(pretrained_folder(arguments.detectors)).get("seconds")


def _reranked(
    arguments: argparse.Namespace,
    config: Any,
    dataset: Any,
    table: Any,
    cache: Any,
    image_ids: Sequence[str],
) -> tuple[Mapping[str, str], dict[str, Any], dict[str, Any]]:
    """Returns the captions of the best score, which is tuned on train pictures."""
    from sat_keras.baselines import reranking
    from sat_keras.training import references_of

    captioner, seconds = _captioner(arguments)
    embedding, tokenizer, of_embedding = _trained_embedding(
        arguments, config, dataset, table, cache
    )
    start = time.perf_counter()
    train = references_of(table)
    drawn = random.Random(config.seed).sample(list(train), min(arguments.tuning, len(train)))

    def candidates(pictures: Sequence[str]) -> reranking.Candidates:
        batches = _annotations(captioner, cache, pictures)
        return reranking.find_candidates(
            captioner, embedding, tokenizer, batches, arguments.sentences
        )

    lists = candidates(drawn)
    statistics = reranking.sentence_statistics(lists, [train[image_id] for image_id in drawn])
    weights, bleu = reranking.tune_weights(lists.features, statistics, seed=config.seed)
    of_tuning = time.perf_counter() - start
    captions = candidates(image_ids).best(weights)
    settings = {
        "sentences": arguments.sentences,
        "tuning_pictures": len(drawn),
        "tuning_bleu4": round(bleu, 4),
        "weights": dict(zip(reranking.FEATURES, weights.round(6).tolist(), strict=True)),
    }
    parameters = captioner.count_params() + embedding.count_params() + weights.size
    total = round((seconds or 0) + of_embedding + of_tuning, 1)
    training = {"parameters": parameters, "training": {"seconds": total}}
    return dict(zip(image_ids, captions, strict=True)), settings, training


def _annotations(captioner: Any, cache: Any, image_ids: Sequence[str]) -> Iterator[Any]:
    """Yields the annotation vectors of 64 pictures at a time."""
    from sat_keras.backend.progress import track
    from sat_keras.training.captioning import SEARCH_BATCH, annotate_pictures

    with track(len(image_ids), "Sentences") as bar:
        for start in range(0, len(image_ids), SEARCH_BATCH):
            part = image_ids[start : start + SEARCH_BATCH]
            yield annotate_pictures(captioner, cache, part)
            bar.update(len(part))


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
