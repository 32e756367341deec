"""Checks of the exercises in the notebooks, out of the reader's sight.

`checking` has what all of them use, `photo` the stored caption of the course's photo; each
`notebook_0N` has one function an exercise.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "checking": ("NotYetError", "exercise"),
        "notebook_01": (),
        "notebook_02": (),
        "notebook_03": (),
        "notebook_04": (),
        "notebook_05": (),
        "notebook_05b": (),
        "notebook_06": (),
        "notebook_07": (),
        "notebook_08": (),
        "notebook_08b": (),
        "notebook_09": (),
        "notebook_10": (),
        "photo": ("camera_boxes", "camera_caption"),
    },
)
