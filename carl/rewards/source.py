"""RewardSource: what an environment asks for rewards, whatever computes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from carl.program import MAX_SUBTASKS
from carl.task import Frame

PROGRESS_SLOTS = MAX_SUBTASKS
"""Width of the progress vector that a source may add to the observation."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What one vector step earned.

    Attributes:
        reward: ``float64[N]``; 0 where the slot was not asked about.
        progress: ``float32[N, PROGRESS_SLOTS]``, zero-padded, each in [0, 1].
        abstained: ``bool[N]``: part of the source could not judge this frame, and that part earned nothing.
    """

    reward: NDArray[np.float64]
    progress: NDArray[np.float32]
    abstained: NDArray[np.bool_]


class RewardSession(Protocol):
    """A reward at work on a fixed number of environment slots, in one process. Close it when done.

    Frames are lent for the call: they lie where the next ones will, so copy what has to last, and draw in none.
    """

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened since it was opened, by name, for metrics. They only grow; empty if there is nothing to say."""

    def reset(self, slots: NDArray[np.intp], frames: Frame) -> Judged:
        """Begin new episodes in ``slots`` (``intp[M]``) at their initial frames ``uint8[M, H, W, 3]``.

        Arrays in the answer have M rows; the reward is 0.
        """

    def step(self, slots: NDArray[np.intp], frames: Frame) -> Judged:
        """Judge the frames ``uint8[M, H, W, 3]`` that ``slots`` (``intp[M]``) stepped to. M rows are answered."""

    def close(self) -> None:
        """Release what the session holds; harmless when called twice."""


class RewardSource(Protocol):
    """A reward as picklable data: cheap to broadcast, opened where it is used."""

    @property
    def id(self) -> str:
        """Names the reward on checkpoints and reports; equal ids mean equal rewards."""

    def open(self, slots: int) -> RewardSession:
        """Start a session for ``slots`` environments; raises BoxError when it cannot."""
