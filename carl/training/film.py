"""Episodes of a policy with their frames, several side by side, for a teacher to look at."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.utils import iterate

from carl.episodes.actions import recorded
from carl.episodes.tape import Tape
from carl.episodes.trajectory import Trajectory
from carl.rewards.vector import PaidVectorEnv
from carl.task import blaming

if TYPE_CHECKING:
    from carl.training.evaluation import Exam
    from carl.training.policy import Policy

ROLE = "policy"
"""Of the trajectories."""

FILMED = 8
"""Episodes of a film below which another process costs more than it brings."""


def film(
    policy: "Policy", exam: "Exam", seeds: Sequence[int], *, cut: int | None, sampling_seed: int, name: str
) -> list[Trajectory]:
    """The episode of each of ``seeds`` by the sampled policy, in their order, cut after ``cut`` steps if given.

    In this process, which answers for the reward's channel as ``name``. Of a long episode all frames but a few MB are
    compressed. Raises TaskError for what the task's code raises.
    """
    with blaming(exam.task, "the making of environments to be filmed"):
        envs = SyncVectorEnv([partial(exam.task.make) for _ in seeds])
    env = PaidVectorEnv(envs, exam.task, mix=exam.mix)
    tapes = [Tape(exam.task, one) for one in envs.envs]
    try:
        exam.pay(env, name)
        with torch.random.fork_rng():
            torch.manual_seed(sampling_seed)
            with blaming(exam.task, "a filmed episode"):
                _play(policy, env, tapes, seeds, cut)
    finally:
        env.close()
    return [tape.trajectory(ROLE) for tape in tapes]


def _play(policy: "Policy", env: PaidVectorEnv, tapes: Sequence[Tape], seeds: Sequence[int], cut: int | None) -> None:
    observations, _ = env.reset(seed=list(seeds))
    for tape, seed in zip(tapes, seeds, strict=True):
        tape.begin(seed)
    while running := [slot for slot, tape in enumerate(tapes) if tape.running and tape.steps != cut]:
        actions = policy.act(observations, greedy=False)
        kept = [recorded(action) for action in iterate(env.action_space, actions)]
        observations, _, terminated, truncated, info = env.step(actions)
        for slot in running:
            tapes[slot].add(
                kept[slot],
                float(info["env_reward"][slot]),
                terminated=bool(terminated[slot]),
                truncated=bool(truncated[slot]),
                success=bool(info["success"][slot]),
            )
        env.idle = np.array([not tape.running for tape in tapes])
