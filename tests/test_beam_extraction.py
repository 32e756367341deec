"""Features by Apache Beam: the cache is the one that one process writes."""

import functools
import logging
import os
from pathlib import Path

import beam_encoder
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sat_keras.data.extraction import extract_features
from sat_keras.data.features import FeatureCache

beam = pytest.importorskip("apache_beam")

from sat_keras.data.beam_extraction import extract_features_with_beam  # noqa: E402

pytestmark = pytest.mark.integration

TWO_WORKERS = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture
def table(tmp_path):
    """Six pictures of odd sizes, two captions each."""
    generator = np.random.default_rng(0)
    rows = []
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        size = (*generator.integers(6, 20, 2), 3)
        path = tmp_path / "pictures" / f"{i}.png"
        Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8)).save(path)
        rows += [{"image": str(path), "image_id": f"id{i}", "caption": c} for c in "ab"]
    return pd.DataFrame(rows)


@pytest.fixture
def processes(tmp_path):
    """A folder with a file for each process that made an encoder."""
    folder = tmp_path / "processes"
    folder.mkdir()
    return folder


def contents(cache):
    return {path.name: path.read_bytes() for path in Path(cache.directory).iterdir()}


def extract(table, processes, folder, seeds=(0, 0), **options):
    make = functools.partial(beam_encoder.make, processes, seeds)
    return extract_features_with_beam(table, make, folder, batch_size=2, mirror=True, **options)


def test_the_cache_is_that_of_one_process_and_is_resumed(table, processes, tmp_path):
    half = table[table["image_id"] < "id3"]
    some = contents(extract(half, processes, tmp_path / "beam"))
    found = contents(extract(table, processes, tmp_path / "beam"))
    assert len(some) == 1 + 6
    assert some.items() < found.items()
    encoder = beam_encoder.make(processes)
    expected = extract_features(table, encoder, tmp_path / "one", batch_size=2, mirror=True)
    assert found == contents(expected)


def test_a_changed_picture_replaces_its_shards(table, processes, tmp_path):
    before = contents(extract(table, processes, tmp_path / "beam"))
    Image.new("RGB", (9, 9), "red").save(table["image"].iloc[0])
    after = contents(extract(table, processes, tmp_path / "beam"))
    assert len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 2


def test_workers_with_other_weights_are_refused(table, processes, tmp_path):
    with pytest.raises(Exception, match="must return an encoder of equal weights"):
        extract(table, processes, tmp_path / "beam", seeds=(0, 1))
    assert len(FeatureCache(tmp_path / "beam")) == 0


def test_a_broken_picture_is_named(table, processes, tmp_path):
    Path(table["image"].iloc[0]).write_bytes(b"no picture")
    with pytest.raises(Exception, match=r"0\.png"):
        extract(table, processes, tmp_path / "beam")


def test_two_workers_write_one_cache(table, processes, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    found = extract(table, processes, tmp_path / "beam", options=TWO_WORKERS)
    workers = {path.name for path in processes.iterdir()} - {str(os.getpid())}
    assert len(workers) == 2
    encoder = beam_encoder.make(processes)
    expected = extract_features(table, encoder, tmp_path / "one", batch_size=2, mirror=True)
    assert contents(found) == contents(expected)
