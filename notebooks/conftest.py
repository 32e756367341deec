"""Runs the notebooks as tests: `pytest --nbval notebooks`.

Each cell is run, in a fresh kernel for each notebook, and its output compared with the stored one.
Cells tagged `nbval-ignore-output` must run, but may print something else. Figures and HTML are not
compared.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

# The kernels inherit these: the stored outputs are a CPU's, and of the sat_keras in this checkout.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(FOLDER.parent), os.environ.get("PYTHONPATH")))
)


def pytest_configure(config):
    """Replaces what differs between two runs, and uses the Python that runs pytest."""
    if getattr(config.option, "nbval_sanitize_with", "absent") is None:
        config.option.nbval_sanitize_with = str(FOLDER / "sanitize.cfg")
    config.option.nbval_current_env = not getattr(config.option, "nbval_kernel_name", None)


def pytest_collectstart(collector):
    """Leaves out of the comparison what depends on versions and machines."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("text/html", "stderr")


def pytest_collection_modifyitems(items):
    """Puts cells back in their order, which pytest-randomly shuffles like that of all tests."""
    cells = [item for item in items if hasattr(item, "cell_num")]
    others = [item for item in items if not hasattr(item, "cell_num")]
    items[:] = others + sorted(cells, key=lambda item: (str(item.path), item.cell_num))
