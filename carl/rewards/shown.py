"""Where a policy sees what a source shows: at the end of a vector, or beside anything else."""

from typing import Any, TypeGuard

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.errors import TaskError

PART = "progress"
"""Part of a Dict of observations that holds what the source shows."""


def space_with(shows: gym.spaces.Box, space: gym.Space[Any]) -> gym.Space[Any]:
    """``space`` of observations with ``shows``: appended to a flat Box of floats, as float32; else in a Dict, which any
    other space is put into, as PART. Raises TaskError for a Dict that has such a part already."""
    if _is_vector(space):
        low, high = np.concatenate([space.low, shows.low]), np.concatenate([space.high, shows.high])
        return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
    parts = dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {"observation": space}
    if PART in parts:
        raise TaskError(
            f"the task's own observations have a part called {PART!r}, which is where progress goes: rename it in "
            "the task's make(), or set reward.progress_in_observation=false"
        )
    return gym.spaces.Dict({**parts, PART: shows})


def observed(observations: Any, shown: NDArray[np.float32]) -> Any:
    """``observations`` of N slots with ``shown``, ``float32[N, S]``, in arrays that no later step writes to."""
    if isinstance(observations, np.ndarray) and observations.ndim == 2 and observations.dtype.kind == "f":
        return np.concatenate([observations, shown], axis=1, dtype=np.float32, casting="same_kind")
    parts = observations if isinstance(observations, dict) else {"observation": observations}
    return {**parts, PART: shown.copy()}


def _is_vector(space: gym.Space[Any]) -> TypeGuard[gym.spaces.Box]:
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)
