"""What a program calls done against what the oracle says happened, frame by frame, and what it pays for in part."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.kept import without_faults
from carl.config import CollectConfig
from carl.episodes.trajectory import Trajectory
from carl.program import DONE, RewardProgram
from carl.sandbox.box import Box, Limits
from carl.verification.replay import AT_ONCE, Replay

Held = Mapping[str, Sequence[Trajectory]]
"""Held-out episodes by kind, with events."""

COINCIDE = 0.5
"""A sub-task means an event if both first come at the same frame in at least this share of the experts."""

RANDOM_CUT = CollectConfig().random_cut
"""As a run's random episodes are cut."""

Flags = NDArray[np.bool_]
"""``bool[T + 1, K]``: what is done by each frame of an episode."""


@dataclass(frozen=True)
class Shown:
    """What a program made of one episode: latched progress ``float64[T + 1, K]``."""

    progress: NDArray[np.float64]

    @property
    def done(self) -> Flags:
        return self.progress >= DONE


def shown(program: RewardProgram, episodes: Sequence[Trajectory], limits: Limits | None = None) -> list[Shown]:
    """Latched progress after each frame; where a sub-task abstains it stays as it was.

    Raises BoxError where it abstains for a fault of the machine.
    """
    found: list[Shown] = []
    with Box(program, limits) as box:
        for start in range(0, len(episodes), AT_ONCE):
            part = episodes[start : start + AT_ONCE]
            replay, history = Replay(program, part), []
            replay.run([box], lambda _, seen=history, at=replay: seen.append(at.latch.best.copy()), to_the_end=True)
            without_faults(replay.episodes())
            found += [Shown(np.stack([now[row] for now in history[: len(one.frames)]])) for row, one in enumerate(part)]
    return found


def all_shown(program: RewardProgram, held: Held) -> dict[str, list[Shown]]:
    """``shown`` for episodes of every kind, in one process."""
    made = iter(shown(program, [episode for episodes in held.values() for episode in episodes]))
    return {kind: list(islice(made, len(episodes))) for kind, episodes in held.items()}


def in_order(happened: Sequence[NDArray[np.bool_]]) -> Flags:
    """Events as a latch sees them: each counts from its first frame on at which the ones before it have counted."""
    done = np.zeros((len(happened[0]) if happened else 0, len(happened)), dtype=bool)
    start = 0
    for column, event in enumerate(happened):
        later = np.flatnonzero(event[start:])
        if not later.size:
            break
        start += int(later[0])
        done[start:, column] = True
    return done


def firsts(done: Flags) -> list[int]:
    """The first frame at which each column is done, -1 where it never is."""
    return [int(column.argmax()) if column.any() else -1 for column in done.T]


Meant = Mapping[int, tuple[str, float]]
"""Sub-task to (event, share of the experts in which both first come at the same frame)."""


def matched(program: RewardProgram, experts: Sequence[Trajectory], made: Sequence[Shown]) -> Meant:
    """Which event each sub-task means; not all mean one.

    Among all ways to give sub-tasks events in the oracle's order, each event once and only where the share is at least
    ``COINCIDE``, the one with the largest sum of shares. A sub-task that has to be shown for k frames is k - 1 late.
    """
    names = list(experts[0].events)
    share = _coinciding(program, experts, made)

    @cache
    def best(k: int, e: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        if k == len(share):
            return 0.0, ()
        options = [best(k + 1, e)]
        for event in range(e, len(names)):
            if share[k, event] >= COINCIDE:
                total, rest = best(k + 1, event + 1)
                options.append((total + float(share[k, event]), ((k, event), *rest)))
        return max(options)

    return {k: (names[e], float(share[k, e])) for k, e in best(0, 0)[1]}


def _coinciding(program: RewardProgram, experts: Sequence[Trajectory], made: Sequence[Shown]) -> NDArray[np.float64]:
    """Share of the experts in which a sub-task and an event first come at the same frame, ``float64[K, E]``."""
    events = np.array([firsts(in_order(list(one.events.values()))) for one in experts])
    done = np.array([firsts(one.done) for one in made])
    late = np.array([subtask.hold - 1 for subtask in program.subtasks])
    same = done[:, :, None] == events[:, None, :] + late[None, :, None]
    return np.asarray((same & (events >= 0)[:, None, :]).mean(axis=0))


@dataclass
class Count:
    """Frames, or episodes, by what the program and the oracle say of them."""

    both: int = 0
    program: int = 0
    oracle: int = 0
    frames: int = 0
    agreed: int = 0

    def add(self, done: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        self.both += int((done & truth).sum())
        self.program += int(done.sum())
        self.oracle += int(truth.sum())
        self.frames += len(truth)
        self.agreed += int((done == truth).sum())

    @property
    def precision(self) -> float:
        return self.both / self.program if self.program else 1.0

    @property
    def recall(self) -> float:
        return self.both / self.oracle if self.oracle else 1.0

    @property
    def accuracy(self) -> float:
        return self.agreed / self.frames if self.frames else 1.0


def counted(pairs: Mapping[int, str], made: Mapping[str, Sequence[Shown]], held: Held) -> dict[int, Count]:
    """Frames of all episodes for each sub-task of ``pairs``, against the event it means; the events latch in order."""
    found = {k: Count() for k in pairs}
    for kind, episodes in held.items():
        for episode, one in zip(episodes, made[kind], strict=True):
            truth = in_order([episode.events[name] for name in pairs.values()])
            for column, k in enumerate(pairs):
                found[k].add(one.done[:, k], truth[:, column])
    return found


def completed(made: Mapping[str, Sequence[Shown]], held: Held) -> Count:
    """Episodes that end with every sub-task done, against those that solve the task."""
    count = Count()
    for kind, episodes in held.items():
        done = np.array([one.done[-1].all() for one in made[kind]])
        count.add(done, np.array([episode.success for episode in episodes]))
    return count


@dataclass(frozen=True)
class Judged:
    """What the oracle and the episodes say of a program whose sub-tasks' events are known.

    Attributes:
        accuracy: share of frames at which a sub-task and its event agree, the smallest over sub-tasks and kinds.
        early: share of the experts in which every sub-task is done before the last frame.
        paid: mean over random play of what is paid for sub-tasks that are not done then, over the whole return, after
            ``RANDOM_CUT`` times the longest expert's steps. What a sub-task shows as its turn comes is its zero.
    """

    accuracy: float
    early: float
    paid: float


def judged(program: RewardProgram, events: Sequence[str], held: Held) -> Judged:
    """Label a program; its sub-task k claims ``events[k]``, all of which latch in the oracle's order."""
    made = all_shown(program, held)
    accuracy = 1.0
    for kind, episodes in held.items():
        counts = [Count() for _ in events]
        for episode, one in zip(episodes, made[kind], strict=True):
            names = list(episode.events)
            truth = in_order(list(episode.events.values()))
            for k, event in enumerate(events):
                counts[k].add(one.done[:, k], truth[:, names.index(event)])
        accuracy = min([accuracy, *(count.accuracy for count in counts)])
    weights = np.array([subtask.weight for subtask in program.subtasks])
    early = [one.done[:-1].all(axis=1).any() for one in made["expert"]]
    cut = math.ceil(RANDOM_CUT * max(map(len, held["expert"])))
    part = [(_unfinished(one, cut, program.ordered) * weights).sum() for one in made["random"]]
    return Judged(accuracy, float(np.mean(early)), float(np.mean(part) / weights.sum()))


def _unfinished(one: Shown, cut: int, ordered: bool) -> NDArray[np.float64]:
    """What each sub-task that is not done by the frame ``cut`` has earned of its weight, ``float64[K]``."""
    progress, done = one.progress[: cut + 1], one.done[: cut + 1]
    turns = [0, *firsts(done)[:-1]] if ordered else [0] * done.shape[1]
    began = np.array([progress[turn, k] if turn >= 0 else 0.0 for k, turn in enumerate(turns)])
    return np.where(done[-1], 0.0, progress[-1] - began)
