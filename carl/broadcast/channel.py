"""RewardChannel: the versioned broadcast of the current reward source, and the answers of the processes it pays in."""

import asyncio
import math
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import uuid4

import ray
from ray import cloudpickle

from carl.cluster.core import lost
from carl.cluster.session import here
from carl.errors import ResourceError
from carl.rewards.source import RewardSource

_cloudpickle: Any = cloudpickle  # Ray leaves it untyped

WATCH_S = 60.0
"""A call that waits for a new version returns empty after this long, so that calls of dead processes end."""

KEPT = 16
"""Versions that are kept at most, for followers that cannot open the newest."""

SMALL_BYTES = 64 * 1024
"""A pickled source up to this size, as a program is, travels in the channel's answers; a larger one is fetched."""


@dataclass(frozen=True)
class Offer:
    """A published version.

    ``payload`` is its source, pickled; or a list with the ObjectRef of that, which Ray passes on unfetched, and which
    lasts as long as the process that published it.
    """

    version: int
    source_id: str | None
    payload: Any

    def source(self) -> RewardSource:
        """Fetch and unpickle the source; raises whatever Ray or unpickling raises."""
        pickled: bytes = self.payload if isinstance(self.payload, bytes) else ray.get(self.payload[0])
        source: RewardSource = pickle.loads(pickled)
        return source


class Refusal(NamedTuple):
    """The last version that a follower could not adopt, and the reason."""

    version: int
    reason: str


@dataclass(frozen=True)
class Answers:
    """The answers of followers to one version.

    Attributes:
        seconds: from publication to acknowledgement, by name.
        refused: reasons, by the names of those that refused.
        missing: names without an answer.
    """

    seconds: dict[str, float]
    refused: dict[str, str]
    missing: frozenset[str]

    @property
    def latency_s(self) -> float:
        """Seconds until the last acknowledgement so far; NaN if there is none."""
        return max(self.seconds.values(), default=math.nan)


class RewardChannel:
    """The published versions and the answers to them, by the followers' names. A plain class, in an actor."""

    def __init__(self, version: int = 0) -> None:
        """``version`` is the last one ever used; 0 means none."""
        self._version = version
        self._offers: dict[int, Offer] = {}
        self._times: dict[int, float] = {}
        self._acknowledged: dict[str, tuple[int, float]] = {}
        self._refused: dict[str, Refusal] = {}
        self._births: dict[str, int] = {}
        self._failure: str | None = None
        self._listening: dict[str, asyncio.Event] = {}
        self._answered = asyncio.Event()

    def publish(self, payload: Any, source_id: str | None = None) -> int:
        """Make ``payload`` the current source; returns its version."""
        self._version += 1
        self._offers[self._version] = Offer(self._version, source_id, payload)
        self._offers = dict(list(self._offers.items())[-KEPT:])
        self._times[self._version] = time.monotonic()
        for heard in self._listening.values():
            heard.set()
        return self._version

    def offers(self, after: int = 0) -> list[Offer]:
        """The versions above ``after``, newest first. Those older than all acknowledged ones are dropped."""
        return [offer for version, offer in sorted(self._offers.items(), reverse=True) if version > after]

    async def watch(self, name: str, after: int, adopted: int) -> list[Offer]:
        """``offers(after)``, as soon as there are any; none after WATCH_S, or when ``name`` leaves.

        ``name`` listens from now on, and acknowledges the version ``adopted``; 0 for none.
        """
        heard = self._listening[name] = asyncio.Event()
        if adopted > self.acknowledgements().get(name, 0):
            self.acknowledge(name, adopted)
        if not self.offers(after):
            with suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), WATCH_S)
        return self.offers(after)

    def leave(self, name: str) -> None:
        """End the listening of ``name``."""
        if heard := self._listening.pop(name, None):
            heard.set()

    def enroll(self, name: str) -> int:
        """Count the birth of ``name``; returns how often it was built before."""
        self._births[name] = self._births.get(name, 0) + 1
        return self._births[name] - 1

    def acknowledge(self, name: str, version: int) -> None:
        """Record that every episode that ``name`` begins from now on is paid by ``version``."""
        if version != self._acknowledged.get(name, (0, 0.0))[0]:
            self._acknowledged[name] = version, time.monotonic()
        oldest = min(version for version, _ in self._acknowledged.values())
        self._offers = {version: offer for version, offer in self._offers.items() if version >= oldest}
        self._wake()

    def refuse(self, name: str, version: int, reason: str) -> None:
        """Record that ``name`` cannot adopt ``version`` and keeps the one it has."""
        self._refused[name] = Refusal(version, reason)
        self._wake()

    def acknowledgements(self) -> dict[str, int]:
        """The last version that each name acknowledged."""
        return {name: version for name, (version, _) in self._acknowledged.items()}

    def refusals(self) -> dict[str, Refusal]:
        """The last refusal of each name that ever refused."""
        return dict(self._refused)

    def births(self) -> dict[str, int]:
        """How often each name was built; more than once: it was restarted."""
        return dict(self._births)

    def report(self, name: str, failure: str) -> None:
        """Record that ``name`` ends with ``failure``, an error of the task's code. The first one counts."""
        self._failure = self._failure or failure
        self.leave(name)

    def failure(self) -> str | None:
        """The first failure that was reported; None if there is none."""
        return self._failure

    async def answers(self, version: int, names: Sequence[str] | None, timeout_s: float) -> Answers:
        """The answers of ``names`` to ``version`` or a newer one; waits for all of them, at most ``timeout_s``.

        Without names: those that listen.
        """
        wanted = frozenset(self._listening if names is None else names)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._answers(version, wanted).missing:
                    await self._answered.wait()
        return self._answers(version, wanted)

    def _wake(self) -> None:
        """Wake the calls that wait for answers."""
        answered, self._answered = self._answered, asyncio.Event()
        answered.set()

    def _answers(self, version: int, names: frozenset[str]) -> Answers:
        since = self._times[version]
        seconds = {
            name: at - since for name, (seen, at) in self._acknowledged.items() if name in names and seen >= version
        }
        refused = {
            name: refusal.reason
            for name, refusal in self._refused.items()
            if name in names and refusal.version >= version and name not in seconds
        }
        return Answers(seconds, refused, names - {*seconds, *refused})


@dataclass(frozen=True)
class ChannelClient:
    """Calls the channel's actor by its name, so that configurations and checkpoints hold no handle.

    Methods that wait for an answer raise ResourceError when the actor is gone; those that send only do nothing.
    """

    name: str

    def publish(self, source: RewardSource) -> int:
        """Broadcast ``source``; returns its version. A large source is lost with the process that published it."""
        pickled: bytes = _cloudpickle.dumps(source)
        payload = pickled if len(pickled) <= SMALL_BYTES else [ray.put(pickled)]
        return int(self._ask("publish", payload, source.id))

    def wait_acknowledged(self, version: int, names: Sequence[str] | None = None, timeout_s: float = 30.0) -> Answers:
        """Wait until ``names`` have acknowledged or refused ``version``, at most ``timeout_s``.

        Without names: all that listen, which are the env runners, but not the evaluating processes: those acknowledge
        when the next evaluation begins.
        """
        answers: Answers = self._ask("answers", version, names, timeout_s)
        return answers

    def offers(self, after: int = 0) -> list[Offer]:
        """What was published above version ``after``, newest first: see ``RewardChannel.offers``."""
        return list(self._ask("offers", after))

    def watch(self, name: str, after: int, adopted: int) -> list[Offer]:
        """Wait for what is published above version ``after``: see ``RewardChannel.watch``."""
        return list(self._ask("watch", name, after, adopted))

    def enroll(self, name: str) -> int:
        """Count the birth of ``name``; returns the number of times it was built before."""
        return int(self._ask("enroll", name))

    def acknowledge(self, name: str, version: int) -> None:
        """Send that ``name`` adopted ``version``; do not wait."""
        self._send("acknowledge", name, version)

    def refuse(self, name: str, version: int, reason: str) -> None:
        """Send that ``name`` refuses ``version``; do not wait."""
        self._send("refuse", name, version, reason)

    def leave(self, name: str) -> None:
        """Send that ``name`` listens no more; do not wait."""
        self._send("leave", name)

    def acknowledgements(self) -> dict[str, int]:
        """By name, the version that each process adopted last."""
        return dict(self._ask("acknowledgements"))

    def refusals(self) -> dict[str, Refusal]:
        """By name, the version that each process refused last, and the reason."""
        return dict(self._ask("refusals"))

    def births(self) -> dict[str, int]:
        """By name, the number of times that each process was built."""
        return dict(self._ask("births"))

    def report(self, name: str, failure: str) -> None:
        """Record that ``name`` ends with ``failure``, an error of the task's code."""
        self._ask("report", name, failure)

    def failure(self) -> str | None:
        """The first failure that was reported; None if there is none."""
        failure: str | None = self._ask("failure")
        return failure

    def _ask(self, method: str, *args: Any) -> Any:
        with self._named():
            return ray.get(getattr(_actor(self.name), method).remote(*args))

    def _send(self, method: str, *args: Any) -> None:
        if ray.is_initialized():  # asking for an actor would start Ray again
            with suppress(ResourceError), self._named():
                getattr(_actor(self.name), method).remote(*args)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, ray.exceptions.RayActorError) as error:
            raise ResourceError(
                f"the reward channel {self.name!r} is gone, so no new reward can reach the env runners: run the "
                "training again, it continues from its last checkpoint"
            ) from error


@lru_cache(maxsize=8)
def _actor(name: str) -> Any:
    """The channel's handle; its name is used once only."""
    return ray.get_actor(name)


@contextmanager
def reward_channel(version: int = 0) -> Iterator[ChannelClient]:
    """A channel for the time of the context, in an actor that takes no CPU; ``version`` was the last one used."""
    client = ChannelClient(f"carl-rewards-{uuid4().hex}")
    remote = ray.remote(num_cpus=0, scheduling_strategy=here())(RewardChannel)
    actor: Any = remote.options(name=client.name).remote(version)
    try:
        yield client
    finally:
        if not lost():
            ray.kill(actor)
