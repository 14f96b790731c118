"""What the control plane sees of an env runner, in a process that imports little."""

from dataclasses import dataclass
from typing import Any

from carl.broadcast.follower import Follower


@dataclass(frozen=True)
class Words:
    """What the channel needs of a reward source to carry it about."""

    id: str
    source: str


def words(number: int) -> Words:
    """A source of a program's size."""
    return Words(f"words-{number}", "x" * 1_500)


class Light:
    """Follows the channel, and answers calls with a fragment that was sampled before."""

    def __init__(self, channel: Any, name: str, answer: bytes = b"") -> None:
        self._answer = answer
        self._follower = Follower(channel, name, lambda *_: None)
        self._follower.begin()
        self._follower.listen()

    def ping(self) -> str:
        return "pong"

    def sample(self) -> bytes:
        return self._answer
