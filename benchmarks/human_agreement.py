"""Kendall's tau between caption metrics and human judgements of Flickr8k captions.

    python -m benchmarks.human_agreement [--data-dir data] [--out results/human-agreement.json]

The protocol is that of SPICE and CLIPScore, so the published figures validate the metrics here:

- `expert`: excludes pairs whose caption is one of the picture's own references; each of the three
  ratings is one observation; tau-c.
- `crowd`: the rating is the share of "yes" answers; a judged caption of the picture itself is
  removed from the picture's references for all captions judged with it, as in CLIPScore's
  `flickr8k_example/download.py`; tau-b.

Each caption is scored separately against the references of its picture. CIDEr's document
frequencies come from the references of all scored pairs. METEOR and SPICE need Java; METEOR takes
most of the ten minutes that everything takes on two cores.
"""

import argparse
import functools
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.judgements import load_judgements
from benchmarks.measure import REPOSITORY
from sat_keras.data.files import write_json
from sat_keras.evaluation import PYTHON_METRICS, available_metrics, ptb_tokenize, score_tokens

# Kendall's tau x 100 in CLIPScore's tables 1 and 2.
PUBLISHED = {
    "expert": {"bleu1": 32.3, "bleu4": 30.8, "rouge_l": 32.3, "meteor": 41.8, "cider": 43.9},
    "crowd": {"bleu1": 17.9, "bleu4": 16.9, "rouge_l": 19.9, "meteor": 22.2, "cider": 24.6},
}
_VARIANTS = {"expert": "c", "crowd": "b"}


def human_agreement(
    data_dir: str | os.PathLike,
    judges: str,
    metrics: Sequence[str] = PYTHON_METRICS,
) -> dict[str, Any]:
    """Correlates caption metrics with human judgements.

    Args:
        data_dir: Folder with `Flickr8k_text.zip`.
        judges: `"expert"` or `"crowd"`.
        metrics: Metrics as in `sat_keras.evaluation.score_captions`.

    Returns:
        Dictionary with `pairs` and `judgements` (counts), `variant` (of Kendall's tau), `tau`
        (x 100, by score) and `published` (CLIPScore's figures).

    Raises:
        ValueError: If `judges` or a metric is unknown or a file cannot be parsed.
        FileNotFoundError: If the archive is missing.

    Reference:
        [Hodosh et al., 2013](https://doi.org/10.1613/jair.3994), the judgements;
        [Anderson et al., 2016](https://arxiv.org/abs/1607.08822), section 4.3, the protocol;
        [Hessel et al., 2021](https://arxiv.org/abs/2104.08718), tables 1 and 2.
    """
    table, captions = load_judgements(data_dir, judges)
    is_own = [pair.caption in captions[pair.image] for pair in table.itertuples()]
    if judges == "expert":
        table = table[~np.array(is_own)]
    references = {image: list(captions[image]) for image in table["image"]}
    for pair in table.itertuples():
        if pair.caption in references[pair.image]:
            references[pair.image].remove(pair.caption)
    tokenize = functools.cache(ptb_tokenize)
    tokens = {image: [tokenize(text) for text in references[image]] for image in references}
    candidates = [tokenize(caption) for caption in table["caption"]]
    each = score_tokens(candidates, [tokens[image] for image in table["image"]], metrics).each()
    ratings = np.array(table["ratings"].tolist())  # (pairs, people)
    variant = _VARIANTS[judges]
    tau = {}
    for name, scores in each.items():
        repeated = np.repeat(scores, ratings.shape[1])
        found = stats.kendalltau(repeated, ratings.ravel(), variant=variant)
        tau[name] = 100 * float(found.statistic)
    return {
        "pairs": len(table),
        "judgements": ratings.size,
        "variant": variant,
        "tau": tau,
        "published": PUBLISHED[judges],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the correlations of both groups of judges and writes them to a JSON file."""
    # Keras is imported only here: `human_agreement` itself needs none.
    from sat_keras.training.folder import hardware, versions

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", metavar="DIR", default="data")
    parser.add_argument(
        "--out", metavar="FILE.json", default=str(REPOSITORY / "results" / "human-agreement.json")
    )
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    metrics, reasons = available_metrics()
    print(*reasons, sep="\n")
    results: dict[str, Any] = {"command": "python -m benchmarks.human_agreement"}
    for judges in PUBLISHED:
        results[judges] = human_agreement(options.data_dir, judges, metrics)
        print_table(judges, results[judges])
    results["seconds"] = round(time.perf_counter() - start, 1)
    write_json(options.out, {**results, "hardware": hardware(), "versions": versions()})
    print(f"Written to {options.out}.")


def print_table(judges: str, found: dict[str, Any]) -> None:
    """Prints the correlations of one group of judges beside the published ones.

    Args:
        judges: `"expert"` or `"crowd"`.
        found: Dictionary that `human_agreement` returns.
    """
    print(f"{judges}: {found['judgements']} judgements, Kendall's tau-{found['variant']} x 100")
    for name, value in found["tau"].items():
        published = found["published"].get(name)
        print(f"  {name:8}{value:7.2f}" + (f"  (published {published})" if published else ""))


if __name__ == "__main__":
    main()
