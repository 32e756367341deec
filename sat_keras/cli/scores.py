"""The commands of the command line that need no captioner: `score`, `compare` and `agreement`."""

import time
from pathlib import Path

from sat_keras.evaluation.picture_scores import PROTOCOLS


def score(arguments):
    """Score captions from a file against references from another."""
    from sat_keras.evaluation.caption_files import read_candidates, read_references

    candidates = read_candidates(arguments.captions)
    references = read_references(arguments.references)
    if arguments.subset:
        image_ids = {image_id for image_id, _ in candidates}
        references = {i: captions for i, captions in references.items() if i in image_ids}
    results = {
        "pictures": len(references),
        "command": arguments.command_line,
        **caption_scores(candidates, references),
    }
    print_scores(results)
    if arguments.out:
        _write(arguments.out, results)


def compare(arguments):
    """Tell whether the difference between two models' scores is real."""
    from sat_keras.evaluation.comparison import compare_results

    first, second = map(_read_seeds, (arguments.first, arguments.second))
    found = compare_results(first, second, arguments.protocol)
    for letter, side in (("A", arguments.first), ("B", arguments.second)):
        print(f"{letter}: {side.replace(',', ', ')}")
    print(f"{'score':8}{'A':>16}{'B':>16}{'B - A':>9}{'95 %':>18}{'p':>9}")
    for name, row in found.items():
        digits = _digits(name)
        means = (
            f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
            for value, spread in ((row.first, row.first_spread), (row.second, row.second_spread))
        )
        ends = f"{row.low:+.{digits}f} .. {row.high:+.{digits}f}"
        shown = "".join(f"{mean:>16}" for mean in means)
        print(f"{name:8}{shown}{row.difference:>+9.{digits}f}{ends:>18}{row.p_value:>9.4f}")
    if len(first) > 1 or len(second) > 1:
        print("±: standard deviation over a model's seeds; interval and p are of the pictures.")
    real = [name for name, row in found.items() if row.p_value < 0.05]
    chance = [name for name in found if name not in real]
    print(f"More than the choice of the pictures explains (p < 0.05): {', '.join(real) or 'none'}.")
    print(f"Not told from chance: {', '.join(chance) or 'none'}.")
    everything = [name for r in (*first, *second) for name in r["scores"][arguments.protocol]]
    missing = [name for name in dict.fromkeys(everything) if name not in found]
    if missing:
        print(f"Not compared, as not all results have them: {', '.join(missing)}.")


def agreement(arguments):
    """Measure how far the metrics agree with people's judgements of Flickr8k's captions."""
    from benchmarks.human_agreement import PUBLISHED, human_agreement
    from sat_keras.evaluation.scores import available_metrics
    from sat_keras.training.folder import hardware, versions

    start = time.perf_counter()
    metrics, reasons = available_metrics()
    print(*reasons, sep="\n")
    results = {"command": arguments.command_line}
    for judges in PUBLISHED:
        found = human_agreement(arguments.data_dir, judges, metrics)
        results[judges] = found
        print(f"{judges}: {found['judgements']} judgements, Kendall's tau-{found['variant']} x 100")
        for name, value in found["tau"].items():
            published = found["published"].get(name)
            print(f"  {name:8}{value:7.2f}" + (f"  (published {published})" if published else ""))
    results["seconds"] = round(time.perf_counter() - start, 1)
    _write(arguments.out, {**results, "hardware": hardware(), "versions": versions()})


def score_options(parser):
    """Add the options of `score`.

    Args:
        parser: The command's parser.
    """
    parser.add_argument(
        "captions", metavar="CAPTIONS", help='JSON: [{"image_id": ..., "caption": ...}, ...]'
    )
    parser.add_argument(
        "references",
        metavar="REFERENCES",
        help="JSON: the same with several captions a picture, COCO's annotations, or "
        '{"image id": [caption, ...], ...}',
    )
    parser.add_argument(
        "--subset",
        action="store_true",
        help="leave out the references of pictures without a caption (CIDEr then weights words by "
        "the pictures that stay)",
    )
    parser.add_argument("--out", metavar="FILE.json", help="file for the scores, for compare")


def compare_options(parser):
    """Add the options of `compare`.

    Args:
        parser: The command's parser.
    """
    about = "results of evaluate or score; several seeds of one model joined by commas"
    parser.add_argument("first", metavar="RESULTS", help=about)
    parser.add_argument("second", metavar="RESULTS", help="those of another model")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="coco", help="whose BLEU (default: coco)"
    )


def agreement_options(parser):
    """Add the options of `agreement`.

    Args:
        parser: The command's parser.
    """
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        default="data",
        help="folder with Flickr8k_text.zip, or the one above it (default: data)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE.json",
        default=str(Path("outputs", "human-agreement.json")),
        help="file for the figures (default: outputs/human-agreement.json)",
    )


def caption_scores(candidates, references):
    """Score captions by all metrics that run here, and say in a line what does not.

    Args:
        candidates: As `score_captions` takes them.
        references: The same.

    Returns:
        Dictionary of the part of the results that is about captions: `scores`, `intervals`,
        `caption_statistics`, and `references` and `picture_scores` for `compare`.
    """
    from sat_keras.evaluation.scores import (
        available_metrics,
        caption_statistics,
        references_digest,
        score_pictures,
    )

    metrics, reasons = available_metrics()
    for reason in reasons:
        print(reason)
    scored = score_pictures(candidates, references, metrics)
    return {
        "scores": scored.scores(),
        "intervals": scored.intervals(),
        "caption_statistics": caption_statistics(candidates),
        "references": references_digest(references),
        "picture_scores": scored.encode(),
    }


def print_scores(results):
    """Print the scores as a table, each above its 95 % interval, and the captions' statistics.

    Args:
        results: Dictionary with what `caption_scores` returns.
    """
    names = list(next(iter(results["scores"].values())))
    print("protocol" + "".join(f"{name:>14}" for name in names))
    for protocol, scores in results["scores"].items():
        values = [f"{scores[name]:.{_digits(name)}f}" for name in names]
        ends = results["intervals"][protocol]
        spans = ["-".join(f"{end:.{_digits(name)}f}" for end in ends[name]) for name in names]
        print(f"{protocol:8}" + "".join(f"{value:>14}" for value in values))
        print(f"{'  95 %':8}" + "".join(f"{span:>14}" for span in spans))
    found = results["caption_statistics"]
    print(
        f"{found['captions']} captions of {found['mean_length']:.1f} words, "
        f"{found['vocabulary']} different words, {100 * found['repeated']:.1f} % repeated, "
        f"{100 * found['unknown']:.1f} % of the words <unk>"
    )


def _read_seeds(paths):
    """The results of a model's seeds, whose files are joined by commas."""
    from sat_keras.evaluation.comparison import read_results

    if not all(paths.split(",")):
        raise ValueError(
            f"Results must be a file, or several joined by one comma each. Received: {paths!r}"
        )
    return [read_results(path) for path in paths.split(",")]


def _digits(name):
    """How many decimals a score is shown with."""
    return 3 if name == "cider" else 2


def _write(path, results):
    from sat_keras.data.files import write_json

    write_json(path, results)
    print(f"Written to {path}.")
