"""What a program made of one recorded episode: the facts that rules judge."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from carl.program import DONE


@dataclass(frozen=True)
class Moment:
    """Something noted about a sub-task at one frame."""

    step: int
    subtask: int
    note: str


@dataclass(frozen=True)
class Track:
    """What one sub-task showed in an episode; NaN is an abstain.

    Attributes:
        active_at: the frame at which it became active; -1: never.
        shown: its progress there and at each frame after it, up to that at which it was done.
        after: its progress at the frames that follow, as many as were asked for.
        hold: for how many frames in a row it has to be shown done.
    """

    active_at: int = -1
    shown: tuple[float, ...] = ()
    after: tuple[float, ...] = ()
    hold: int = 1

    @cached_property
    def done(self) -> bool:
        """Whether it got done."""
        return len(self.shown) >= self.hold and all(value >= DONE for value in self.shown[-self.hold :])

    @property
    def done_at(self) -> int:
        """The frame at which it was done; -1: never."""
        return self.active_at + len(self.shown) - 1 if self.done else -1

    @cached_property
    def first_at(self) -> int:
        """The frame that first showed it done, earlier than ``done_at`` if it has to last; -1: never."""
        return next((self.active_at + at for at, value in enumerate(self.shown) if value >= DONE), -1)

    @cached_property
    def best(self) -> float:
        """The largest progress that it showed."""
        return max((value for value in self.shown if value == value), default=0.0)

    @cached_property
    def best_at(self) -> int:
        """The first frame that showed the largest progress; -1: there was none."""
        return next((self.active_at + at for at, value in enumerate(self.shown) if value >= self.best), -1)

    @cached_property
    def part(self) -> float:
        """What it has earned, in [0, 1], without its being done: its best progress below done, above its first."""
        return self.nearest - self.shown[0] if self.shown and self.shown[0] < DONE else 0.0

    @cached_property
    def nearest(self) -> float:
        """Its best progress below done; 0 if it showed none."""
        return max((value for value in self.shown if value < DONE), default=0.0)

    @property
    def nearest_at(self) -> int:
        """The first frame that showed ``nearest``; -1: there was none."""
        return next((self.active_at + at for at, value in enumerate(self.shown) if value == self.nearest), -1)


@dataclass(frozen=True)
class Episode:
    """What a program made of one episode of T steps.

    Attributes:
        source, seed: who played, and what the environment was reset with.
        steps: T; the last frame's index.
        solved: whether the task's own measure calls the episode a success, at its last frame.
        completed: whether every sub-task was done.
        tracks: what each sub-task showed.
        actions: ``[T]`` or ``[T, A]``; the one at index t leads to frame t + 1.
        abstains: where the program gave no answer, and why.
        differing: where a second run gave another answer.
        judged: frames that were looked at, counted once for every sub-task.
        repeated: how many of those were asked again of another process.
        varied: how many were asked with a frame that looks a little different.
        unstable: where that made a difference.
        cost: processor seconds of a judgement of each sub-task, in its batch; 0 or empty: not measured.
    """

    source: str
    seed: int
    steps: int
    solved: bool
    completed: bool
    tracks: tuple[Track, ...]
    actions: NDArray[Any]
    abstains: tuple[Moment, ...] = ()
    differing: tuple[Moment, ...] = ()
    judged: int = 0
    repeated: int = 0
    varied: int = 0
    unstable: tuple[Moment, ...] = ()
    cost: tuple[float, ...] = ()

    @property
    def done_at(self) -> list[int]:
        """The frame at which each sub-task was done; -1: never."""
        return [track.done_at for track in self.tracks]

    @property
    def fired(self) -> Iterator[tuple[int, Track]]:
        """The sub-tasks that got done, by index, with their tracks."""
        return ((index, track) for index, track in enumerate(self.tracks) if track.done)
