"""A few attacks of each kind of `make torture`; it runs dozens, on every command."""

import json
import os
import subprocess
import sys

import pytest

from sat_keras.data.files import read_json, write_json
from torture import children, hostile, table

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children are forked")


def attack(repository, *arguments):
    """Runs attacks in a process that has not used TensorFlow yet."""
    command = [sys.executable, "-m", "torture", *arguments]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    rows = [line for line in result.stdout.split("\n") if line.startswith("|")]
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    return rows


@pytest.mark.integration
def test_kills_and_hostile_files(repository):
    chosen = ("kills", "hostile", "fuzz")
    rows = attack(repository, *chosen, "--trials", "2", "--jobs", "download")
    names = " ".join(rows)
    for name in ("download killed", "hostile pictures", "random input"):
        assert name in names


def test_any_flipped_bit_of_a_checked_json_file_is_found(tmp_path):
    path, value = tmp_path / "value.json", {"words": ["dog", "hund ü"], "epochs": 2, "rate": 0.1}
    write_json(path, value, checksum=True)
    original = path.read_bytes()
    for bit in range(8 * len(original)):
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_json(path)
        except ValueError:
            continue
        assert {name: found.get(name) for name in value} == value


def test_a_checksum_does_not_depend_on_order_and_may_be_missing(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1, "b": 2}, checksum=True)
    written = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(written.items()))))
    assert read_json(path) == {"a": 1, "b": 2}
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_text(json.dumps(written | {"a": 2}))
    with pytest.raises(ValueError, match="delete the line 'checksum'"):
        read_json(path)


@pytest.mark.parametrize("deadly", [True, False])
def test_a_child_dies_or_fails_in_the_middle_of_a_write(deadly, tmp_path):
    path = tmp_path / "file"
    code = children.run(lambda: path.write_bytes(bytes(100)), children.limit_size(10, deadly))
    assert (code < 0) == deadly
    assert code != 0
    assert path.stat().st_size == 10


def test_a_child_dies_before_a_change_of_its_folder(tmp_path):
    def write():
        for name in "abc":
            (tmp_path / name).touch()
            (tmp_path / name).write_text(name)

    assert children.run(write, children.at_change(4, tmp_path, children.die)) == children.KILLED
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_what_is_not_refused_is_a_fault():
    row = hostile.refuse("x", {"good": lambda: None, "bad": lambda: int("a"), "odd": lambda: [][0]})
    assert (row.tried, row.held) == (3, 1)
    assert row.found == ["good: read without an error", "odd: IndexError"]


def test_the_page_keeps_other_rows(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- torture: begin -->\n<!-- torture: end -->\nb\n")
    table.write_page([table.Row("one", 1, 1), table.Row("two", 2, 1, ["it|broke"])], page)
    table.write_page([table.Row("one", skipped="no disk")], page)
    lines = page.read_text().split("\n")
    assert lines[4:6] == ["| one | 0 | 0 | skipped: no disk |", "| two | 2 | 1 | it broke |"]
    assert (lines[0], lines[-2]) == ("a", "b")
