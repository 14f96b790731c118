"""What a task's code raises in an env runner: reported at the reward channel, and raised in the driver."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from carl.errors import ResourceError, TaskError
from carl.training.channel import ChannelClient

SETUP = "carl"
"""Key of the RunnerSetup in RLlib's ``env_config``."""


@contextmanager
def reported(channel: ChannelClient, name: str) -> Iterator[None]:
    """Report a TaskError at ``channel`` on its way: RLlib keeps it in Ray's logs, and restarts the env runner ``name``.
    What is not the task's is not reported, and restarts it too."""
    try:
        yield
    except TaskError as error:
        with suppress(ResourceError):  # without the channel it is raised all the same
            channel.report(name, str(error))
        raise


def raise_reported(channel: ChannelClient) -> None:
    """Raise the first error that was reported at ``channel``, if there is one and the channel is there."""
    with suppress(ResourceError):
        failure = channel.failure()
        if failure is not None:
            raise TaskError(failure)


class RaisesReported:
    """An RLlib algorithm that ends with what a task's code raised in an env runner. One that merely died comes back."""

    def restore_env_runners(self, env_runner_group: Any) -> Any:
        """As RLlib's, which it calls before each training step; where runners are down, they may have reported why."""
        rllib: Any = super()
        if env_runner_group.num_healthy_remote_workers() < env_runner_group.num_remote_workers():
            config: Any = self.config  # type: ignore[attr-defined]  # the algorithm's
            raise_reported(config.env_config[SETUP].channel)
        return rllib.restore_env_runners(env_runner_group)
