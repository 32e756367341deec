"""The command line `sat-keras`, one file a command.

Read `program` (parser and `main`), then a command such as `train`; `options`, `inputs`, `files`,
`scores` and `errors` have what the commands share.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"program": ("main",)})
