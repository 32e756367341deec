"""Atomic writing: whole or not at all, whatever happens in between and whoever else writes."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from sat_keras.data.files import (
    check_room,
    compress_hdf5,
    hdf5_size,
    remove_partials,
    replacing,
    write_json,
)


def write_folder(path, name, **options):
    with replacing(path, **options) as partial:
        partial.mkdir()
        (partial / name).touch()


def write_half(path, kind):
    with replacing(path) as partial:
        partial.mkdir() if kind == "folder" else partial.write_text("half")
        raise KeyboardInterrupt


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with replacing(path) as partial:
        assert (partial.parent, partial.suffix) == (path.parent, ".csv")
        partial.write_text("text")
        assert not path.exists()
    assert path.read_text() == "text"
    assert names(path.parent) == ["table.csv"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_leaves_the_old_one(tmp_path, kind):
    path = tmp_path / "kept"
    path = path if kind == "file" else path / "file"
    path.parent.mkdir(exist_ok=True)
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "kept", kind)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["kept"]


def test_a_folder_replaces_a_folder_unless_it_must_not(tmp_path):
    for name in ("first", "second"):
        write_folder(tmp_path / "folder", name)
    assert names(tmp_path / "folder") == ["second"]
    with pytest.raises(OSError, match="not empty"):
        write_folder(tmp_path / "folder", "third", overwrite=False)
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["second"]


def test_writers_of_one_target_do_not_meet(tmp_path):
    def write(number):
        write_json(tmp_path / "value.json", [number] * 1000)
        return json.loads((tmp_path / "value.json").read_text())

    with ThreadPoolExecutor(8) as pool:
        for value in pool.map(write, range(64)):
            assert len(value) == 1000
            assert len(set(value)) == 1
    assert names(tmp_path) == ["value.json"]


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("a" * 250 + ".json")
    write_json(path, {"ü": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": 1}


def test_what_killed_processes_left_is_removed(tmp_path):
    old, new = tmp_path / ".partial-1.json", tmp_path / ".partial-2"
    old.touch()
    new.mkdir()
    os.utime(old, (0, 0))
    remove_partials(tmp_path)
    assert names(tmp_path) == [new.name]


def test_a_failed_write_names_its_file(tmp_path):
    """The error of a write on a full disk has no file name."""
    with (
        pytest.raises(OSError, match=r"table.csv could not be written; make room.*Received: No sp"),
        replacing(tmp_path / "table.csv"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_a_folder_without_room_is_named_before_hdf5_meets_it(tmp_path, monkeypatch):
    """HDF5 crashes the process where a write fails."""
    check_room(tmp_path, 1000)

    def fail(file, offset, size):
        assert size == 2_000_000
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    with pytest.raises(OSError, match=r"must be writable and have 2.0 MB of room.*No space left"):
        check_room(tmp_path, 2_000_000)
    monkeypatch.delattr(os, "posix_fallocate")
    check_room(tmp_path, 1000)
    with pytest.raises(OSError, match="make room on its disk"):
        check_room(tmp_path, 1 << 60)
    assert names(tmp_path) == []


def test_the_size_of_an_hdf5_file_is_bounded(tmp_path):
    model = keras.Sequential([keras.Input((3,)), *[keras.layers.Dense(7) for _ in range(9)]])
    model.save_weights(tmp_path / "a.weights.h5")
    assert (tmp_path / "a.weights.h5").stat().st_size < hdf5_size(model.variables)


def test_compression_of_weights_loses_nothing_but_bytes(tmp_path):
    def make(seed):
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((400,)), keras.layers.Dense(400), keras.layers.Dense(3)]
        return keras.Sequential(layers)

    keras.config.set_dtype_policy("float16")
    try:
        model, other = make(0), make(1)
    finally:
        keras.config.set_dtype_policy("float32")
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    before = path.stat().st_size
    compress_hdf5(path)
    assert path.stat().st_size < before
    other.load_weights(path)
    for mine, its in zip(model.get_weights(), other.get_weights(), strict=True):
        assert mine.dtype == its.dtype == np.float16
        np.testing.assert_array_equal(mine, its)
    once = path.read_bytes()
    compress_hdf5(path)
    assert path.read_bytes() == once


def test_a_mount_point_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path)
    with pytest.raises(OSError, match="name a folder inside it"), replacing(tmp_path):
        raise AssertionError
