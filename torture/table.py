"""The results: a row an attack, printed and written into `docs/reliability.md`."""

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- torture: begin -->", "<!-- torture: end -->"
_HEAD = "| Attack | Tried | Held | Found |\n| --- | ---: | ---: | --- |\n"


@dataclasses.dataclass
class Row:
    """Result of an attack.

    Attributes:
        attack: What was done to what.
        tried: Integer, number of attempts.
        held: Integer, attempts after which everything was as it should be.
        found: List of what was not, one sentence each.
        skipped: Reason if nothing was tried.
        seconds: Float, wall time of the tasks that end with this row.
    """

    attack: str
    tried: int = 0
    held: int = 0
    found: list[str] = dataclasses.field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0

    def add(self, fault: str | None) -> None:
        """Counts an attempt, which held unless there is a fault."""
        self.tried += 1
        self.held += fault is None
        if fault is not None:
            self.found.append(fault)

    def merge(self, other: "Row") -> None:
        """Adds the attempts of another row of this attack."""
        self.tried += other.tried
        self.held += other.held
        self.found += other.found
        self.skipped = self.skipped or other.skipped
        self.seconds += other.seconds


def print_row(row: Row) -> None:
    """Prints a row, its seconds and what was found."""
    print(f"{_line(row)} {row.seconds:.0f} s", flush=True)
    for fault in dict.fromkeys(row.found):
        print(f"    {fault}", flush=True)


def write_page(rows: Iterable[Row], page: str | os.PathLike = PAGE) -> None:
    """Replaces the rows of these attacks in the table of a page; others stay.

    Args:
        rows: The rows.
        page: Path of a Markdown file with the two comments that enclose the table.

    Raises:
        ValueError: If the page lacks them.
    """
    page = Path(page)
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    old, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{page} must have the lines {_BEGIN} and {_END}. Received: neither")
    lines = {_attack_of(line): line for line in old.strip().split("\n")[2:] if line}
    lines |= {row.attack: _line(row) for row in rows}
    table = _HEAD + "\n".join(lines.values())
    page.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def _line(row: Row) -> str:
    if row.skipped:
        return f"| {row.attack} | 0 | 0 | skipped: {row.skipped} |"
    found = "; ".join(dict.fromkeys(row.found)) or "nothing"
    found = re.sub(r"[|\n]", " ", found)[:300]
    return f"| {row.attack} | {row.tried} | {row.held} | {found} |"


def _attack_of(line: str) -> str:
    return line.split("|")[1].strip()


def save(rows: Iterable[Row], path: str | os.PathLike) -> None:
    """Saves rows as JSON, to pass them from a worker to its parent."""
    Path(path).write_text(json.dumps([dataclasses.asdict(row) for row in rows]))


def load(path: str | os.PathLike) -> list[Row]:
    """Returns the rows that `save` wrote."""
    return [Row(**row) for row in json.loads(Path(path).read_text())]
