"""The search for another program while a training goes on: in a process of its own, with the policy's episodes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carl.artefacts import PROGRAM, REPAIR, TRAJECTORIES, of_arm
from carl.episodes.trajectory import TrajectoryStore
from carl.methods.method import Work
from carl.program import RewardProgram

if TYPE_CHECKING:
    from carl.episodes.trajectory import Trajectory

POLICY = "policy"
"""The folder of the policy's episodes, beside those that experts and chance played."""

STOP_S = 5.0
"""Seconds that a search is given to end."""


class Repairs:
    """Searches for programs, one after the other, each in a folder of its own.

    A search is what `carl synthesize` does, with the run's settings and its recorded episodes, and with the policy's
    beside them, half of which are held out from it for the verdict; its budget is that of ``synthesis``. It has its own
    process, and its own Ray where it needs one, since the training holds the CPUs of the run's.
    """

    def __init__(self, work: Work[Any], arm: str) -> None:
        self._work, self._arm = work, arm
        self._films: list[Trajectory] = []
        self._process: subprocess.Popen[str] | None = None

    def folder(self, number: int) -> Path:
        """Of search ``number``, from 1: that of `carl synthesize`, with the policy's episodes."""
        return self._work.directory / of_arm(self._arm, f"{REPAIR}-{number}")

    @property
    def running(self) -> bool:
        """Whether a search was begun whose result was not asked for."""
        return self._process is not None

    def begin(self, films: Sequence["Trajectory"]) -> int:
        """Begin a search with these episodes, and those of the searches before, as evidence; returns its number."""
        self._films += films
        number = next(number for number in count(1) if not self.folder(number).exists())
        self._folder = self.folder(number)
        TrajectoryStore(self._folder / TRAJECTORIES / POLICY).write(self._films, replace=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "carl.methods.repair", str(self._work.directory), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment(),
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(self._work.config.model_dump_json())
            self._process.stdin.close()
        return number

    def result(self) -> tuple[RewardProgram | None, str] | None:
        """None while the search goes on; then its program, or None and why there is none."""
        if self._process is None or self._process.poll() is None:
            return None
        assert self._process.stdout is not None
        said = self._process.stdout.read().strip().rpartition("\n")[2]
        status, self._process = self._process.returncode, None
        if status == 0:
            return RewardProgram.load(self._folder / PROGRAM), ""
        return None, said or f"the search ended with exit status {status}"

    def close(self) -> None:
        """End a search that goes on; harmless when called twice."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment() -> dict[str, str]:
    """That of this process, with its path, and without the cluster that the training is on."""
    there = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**there, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
