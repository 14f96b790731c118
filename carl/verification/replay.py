"""Showing recorded episodes to a program, side by side and in order, through the latch that rollouts use."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from carl.episodes.trajectory import Trajectory
from carl.errors import StoreError
from carl.program import DONE, RewardProgram
from carl.rewards.latch import Latch, Slots
from carl.sandbox.box import Box, Limits
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

ROWS_AT_ONCE, BYTES_AT_ONCE = 512, 24 << 20
"""Most frames that are put together for one question, and most bytes of them; of large frames fewer than ``AT_ONCE``
episodes are replayed side by side, so that a step is still one question."""


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

    def add(self, slots: Slots, step: int, tasks: Slots, values: NDArray[np.float64], reasons: dict[int, str]) -> None:
        self.reasons |= {len(self.values) + row: reason for row, reason in reasons.items()}
        self.slots += slots.tolist()
        self.steps += [step] * len(slots)
        self.tasks += tasks.tolist()
        self.values += values.tolist()


class Replay:
    """A program at work on a batch of episodes. Latches are new, and frames come in order.

    Of the frames after a sub-task was done as many as ``after`` are looked at as well (None: all).
    """

    def __init__(
        self,
        program: RewardProgram,
        trajectories: Sequence[Trajectory],
        after: int | None = AFTER,
        known: "Known | None" = None,
    ) -> None:
        self._trajectories, self._until = trajectories, after
        self._known: Known = {} if known is None else known
        if len(self._known) > ENTRIES:
            self._known.clear()
        self._known_before = len(self._known)
        self._holds = [subtask.hold for subtask in program.subtasks]
        self._answers = _Answers()
        self._differing: dict[int, float] = {}
        self._repeated: set[int] = set()
        self._varied: dict[int, str] = {}
        self._after: dict[tuple[int, int], list[float]] = {}
        self._counts: list[NDArray[np.intp]] = []
        self._seconds: list[float] = []
        self.latch = Latch(program, len(trajectories))
        shapes = {trajectory.frames.shape[1:] for trajectory in trajectories}
        if len(shapes) > 1:
            raise StoreError(f"frames of several sizes cannot be judged together: {sorted(shapes)}; record them anew")
        self._digests = [trajectory.digests.tolist() for trajectory in trajectories]
        self._initials = [np.array(trajectory.frames[0]) for trajectory in trajectories]
        size = max((initial.nbytes for initial in self._initials), default=1)
        self._rows = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // size))

    @property
    def abstained(self) -> bool:
        """Whether any frame could not be judged."""
        return bool(self._answers.reasons)

    @property
    def completed(self) -> NDArray[np.bool_]:
        """Which episodes had every sub-task done, ``bool[N]``."""
        return self.latch.completed(np.arange(len(self._trajectories)))

    def run(self, box: Box, after_step: Callable[[int], object] = lambda _: None, to_the_end: bool = False) -> None:
        """Show every episode from its initial to its last frame, and then what follows on each sub-task to that one;
        stop at an abstain unless ``to_the_end``, where nothing but the latch is of interest."""
        lengths = np.array([len(trajectory.frames) for trajectory in self._trajectories])
        for step in range(lengths.max(initial=0)):
            slots = np.flatnonzero(lengths > step)
            self._show(box, slots, step)
            after_step(step)
            if self.abstained and not to_the_end:
                return
        if not to_the_end:
            self._look_after(box)

    def _look_after(self, box: Box) -> None:
        """Ask what sub-tasks show in the frames after they were done, all in one go."""
        asked = list(self._afterwards())
        slots, tasks, steps = ([one[part] for one in asked] for part in range(3))
        values, _ = self._ask(box, slots, steps, np.array(tasks, dtype=np.intp))
        for slot, task, value in zip(slots, tasks, values.tolist(), strict=True):
            self._after.setdefault((slot, task), []).append(value)

    def _afterwards(self) -> Iterator[tuple[int, int, int]]:
        """(slot, sub-task, frame) for the frames after a sub-task was done."""
        for slot, (trajectory, tracks) in enumerate(zip(self._trajectories, self._tracks(), strict=True)):
            last = len(trajectory.frames) - 1
            for task, track in enumerate(tracks):
                until = last if self._until is None else min(last, track.done_at + self._until)
                yield from ((slot, task, step) for step in range(track.done_at + 1, until + 1) if track.done)

    def _show(self, box: Box, slots: Slots, step: int) -> None:
        def judge(rows: Slots, tasks: Slots) -> NDArray[np.float64]:
            where = slots[rows]
            values, reasons = self._ask(box, where.tolist(), [step] * len(rows), tasks)
            self._answers.add(where, step, tasks, values, reasons)
            return values

        self.latch.look(slots, np.full(len(slots), step == 0), judge)

    def _ask(
        self, box: Box, slots: list[int], steps: list[int], tasks: Slots
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Values ``float64[M]``, and the reasons of abstains by row; what was answered before is not asked again."""
        questions = self._questions(slots, steps, tasks)
        fresh = {question: row for row, question in enumerate(questions) if question not in self._known}
        rows = list(fresh.values())
        values, reasons = self._put(box, [slots[row] for row in rows], [steps[row] for row in rows], tasks[rows])
        found = {
            question: (value, reasons.get(at)) for at, (question, value) in enumerate(zip(fresh, values, strict=True))
        }
        self._known |= found
        answers = [self._known[question] for question in questions]
        told = {row: reason for row, (_, reason) in enumerate(answers) if reason is not None}
        return np.array([value for value, _ in answers], dtype=np.float64), told

    def _questions(self, slots: Sequence[int], steps: Sequence[int], tasks: Slots) -> list["Question"]:
        """What is asked: each initial frame and frame by their digests, and the sub-task."""
        return [
            (self._digests[slot][0], self._digests[slot][step], task)
            for slot, step, task in zip(slots, steps, tasks.tolist(), strict=True)
        ]

    def _put(
        self, box: Box, slots: Sequence[int], steps: Sequence[int], tasks: Slots
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Put questions to the box, whether or not they were answered before."""
        values = np.empty(len(slots))
        reasons: dict[int, str] = {}
        for start in range(0, len(slots), self._rows):
            part = slice(start, start + self._rows)
            frames = [
                self._trajectories[slot].frames[step] for slot, step in zip(slots[part], steps[part], strict=True)
            ]
            initials = [self._initials[slot] for slot in slots[part]]
            judgement = box.judge(np.stack(frames), np.stack(initials), tasks[part])
            self._counts.append(np.bincount(tasks[part], minlength=len(self._holds)))
            self._seconds.append(judgement.seconds)
            values[part] = judgement.values
            reasons |= {start + row: reason for row, reason in judgement.reasons.items()}
        return values, reasons

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
            value = float(box.judge(frame[None], self._initials[slot][None], np.array([task])).values[0])
            before = answers.values[row]
            same = (value >= DONE) == (before >= DONE) and abs(value - before) <= SLIGHTLY
            self._varied[row] = "" if same else f"{value:.4g}, where the frame is {name}; {before:.4g} without"

    def _cost(self) -> tuple[float, ...]:
        """Processor seconds of each sub-task for a frame that explain best, by non-negative least squares (C. L. Lawson
        and R. J. Hanson 1974), what questions about several of them took; 0 for one that was not asked about."""
        from scipy.optimize import nnls

        rows = [row for row, seconds in enumerate(self._seconds) if seconds > 0]
        if not rows:
            return ()
        costs, _ = nnls(np.array(self._counts, dtype=float)[rows], np.array(self._seconds)[rows])
        return tuple(costs.tolist())

    def repeat(self, box: Box) -> None:
        """Ask ``REPEATED`` of the questions that this batch brought up again, last first, of another process; note what
        that answers otherwise."""
        rows = spread(self._first_asked(), self._share(REPEATED))[::-1]
        slots, steps = ([kept[row] for row in rows] for kept in (self._answers.slots, self._answers.steps))
        values, _ = self._put(box, slots, steps, np.array([self._answers.tasks[row] for row in rows], dtype=np.intp))
        before = np.array([self._answers.values[row] for row in rows])
        other = ~((values == before) | (np.isnan(values) & np.isnan(before)))
        self._repeated.update(rows)
        self._differing |= {rows[at]: float(values[at]) for at in np.flatnonzero(other)}

    def _first_asked(self) -> list[int]:
        """The rows of answers that were not known before."""
        answers, new = self._answers, set(islice(self._known, self._known_before, None))
        questions = self._questions(answers.slots, answers.steps, np.array(answers.tasks, dtype=np.intp))
        first = {question: row for row, question in reversed([*enumerate(questions)]) if question in new}
        return sorted(first.values())

    def episodes(self) -> Iterator[Episode]:
        """What came out, in the order of the trajectories."""
        completed, tracks, cost = self.completed, self._tracks(), self._cost()
        rows: list[list[int]] = [[] for _ in self._trajectories]
        for row, slot in enumerate(self._answers.slots):
            rows[slot].append(row)
        for slot, trajectory in enumerate(self._trajectories):
            yield Episode(
                source=trajectory.role,
                seed=trajectory.seed,
                steps=len(trajectory.frames) - 1,
                solved=trajectory.success,
                completed=bool(completed[slot]),
                tracks=tracks[slot],
                actions=trajectory.actions,
                abstains=tuple(
                    self._moment(row, self._answers.reasons[row]) for row in rows[slot] if row in self._answers.reasons
                ),
                differing=tuple(self._difference(row) for row in rows[slot] if row in self._differing),
                judged=len(rows[slot]) + sum(len(track.after) for track in tracks[slot]),
                repeated=len(self._repeated.intersection(rows[slot])),
                varied=len(self._varied.keys() & {*rows[slot]}),
                unstable=tuple(self._moment(row, self._varied[row]) for row in rows[slot] if self._varied.get(row)),
                cost=cost,
            )

    def _tracks(self) -> list[tuple[Track, ...]]:
        """What each sub-task showed in each episode so far."""
        since = np.full((len(self._trajectories), len(self._holds)), -1)
        shown: dict[tuple[int, int], list[float]] = {}
        answers = self._answers
        for slot, step, task, value in zip(answers.slots, answers.steps, answers.tasks, answers.values, strict=True):
            if since[slot, task] < 0:
                since[slot, task] = step
            shown.setdefault((slot, task), []).append(value)
        return [
            tuple(
                Track(int(at), tuple(shown.get((slot, task), ())), tuple(self._after.get((slot, task), ())), hold)
                for task, (at, hold) in enumerate(zip(row, self._holds, strict=True))
            )
            for slot, row in enumerate(since)
        ]

    def _moment(self, row: int, note: str) -> Moment:
        return Moment(self._answers.steps[row], self._answers.tasks[row], note)

    def _difference(self, row: int) -> Moment:
        return self._moment(row, f"{self._answers.values[row]!r} first and {self._differing[row]!r} then")


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
        replay.run(box, note, to_the_end=True)
    return history
