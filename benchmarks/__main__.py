"""Runs every benchmark in its own process and writes `results.json` and the tables.

    python -m benchmarks [training searching ...]

A part that fails, or is not over when the time is up, leaves the results of the others, and its own
of before, as they are. Results of another machine are kept beside them, in a file and a column of
their own.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import time

from benchmarks.measure import FOLDER, machine, run_part
from benchmarks.table import others, update_readme

RESULTS = FOLDER / "results.json"
LIMIT = 15 * 60  # seconds for all of it
# The most important ones first.
PARTS = {
    "training": ("benchmarks.training", "--part", "side_by_side"),
    "strongest": ("benchmarks.training", "--part", "against_the_strongest", "--rounds", "8"),
    "searching": ("benchmarks.searching",),
    "strongest_search": ("benchmarks.searching", "--strongest"),
    "search_roofline": ("benchmarks.searching", "--roofline", "--rounds", "5"),
    "loading": ("benchmarks.loading",),
    "features": ("benchmarks.encoding",),
    "starting": ("benchmarks.starting",),
    "profile": ("benchmarks.profile",),
    "backends": ("benchmarks.training", "--part", "on_other_backends", "--rounds", "4"),
    "growth": ("benchmarks.growth",),
}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    chosen = parser.parse_args(arguments).parts or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"A part must be one of {', '.join(PARTS)}. Received: {', '.join(unknown)}")
    results = results_here(machine())
    failed, end = [], time.perf_counter() + LIMIT
    for name in chosen:
        start = time.perf_counter()
        try:
            found = run_part(*PARTS[name], timeout=max(1, end - start))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        minutes = round((time.perf_counter() - start) / 60, 1)
        print(f"{name}: {minutes} minutes", flush=True)
        keep(results, name, found, minutes)
    return 1 if failed else 0


def results_here(here):
    """Returns this machine's earlier results; renames `results.json` of another machine."""
    if RESULTS.is_file():
        there = json.loads(RESULTS.read_text())["machine"]
        if there != here:
            RESULTS.rename(file_of(there))
    if not RESULTS.is_file():
        if not file_of(here).is_file():
            return {}
        file_of(here).rename(RESULTS)
    return json.loads(RESULTS.read_text())


def file_of(name):
    """Returns the results file of a machine other than the latest."""
    return RESULTS.with_name(f"results-{re.sub('[^a-z0-9]+', '-', name.lower())}.json")


def keep(results, name, found, minutes):
    """Merges a part's results into the file and the tables."""
    results |= found
    results.setdefault("minutes", {})[name] = minutes
    results |= {"machine": machine(), "command": shlex.join(["python", "-m", "benchmarks"])}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    update_readme(results, others(RESULTS.parent))


if __name__ == "__main__":
    sys.exit(main())
