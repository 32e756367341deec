"""`sat-keras score`: scores captions from a file against references from another."""

import argparse

from sat_keras.cli import options
from sat_keras.cli.files import check_target, write_results
from sat_keras.cli.scores import caption_scores, print_scores

SUMMARY = "Score captions from a file against references from another."
USAGE = "CAPTIONS REFERENCES [REFERENCES ...]"
EXAMPLES = ""


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "captions",
        type=options.path,
        metavar="CAPTIONS",
        help='JSON such as [{"image_id": 1, "caption": "a dog"}, ...] or {"1": "a dog", ...}, JSON '
        "lines, a table (.csv, .tsv, .parquet) or text with one caption per line (.txt)",
    )
    parser.add_argument(
        "references",
        type=options.path,
        nargs="+",
        metavar="REFERENCES",
        help='the same with several captions per picture, {"1": ["a dog", ...], ...}, COCO\'s or '
        "Karpathy's JSON (test split), or several files with one reference per picture",
    )
    group = parser.add_argument_group("options")
    group.add_argument(
        "--subset",
        action="store_true",
        help="leave out the references of pictures without a caption (CIDEr then weights words by "
        "the other pictures)",
    )
    group.add_argument(
        "--out", type=options.path, metavar="FILE.json", help="file for the scores, for compare"
    )
    options.add_overwrite(group)


def run(arguments: argparse.Namespace) -> None:
    """Scores captions as the arguments say."""
    from sat_keras.evaluation import read_candidates, read_references

    check_target("--out", arguments.out, arguments.overwrite)
    candidates = read_candidates(arguments.captions)
    references = read_references(*arguments.references)
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
        write_results(arguments.out, results)
