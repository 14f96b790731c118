"""Episodes from frames alone."""

import numpy as np

from carl.episodes.trajectory import Trajectory


def episode(
    *frames: np.ndarray, seed: int = 0, role: str = "expert", success: bool = True, terminated: bool = True
) -> Trajectory:
    """An episode with these frames, ``uint8[H, W, 3]`` each."""
    steps = len(frames) - 1
    return Trajectory(
        frames=np.stack(frames),
        actions=np.zeros(steps, np.int64),
        rewards=np.zeros(steps),
        terminated=terminated,
        truncated=False,
        success=success,
        seed=seed,
        role=role,
    )
