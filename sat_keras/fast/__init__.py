"""The decoder's loop over the steps once more: the same numbers and gradients, computed faster.

Nothing is taught here. Read `paper.decoder` first, then `implementation` (which loop runs and why),
`steps` (the decoder's weights) and `recurrence` (the loop with its gradient written out).
"""

from sat_keras.fast.implementation import check_implementation, choose_implementation
from sat_keras.fast.steps import run_steps, search_step

__all__ = ["check_implementation", "choose_implementation", "run_steps", "search_step"]
