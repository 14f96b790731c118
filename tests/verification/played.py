"""A few episodes of every kind of evidence in MiniGrid, played once for all tests."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from carl.episodes.kinds import Mixed
from carl.episodes.play import attempt, made, play
from carl.episodes.trajectory import Trajectory
from carl.task import Actor, Environment, Task
from carl.tasks import get_task
from carl.verification import Evidence

EXPERTS, RANDOMS, MIXED, CUT = 24, 30, 24, 36
LONG = 50
"""Steps after which play that is not an expert's is cut."""


@cache
def evidence(task_name: str) -> dict[Evidence, list[Trajectory]]:
    """Episodes of every kind but the policy's; the same in every call."""
    task = get_task(task_name)
    with made(task, 0) as env:
        experts = [play(task, env, seed, "expert") for seed in range(EXPERTS)]
        return {
            Evidence.EXPERTS: experts,
            Evidence.RANDOMS: [play(task, env, 1000 + seed, "random", LONG) for seed in range(RANDOMS)],
            Evidence.RESTING: [_played(task, env, 2000 + action, "resting", _always(action)) for action in range(7)],
            Evidence.MIXED: [Mixed(LONG)(task, env, 3000 + seed) for seed in range(MIXED)],
            Evidence.CUT: [_cut(task, env, experts[index % EXPERTS], index) for index in range(CUT)],
        }


def _played(
    task: Task, env: Environment, seed: int, role: str, player: Callable[[Any], Actor], steps: int = LONG
) -> Trajectory:
    trajectory = attempt(replace(task, expert=player), env, seed, "expert", steps)
    return replace(trajectory, frames=np.asarray(trajectory.frames), role=role)


def _always(action: int) -> Callable[[Any], Actor]:
    return lambda _: lambda _: action


def _cut(task: Task, env: Environment, expert: Trajectory, index: int) -> Trajectory:
    """An expert's actions up to one to three steps before the end, or anywhere; then idle or random ones."""
    rng = np.random.default_rng(index)
    at = max(0, len(expert) - 1 - index // 3 % 3) if index % 3 == 0 else int(rng.integers(len(expert)))
    left = deque(expert.actions[:at].tolist())

    def player(_env: Any) -> Actor:
        return lambda _: left.popleft() if left else int(rng.choice(task.idle if index % 2 else range(7)))

    return _played(task, env, expert.seed, "cut", player, at + 12)
