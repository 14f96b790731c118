"""The process in which another program is searched for: ``python -m carl.methods.repair RUN FOLDER``."""

import json
import sys
from pathlib import Path

from carl.artefacts import TRAJECTORIES
from carl.cluster.session import ray_running
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import CarlError, briefly
from carl.methods import Work, code, run_config
from carl.methods.repairing import POLICY
from carl.tasks import get_task
from carl.verification.rule import Evidence


def main(run: str, folder: str) -> int:
    """Repair in ``folder`` for the run in ``run``, whose configuration standard input holds; returns the exit status.

    What went wrong is the last line of standard output.
    """
    beside = {Evidence.POLICY: TrajectoryStore(Path(folder) / TRAJECTORIES / POLICY)}
    try:
        config = run_config(json.load(sys.stdin))
        assert isinstance(config, code.CodeConfig)
        work = Work(get_task(config.task), config, Path(folder), recordings=Path(run), beside=beside)
        with ray_running():
            code.synthesize(work)
    except CarlError as error:
        sys.stdout.write(f"{type(error).__name__}: {briefly(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
