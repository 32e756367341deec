"""Runs all benchmarks, each in a process of its own, and writes `results.json` and the table.

python -m benchmarks [--only training growth ...]
"""

import argparse
import json
import shlex
import subprocess
import sys
import time

from benchmarks.measure import FOLDER, machine, run_part
from benchmarks.table import update_readme

RESULTS = FOLDER / "results.json"
PARTS = {
    "pytorch": ("benchmarks.training", "--part", "against_pytorch"),
    "roofline": ("benchmarks.training", "--part", "against_roofline"),
    "precision": ("benchmarks.training", "--part", "in_low_precision"),
    "backends": ("benchmarks.training", "--part", "on_other_backends", "--rounds", "4"),
    "features": ("benchmarks.encoding",),
    "starting": ("benchmarks.starting",),
    "loading": ("benchmarks.loading",),
    "searching": ("benchmarks.searching",),
    "growth": ("benchmarks.growth",),
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(arguments)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    failed = []
    for name in options.only:
        start = time.perf_counter()
        try:
            results |= run_part(*PARTS[name])
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
            continue
        results.setdefault("minutes", {})[name] = round((time.perf_counter() - start) / 60, 1)
        print(f"{name}: {results['minutes'][name]} minutes", flush=True)
        RESULTS.write_text(json.dumps(results | machine_of_results(), indent=1) + "\n")
        results = json.loads(RESULTS.read_text())
    update_readme(results)
    return 1 if failed else 0


def machine_of_results():
    """What was run where."""
    return {"machine": machine(), "command": shlex.join(["python", "-m", "benchmarks"])}


if __name__ == "__main__":
    sys.exit(main())
