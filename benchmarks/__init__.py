"""Benchmarks of speed and checks of metrics and estimators."""

import sys

# PyTorch's optimisers import Triton where it is installed, whose LLVM crashes in a process that has
# TensorFlow's. Nothing here compiles with it: a module that is `None` counts as not installed.
sys.modules.setdefault("triton", None)
