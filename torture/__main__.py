"""`python -m torture`: attacks, prints a table, and with --write puts it on the page."""

import argparse
import gc
import importlib
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from torture import jobs, pool, table
from torture.table import Row

ATTACKS = ("kills", "disks", "flips", "hostile", "fuzz")


def main() -> int:
    """Returns 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("attacks", nargs="*", default=ATTACKS, help=f"of {', '.join(ATTACKS)}")
    parser.add_argument("--trials", type=int, default=50, help="attempts of each kind")
    parser.add_argument("--jobs", nargs="+", default=list(jobs.JOBS), help="commands to attack")
    parser.add_argument("--workers", type=int, default=2, help="attempts at once")
    parser.add_argument("--write", action="store_true", help=f"write the table into {table.PAGE}")
    arguments = parser.parse_args()
    start = time.monotonic()
    jobs.set_environment()
    warm_up()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        rows = _attack_all(arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    faults = sum(row.tried - row.held for row in rows)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{sum(row.tried for row in rows)} tried, {faults} did not hold")
    print(f"{time.monotonic() - start:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processor")
    return int(faults > 0)


def warm_up() -> None:
    """Imports what children need. Nothing may use TensorFlow before the fork."""
    for name in ("tensorflow", "keras", "sat_keras.cli", "sat_keras.training.folder"):
        importlib.import_module(name)
    for name in ("sat_keras.plots", "sat_keras.analysis", "sat_keras.datasets.folder"):
        importlib.import_module(name)
    gc.freeze()  # so that collections in children do not copy the parent's memory


def _attack_all(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    needs_jobs = {"kills", "disks", "flips"} & set(arguments.attacks)
    prepared = jobs.prepare(folder / "prepared", arguments.jobs) if needs_jobs else None
    tasks = []
    for name in arguments.attacks:
        tasks += importlib.import_module(f"torture.{name}").tasks(
            prepared, arguments.trials, folder
        )
    rows: dict[str, Row] = {}
    for found in pool.run(tasks, arguments.workers, folder):
        for row in found:
            rows.setdefault(row.attack, Row(row.attack)).merge(row)
            table.print_row(rows[row.attack])
        if arguments.write:
            table.write_page(rows.values())
    return list(rows.values())


if __name__ == "__main__":
    sys.exit(main())
