"""What a task's or a reward source's code raises in an env runner: reported at the channel, raised in the driver."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from carl.broadcast.channel import ChannelClient
from carl.cluster.core import clearly
from carl.cluster.session import on
from carl.errors import BoxError, CarlError, ResourceError, RewardError, TaskError
from carl.rewards.session import SOURCE
from carl.task import Task

DEATHS = 3
"""Times that an env runner may die before a step is taken; a machine that fails now and then ends fewer in a row."""

SETUP = "carl"
"""Key of the RunnerSetup in RLlib's ``env_config``."""


@contextmanager
def reported(channel: ChannelClient, name: str) -> Iterator[None]:
    """Report a TaskError or a RewardError at ``channel`` on its way: RLlib keeps it in Ray's logs, and restarts the env
    runner ``name``. What is another's fault restarts it too and is not reported, such as a BoxError: another process
    may run the program."""
    try:
        yield
    except BoxError:
        raise
    except (TaskError, RewardError) as error:
        with suppress(ResourceError):  # without the channel it is raised all the same
            channel.report(name, str(error))
        raise


def raise_reported(channel: ChannelClient) -> None:
    """Raise the first error that was reported at ``channel``, if there is one and the channel is there."""
    with suppress(ResourceError):
        failure = channel.failure()
        if failure is not None:
            raise RewardError(failure) if failure.startswith(SOURCE) else TaskError(failure)


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Hold back what RLlib logs, tracebacks of many lines; drop it where an error of carl's is raised instead."""
    rllib, kept = logging.getLogger("ray.rllib"), _Kept()
    handlers, propagate = rllib.handlers, rllib.propagate
    rllib.handlers, rllib.propagate = [kept], False
    try:
        yield
    except CarlError:
        kept.records.clear()
        raise
    finally:
        rllib.handlers, rllib.propagate = handlers, propagate
        for record in kept.records:
            rllib.handle(record)


def raise_unimportable(task: Task) -> None:
    """Raise TaskError if ``task`` cannot be unpickled by a process on each node of the cluster."""
    remote: Any = ray.remote(num_cpus=0)(_receive)
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    living = [node["NodeID"] for node in nodes if node["Alive"]]
    with clearly():
        ray.get([remote.options(scheduling_strategy=on(node)).remote(task) for node in living])


def _receive(task: Task) -> None:
    """To be unpickled on the way here is all."""


class RaisesReported:
    """An RLlib algorithm that ends with what a task's code raised in an env runner. One that merely died comes back,
    unless it dies again and again before anybody has taken a step."""

    _living: tuple[int, dict[str, int]] | None = None

    def restore_env_runners(self, env_runner_group: Any) -> Any:
        """As RLlib's, which it calls before each training step; where runners are down, they may have reported why."""
        rllib: Any = super()
        if env_runner_group.num_healthy_remote_workers() < env_runner_group.num_remote_workers():
            config: Any = self.config  # type: ignore[attr-defined]  # the algorithm's
            raise_reported(config.env_config[SETUP].channel)
            with suppress(ResourceError):
                self._expect_life(config.env_config[SETUP], config.num_envs_per_env_runner)
        return rllib.restore_env_runners(env_runner_group)

    def _expect_life(self, setup: Any, slots: int) -> None:
        """Raise TaskError if an env runner was built anew DEATHS times since the last step of any."""
        metrics: Any = self.metrics  # type: ignore[attr-defined]  # the algorithm's
        steps = int(metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))
        births = setup.channel.births()
        if self._living is None or self._living[0] != steps:
            self._living = steps, births
        for name, count in births.items():
            if count - self._living[1].get(name, 1) >= DEATHS:
                seeds = [str(setup.seed(int(name.rpartition("-")[2]), slot, count - 1)) for slot in range(slots)]
                some = ", ".join(seeds[:3] + ["..."] * (slots > 3))
                raise TaskError(
                    f"task {setup.task.name!r}: {name} ended its process {DEATHS} times before a step was taken, the "
                    f"last time in the episodes of the seeds {some}: its environment ends it, as a renderer without a "
                    "display may, or memory runs out there"
                )
