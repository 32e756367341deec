"""What a model's file holds, read without making the model."""

import io
import json
import zipfile

import h5py
import numpy as np


def saved_arrays(path):
    """The arrays of a `.keras` file by name: weights, seeds of dropout, the optimizer's state."""
    found = {}

    def read(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(read)
    assert found
    return found


def saved_config(path):
    """The `Config` of the captioner in a `.keras` file, as a dictionary."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))["config"]["config"]


def assert_same_arrays(path, expected):
    """The file holds these arrays, bit for bit."""
    found = saved_arrays(path)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
