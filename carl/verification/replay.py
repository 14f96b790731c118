"""Showing recorded episodes to a program, side by side and in order, through the latch that rollouts use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import cycle
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carl.episodes.trajectory import Trajectory
from carl.program import DONE, RewardProgram
from carl.rewards.latch import Latch, Slots
from carl.sandbox.box import Box, Limits
from carl.verification.asking import Asking
from carl.verification.episode import Episode, Moment, Track
from carl.verification.variations import VARIATIONS

AT_ONCE = 64
"""Episodes that are replayed side by side: each of their steps is one call of the box."""

IN_MEMORY = 4
"""So many times as many if their frames are in memory: the fewer the calls, the less waiting for each other."""

REPEATED = 500
"""Of so many distinct questions for each ``AT_ONCE`` episodes it is checked that a second run gives the same answer."""

AFTER = 3
"""Frames after a sub-task was done that are looked at as well, to see whether it lasts."""

VARIED, SLIGHTLY = 100, 0.1
"""Questions for each ``AT_ONCE`` episodes that are asked with a frame that is varied, and by how much partial progress
may then differ."""

Question = tuple[int, int, int]
"""Digests of the initial frame and of the frame, and the sub-task."""

Known = dict[Question, tuple[float, str | None]]
"""A program's answers by question, with the reason of an abstain: it is a function of both frames, and frames recur."""

ENTRIES = 200_000
"""Answers that are kept from one batch to the next, about 50 MB; more of them are forgotten all at once."""


@dataclass(eq=False)
class _Answers:
    """A program's values during a replay, in the order of judging."""

    slots: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)
    """Those that were not known before."""

    def add(self, slots: Slots, step: int, tasks: Slots, answer: "_Answer") -> None:
        before = len(self.values)
        self.reasons |= {before + row: reason for row, reason in answer.reasons.items()}
        self.fresh += [before + row for row in answer.fresh]
        self.slots += slots.tolist()
        self.steps += [step] * len(slots)
        self.tasks += tasks.tolist()
        self.values += answer.values.tolist()


class _Answer(NamedTuple):
    """Values ``float64[M]``, the reasons of abstains by row, and the rows that were not known before."""

    values: NDArray[np.float64]
    reasons: Mapping[int, str]
    fresh: Sequence[int]


class Replay:
    """A program at work on a batch of episodes. Latches are new, and frames come in order.

    Of the frames after a sub-task was done as many as ``after`` are looked at as well (None: all). Boxes are asked in
    the threads of ``pool``.
    """

    def __init__(
        self,
        program: RewardProgram,
        trajectories: Sequence[Trajectory],
        after: int | None = AFTER,
        known: "Known | None" = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._trajectories, self._until = trajectories, after
        self._known: Known = {} if known is None else known
        if len(self._known) > ENTRIES:
            self._known.clear()
        self._asking = Asking(trajectories, len(program.subtasks), pool)
        self._holds = [subtask.hold for subtask in program.subtasks]
        self._answers = _Answers()
        self._differing: dict[int, float] = {}
        self._repeated: set[int] = set()
        self._varied: dict[int, str] = {}
        self._after: dict[tuple[int, int], list[float]] = {}
        self.latch = Latch(program, len(trajectories))
        self._digests = [trajectory.digests.tolist() for trajectory in trajectories]

    @property
    def abstained(self) -> bool:
        """Whether any frame could not be judged."""
        return bool(self._answers.reasons)

    @property
    def completed(self) -> NDArray[np.bool_]:
        """Which episodes had every sub-task done, ``bool[N]``."""
        return self.latch.completed(np.arange(len(self._trajectories)))

    def run(
        self, boxes: Sequence[Box], after_step: Callable[[int], object] = lambda _: None, to_the_end: bool = False
    ) -> None:
        """Show every episode from its initial to its last frame, and then what follows on each sub-task to that one;
        stop at an abstain unless ``to_the_end``, where nothing but the latch is of interest."""
        lengths = np.array([len(trajectory.frames) for trajectory in self._trajectories])
        for step in range(lengths.max(initial=0)):
            slots = np.flatnonzero(lengths > step)
            self._show(boxes, slots, step)
            after_step(step)
            if self.abstained and not to_the_end:
                return
        if not to_the_end:
            self._look_after(boxes)

    def _look_after(self, boxes: Sequence[Box]) -> None:
        """Ask what sub-tasks show in the frames after they were done, all in one go."""
        asked = list(self._afterwards())
        slots, tasks, steps = ([one[part] for one in asked] for part in range(3))
        answer = self._ask(boxes, slots, steps, np.array(tasks, dtype=np.intp))
        for slot, task, value in zip(slots, tasks, answer.values.tolist(), strict=True):
            self._after.setdefault((slot, task), []).append(value)

    def _afterwards(self) -> Iterator[tuple[int, int, int]]:
        """(slot, sub-task, frame) for the frames after a sub-task was done."""
        for slot, (trajectory, tracks) in enumerate(zip(self._trajectories, self._until_done, strict=True)):
            last = len(trajectory.frames) - 1
            for task, track in enumerate(tracks):
                until = last if self._until is None else min(last, track.done_at + self._until)
                yield from ((slot, task, step) for step in range(track.done_at + 1, until + 1) if track.done)

    def _show(self, boxes: Sequence[Box], slots: Slots, step: int) -> None:
        def judge(rows: Slots, tasks: Slots) -> NDArray[np.float64]:
            where = slots[rows]
            answer = self._ask(boxes, where.tolist(), [step] * len(rows), tasks)
            self._answers.add(where, step, tasks, answer)
            return answer.values

        self.latch.look(slots, np.full(len(slots), step == 0), judge)

    def _ask(self, boxes: Sequence[Box], slots: list[int], steps: list[int], tasks: Slots) -> _Answer:
        """Answer questions, without putting those again that were answered before."""
        known, fresh = self._known, dict[Question, int]()
        questions: list[Question] = [
            (self._digests[slot][0], self._digests[slot][step], task)
            for slot, step, task in zip(slots, steps, tasks.tolist(), strict=True)
        ]
        for row, question in enumerate(questions):
            if question not in known:
                fresh.setdefault(question, row)
        rows = [*fresh.values()]
        where, when = ([kept[row] for row in rows] for kept in (slots, steps))
        values, reasons = self._asking.put(boxes, where, when, tasks[rows])
        known |= {
            question: (value, reasons.get(at))
            for at, (question, value) in enumerate(zip(fresh, values.tolist(), strict=True))
        }
        answers = [known[question] for question in questions]
        told = {row: reason for row, (_, reason) in enumerate(answers) if reason is not None}
        return _Answer(np.array([value for value, _ in answers], dtype=np.float64), told, rows)

    def _share(self, count: int) -> int:
        """What ``count`` for each ``AT_ONCE`` episodes comes to."""
        return count * -(-len(self._trajectories) // AT_ONCE)

    def vary(self, box: Box) -> None:
        """Ask ``VARIED`` of the questions again with a frame that looks a little different; note where that decides."""
        answers = self._answers
        for row, (name, form) in zip(
            spread(range(len(answers.values)), self._share(VARIED)), cycle(VARIATIONS.items()), strict=False
        ):
            slot, step, task = answers.slots[row], answers.steps[row], answers.tasks[row]
            frame = form(np.asarray(self._trajectories[slot].frames[step]))
            value = float(box.judge(frame[None], self._asking.initials[slot][None], np.array([task])).values[0])
            before = answers.values[row]
            same = (value >= DONE) == (before >= DONE) and abs(value - before) <= SLIGHTLY
            self._varied[row] = "" if same else f"{value:.4g}, where the frame is {name}; {before:.4g} without"

    def repeat(self, boxes: Sequence[Box]) -> None:
        """Ask ``REPEATED`` of the questions that this batch brought up again, last first, of other processes; note what
        those answer otherwise."""
        answers, rows = self._answers, spread(self._answers.fresh, self._share(REPEATED))[::-1]
        slots, steps = ([kept[row] for row in rows] for kept in (answers.slots, answers.steps))
        values, _ = self._asking.put(boxes, slots, steps, np.array([answers.tasks[row] for row in rows], dtype=np.intp))
        before = np.array([answers.values[row] for row in rows])
        other = ~((values == before) | (np.isnan(values) & np.isnan(before)))
        self._repeated.update(rows)
        self._differing |= {rows[at]: float(values[at]) for at in np.flatnonzero(other)}

    def episodes(self) -> Iterator[Episode]:
        """What came out, in the order of the trajectories."""
        answers, completed, cost = self._answers, self.completed, self._asking.cost
        abstains, unstable = self._moments(answers.reasons), self._moments(self._varied)
        differing = self._moments({row: self._difference(row) for row in sorted(self._differing)})
        judged, repeated, varied = (
            np.bincount([answers.slots[row] for row in rows], minlength=len(self._trajectories)).tolist()
            for rows in (range(len(answers.slots)), self._repeated, self._varied)
        )
        for slot, (trajectory, until_done) in enumerate(zip(self._trajectories, self._until_done, strict=True)):
            after = [tuple(self._after.get((slot, task), ())) for task in range(len(until_done))]
            yield Episode(
                source=trajectory.role,
                seed=trajectory.seed,
                steps=len(trajectory.frames) - 1,
                solved=trajectory.success,
                completed=bool(completed[slot]),
                tracks=tuple(replace(track, after=more) for track, more in zip(until_done, after, strict=True)),
                actions=trajectory.actions,
                abstains=tuple(abstains.get(slot, ())),
                differing=tuple(differing.get(slot, ())),
                judged=judged[slot] + sum(map(len, after)),
                repeated=repeated[slot],
                varied=varied[slot],
                unstable=tuple(unstable.get(slot, ())),
                cost=cost,
            )

    @cached_property
    def _until_done(self) -> list[tuple[Track, ...]]:
        """What each sub-task showed in each episode, up to the frame at which it was done; known once all have run."""
        count, answers = len(self._holds), self._answers
        keys = np.array(answers.slots, dtype=np.intp) * count + np.array(answers.tasks, dtype=np.intp)
        order = np.argsort(keys, kind="stable")
        values, steps = np.array(answers.values)[order].tolist(), np.array(answers.steps, dtype=np.intp)[order].tolist()
        ends = np.searchsorted(keys[order], np.arange(len(self._trajectories) * count), "right").tolist()
        tracks = [
            Track(steps[start] if start < end else -1, tuple(values[start:end]), hold=hold)
            for start, end, hold in zip([0, *ends], ends, cycle(self._holds), strict=False)
        ]
        return [tuple(tracks[at : at + count]) for at in range(0, len(tracks), count)]

    def _moments(self, notes: Mapping[int, str]) -> dict[int, list[Moment]]:
        """Notes on rows that say something, by episode."""
        found: dict[int, list[Moment]] = {}
        for row, note in notes.items():
            if note:
                moment = Moment(self._answers.steps[row], self._answers.tasks[row], note)
                found.setdefault(self._answers.slots[row], []).append(moment)
        return found

    def _difference(self, row: int) -> str:
        return f"{self._answers.values[row]!r} first and {self._differing[row]!r} then"


def spread(rows: Sequence[int], count: int) -> list[int]:
    """As many of ``rows``, or all, evenly from the first to the last."""
    return [rows[at] for at in np.unique(np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(np.intp)).tolist()]


def trace(program: RewardProgram, trajectory: Trajectory, limits: Limits | None = None) -> NDArray[np.float64]:
    """The latched progress of every sub-task after each frame of an episode, ``float64[T + 1, K]``.

    Frames on which a sub-task abstains leave its progress as it was. Raises ProgramError if the static policy refuses
    the program.
    """
    history = np.zeros((len(trajectory.frames), len(program.subtasks)))
    replay = Replay(program, [trajectory])

    def note(step: int) -> None:
        history[step] = replay.latch.best[0]

    with Box(program, limits) as box:
        replay.run([box], note, to_the_end=True)
    return history
