"""``python -m carl`` is the command ``carl``."""

import sys

from carl.errors import missing

try:
    from carl.cli import main
except ModuleNotFoundError as error:
    sys.exit(missing(error))

main()
