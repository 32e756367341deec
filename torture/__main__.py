"""`python -m torture`: attacks, prints a table, and with --write puts it on the page."""

import argparse
import importlib
import shutil
import sys
import tempfile
from pathlib import Path

from torture import jobs, table

ATTACKS = ("kills", "disks", "flips", "hostile", "fuzz")


def main() -> int:
    """Returns 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("attacks", nargs="*", default=ATTACKS, help=f"of {', '.join(ATTACKS)}")
    parser.add_argument("--trials", type=int, default=50, help="attempts of each kind")
    parser.add_argument("--jobs", nargs="+", default=list(jobs.JOBS), help="commands to attack")
    parser.add_argument("--write", action="store_true", help=f"write the table into {table.PAGE}")
    arguments = parser.parse_args()
    jobs.set_environment()
    warm_up()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        rows = _attack_all(arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.write:
        table.write_page(rows)
    faults = sum(row.tried - row.held for row in rows)
    print(f"{sum(row.tried for row in rows)} tried, {faults} did not hold")
    return int(faults > 0)


def warm_up() -> None:
    """Imports what children need. Nothing may use TensorFlow before the fork."""
    for name in ("tensorflow", "keras", "sat_keras.cli", "sat_keras.training.folder"):
        importlib.import_module(name)
    for name in ("sat_keras.plots", "sat_keras.analysis", "sat_keras.datasets.folder"):
        importlib.import_module(name)


def _attack_all(arguments: argparse.Namespace, folder: Path) -> list[table.Row]:
    needs_jobs = {"kills", "disks", "flips"} & set(arguments.attacks)
    prepared = jobs.prepare(folder / "prepared", arguments.jobs) if needs_jobs else None
    rows = []
    for name in arguments.attacks:
        module = importlib.import_module(f"torture.{name}")
        for row in module.attack(prepared, arguments.trials, folder):
            table.print_row(row)
            rows.append(row)
            if arguments.write:
                table.write_page([row])
    return rows


if __name__ == "__main__":
    sys.exit(main())
