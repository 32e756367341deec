"""`python -m sat_keras` is `sat-keras`."""

import sys

from sat_keras.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
