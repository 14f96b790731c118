"""Ray job: run the whole pipeline from a configuration file.

python jobs/run.py jobs/demo.yaml [section.field=value ...]
ray job submit --working-dir . -- python jobs/run.py jobs/demo.yaml
"""

import sys
from pathlib import Path

from carl.cli import guarded, run_stages, settings


def main(arguments: list[str]) -> None:
    """Parse a configuration, run every stage, print the comparison."""
    if not arguments:
        raise SystemExit(__doc__)
    path, *sets = arguments
    run_stages(settings(None, None, None, Path(path), sets))


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
