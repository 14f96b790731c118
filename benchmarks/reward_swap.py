"""How long a new reward takes to reach all who pay by it."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from doorkey import MIX, PROGRAM, TASK
from light import Light

from carl.broadcast.channel import reward_channel
from carl.cluster.session import ray_running
from carl.config import TrainConfig
from carl.program import RewardProgram
from carl.rewards.program import ProgramReward
from carl.rewards.source import RewardSource
from carl.tasks import get_task


def swap() -> dict[str, Any]:
    """Milliseconds from publishing a program to its last acknowledgement: 16 runners that rest, the same while they
    sample, and 64 light actors that only listen."""
    import ray

    found = {}
    with ray_running():
        for name, count, build in (("runners", 16, started_runner), ("light_actors", 64, started_light)):
            with reward_channel() as channel:
                channel.publish(variant(0))
                actors: list[Any] = []
                for first in range(0, count, 4):  # a few at a time: starting takes the processor
                    new = [build(channel, index) for index in range(first, first + 4)]
                    ray.get([actor.ping.remote() for actor in new])
                    actors += new
                found[name] = published(channel, count)
                if name == "runners":
                    samples = [actor.sample.remote(num_timesteps=100_000) for actor in actors]
                    found["runners_sampling"] = published(channel, count)
                    if ray.wait(samples, timeout=0)[0]:
                        raise RuntimeError("a runner had finished before the last publish")
                for actor in actors:
                    ray.kill(actor)
    return found


def variant(number: int) -> ProgramReward:
    """A program of its own, of the usual size."""
    first, *rest = PROGRAM.subtasks
    renamed = first.model_copy(update={"name": f"variant {number}"})
    return ProgramReward(RewardProgram(subtasks=(renamed, *rest)))


def started_runner(channel: Any, index: int) -> Any:
    import ray

    from carl.training.rllib.algorithms import configure
    from carl.training.rllib.runner import PaidRunner, RunnerSetup

    config = configure(RunnerSetup(get_task(TASK), MIX, 0, channel), TrainConfig(env_runners=0, envs_per_runner=8))
    return ray.remote(num_cpus=0)(PaidRunner).remote(config=config, worker_index=index + 1)


def started_light(channel: Any, index: int) -> Any:
    import ray

    return ray.remote(num_cpus=0)(Light).remote(channel, f"light-{index}")


def published(
    channel: Any, count: int, times: int = 20, source: Callable[[int], RewardSource] = variant
) -> dict[str, float]:
    """Median and worst of some publishes of ``source``, each acknowledged by all."""
    latencies = []
    for number in range(1, times + 1):
        answers = channel.wait_acknowledged(channel.publish(source(number)), timeout_s=30.0)
        if answers.missing or answers.refused or len(answers.seconds) < count:
            raise RuntimeError(f"not everybody acknowledged: {answers}")
        latencies.append(1e3 * answers.latency_s)
        time.sleep(0.5)
    return {"median_ms": round(float(np.median(latencies)), 1), "worst_ms": round(max(latencies), 1)}
