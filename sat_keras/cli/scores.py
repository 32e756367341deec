"""Scores of captions: computed, and printed as tables."""

from collections.abc import Mapping
from typing import Any


def caption_scores(
    candidates: Any, references: Mapping[str, Any], train: Any = None
) -> dict[str, Any]:
    """Scores captions by all metrics that run here, and prints which do not.

    Args:
        candidates: As `score_captions` takes them.
        references: The same.
        train: Optional captions that the model was trained on, to count the novel ones.

    Returns:
        Dictionary of the part of the results that is about captions: `scores`, `intervals`,
        `caption_statistics`, and `references` and `picture_scores` for `compare`.
    """
    from sat_keras.evaluation import (
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
        "caption_statistics": caption_statistics(candidates, train),
        "references": references_digest(references),
        "picture_scores": scored.encode(),
    }


def print_results(results: Mapping[str, Any]) -> None:
    """Prints the scores of captions and, where they are known, of attention.

    Args:
        results: What `evaluate` writes as JSON.
    """
    print_scores(results)
    if "scenes" in results:
        print(f"content words that are true: {results['scenes']['content_word_accuracy']:.1f} %")
    if "attention_scores" in results:
        _print_attention(results["attention_scores"])
    for kind, scores in results.get("phrases", {}).items():
        _print_phrases(kind, scores)
    if results.get("word_maps"):
        print("maps of the words of references that a detector knows")
    for name, scores in results.get("word_maps", {}).items():
        print(name)
        _print_attention(scores)


def print_scores(results: Mapping[str, Any]) -> None:
    """Prints the scores as a table, each above its 95 % interval, and the captions' statistics.

    Args:
        results: Dictionary with what `caption_scores` returns.
    """
    names = list(next(iter(results["scores"].values())))
    print("protocol" + "".join(f"{name:>14}" for name in names))
    for protocol, scores in results["scores"].items():
        values = [f"{scores[name]:.{digits(name)}f}" for name in names]
        ends = results["intervals"][protocol]
        spans = ["-".join(f"{end:.{digits(name)}f}" for end in ends[name]) for name in names]
        print(f"{protocol:8}" + "".join(f"{value:>14}" for value in values))
        print(f"{'  95 %':8}" + "".join(f"{span:>14}" for span in spans))
    found = results["caption_statistics"]
    print(
        f"{found['captions']} captions of {found['mean_length']:.1f} words, "
        f"{found['vocabulary']} different words, {100 * found['repeated']:.1f} % repeated, "
        f"{100 * found['unknown']:.1f} % of the words <unk>"
        + (f", {100 * found['novel']:.1f} % no train caption" if "novel" in found else "")
    )


def digits(name: str) -> int:
    """Returns the number of decimals that a score is shown with."""
    return 3 if name == "cider" else 2


def _print_attention(scores: Mapping[str, Any]) -> None:
    """Prints the scores of attention, one a line, with intervals and baselines."""
    from sat_keras.analysis.statistics import BASELINES, unit_of

    print(f"{'attention':34}{'mean':>8}{'95 %':>16}{'uniform':>10}{'centre':>8}{'mean map':>10}")
    for name, ends in scores["intervals"].items():
        if name.endswith(BASELINES):
            continue
        unit = unit_of(name)
        decimals = 1 if unit == "%" else 3
        numbers = [scores[name], *(scores.get(f"{name}{base}") for base in BASELINES)]
        value, *baselines = ("" if x is None else f"{x:.{decimals}f}" for x in numbers)
        span = "-".join(f"{end:.{decimals}f}" for end in ends)
        label = f"{name.replace('_', ' ')} ({unit})" if unit else name
        uniform, centre, mean_map = baselines
        print(f"{label:34}{value:>8}{span:>16}{uniform:>10}{centre:>8}{mean_map:>10}")


def _print_phrases(kind: str, scores: Mapping[str, Any]) -> None:
    """Prints the attention on phrases, of all types of entities and of each, one a line."""
    from sat_keras.analysis.statistics import BASELINES

    print(f"{scores['phrases']} phrases of {kind.removesuffix('s')} captions")
    for name, ends in scores["intervals"].items():
        measure, _, entity = name.partition(":")
        if measure != "phrase_mass":
            continue
        suffix = f":{entity}" if entity else ""
        bases = (scores.get(f"{measure}{base}{suffix}") for base in BASELINES)
        uniform, centre, mean_map = ("" if x is None else f"{x:.1f}" for x in bases)
        label = f"mass in phrases{f', {entity}' if entity else ''} (%)"
        span = f"{ends[0]:.1f}-{ends[1]:.1f}"
        print(f"{label:34}{scores[name]:>8.1f}{span:>16}{uniform:>10}{centre:>8}{mean_map:>10}")
