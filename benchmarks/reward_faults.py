"""What a training costs whose program hangs, crashes and bursts."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from doorkey import PROGRAM, trained
from numpy.typing import NDArray

from carl.cluster.session import ray_running
from carl.program import RewardProgram, SubTask
from carl.rewards.program import ProgramReward, ProgramSession
from carl.sandbox.box import Box, Limits
from carl.task import Frame

FAULTS = 1_000
FAULT_EVERY = 20
"""One of so many answers that a box is asked for."""

ESCAPE = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0].__init__.__globals__"
HANG, CRASH, BOMB = (
    f"def progress(frame, initial):\n    {line}\n    return 0.0\n"
    for line in ("while True: pass", f"{ESCAPE}['abort']()", "np.ones(1 << 40)")
)


@dataclass(frozen=True)
class Sabotaged(ProgramReward):
    """The program with faults put between: a hang, a crash and a bomb in turns, half of FAULTS in each process.

    They are counted in a file of ``log``, named for the process.
    """

    log: Path = Path()

    def open(self, slots: int) -> ProgramSession:
        session = super().open(slots)
        session._box.close()
        bad = tuple(SubTask(name=f"bad {i}", code=source) for i, source in enumerate((HANG, CRASH, BOMB)))
        whole = RewardProgram(subtasks=(*self.program.subtasks, *bad))
        session._box = SabotagedBox(whole, self.limits, policy=lambda _: None)
        session._box.log = self.log / str(os.getpid())
        return session


class SabotagedBox(Box):
    """Answers some questions by a faulty sub-task's code."""

    log = Path()
    asked = injected = 0

    def judge(self, frames: Frame, initials: Frame, subtasks: NDArray[np.intp], *which: Any) -> Any:
        subtasks = subtasks.copy()
        for place in range(len(subtasks)):
            self.asked += 1
            if self.injected < FAULTS // 2 and self.asked % FAULT_EVERY == 0:
                subtasks[place] = len(self._sources) - 3 + self.injected % 3
                self.injected += 1
                self.log.write_text(str(self.injected))
        return super().judge(frames, initials, subtasks, *which)


def faults() -> dict[str, Any]:
    """A training with 1,000 faults in its boxes, between two without. A hang takes its deadline, 50 ms."""
    limits = Limits(deadline_s=0.05)
    with ray_running(), tempfile.TemporaryDirectory() as log:
        before, none = trained(ProgramReward(PROGRAM, limits), 250_000)
        faulty, abstains = trained(Sabotaged(PROGRAM, limits, log=Path(log)), 250_000)
        after, also_none = trained(ProgramReward(PROGRAM, limits), 250_000)
        injected = sum(int(path.read_text()) for path in Path(log).iterdir())
    return {
        "injected": injected,
        "abstains": abstains,
        "abstains_clean": none + also_none,
        "faulty_over_clean": round(faulty / ((before + after) / 2), 3),
    }
