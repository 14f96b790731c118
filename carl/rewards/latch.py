"""The latched, bounded reward of a program. Verification and rollouts both run this one piece of code."""

from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.program import DONE, MAX_SUBTASKS, RewardProgram

PROGRESS_SLOTS = MAX_SUBTASKS
"""Width of the progress vector of any program, padded with zeros."""

PROGRESS = gym.spaces.Box(0.0, 1.0, (PROGRESS_SLOTS,), np.float32)
"""What programs show the policy: latched progress of each sub-task."""

Slots = NDArray[np.intp]

Judge = Callable[[Slots, Slots], NDArray[np.float64]]
"""(rows ``intp[M]``, sub-tasks ``intp[M]``) to progress ``float64[M]``; NaN is an abstain.

Row i is the i-th frame of this step."""


class Latch:
    """Progress of many episodes, one a slot, through the sub-tasks of one program.

    Sub-task k becomes active when k-1 is done, several may pass in one frame. What it shows at that moment is
    its zero; from then on its best progress is kept, and a step earns the weighted increase of that best. So the
    return of an episode is at most the sum of the weights. Where the order is free, all are active from the start.

    A sub-task with ``hold`` above 1 is done once it was shown done in so many looks in a row; shown done for less, it
    earns nothing, so that flying by does not pay. Anything below done, and an abstain, has the count start again.

    Attributes:
        best: ``float64[N, K]``, the best progress so far.
        active: ``bool[N, K]``, the sub-tasks that are looked at.
        begun: how many episodes have begun.
        fired: ``int64[K]``, in how many of them each sub-task has got done.
    """

    def __init__(self, program: RewardProgram, slots: int) -> None:
        count = len(program.subtasks)
        self._ordered = program.ordered
        self._weights = np.array([subtask.weight for subtask in program.subtasks])
        self.best = np.zeros((slots, count))
        self.active = np.zeros((slots, count), dtype=bool)
        self._seen = np.zeros((slots, count), dtype=bool)
        self._hold = np.array([subtask.hold for subtask in program.subtasks])
        self._held = np.zeros((slots, count), dtype=np.int64)
        self.begun, self.fired = 0, np.zeros(count, dtype=np.int64)

    def begin(self, slots: Slots) -> None:
        """Clear ``slots`` (``intp[M]``) for new episodes; what their next look shows is their zero, and earns 0."""
        self.begun += len(slots)
        self.best[slots] = 0.0
        self._seen[slots] = False
        self._held[slots] = 0
        self.active[slots] = not self._ordered
        self.active[slots, 0] = True

    def look(
        self, slots: Slots, began: NDArray[np.bool_], judge: Judge
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Look at one frame for each of ``slots``, the initial one of an episode where ``began`` (``bool[M]``).

        Returns what each earned, ``float64[M]``, and which abstained, ``bool[M]``.
        """
        if began.any():
            self.begin(slots[began])
        earned = np.zeros(len(slots))
        abstained = np.zeros(len(slots), dtype=bool)
        rows, tasks = np.nonzero(self.active[slots])
        while rows.size:
            values = judge(rows, tasks)
            if self.holds:
                values = self._until_held(slots[rows], tasks, values)
            judged = ~np.isnan(values)
            abstained[rows[~judged]] = True
            rows, tasks, values = rows[judged], tasks[judged], values[judged]
            where = slots[rows]
            gain = np.maximum(values - self.best[where, tasks], 0.0)
            self.best[where, tasks] = np.maximum(values, self.best[where, tasks])  # adding the gain would round
            np.add.at(earned, rows, np.where(self._seen[where, tasks], gain * self._weights[tasks], 0.0))
            self._seen[where, tasks] = True
            done = self.best[where, tasks] >= DONE
            self.active[where[done], tasks[done]] = False
            self.fired += np.bincount(tasks[done], minlength=self.fired.size)
            rows, tasks = self._activate_next(slots, rows[done], tasks[done])
        return earned, abstained

    @property
    def holds(self) -> bool:
        """Whether some sub-task has to last: what a slot shows then counts also where it has not changed."""
        return bool((self._hold > 1).any())

    def _until_held(self, where: Slots, tasks: Slots, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``values``, but no more than the best so far where a sub-task is shown done and has not lasted yet."""
        done = values >= DONE
        self._held[where, tasks] = np.where(done, self._held[where, tasks] + 1, 0)
        lasts = self._held[where, tasks] >= self._hold[tasks]
        return np.where(done & ~lasts, self.best[where, tasks], values)

    def _activate_next(self, slots: Slots, rows: Slots, tasks: Slots) -> tuple[Slots, Slots]:
        if not self._ordered:
            return rows[:0], tasks[:0]
        follows = tasks + 1 < self.best.shape[1]
        rows, tasks = rows[follows], tasks[follows] + 1
        self.active[slots[rows], tasks] = True
        return rows, tasks

    def completed(self, slots: Slots | Sequence[int]) -> NDArray[np.bool_]:
        """Which of ``slots`` have every sub-task done, ``bool[M]``."""
        return np.asarray((self.best[slots] >= DONE).all(axis=1))
