"""The child process of a box, from the parent's side: it sends a program and frames, reads answers, and ends it."""

import json
import logging
import os
import select
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carl.errors import BoxError
from carl.sandbox.shared import FINISHED, JUDGE, LOAD, MAX_ROWS, PASSING, READY, REQUEST
from carl.sandbox.supervisor import START_S, StartError, taken
from carl.task import Frame

ATTEMPTS = 3
"""Tries while something else ends the processes: a person, or the kernel for want of memory."""

PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before a process is started again that could not be: on a busy machine waiting is all that helps."""

LOOKS = 16
"""Checks of the child's progress per deadline. A frame may take an eighth longer: one interval before the first reading
of its clock and one after the last."""

CPU_CLOCK = 2
"""``CPUCLOCK_SCHED`` of linux/posix-timers.h: with the complement of a process's number, the clock of the processor
time that the kernel has counted for it."""

_COUNTING = np.arange(MAX_ROWS)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A program's limits.

    Attributes:
        deadline_s: seconds of the child's processor time for one frame.
        wall_factor: the limit of wall time for one frame, as a multiple of ``deadline_s``. Ten leave a program its
            deadline where ten processes share each core; it ends a child that only waits.
        memory_mb: MiB of address space beyond what the interpreter and its libraries take.
        max_kills: a sub-task that ended its process so often in one call of ``judge`` is not run again in that call.
        start_s: seconds in which a process has to be ready.
    """

    deadline_s: float = 1.0
    wall_factor: float = 10.0
    memory_mb: int = 1024
    max_kills: int = 3
    start_s: float = START_S


@dataclass(frozen=True, eq=False)
class Request:
    """Row i judges ``frames[rows[i]]`` of an episode that began at ``initials[episodes[i]]``, by ``subtasks[i]``."""

    frames: Frame
    initials: Frame
    subtasks: NDArray[np.intp]
    rows: NDArray[np.intp]
    episodes: NDArray[np.intp]

    def part(self, which: NDArray[np.intp]) -> "Request":
        """The rows ``which``, in ascending order."""
        if len(which) == len(self.subtasks):
            return self
        return Request(self.frames, self.initials, self.subtasks[which], self.rows[which], self.episodes[which])


@dataclass(frozen=True, eq=False)
class Answer:
    """Values and reasons of the finished rows; and how the child ended on the row after them, else None.

    ``seconds`` is the child's processor time, which other processes of a busy machine hardly add to; 0 if it ended.
    """

    values: NDArray[np.float64]
    reasons: NDArray[np.bytes_]
    ended: str | None
    seconds: float = 0.0


class Child:
    """One process with a program's code. Raises BoxError if it cannot be started in several tries."""

    def __init__(self, sources: list[str], limits: Limits) -> None:
        if sys.platform != "linux":
            raise BoxError(f"programs run in a box that needs Linux; this is {sys.platform}. Use a container or WSL.")
        self._limits = limits
        for pause_s in (*PAUSES_S, None):
            try:
                self._start(sources)
                return
            except (OSError, StartError) as error:  # the spare child had died while it waited, or the zygote
                if pause_s is None:
                    raise BoxError(f"processes that run programs do not start or stay alive: {error}") from error
                if pause_s:
                    # The text alone: an error that a log keeps would keep this child's memory.
                    _log.warning("a process that runs programs is started again in %g s: %s", pause_s, str(error))
                time.sleep(pause_s)

    def _start(self, sources: list[str]) -> None:
        self._core = -1
        self._stopped = False
        self._ended: int | None = None
        self._used = 0
        self._supervisor, self._fork = taken(self._limits.memory_mb, self._limits.start_s)
        self._address = _address(np.frombuffer(self._fork.shared.frames, np.uint8))
        self._poll = select.poll()
        self._poll.register(self._fork.channel, select.POLLIN)
        try:
            self._load(sources)
        except BaseException:  # whatever is raised, no half-started child may remain
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._fork.pid is not None  # ``taken`` waits for it
        return self._fork.pid

    def _load(self, sources: list[str]) -> None:
        program = json.dumps(sources).encode()
        self._fork.shared.frames[PASSING : PASSING + len(program)] = program
        self._expect_ready()
        self._ask(LOAD, len(program))
        self._expect_ready()

    def _expect_ready(self) -> None:
        answer = self._receive(self._limits.start_s)
        if answer == b"":
            raise ConnectionError("one ended before it was ready, without a message")
        if answer != READY:
            words = (answer + self._fork.channel.recv(2000)).decode(errors="replace") if answer else "nothing in time"
            raise BoxError(f"a process that runs programs did not start; it answered {words}")

    def room(self, count: int, height: int, width: int) -> Frame:
        """An array ``uint8[count, height, width, 3]`` of zeros in the shared memory, or outside of it if that is full.

        Frames in the shared memory are judged without a copy.
        """
        shape = (count, height, width, 3)
        size = prod(shape)
        if self._used + size > PASSING:
            return np.zeros(shape, np.uint8)
        room: Frame = np.ndarray(shape, np.uint8, self._fork.shared.frames, self._used)
        self._used += size
        return room

    def run(self, request: "Request") -> Answer:
        """Judge at most ``rows_at_once`` rows. Raises ConnectionError if the child had ended before."""
        rows, (height, width) = len(request.subtasks), request.frames.shape[1:3]
        shared = self._fork.shared
        frames = self._place(0, request.frames, request.rows)
        initials = self._place(1, request.initials, request.episodes)
        shared.tasks[:rows] = request.subtasks
        shared.cursor[0] = 0
        self._follow()
        used = self._used_s()
        self._ask(JUDGE, rows, height, width, *frames, *initials)
        ended, finished = None, rows
        reply, late = self._judged(rows)
        if reply != FINISHED:
            ended = self._how_it_ended(late)
            finished = min(max(int(shared.cursor[0]), 0), rows - 1)
        seconds = 0.0 if ended else self._used_s() - used
        return Answer(shared.values[:finished].copy(), shared.reasons[:finished].copy(), ended, seconds)

    def _place(self, column: int, pictures: Frame, which: NDArray[np.intp]) -> tuple[int, int]:
        """Start and count of ``pictures`` in the shared memory; from outside of it ``which`` of them are copied."""
        shared, start = self._fork.shared, _address(pictures) - self._address
        if 0 <= start < self._used and pictures.flags.c_contiguous:
            shared.places[column, : len(which)] = which
            return start, len(pictures)
        start = PASSING + PASSING // 2 * column
        copies: Frame = np.ndarray((len(which), *pictures.shape[1:]), np.uint8, shared.frames, start)
        np.take(pictures, which, axis=0, out=copies, mode="clip")  # "raise" would go through a copy
        shared.places[column, : len(which)] = _COUNTING[: len(which)]
        return start, len(which)

    def _follow(self) -> None:
        """Pin the child to this thread's core, which is idle meanwhile; waking up another core is slower."""
        core = _current_core()
        if core != self._core:
            self._core = core
            with suppress(OSError):  # it may have ended; sending will fail
                os.sched_setaffinity(self.pid, {core})

    def _ask(self, kind: int, *numbers: int) -> None:
        request = REQUEST.pack(kind, *numbers, *[0] * (7 - len(numbers)))
        try:
            self._fork.channel.send(request, socket.MSG_DONTWAIT)
        except BlockingIOError as error:
            raise ConnectionError("the child answers without reading its requests") from error

    def _judged(self, rows: int) -> tuple[bytes | None, str]:
        """The reply and ""; or None and which limit the child exceeded at one row, or at going back to it."""
        reply = self._receive(self._limits.deadline_s / LOOKS)
        return (reply, "") if reply is not None else self._watched(rows)

    def _watched(self, rows: int) -> tuple[bytes | None, str]:
        deadline_s, wall_s = self._limits.deadline_s, self._limits.wall_factor * self._limits.deadline_s
        row, used, since = 0, self._used_s(), time.monotonic()
        while (reply := self._receive(deadline_s / LOOKS)) is None:
            reached = min(int(self._fork.shared.cursor[0]), rows - 1)
            if reached > row:
                row, used, since = reached, self._used_s(), time.monotonic()
            elif self._used_s() - used >= deadline_s:
                return None, f"ran past its deadline of {deadline_s:g} s"
            elif time.monotonic() - since >= wall_s:
                return None, f"gave no answer for {wall_s:g} s, which it mostly waited"
        return reply, ""

    def _used_s(self) -> float:
        """The child's processor time in seconds; wall time if the kernel does not report it."""
        try:
            return time.clock_gettime(~self.pid << 3 | CPU_CLOCK)
        except OSError:
            return time.monotonic()

    def _receive(self, timeout_s: float) -> bytes | None:
        """The child's answer (two bytes are one too many); b"" if it closed the channel, None after ``timeout_s``."""
        try:
            return self._fork.channel.recv(2) if self._poll.poll(timeout_s * 1000) else None
        except ConnectionResetError:
            return b""

    def _how_it_ended(self, late: str) -> str:
        self.stop()
        code = self._ended
        if code is None:
            raise ConnectionError("the zygote has ended, and its children with it")
        return late or f"ended its process ({f'signal {-code}' if code < 0 else f'exit code {code}'})"

    def stop(self) -> None:
        """End the process and free its descriptors and memory; a second call has no effect."""
        if not self._stopped:
            self._stopped = True
            with suppress(OSError):  # the zygote has ended, and its children with it
                self._ended = self._supervisor.end(self._fork)
            self._fork.close()


def rows_at_once(frames: Frame) -> int:
    """The number of frames, of the shape of ``uint8[M, H, W, 3]``, per request; raises BoxError if none fits."""
    rows = PASSING // 2 // max(1, prod(frames.shape[1:]))
    if rows == 0:
        raise BoxError(
            f"frames of {frames.shape[1]} x {frames.shape[2]} pixels are too large to judge; scale them down"
        )
    return min(MAX_ROWS, rows)


def _address(array: NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None)


def _current_core() -> int:
    return int(_libc().sched_getcpu())
