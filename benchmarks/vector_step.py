"""What a source costs in a vector step, and how often its box is called, where episodes begin beside others that go on.

32 environments of DoorKey-8x8 act at random; "short" episodes are cut after 8 to 18 steps, another number in each
slot, so that some begin in nearly every vector step; "long" ones are not. It imports little, so that it runs on other
versions of the code as well, to compare two in turns on one machine:

    PYTHONPATH=CHECKOUT python benchmarks/vector_step.py
"""

import json
import time
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit

import carl.rewards.vector
import carl.tasks
from carl.nano import programs
from carl.program import RewardProgram
from carl.rewards.program import ProgramReward
from carl.sandbox.box import Box

SLOTS, WARM, STEPS = 32, 200, 1_000
NAMES = {"pick up the key": "PICK_UP_KEY", "open the door": "OPEN_DOOR", "reach the goal": "REACH_GOAL"}
PROGRAM = RewardProgram.model_validate(
    {"subtasks": [{"name": name, "source": getattr(programs, code)} for name, code in NAMES.items()]}
)


def measured(limits: list[int]) -> dict[str, float]:
    """Microseconds for the source, its camera included, and calls of the box, in each vector step."""
    task = next(task for task in carl.tasks.BUILT_IN if task.name == "DoorKey-8x8")
    envs = SyncVectorEnv([partial(limited, task, steps) for steps in limits])
    kind: Any = vars(carl.rewards.vector).get("PaidVectorEnv") or vars(carl.rewards.vector)["CodeReward"]
    env, spent, calls = kind(envs, task, ProgramReward(PROGRAM)), [], [0]
    judge, boxed = env._judge, Box.judge

    def timed(*args: Any) -> Any:
        started = time.perf_counter()
        found = judge(*args)
        spent.append(time.perf_counter() - started)
        return found

    def counted(*args: Any) -> Any:
        calls[0] += 1
        return boxed(*args)

    env._judge = timed
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(WARM):
        env.step(env.action_space.sample())
    spent.clear()
    Box.judge = counted  # type: ignore[method-assign]
    try:
        for _ in range(STEPS):
            env.step(env.action_space.sample())
    finally:
        Box.judge = boxed  # type: ignore[method-assign]
        env.close()
    return {"us": round(float(np.median(spent)) * 1e6, 1), "box_calls": round(calls[0] / STEPS, 2)}


def limited(task: Any, steps: int) -> Any:
    """An environment of ``task`` whose episodes are cut after ``steps``."""
    return TimeLimit(task.make(), steps)


if __name__ == "__main__":
    short = [8 + slot % 11 for slot in range(SLOTS)]
    print(json.dumps({"benchmark": "vector_step", "short": measured(short), "long": measured([10**6] * SLOTS)}))
