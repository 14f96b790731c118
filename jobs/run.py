"""Ray job: run the whole pipeline from a configuration file.

python jobs/run.py jobs/demo.yaml [section.field=value ...]
ray job submit --working-dir . -- python jobs/run.py jobs/demo.yaml
"""

import sys

from carl.cli import guarded, run_config

if __name__ == "__main__":
    sys.exit(guarded(lambda: run_config(sys.argv[1:], str(__doc__))))
