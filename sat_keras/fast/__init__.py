"""The decoder's loop over the steps once more, computed sooner: the same numbers and gradients.

Nothing is taught here; read `paper.decoder` first, then `recurrence`, its drop-in.
"""
