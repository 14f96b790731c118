"""RewardChannel: the versioned broadcast of the current reward source to all env runners."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import ray

from carl.errors import ResourceError
from carl.rewards.source import RewardSource


class RewardChannel:
    """What runners ask for the current reward, and what they answered. A plain class; its actor only forwards.

    ``payload`` is what carries the source: in the actor a list with one ObjectRef, so that Ray fetches it lazily.
    """

    def __init__(self, version: int = 0) -> None:
        """``version`` is the last one ever used; 0 means none, and nobody is paid by a source."""
        self._version = version
        self._payload: Any = None
        self._acknowledged: dict[str, int] = {}
        self._births: dict[str, int] = {}

    def publish(self, payload: Any) -> int:
        """Make ``payload`` the current source; returns its version."""
        self._version += 1
        self._payload = payload
        return self._version

    def current(self) -> tuple[int, Any]:
        """The current version and its payload; None while nothing was published."""
        return self._version, self._payload

    def enroll(self, runner: str) -> int:
        """Count the birth of ``runner``; returns how often it was built before."""
        self._births[runner] = self._births.get(runner, 0) + 1
        return self._births[runner] - 1

    def acknowledge(self, runner: str, version: int) -> None:
        """``runner`` begins its next episodes with ``version``."""
        self._acknowledged[runner] = version

    def acknowledgements(self) -> dict[str, int]:
        """The last version that each runner acknowledged."""
        return dict(self._acknowledged)

    def births(self) -> dict[str, int]:
        """How often each runner was built; more than once: it was restarted."""
        return dict(self._births)


@dataclass(frozen=True)
class ChannelClient:
    """Speaks to the channel's actor by its name, so that configurations and checkpoints hold no handle.

    All methods raise ResourceError when the actor is gone.
    """

    name: str

    def publish(self, source: RewardSource) -> int:
        """Broadcast ``source``; returns its version. The caller has to outlive the runners' use of it."""
        return int(self._ask("publish", [ray.put(source)]))

    def enroll(self, runner: str) -> int:
        return int(self._ask("enroll", runner))

    def newer_than(self, version: int) -> tuple[int, RewardSource] | None:
        """The current version and source if it is not ``version``; None if it is, or if there is none."""
        current, payload = self._ask("current")
        if payload is None or current == version:
            return None
        return current, ray.get(payload[0])

    def acknowledge(self, runner: str, version: int) -> None:
        self._ask("acknowledge", runner, version)

    def acknowledgements(self) -> dict[str, int]:
        return dict(self._ask("acknowledgements"))

    def births(self) -> dict[str, int]:
        return dict(self._ask("births"))

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            return ray.get(getattr(ray.get_actor(self.name), method).remote(*args))
        except (ValueError, ray.exceptions.RayActorError) as error:
            raise ResourceError(
                f"the reward channel {self.name!r} is gone, so no new reward can reach the env runners: run the "
                "training again, it continues from its last checkpoint"
            ) from error


@contextmanager
def reward_channel(version: int = 0) -> Iterator[ChannelClient]:
    """A channel for the time of the context, in an actor that takes no CPU; ``version`` was the last one used."""
    client = ChannelClient(f"carl-rewards-{uuid4().hex}")
    actor: Any = ray.remote(num_cpus=0)(RewardChannel).options(name=client.name).remote(version)
    try:
        yield client
    finally:
        ray.kill(actor)
