"""Episodes that cannot be had."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Never

from carl.episodes.trajectory import Trajectory
from carl.errors import TaskError


class Unobtainable(TaskError):
    """Episodes of a kind cannot be had of this task; the message says why."""


@dataclass(frozen=True)
class Missing(Sequence[Trajectory]):
    """No episodes where some are looked for, and why there are none, in words."""

    why: str

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Trajectory]:
        return iter(())

    def __getitem__(self, index: Any) -> Never:
        raise IndexError(f"there are no episodes: {self.why}")


def why_missing(episodes: Iterable[Trajectory] | None) -> str:
    """Why there are no ``episodes``, in words."""
    return episodes.why if isinstance(episodes, Missing) else "none were recorded"
