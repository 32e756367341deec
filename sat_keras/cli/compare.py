"""`sat-keras compare`: tests whether the difference between two models' scores is significant."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from sat_keras.cli import options
from sat_keras.cli.scores import digits

SUMMARY = "Test whether the difference between two models' scores is significant."
USAGE = "RESULTS RESULTS"
EXAMPLES = ""
# Those of `sat_keras.evaluation`, whose import takes longer than the help may.
PROTOCOLS = ("coco", "paper")


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    about = "results of evaluate or score; several seeds of one model joined by commas"
    parser.add_argument("first", type=options.path, metavar="RESULTS", help=about)
    parser.add_argument(
        "second", type=options.path, metavar="RESULTS", help="those of another model"
    )
    group = parser.add_argument_group("options")
    group.add_argument(
        "--protocol", choices=PROTOCOLS, default="coco", help="protocol of BLEU (default: coco)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Compares results as the arguments say."""
    from sat_keras.evaluation.statistics import compare_results

    first, second = map(_read_seeds, (arguments.first, arguments.second))
    found = compare_results(first, second, arguments.protocol)
    for letter, side in (("A", arguments.first), ("B", arguments.second)):
        print(f"{letter}: {side.replace(',', ', ')}")
    _print_table(found)
    if len(first) > 1 or len(second) > 1:
        print("±: standard deviation over a model's seeds; interval and p are of the pictures.")
    significant = [name for name, row in found.items() if row.p_value < 0.05]
    others = [name for name in found if name not in significant]
    print(f"Significant (p < 0.05, pictures resampled): {', '.join(significant) or 'none'}.")
    print(f"Not significant: {', '.join(others) or 'none'}.")
    everything = [name for r in (*first, *second) for name in r["scores"][arguments.protocol]]
    missing = [name for name in dict.fromkeys(everything) if name not in found]
    if missing:
        print(f"Not compared, as not all results have them: {', '.join(missing)}.")


def _print_table(found: Mapping[str, Any]) -> None:
    print(f"{'score':8}{'A':>16}{'B':>16}{'B - A':>9}{'95 %':>18}{'p':>9}")
    for name, row in found.items():
        decimals = digits(name)
        means = (
            f"{value:.{decimals}f}" + ("" if spread is None else f" ± {spread:.{decimals}f}")
            for value, spread in ((row.first, row.first_spread), (row.second, row.second_spread))
        )
        ends = f"{row.low:+.{decimals}f} .. {row.high:+.{decimals}f}"
        shown = "".join(f"{mean:>16}" for mean in means)
        print(f"{name:8}{shown}{row.difference:>+9.{decimals}f}{ends:>18}{row.p_value:>9.4f}")


def _read_seeds(paths: str) -> Sequence[dict]:
    """Reads the results of a model's seeds, whose files are joined by commas."""
    from sat_keras.evaluation.statistics import read_results

    if not all(paths.split(",")):
        raise ValueError(
            f"Results must be a file, or several joined by one comma each. Received: {paths!r}"
        )
    return [read_results(path) for path in paths.split(",")]
