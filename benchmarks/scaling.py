"""What happens with more env runners: sampling on this machine, the control plane with up to 256 light actors, and the
bytes that travel. DoorKey-8x8, the program that the embedded VLM writes for it. The last line is JSON.

    python benchmarks/scaling.py --only sampling --only traffic
"""

import pickle
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import run
from doorkey import MIX, PROGRAM, TASK, seconds
from light import Light, words
from reward_swap import published

from carl.broadcast.channel import reward_channel
from carl.cluster.session import ray_running
from carl.config import TrainConfig
from carl.rewards.program import ProgramReward
from carl.tasks import get_task

COUNTS = (8, 64, 256)
"""Light actors. Each takes about 60 MB of its own."""


@contextmanager
def algorithm(runners: int, envs: int = 32) -> Iterator[tuple[Any, Any]]:
    """PPO with so many env runners, and the channel that pays them."""
    from carl.training.rllib.algorithms import build
    from carl.training.rllib.runner import RunnerSetup

    with reward_channel() as channel:
        channel.publish(ProgramReward(PROGRAM))
        built: Any = build(
            RunnerSetup(get_task(TASK), MIX, 0, channel),
            TrainConfig(env_runners=runners, envs_per_runner=envs),
        )
        try:
            yield built, channel
        finally:
            built.stop()


def sampling() -> dict[str, Any]:
    """Environment steps per second that one of two env runners samples alone, and that both sample together."""
    rates: dict[str, list[float]] = {"one": [], "two": []}
    with ray_running(), algorithm(2) as (ppo, _):
        group = ppo.env_runner_group
        for turn in range(12):
            for name, who in (("one", [1 + turn % 2]), ("two", [1, 2])):
                taken = seconds(
                    lambda who=who: group.foreach_env_runner(
                        sample, local_env_runner=False, remote_worker_ids=who, mark_healthy=False
                    )
                )
                rates[name].append(len(who) * SAMPLE / taken)
    medians = {name: float(np.median(found[2:])) for name, found in rates.items()}
    return {
        "steps_per_s": {name: round(rate) for name, rate in medians.items()},
        "two_over_one": round(medians["two"] / medians["one"], 2),
    }


SAMPLE = 8_192
"""Steps of one call in ``sampling``."""


def sample(runner: Any) -> None:
    """Sample, and send nothing back."""
    runner.sample(num_timesteps=SAMPLE)


def traffic() -> dict[str, Any]:
    """Bytes between the driver and one env runner, for an environment step and for a call."""
    with ray_running(), algorithm(1) as (ppo, _):
        ppo.train()
        (answer,) = ppo.env_runner_group.foreach_env_runner(what_travels, local_env_runner=False)
        weights = ppo.learner_group.get_weights()
    fragment, steps, metrics = answer
    return {
        "observation_bytes": int(np.prod(get_task(TASK).make().observation_space.shape)) * 4,
        "episodes_bytes_per_step": round(fragment / steps),
        "metrics_bytes_per_call": metrics,
        "weights_bytes_per_call": len(pickle.dumps(weights, protocol=5)),
        "reward_bytes_once": len(pickle.dumps(ProgramReward(PROGRAM))),
    }


def what_travels(runner: Any) -> tuple[int, int, int]:
    episodes = runner.sample(num_timesteps=1024)
    steps = sum(len(episode) for episode in episodes)
    return len(pickle.dumps(episodes, protocol=5)), steps, len(pickle.dumps(runner.get_metrics(), protocol=5))


def control() -> dict[str, Any]:
    """Milliseconds from publishing to the last of N light actors' acknowledgement, and the driver's processor time for
    an environment step: to fetch and unpickle fragments of 64 steps, and to add up metrics."""
    import ray

    found = {}
    with ray_running(), reward_channel() as channel:
        channel.publish(words(0))
        answer, steps = canned()
        light = ray.remote(num_cpus=0)(Light)
        actors: list[Any] = []
        for count in COUNTS:
            while len(actors) < count:  # a few at a time: starting takes the processor
                new = [light.remote(channel, f"light-{len(actors) + index}", answer) for index in range(4)]
                ray.get([actor.ping.remote() for actor in new])
                actors += new
            used = [gathered(actors) / (count * steps) for _ in range(max(6, 512 // count))]
            found[str(count)] = {
                **published(channel, count, times=10, source=words),
                "driver_us_per_step": round(1e6 * float(np.median(used[1:])), 2),
            }
        for actor in actors:
            ray.kill(actor)
    costs = [each["driver_us_per_step"] for each in found.values()]
    return found | {"driver_cost_256_over_8": round(costs[-1] / costs[0], 2)}


def canned() -> tuple[bytes, int]:
    """What an env runner answers to a call, and the steps in it."""
    import ray
    from reward_swap import started_runner

    with reward_channel() as channel:
        channel.publish(ProgramReward(PROGRAM))
        runner = started_runner(channel, 0)
        steps, answer = ray.get(runner.apply.remote(packed))
        ray.kill(runner)
    return answer, steps


def packed(runner: Any) -> tuple[int, bytes]:
    episodes = runner.sample(num_timesteps=64)
    return sum(len(episode) for episode in episodes), pickle.dumps((episodes, runner.get_metrics()), protocol=5)


def gathered(actors: list[Any]) -> float:
    """Seconds of this process's processor time that a round of fragments takes, each let go before the next is fetched,
    as a driver may that only hands them on (RLlib's PPO holds all of a batch); metrics included.
    """
    import ray
    from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

    logger: Any = MetricsLogger(root=True)
    started = time.process_time()
    asked = [actor.sample.remote() for actor in actors]
    logger.aggregate([pickle.loads(ray.get(answer))[1] for answer in asked], key="env_runners")
    logger.reduce()
    return time.process_time() - started


def checkpoint() -> dict[str, Any]:
    """Seconds that a checkpoint takes, which no number of runners changes."""
    from carl.training.checkpoint import KEPT, Checkpoints, Progressed

    with ray_running(), algorithm(0) as (ppo, _), tempfile.TemporaryDirectory() as folder:
        ppo.train()
        kept = Checkpoints(Path(folder))
        taken = [seconds(lambda n=n: kept.save(ppo, Progressed(env_steps=n))) for n in range(1, 6)]
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) // KEPT
    return {"seconds": round(float(np.median(taken)), 3), "bytes": size}


if __name__ == "__main__":
    run("scaling", {"sampling": sampling, "traffic": traffic, "control": control, "checkpoint": checkpoint}, task=TASK)
