"""Small synthetic episodes: a red square walks along a strip, takes a green key on its way, and ends on a blue goal."""

from collections.abc import Iterable

import numpy as np

from carl.episodes.trajectory import Trajectory
from carl.program import RewardProgram, SubTask
from carl.verification import Evidence

WIDTH, KEY, GOAL, STRIDE = 26, 8, 20, 2


def picture(agent: int, key: bool) -> np.ndarray:
    """``uint8[8, 26, 3]`` with the agent's left edge at column ``agent``."""
    frame = np.full((8, WIDTH, 3), 20, np.uint8)
    frame[2:6, GOAL : GOAL + 4] = (0, 0, 250)
    if key:
        frame[2:6, KEY : KEY + 2] = (0, 250, 0)
    frame[2:6, agent : agent + 4] = (250, 0, 0)
    return frame


def episode(moves: list[int], seed: int, role: str) -> Trajectory:
    """Walk ``moves`` (-1 or 1), until the goal is reached with the key."""
    agent, key, done = 0, True, False
    frames = [picture(agent, key)]
    for move in moves:
        agent = min(max(agent + STRIDE * move, 0), GOAL)
        key = key and not agent <= KEY <= agent + 2
        frames.append(picture(agent, key))
        done = agent == GOAL and not key
        if done:
            break
    steps = len(frames) - 1
    return Trajectory(
        frames=np.stack(frames),
        actions=np.array(moves[:steps]),
        rewards=np.zeros(steps),
        terminated=done,
        truncated=False,
        success=done,
        seed=seed,
        role=role,
    )


def experts(count: int = 8) -> list[Trajectory]:
    """Straight to the goal, after some hesitation that differs between them."""
    return [episode([-1] * (seed % 3) + [1] * 12, seed, "expert") for seed in range(count)]


def randoms(count: int = 60, steps: int = 16) -> list[Trajectory]:
    """Random walks; a few of them reach the goal."""
    rng = np.random.default_rng(0)
    return [episode(rng.choice([-1, 1], steps).tolist(), 1000 + seed, "random") for seed in range(count)]


def kinds(experts: Iterable[Trajectory], randoms: Iterable[Trajectory]) -> dict[Evidence, Iterable[Trajectory]]:
    """The two kinds of evidence without which no program is accepted."""
    return {Evidence.EXPERTS: experts, Evidence.RANDOMS: randoms}


KEY_GONE = """
def progress(frame, initial):
    was = (initial[..., 1] > 200) & (initial[..., 0] < 50)
    now = (frame[..., 1] > 200) & (frame[..., 0] < 50)
    return float(was.any() and not now.any())
"""

REACH_GOAL = """
import numpy as np

def progress(frame, initial):
    goal = initial[..., 2] > 200
    columns = np.nonzero((frame[..., 0] > 200).any(axis=0))[0]
    first = np.nonzero(goal.any(axis=0))[0][0]
    return float(np.clip(columns[0] / first, 0, 1))
"""


def program(*sources: str, ordered: bool = True) -> RewardProgram:
    names = ["take the key", "reach the goal", "third"]
    return RewardProgram(
        subtasks=tuple(SubTask(name=name, code=source) for name, source in zip(names, sources, strict=False)),
        ordered=ordered,
    )


GOOD = program(KEY_GONE, REACH_GOAL)
