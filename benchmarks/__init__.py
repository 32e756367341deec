"""How fast sat_keras is, measured side by side with what it is compared with."""

import sys

# PyTorch's optimisers import Triton where it is installed, whose LLVM crashes in a process that has
# TensorFlow's. Nothing here compiles with it: a module that is `None` counts as not installed.
sys.modules.setdefault("triton", None)
