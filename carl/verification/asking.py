"""Putting questions about recorded episodes to boxes, side by side."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from carl.episodes.trajectory import Trajectory
from carl.errors import StoreError
from carl.rewards.latch import Slots
from carl.sandbox.box import Box, Judgement
from carl.task import Frame

ROWS_AT_ONCE, BYTES_AT_ONCE = 512, 24 << 20
"""Most frames that are put together for one question to all boxes, and most bytes of them; of large frames fewer
episodes are replayed side by side, so that a step is still one question."""


def threads(boxes: int) -> ThreadPoolExecutor:
    """Threads in which so many boxes are asked at the same time, no more than there are cores."""
    return ThreadPoolExecutor(min(boxes, len(os.sched_getaffinity(0))), "boxes")


class Asking:
    """A batch of at least one episode, of a program with ``subtasks``. Of several boxes the n-th answers for every n-th
    episode; those of ``pool`` at the same time.

    Raises StoreError for frames of several sizes.
    """

    def __init__(self, trajectories: Sequence[Trajectory], subtasks: int, pool: ThreadPoolExecutor | None = None):
        shapes = {trajectory.frames.shape[1:] for trajectory in trajectories}
        if len(shapes) > 1:
            raise StoreError(f"frames of several sizes cannot be judged together: {sorted(shapes)}; record them anew")
        self._trajectories = trajectories
        self._map = pool.map if pool else map
        self._subtasks = subtasks
        self._counts: list[NDArray[np.intp]] = []
        self._seconds: list[float] = []
        self.initials: Frame = np.stack([np.asarray(trajectory.frames[0]) for trajectory in trajectories])
        """Initial frames, ``uint8[N, H, W, 3]``."""
        self._rows = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // self.initials[0].nbytes))

    @property
    def cost(self) -> tuple[float, ...]:
        """Processor seconds of each sub-task for a frame that explain best what questions about several of them took;
        0 for one that was not asked about. None is negative."""
        rows = [row for row, seconds in enumerate(self._seconds) if seconds > 0]
        return fitted(np.array(self._counts, dtype=float)[rows], np.array(self._seconds)[rows]) if rows else ()

    def put(
        self, boxes: Sequence[Box], slots: Sequence[int], steps: Sequence[int], tasks: Slots
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """What sub-tasks make of the frames at ``steps`` of the episodes ``slots``: values ``float64[M]``, and the
        reasons of abstains by row."""
        values = np.empty(len(slots))
        reasons: dict[int, str] = {}
        for start in range(0, len(slots), self._rows):
            part = slice(start, start + self._rows)
            frames = [
                self._trajectories[slot].frames[step] for slot, step in zip(slots[part], steps[part], strict=True)
            ]
            for rows, judgement in self._judged(boxes, np.stack(frames), np.array(slots[part]), tasks[part]):
                values[start + rows] = judgement.values
                reasons |= {start + int(rows[row]): reason for row, reason in judgement.reasons.items()}
        return values, reasons

    def _judged(
        self, boxes: Sequence[Box], frames: Frame, slots: Slots, tasks: Slots
    ) -> list[tuple[NDArray[np.intp], Judgement]]:
        """What each box says, and of which rows."""

        def ask(box: Box, rows: NDArray[np.intp]) -> Judgement:
            return box.judge(frames, self.initials, tasks[rows], rows, slots[rows])

        shares = [np.flatnonzero(slots % len(boxes) == index) for index in range(len(boxes))]
        answers = list(zip(shares, self._map(ask, boxes, shares), strict=True))
        for rows, judgement in answers:
            self._counts.append(np.bincount(tasks[rows], minlength=self._subtasks))
            self._seconds.append(judgement.seconds)
        return answers


def fitted(counts: NDArray[np.float64], seconds: NDArray[np.float64]) -> tuple[float, ...]:
    """What each of K things takes, if ``counts`` (``[M, K]``) of them took ``seconds`` (``[M]``), by least squares.

    The most negative one is 0, and the rest fitted again, until none is. scipy's ``nnls`` finds the very minimum, but
    its import takes as long as a verification.
    """
    costs, kept = np.zeros(counts.shape[1]), np.flatnonzero(counts.any(axis=0))
    while kept.size:
        fit = np.linalg.lstsq(counts[:, kept], seconds)[0]
        if (fit >= 0).all():
            costs[kept] = fit
            break
        kept = np.delete(kept, fit.argmin())
    return tuple(costs.tolist())
