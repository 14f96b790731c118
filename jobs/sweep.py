"""Ray job: run the sweep that a configuration file lists, and compare its settings.

python jobs/sweep.py jobs/sweep.yaml [section.field=value ...]
"""

import sys
from pathlib import Path

from carl.cli import guarded, run_sweep


def main() -> None:
    """Run the sweep of the command line."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    run_sweep(Path(sys.argv[1]), sys.argv[2:])


if __name__ == "__main__":
    sys.exit(guarded(main))
