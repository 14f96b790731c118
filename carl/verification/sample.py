"""A few recorded episodes on which functions are compared, faster and more finely than the gate judges programs.

What single functions say of every frame is kept, and a program's latch runs over that: so any combination of functions
is looked at without running code again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from carl.episodes.trajectory import Trajectory
from carl.errors import BoxError, ProgramError
from carl.program import DONE, RewardProgram, SubTask
from carl.rewards.latch import Latch, Slots
from carl.sandbox.box import Box, Limits
from carl.verification.report import VerificationReport
from carl.verification.rule import Evidence

EPISODES, FEWER = 12, 6
"""Most episodes of experts and of random play, and of each other kind: a function is run on all of them in about a
second, and a number is tuned in 24 such runs."""

FRAMES = 96
"""Most frames of an episode that does not solve its task."""

MOST = 96
"""Most episodes altogether."""

AT_ONCE = 256
"""Frames of one call of the box."""

Episodes = Mapping[Evidence, Iterable[Trajectory]]


@dataclass(frozen=True, eq=False)
class Played:
    """What a program makes of the N episodes of a sample; -1 is never.

    Attributes:
        active_at, done_at: ``intp[N, K]``, the frames at which sub-tasks became active and done.
        best: ``float64[N, K]``, the largest progress shown.
        first: ``float64[N, K]``, the progress shown where the sub-task became active.
    """

    active_at: NDArray[np.intp]
    done_at: NDArray[np.intp]
    best: NDArray[np.float64]
    first: NDArray[np.float64]

    @property
    def completed(self) -> NDArray[np.bool_]:
        """Which episodes had every sub-task done, ``bool[N]``."""
        return np.asarray((self.done_at >= 0).all(axis=1))


class Sample:
    """The first episodes of each kind, and those that decided against programs.

    Attributes:
        episodes: N of them, of all kinds.
        kinds: the kind of each.
        steps: ``intp[N]``, the index of each one's last frame that is looked at.
        solved: ``bool[N]``, which of them solve their task.
    """

    def __init__(
        self, episodes: Episodes, limits: Limits | None = None, among: Sequence[Episodes] | None = None
    ) -> None:
        """``among`` are the sets in which episodes that decided are looked up; None: ``episodes`` alone."""
        self.kinds: list[Evidence] = []
        self.episodes: list[Trajectory] = []
        self.steps = np.empty(0, dtype=np.intp)
        self.solved = np.empty(0, dtype=bool)
        self._among = [episodes] if among is None else among
        self._limits = limits
        self._known: dict[str, list[NDArray[np.float64]] | None] = {}
        for kind, several in episodes.items():
            self._take([(kind, one) for one in islice(several, EPISODES if kind.required else FEWER)])

    def learn(self, report: VerificationReport) -> None:
        """Take in the episodes that decided against a program, as far as they are at hand and there is room."""
        wanted = {(frame.source, frame.seed) for check in report.failed for frame in check.frames}
        wanted -= {(str(kind), one.seed) for kind, one in zip(self.kinds, self.episodes, strict=True)}
        found = []
        for source in self._among:
            for kind in (kind for kind in source if any(str(kind) == name for name, _ in wanted)):
                found += [(kind, one) for one in source[kind] if (str(kind), one.seed) in wanted]
        room = MOST - len(self.episodes)
        self._take(found[: max(0, room)])

    def _take(self, found: Sequence[tuple[Evidence, Trajectory]]) -> None:
        self.kinds += [kind for kind, _ in found]
        self.episodes += [episode for _, episode in found]
        self.solved = np.array([episode.success for episode in self.episodes], dtype=bool)
        counts = [len(one.frames) if one.success else min(len(one.frames), FRAMES) for one in self.episodes]
        self.steps = np.array(counts, dtype=np.intp) - 1

    def values(self, code: str) -> NDArray[np.float64] | None:
        """What a function says of every frame, ``float64[N, T]``, NaN after an episode's end.

        None if the static policy refuses it, or if it gives no number for some frame.
        """
        known = self._known.get(code, [])
        if known is not None and len(known) < len(self.episodes):
            more = self._run(code, len(known))
            known = self._known[code] = None if more is None else known + more
        if known is None:
            return None
        said = np.full((len(known), int(self.steps.max(initial=0)) + 1), np.nan)
        for row, each in enumerate(known):
            said[row, : len(each)] = each
        return said

    def _run(self, code: str, first: int) -> list[NDArray[np.float64]] | None:
        """Its values on the episodes from the ``first``."""
        try:
            with Box(RewardProgram(subtasks=(SubTask(name="one", code=code),)), self._limits) as box:
                return [
                    _judged(box, self.episodes[row], self.steps[row] + 1) for row in range(first, len(self.episodes))
                ]
        except (ProgramError, BoxError):  # the gate says the reason of the program that holds it
            return None

    def play(self, program: RewardProgram) -> Played | None:
        """The program's latch over all episodes; None where a function gives no number."""
        said = [self.values(subtask.code) for subtask in program.subtasks]
        if any(each is None for each in said) or not self.episodes:
            return None
        values = np.stack([each for each in said if each is not None])
        latch, count = Latch(program, len(self.episodes)), len(self.episodes)
        firsts = np.zeros((count, len(program.subtasks)))
        active_at, done_at = (np.full((count, len(program.subtasks)), -1, dtype=np.intp) for _ in range(2))
        everyone = np.arange(count)
        for step in range(values.shape[2]):
            slots = everyone[self.steps >= step]

            def judge(rows: Slots, tasks: Slots, slots: Slots = slots, step: int = step) -> NDArray[np.float64]:
                where = slots[rows]
                first = active_at[where, tasks] < 0
                active_at[where[first], tasks[first]] = step
                firsts[where[first], tasks[first]] = values[tasks[first], where[first], step]
                return np.asarray(values[tasks, where, step])

            latch.look(slots, np.full(len(slots), step == 0), judge)
            done_at[(latch.best >= DONE) & (done_at < 0)] = step
        return Played(active_at, done_at, latch.best, firsts)

    def against(self, program: RewardProgram, prefix: bool = False) -> float:
        """How much speaks against a program; 0 is nothing, infinity that it gives no number somewhere.

        Sums, over the kinds of episodes, the share that is not as it should be: solved ones complete the program, not
        before their end, and without a sub-task that is done where it becomes active; others do not complete it, and
        earn nothing in part. A solved episode counts by how early it is complete, or by what it lacks, so that an
        optimiser has a slope to follow. A ``prefix`` of a program may be complete before the end, and in any episode.
        """
        played = self.play(program)
        if played is None:
            return float("inf")
        unearned = np.where(played.done_at < 0, played.best - played.first, 0.0).mean(axis=1)
        wrong = np.where(
            self.solved, self._lacking(played, prefix), np.where(played.completed & (not prefix), 1.0, unearned)
        )
        kinds = np.array(self.kinds)
        return float(sum(wrong[kinds == kind].mean() for kind in dict.fromkeys(self.kinds)))

    def rarity(self, program: RewardProgram) -> float:
        """The share of episodes that do not solve the task in which the program is complete all the same."""
        played = self.play(program)
        return 1.0 if played is None or self.solved.all() else float(played.completed[~self.solved].mean())

    def _lacking(self, played: Played, prefix: bool) -> NDArray[np.float64]:
        """In [0, 1], how far each episode, if it solves its task, is from going through the program as it should."""
        subtasks = played.best.shape[1]
        missing = np.clip(1.0 - played.best, 0.0, 1.0).sum(axis=1) / subtasks
        before = np.where(played.completed, self.steps - played.done_at[:, -1], 0) * (not prefix)
        early = np.where(before > 0, 0.25 + 0.75 * before / np.maximum(self.steps, 1), 0.0)
        at_once = ((played.done_at >= 0) & (played.done_at == played.active_at)).any(axis=1)
        stuck = np.where(played.completed, 0.0, 0.5 + 0.5 * missing)
        return np.asarray(np.maximum.reduce([stuck, early, at_once.astype(float)]))


def _judged(box: Box, episode: Trajectory, count: int) -> NDArray[np.float64]:
    """The values of the first ``count`` frames; raises ProgramError if there is none for one of them."""
    parts, initial = [], np.asarray(episode.frames[0])[None]
    for start in range(0, count, AT_ONCE):
        frames = np.asarray(episode.frames[start : min(start + AT_ONCE, count)])
        zeros = np.zeros(len(frames), dtype=np.intp)
        judged = box.judge(frames, initial, zeros, episodes=zeros)
        for reason in judged.reasons.values():
            raise ProgramError(reason)
        parts.append(judged.values)
    return np.concatenate(parts)
