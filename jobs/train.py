"""Ray job: train on the verified program of a run directory, evaluate and report.

python jobs/train.py jobs/demo.yaml [section.field=value ...]
"""

import sys

from carl.cli import guarded, run_config

if __name__ == "__main__":
    sys.exit(guarded(lambda: run_config(sys.argv[1:], str(__doc__), ("train", "evaluate", "report"))))
