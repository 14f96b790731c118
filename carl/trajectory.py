"""Trajectory: one recorded episode."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carl.task import Frame


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode of T steps.

    Attributes:
        frames: ``uint8[T + 1, H, W, 3]``; the first is the initial frame, the last that of the final step, taken
            before any reset.
        actions: ``[T]`` or ``[T, A]``.
        rewards: ``float64[T]``, the environment's own.
        terminated, truncated: how the episode ended; neither when play was cut.
        success: the task's word on it.
        seed: what the environment was reset with.
        source: "expert", "random", or what else recorded it.
        events: oracle events ``bool[T + 1]`` by name, or empty; for measuring only.
    """

    frames: Frame
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminated: bool
    truncated: bool
    success: bool
    seed: int
    source: str
    events: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.actions)
