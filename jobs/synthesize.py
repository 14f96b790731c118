"""Ray job: from episodes to a verified program; jobs/train.py goes on from there.

python jobs/synthesize.py jobs/demo.yaml [section.field=value ...]
"""

import sys

from carl.cli import guarded, run_config

if __name__ == "__main__":
    sys.exit(guarded(lambda: run_config(sys.argv[1:], str(__doc__), ("collect", "synthesize", "verify"))))
