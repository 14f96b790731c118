"""Showing recorded episodes to a program, side by side and in order, through the latch that rollouts use."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from carl.episodes.trajectory import Trajectory
from carl.errors import StoreError
from carl.program import DONE, RewardProgram
from carl.rewards.latch import Latch, Slots
from carl.sandbox.box import Box, Limits

AT_ONCE = 64
"""Episodes that are replayed side by side: each of their steps is one call of the box."""

REPEATED = 1_000
"""Of so many answers for each ``AT_ONCE`` episodes it is checked that a second run gives the same."""

ROWS_AT_ONCE, BYTES_AT_ONCE = 512, 24 << 20
"""Most frames that are put together for one question, and most bytes of them; of large frames fewer than ``AT_ONCE``
episodes are replayed side by side, so that a step is still one question."""


@dataclass(frozen=True)
class Moment:
    """Something noted about a sub-task at one frame."""

    step: int
    subtask: int
    note: str


@dataclass(frozen=True)
class Episode:
    """What a program made of one episode of T steps.

    Lists have an entry for each sub-task; -1 means never.

    Attributes:
        steps: T; the last frame's index.
        solved: whether the task's own measure calls the episode a success.
        completed: whether every sub-task was done.
        active_at: frames at which sub-tasks became active.
        first_at, done_at: frames at which they were first shown done, and done: later if they have to last (``hold``).
        best, best_at: the largest progress shown, and the first frame that showed it.
        abstains: where the program gave no answer, and why.
        differing: where a second run gave another answer.
        judged: frames that were looked at, counted once for every sub-task.
        repeated: how many of those were asked again of another process.
    """

    source: str
    seed: int
    steps: int
    solved: bool
    completed: bool
    active_at: list[int]
    first_at: list[int]
    done_at: list[int]
    best: list[float]
    best_at: list[int]
    abstains: tuple[Moment, ...]
    differing: tuple[Moment, ...] = ()
    judged: int = 0
    repeated: int = 0


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
    """A program at work on a batch of episodes. Latches are new, and frames come in order."""

    def __init__(self, program: RewardProgram, trajectories: Sequence[Trajectory]) -> None:
        self._trajectories = trajectories
        self._subtasks = len(program.subtasks)
        self._holds = [subtask.hold for subtask in program.subtasks]
        self._answers = _Answers()
        self._differing: dict[int, float] = {}
        self._repeated: set[int] = set()
        self.latch = Latch(program, len(trajectories))
        shapes = {trajectory.frames.shape[1:] for trajectory in trajectories}
        if len(shapes) > 1:
            raise StoreError(f"frames of several sizes cannot be judged together: {sorted(shapes)}; record them anew")
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
        """Show every episode from its initial to its last frame; stop at an abstain unless ``to_the_end``."""
        lengths = np.array([len(trajectory.frames) for trajectory in self._trajectories])
        for step in range(lengths.max(initial=0)):
            slots = np.flatnonzero(lengths > step)
            self._show(box, slots, step)
            after_step(step)
            if self.abstained and not to_the_end:
                return

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
        values = np.empty(len(slots))
        reasons: dict[int, str] = {}
        for start in range(0, len(slots), self._rows):
            part = slice(start, start + self._rows)
            frames = [
                self._trajectories[slot].frames[step] for slot, step in zip(slots[part], steps[part], strict=True)
            ]
            initials = [self._initials[slot] for slot in slots[part]]
            judgement = box.judge(np.stack(frames), np.stack(initials), tasks[part])
            values[part] = judgement.values
            reasons |= {start + row: reason for row, reason in judgement.reasons.items()}
        return values, reasons

    def repeat(self, box: Box) -> None:
        """Ask ``REPEATED`` of the questions again, last first, of another process; note what it answers otherwise."""
        count = len(self._answers.values)
        chosen = np.unique(np.linspace(0, count - 1, min(count, REPEATED)).astype(np.intp))[::-1]
        rows = chosen.tolist()
        slots, steps = ([kept[row] for row in rows] for kept in (self._answers.slots, self._answers.steps))
        values, _ = self._ask(box, slots, steps, np.array([self._answers.tasks[row] for row in rows]))
        before = np.array([self._answers.values[row] for row in rows])
        other = ~((values == before) | (np.isnan(values) & np.isnan(before)))
        self._repeated.update(rows)
        self._differing |= {rows[at]: float(values[at]) for at in np.flatnonzero(other)}

    def episodes(self) -> Iterator[Episode]:
        """What came out, in the order of the trajectories."""
        completed = self.completed
        rows: list[list[int]] = [[] for _ in self._trajectories]
        for row, slot in enumerate(self._answers.slots):
            rows[slot].append(row)
        for slot, trajectory in enumerate(self._trajectories):
            yield self._episode(trajectory, rows[slot], bool(completed[slot]))

    def _episode(self, trajectory: Trajectory, rows: list[int], completed: bool) -> Episode:
        active_at, first_at, done_at, best_at = ([-1] * self._subtasks for _ in range(4))
        best, held = [0.0] * self._subtasks, [0] * self._subtasks
        for row in rows:
            step, task, value = self._answers.steps[row], self._answers.tasks[row], self._answers.values[row]
            active_at[task] = step if active_at[task] < 0 else active_at[task]
            if value > best[task] or (best_at[task] < 0 and value >= best[task]):
                best[task], best_at[task] = value, step
            held[task] = held[task] + 1 if value >= DONE else 0
            if held[task] == 1 and first_at[task] < 0:
                first_at[task] = step
            if held[task] >= self._holds[task]:
                done_at[task] = step
        return Episode(
            source=trajectory.role,
            seed=trajectory.seed,
            steps=len(trajectory.frames) - 1,
            solved=trajectory.success,
            completed=completed,
            active_at=active_at,
            first_at=first_at,
            done_at=done_at,
            best=best,
            best_at=best_at,
            abstains=tuple(
                self._moment(row, self._answers.reasons[row]) for row in rows if row in self._answers.reasons
            ),
            differing=tuple(self._difference(row) for row in rows if row in self._differing),
            judged=len(rows),
            repeated=len(self._repeated.intersection(rows)),
        )

    def _moment(self, row: int, note: str) -> Moment:
        return Moment(self._answers.steps[row], self._answers.tasks[row], note)

    def _difference(self, row: int) -> Moment:
        return self._moment(row, f"{self._answers.values[row]!r} first and {self._differing[row]!r} then")


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
