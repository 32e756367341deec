"""Whether TensorFlow runs its functions eagerly or traces them."""

import contextlib
import sys


@contextlib.contextmanager
def functions_run_eagerly(is_eager: bool):
    """Sets how TensorFlow runs its functions, where it is the backend, and resets it."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or sys.modules["keras"].backend.backend() != "tensorflow":
        yield
        return
    before = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(is_eager)
    yield
    tensorflow.config.run_functions_eagerly(before)
