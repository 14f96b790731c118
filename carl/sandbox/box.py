"""Box: runs a program's code in a child process, a vector step at a time.

The child is a clean, isolated interpreter, never a fork of this process. It has an almost empty environment, the
folders of numpy, cv2 and carl to import from, no files, no new processes, and a memory limit; it is ended when one
frame exceeds its limit of processor time, or a larger one of wall time. Frames and results pass through shared memory;
results are checked again here.

``carl.sandbox.lockdown`` has what the child gives up, and how. That does not stop: a false value, which verification
has to find; using up the limits; and, for code that gets past the static policy, remembering what it saw in this
child, reading the clock, and reading the other frames of a request.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carl.errors import BoxError
from carl.program import RewardProgram
from carl.sandbox.policy import Policy, check_program
from carl.sandbox.process import ATTEMPTS, Answer, Child, Limits, Request, rows_at_once
from carl.task import Frame

__all__ = ["Box", "Judgement", "Limits"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """A program's values for M rows.

    Attributes:
        values: ``float64[M]`` in [0, 1]; NaN is an abstain.
        reasons: for each row that is NaN, why.
        seconds: processor time that the child took; 0 if one of the frames ended it.
    """

    values: NDArray[np.float64]
    reasons: dict[int, str]
    seconds: float = 0.0


class Box:
    """One program in a child process. Close it, or use it as a context manager; not thread-safe.

    Raises ProgramError if ``policy`` refuses the program, and BoxError if the child cannot be started.
    """

    def __init__(self, program: RewardProgram, limits: Limits | None = None, policy: Policy = check_program) -> None:
        policy(program)
        self._limits = limits or Limits()
        self._sources = [subtask.code for subtask in program.subtasks]
        self._child: Child | None = None
        self._closed = False
        self.restarts = 0
        """The number of times that the child was replaced."""
        self._started()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._started().pid

    def room(self, count: int, height: int, width: int) -> Frame:
        """An array ``uint8[count, height, width, 3]`` of zeros; frames in it are judged without a copy.

        It remains valid when the child is replaced, but its frames are then copied.
        """
        return self._started().room(count, height, width)

    def judge(
        self,
        frames: Frame,
        initials: Frame,
        subtasks: NDArray[np.intp],
        rows: NDArray[np.intp] | None = None,
        episodes: NDArray[np.intp] | None = None,
    ) -> Judgement:
        """Progress of M sub-tasks, each at its frame, in one call.

        Args:
            frames: ``uint8[F, H, W, 3]``.
            initials: ``uint8[E, H, W, 3]``, initial frames of episodes.
            subtasks: ``intp[M]``, indices into the program's sub-tasks.
            rows: ``intp[M]``, the index in ``frames`` of each; if None, F is M and they are in order.
            episodes: ``intp[M]``, the index in ``initials`` of each; if None, E is M, likewise.

        A row whose code raises, returns anything but a number in [0, 1], runs past its deadline or ends its process
        abstains; the others are judged nevertheless. Raises BoxError if the child cannot be replaced.
        """
        everyone = np.arange(len(subtasks))
        rows, episodes = (everyone if which is None else which for which in (rows, episodes))
        request = Request(frames, initials, subtasks, rows, episodes)
        self._check(request)
        judging = _Judging(len(subtasks))
        at_once = rows_at_once(frames)
        for start in range(0, len(subtasks), at_once):
            self._judge_chunk(everyone[start : start + at_once], request, judging)
        return Judgement(judging.values, judging.reasons, 0.0 if judging.kills else judging.seconds)

    def close(self) -> None:
        """End the child and free its memory; a second call has no effect."""
        self._closed = True
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, request: Request) -> None:
        for array, which in ((request.frames, request.rows), (request.initials, request.episodes)):
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
                raise BoxError(f"frames have to be uint8[N, H, W, 3], not {array.dtype}{list(array.shape)}")
            _check_indices(which, len(array), "frames")
            if len(which) != len(request.subtasks):
                raise BoxError(f"{len(request.subtasks)} sub-tasks need as many frames, not {len(which)}")
        if request.frames.shape[1:] != request.initials.shape[1:]:
            raise BoxError(
                f"frames are {list(request.frames.shape[1:])}, but initial frames {list(request.initials.shape[1:])}"
            )
        _check_indices(request.subtasks, len(self._sources), "sub-tasks")

    def _judge_chunk(self, pending: NDArray[np.intp], request: Request, out: "_Judging") -> None:
        """Judge the rows ``pending``; after one that ended the child, go on with another child."""
        while (pending := out.without_given_up(pending, request.subtasks, self._limits.max_kills)).size:
            answer = self._run(request.part(pending))
            finished = len(answer.values)
            out.take(pending[:finished], answer)
            if answer.ended is None:
                return
            out.abstain(int(pending[finished]), answer.ended)
            out.kills[int(request.subtasks[pending[finished]])] += 1
            pending = pending[finished + 1 :]

    def _run(self, request: Request) -> Answer:
        try:
            answer = self._run_once(request)
        except BaseException:  # an interrupted call leaves a busy child, which cannot be used again
            self._stop()
            raise
        if answer.ended is not None:
            self._replace()
        return answer

    def _run_once(self, request: Request) -> Answer:
        for _ in range(ATTEMPTS):
            try:
                return self._started().run(request)
            except ConnectionError:  # the child died between two calls, or with its zygote: not because of a frame
                self._replace()
        raise BoxError(f"the process that runs the program was ended {ATTEMPTS} times from outside")

    def _started(self) -> Child:
        if self._closed:
            raise BoxError("this box was closed; open another")
        if self._child is None:
            self._child = Child(self._sources, self._limits)
        return self._child

    def _replace(self) -> None:
        self._stop()
        self.restarts += 1

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.stop()


def _readable(reason: bytes) -> str:
    """``reason`` as one line of printable ASCII, for logs, terminals and prompts."""
    return " ".join("".join(map(chr, filter(range(32, 127).__contains__, bytes(reason)))).split())


def _check_indices(indices: NDArray[np.intp], count: int, what: str) -> None:
    numbers = indices.tolist()
    if numbers and not (min(numbers) >= 0 and max(numbers) < count):
        raise BoxError(f"there are only {count} {what}")


class _Judging:
    """The result of one call of ``judge`` while it is assembled."""

    def __init__(self, rows: int) -> None:
        self.values = np.full(rows, np.nan)
        self.reasons: dict[int, str] = {}
        self.kills: Counter[int] = Counter()
        self.seconds = 0.0

    def abstain(self, row: int, reason: str) -> None:
        self.values[row] = np.nan
        self.reasons[row] = reason

    def take(self, rows: NDArray[np.intp], answer: Answer) -> None:
        """Copy the child's values and check them again, since its code is not trusted."""
        self.values[rows] = answer.values
        self.seconds += answer.seconds
        for index, value in enumerate(answer.values.tolist()):
            if not 0 <= value <= 1:  # NaN is not either
                self.abstain(int(rows[index]), _readable(answer.reasons[index]) or "gave no valid number")

    def without_given_up(self, rows: NDArray[np.intp], subtasks: NDArray[np.intp], max_kills: int) -> NDArray[np.intp]:
        """``rows`` without those of sub-tasks that ended their process ``max_kills`` times, which abstain."""
        given_up = [subtask for subtask, kills in self.kills.items() if kills >= max_kills]
        if not given_up:
            return rows
        dropped = np.isin(subtasks[rows], given_up)
        for row in rows[dropped]:
            self.abstain(int(row), f"not run: this sub-task's code had just ended its process {max_kills} times")
        return rows[~dropped]
