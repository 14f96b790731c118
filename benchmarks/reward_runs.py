"""Environment steps per second of an env runner and of whole trainings, and where a step's time goes."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from doorkey import MIX, PROGRAM, TASK, code_runner, in_turns, own_view, seconds, stock_runner, trained

from carl.broadcast.channel import reward_channel
from carl.cluster.session import ray_running
from carl.rewards.frames import Frames
from carl.rewards.mix import Mix
from carl.rewards.program import ProgramReward
from carl.sandbox.box import Box
from carl.task import Environment, Task
from carl.tasks import get_task


def env_runner() -> dict[str, Any]:
    """Environment steps per second of one env runner with 32 environments, in this process.

    Once with the task's environment, and once with MiniGrid's own view, which takes most of a step's time there.
    """
    with ray_running(), reward_channel() as with_cache, reward_channel() as without:
        with_cache.publish(ProgramReward(PROGRAM))
        without.publish(ProgramReward(PROGRAM, cache=False))
        task = throughput(get_task(TASK), with_cache, without)
        own = throughput(replace(get_task(TASK), make=own_view), with_cache, without)
        usual = own["us_per_step"]["stock"] / task["us_per_step"]["code"]
        return {"task": task, "own_view": own, "task_code_over_own_view_stock": round(usual, 2)}


def throughput(task: Task, with_cache: Any, without: Any) -> dict[str, Any]:
    """Of the same runner with the code reward and with the environment's own, and of RLlib's."""
    runners = {
        "code": code_runner(task, with_cache, MIX),
        "code_without_cache": code_runner(task, without, MIX),
        "sparse": code_runner(task, with_cache, Mix(source=0.0, env=1.0)),
        "stock": stock_runner(task.make),
    }
    times = in_turns(
        {
            name: lambda runner=runner: seconds(lambda: runner.sample(num_timesteps=4096))
            for name, runner in runners.items()
        },
        turns=12,
    )
    counts = runners["code"]._paid.counts
    for runner in runners.values():
        runner.stop()
    return {
        "us_per_step": {name: round(value / 4096 * 1e6, 1) for name, value in times.items()},
        "cache_hit_rate": round(counts["cache_hits"] / (counts["cache_hits"] + counts["cache_misses"]), 3),
        "code_over_sparse": round(times["sparse"] / times["code"], 3),
        "code_without_cache_over_sparse": round(times["sparse"] / times["code_without_cache"], 3),
        "code_over_stock": round(times["stock"] / times["code"], 2),
    }


def hops() -> dict[str, float]:
    """Where a step's time goes in an env runner with the code reward and 32 environments, microseconds."""
    from gymnasium.vector import SyncVectorEnv

    from carl.rewards.cache import JudgementCache
    from carl.rewards.vector import PaidVectorEnv
    from carl.training.rllib.fragment import Fragment
    from carl.training.rllib.runner import PaidRunner

    stops: tuple[tuple[str, type, str, str | None], ...] = (
        ("all", PaidRunner, "_sample", None),
        ("policy", PaidRunner, "_decide", "all"),
        ("episodes", Fragment, "close", "all"),
        ("environments", SyncVectorEnv, "step", "all"),
        ("latch", PaidVectorEnv, "_judge", "all"),
        ("camera", Frames, "take", "latch"),
        ("hash", JudgementCache, "see", "latch"),
        ("box", Box, "judge", "latch"),
    )
    spent = dict.fromkeys([name for name, *_ in stops], 0.0)

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started

        return run

    with ray_running(), reward_channel() as channel:
        channel.publish(ProgramReward(PROGRAM))
        runner = code_runner(get_task(TASK), channel, MIX)
        runner.sample(num_timesteps=16_384)
        for name, owner, method, _ in stops:
            setattr(owner, method, timed(name, getattr(owner, method)))
        steps = sum(len(episode) for _ in range(16) for episode in runner.sample(num_timesteps=4_096))
        runner.stop()
    for name, _, _, within in stops:  # from outside to inside, so that what is taken off is still whole
        if within:
            spent[within] -= spent[name]
    return {name if name != "all" else "rest": round(value / steps * 1e6, 1) for name, value in spent.items()}


def training() -> dict[str, Any]:
    """Environment steps per second of whole PPO trainings: ours on the code reward, Stable-Baselines3's on the sparse
    one without frames. Same network, batch (2,048), epochs (8), environments (64) and cores; starting is not counted.
    """
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    def theirs(make: Callable[[], Environment]) -> float:
        torch.set_num_threads(os.cpu_count() or 1)
        agent = PPO(
            "MlpPolicy",
            DummyVecEnv([make] * 64),
            n_steps=32,
            batch_size=512,
            n_epochs=8,
            learning_rate=1e-3,
            policy_kwargs={"net_arch": [64, 64]},
            device="cpu",
        )
        return 40_960 / seconds(lambda: agent.learn(40_960))

    with ray_running():
        rates = in_turns(
            {
                "ours": lambda: trained(ProgramReward(PROGRAM), 40_960)[0],
                "sb3": lambda: theirs(get_task(TASK).make),
                "sb3_own_view": lambda: theirs(own_view),
            },
            turns=3,
        )
    return {
        "steps_per_s": {name: round(rate) for name, rate in rates.items()},
        "over_sb3": round(rates["ours"] / rates["sb3"], 2),
        "over_sb3_own_view": round(rates["ours"] / rates["sb3_own_view"], 2),
    }
