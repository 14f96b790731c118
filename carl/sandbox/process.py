"""The processes of boxes, seen from outside: started, given frames, listened to, and ended."""

import atexit
import importlib.util
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import carl
from carl.errors import BoxError
from carl.sandbox import zygote
from carl.sandbox.lockdown import Tier
from carl.sandbox.shared import FINISHED, JUDGE, LOAD, MAX_ROWS, PASSING, READY, REQUEST, Shared
from carl.task import Frame

ATTEMPTS = 3
"""How often something is tried while processes are ended from outside: by hand, or for want of memory."""

GRACE_S = 2.0
"""The kernel's alarm in the child keeps the deadline; a child that defused it is ended this much later."""

ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENCV_OPENCL_RUNTIME": "disabled",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # a program that goes through a set of strings says the same in every child
}

ACCEPTED = "CARL_SANDBOX"
"""Environment variable: the name of the weakest Tier to accept, in small letters; ``seccomp`` unless it is set."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        deadline_s: seconds of wall-clock time for one frame.
        memory_mb: MiB of address space beyond what the interpreter and its libraries take.
        max_kills: a sub-task that ended its process so often in one call of ``judge`` is not run again in that call.
        start_s: seconds in which a process has to be ready.
    """

    deadline_s: float = 1.0
    memory_mb: int = 1024
    max_kills: int = 3
    start_s: float = 60.0


@dataclass(frozen=True, eq=False)
class Request:
    """Answer i is about ``frames[rows[i]]`` of an episode that began at ``initials[episodes[i]]``."""

    frames: Frame
    initials: Frame
    subtasks: NDArray[np.intp]
    rows: NDArray[np.intp]
    episodes: NDArray[np.intp]

    def part(self, which: NDArray[np.intp]) -> "Request":
        """Those answers only, in ascending order."""
        if len(which) == len(self.subtasks):
            return self
        return Request(self.frames, self.initials, self.subtasks[which], self.rows[which], self.episodes[which])


@dataclass(frozen=True, eq=False)
class Answer:
    """Values and reasons of the rows that were finished; and how the child ended, if it did, on the one after."""

    values: NDArray[np.float64]
    reasons: NDArray[np.bytes_]
    ended: str | None


class Supervisor:
    """Has children forked from a zygote of its own, and keeps a spare one ready. For several threads.

    Raises BoxError if the zygote cannot start, or if too little is denied on this machine.
    """

    def __init__(self, start_s: float) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._unanswered: deque[Fork] = deque()
        self._spare: Fork | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = _start_zygote(theirs.fileno())
            self.tier = self._greeted(self._process, start_s)
        except BaseException:  # whatever went wrong, half a zygote must not stay behind
            self.close()
            raise

    def _greeted(self, process: "subprocess.Popen[bytes]", start_s: float) -> Tier:
        self._control.settimeout(start_s)
        try:
            failures: dict[str, str] = json.loads(self._control.recv(zygote.MESSAGE_BYTES))["failures"]
        except (OSError, ValueError) as error:
            process.kill()
            assert process.stderr is not None  # it was asked to be a pipe
            said = process.stderr.read().decode(errors="replace").strip()
            reason = said[-2000:] or f"it was not ready within {start_s:g} s, and said nothing"
            raise BoxError(f"the process that runs programs did not start: {reason}") from error
        return accepted(failures)

    def take(self, limits: Limits) -> "Fork":
        """A child that is locked down: the spare, if it has these limits. The next spare starts meanwhile."""
        with self._exchange():
            fork, self._spare = self._spare, None
            if fork is not None and fork.memory_mb != limits.memory_mb:
                self.end(fork)
                fork = None
            fork = fork or self._fork(limits.memory_mb)
            with suppress(BoxError):  # there is no room for a spare; whoever needs a child tries again
                self._spare = self._fork(limits.memory_mb)
            while fork.pid is None:
                self._take_pid()
        return fork

    def end(self, fork: "Fork") -> int:
        """Kill the child and wait for it; its exit code, or what it had ended with before, negative for a signal."""
        with self._exchange():
            while fork.pid is None:
                self._take_pid()
            self._send({"end": fork.pid})
            while self._unanswered:
                self._take_pid()
            fork.close()
            return int(self._receive()["status"])

    def close(self) -> None:
        """End the zygote, and with it all children; harmless when called twice, or in a fork of its owner."""
        if self._process and os.getpid() == self._owner:
            self._process.kill()
            self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()
        self._control.close()
        for fork in (self._spare, *self._unanswered):
            if fork is not None:
                fork.close()

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Alone with the zygote. Who is interrupted leaves answers unread, and nobody could go on from there."""
        if os.getpid() != self._owner:
            raise BrokenPipeError("this process is a fork of the one whose zygote it is")
        with self._lock:
            try:
                yield
            except BoxError:
                raise
            except BaseException:  # KeyboardInterrupt too
                self.close()
                raise

    def _fork(self, memory_mb: int) -> "Fork":
        with ExitStack() as theirs:
            try:
                shared, descriptors = Shared.create()
                for descriptor in descriptors:
                    theirs.callback(os.close, descriptor)
                channel, end = socket.socketpair()
            except OSError as error:
                raise BoxError(f"there is no room for another process that runs programs: {error}") from error
            theirs.enter_context(end)
            fork = Fork(shared, channel, memory_mb)
            self._unanswered.append(fork)
            self._send({"memory_mb": memory_mb}, end.fileno(), *descriptors)
        return fork

    def _take_pid(self) -> None:
        self._unanswered.popleft().pid = self._receive()["pid"]

    def _send(self, request: dict[str, Any], *descriptors: int) -> None:
        socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)

    def _receive(self) -> dict[str, Any]:
        answer = self._control.recv(zygote.MESSAGE_BYTES)
        if not answer:
            raise BrokenPipeError("the zygote hung up")
        return dict(json.loads(answer))


@dataclass(eq=False)
class Fork:
    """A process that the zygote forked: the memory shared with it, the socket to it, and its name once it is known."""

    shared: Shared
    channel: socket.socket
    memory_mb: int
    pid: int | None = None

    def close(self) -> None:
        self.channel.close()


class Child:
    """One process that holds a program's code. Raises BoxError if it cannot start."""

    def __init__(self, sources: list[str], limits: Limits) -> None:
        if sys.platform != "linux":
            raise BoxError(f"programs run in a box that needs Linux; this is {sys.platform}. Use a container or WSL.")
        self._limits = limits
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start(sources)
                break
            except OSError as error:  # the spare child had died while it waited, or the zygote
                if attempt == ATTEMPTS:
                    raise BoxError(f"processes that run programs do not stay alive: {error}") from error

    def _start(self, sources: list[str]) -> None:
        self._core = -1
        self._stopped = False
        self._ended: int | None = None
        self._used = 0
        self._supervisor, self._fork = _taken(self._limits)
        self._address = _address(np.frombuffer(self._fork.shared.frames, np.uint8))
        try:
            self._load(sources)
        except BaseException:  # whatever went wrong, half a child must not stay behind
            self.stop()
            raise

    @property
    def pid(self) -> int:
        assert self._fork.pid is not None  # whoever is taken has one
        return self._fork.pid

    def _load(self, sources: list[str]) -> None:
        program = json.dumps({"sources": sources, "deadline_s": self._limits.deadline_s}).encode()
        self._fork.shared.frames[PASSING : PASSING + len(program)] = program
        self._expect_ready()
        self._ask(LOAD, len(program), 0, 0)
        self._expect_ready()

    def _expect_ready(self) -> None:
        answer = self._receive(self._limits.start_s)
        if answer == b"":
            raise ConnectionError("one ended before it was ready, and said nothing")
        if answer != READY:
            said = (answer + self._fork.channel.recv(2000)).decode(errors="replace") if answer else "nothing in time"
            raise BoxError(f"a process that runs programs did not start; it said {said}")

    def room(self, count: int, height: int, width: int) -> Frame:
        """An array ``uint8[count, height, width, 3]`` of zeros in the shared memory, or elsewhere if that is full.

        What lies there does not have to be copied in order to be judged.
        """
        shape = (count, height, width, 3)
        size = prod(shape)
        if self._used + size > PASSING:
            return np.zeros(shape, np.uint8)
        room: Frame = np.ndarray(shape, np.uint8, self._fork.shared.frames, self._used)
        self._used += size
        return room

    def run(self, request: "Request") -> Answer:
        """Judge at most ``rows_at_once`` rows. Raises ConnectionError if the child was gone before."""
        rows, (height, width) = len(request.subtasks), request.frames.shape[1:3]
        shared = self._fork.shared
        self._place(0, request.frames, request.rows)
        self._place(1, request.initials, request.episodes)
        shared.tasks[:rows] = request.subtasks
        shared.cursor[0] = 0
        self._follow()
        self._ask(JUDGE, rows, height, width)
        reply = self._judged(rows)
        ended = None
        finished = rows
        if reply != FINISHED:
            ended = self._how_it_ended(late=reply is None)
            finished = min(max(int(shared.cursor[0]), 0), rows - 1)
        return Answer(shared.values[:finished].copy(), shared.reasons[:finished].copy(), ended)

    def _place(self, column: int, pictures: Frame, which: NDArray[np.intp]) -> None:
        """Say where ``pictures[which]`` lie in the shared memory, after copying them there unless they do already."""
        shared, size = self._fork.shared, prod(pictures.shape[1:])
        start = _address(pictures) - self._address
        if not (0 <= start < self._used and pictures.flags.c_contiguous):
            start = PASSING + PASSING // 2 * column
            place: Frame = np.ndarray((len(which), *pictures.shape[1:]), np.uint8, shared.frames, start)
            np.take(pictures, which, axis=0, out=place, mode="clip")  # "raise" would go through a copy
            which = np.arange(len(which))
        shared.offsets[column, : len(which)] = start + which * size

    def _follow(self) -> None:
        """Put the child on the core that this thread is on: it waits there anyway, and waking up elsewhere is slow."""
        core = _current_core()
        if core != self._core:
            self._core = core
            with suppress(OSError):  # it may be gone; sending will tell
                os.sched_setaffinity(self.pid, {core})

    def _ask(self, *request: int) -> None:
        try:
            self._fork.channel.send(REQUEST.pack(*request), socket.MSG_DONTWAIT)
        except BlockingIOError as error:
            raise ConnectionError("the child answers without reading what it is asked") from error

    def _judged(self, rows: int) -> bytes | None:
        """The reply; None if the child stays at one row for too long, or comes back to it: its alarm is defused."""
        row, reached = -1, 0
        while row < reached:
            row = reached
            reply = self._receive(self._limits.deadline_s + GRACE_S)
            if reply is not None:
                return reply
            reached = min(int(self._fork.shared.cursor[0]), rows - 1)
        return None

    def _receive(self, timeout_s: float) -> bytes | None:
        """What the child says: two bytes are one too many. b"" if it hung up, None if it took too long."""
        poll = select.poll()
        poll.register(self._fork.channel, select.POLLIN)
        try:
            return self._fork.channel.recv(2) if poll.poll(timeout_s * 1000) else None
        except ConnectionResetError:
            return b""

    def _how_it_ended(self, late: bool) -> str:
        self.stop()
        code = self._ended
        if code is None:
            raise ConnectionError("the zygote is gone, and has taken its children along")
        if late or code == -signal.SIGALRM:
            return f"ran past its deadline of {self._limits.deadline_s:g} s"
        return f"ended its process ({f'signal {-code}' if code < 0 else f'exit code {code}'})"

    def stop(self) -> None:
        """End the process, and give back descriptors and memory; harmless when called twice."""
        if not self._stopped:
            self._stopped = True
            with suppress(OSError):  # the zygote is gone, and its children with it
                self._ended = self._supervisor.end(self._fork)
            self._fork.close()


_supervisor: Supervisor | None = None
_starting = threading.Lock()


def _taken(limits: Limits) -> tuple[Supervisor, Fork]:
    """A fresh child of this process's supervisor, which is started if there is none, and dismissed if it failed."""
    supervisor = supervise(limits.start_s)
    try:
        return supervisor, supervisor.take(limits)
    except OSError:
        dismiss(supervisor)
        raise


def supervise(start_s: float = Limits.start_s) -> Supervisor:
    """This process's supervisor; raises BoxError if it cannot start."""
    global _supervisor
    with _starting:
        if _supervisor is None:
            _supervisor = Supervisor(start_s)
        return _supervisor


def dismiss(stale: Supervisor | None = None) -> None:
    """End this process's supervisor, if it has one, with all children; if ``stale`` is given, only that one."""
    global _supervisor
    with _starting:
        if _supervisor is not None and stale in (None, _supervisor):
            _supervisor.close()
            _supervisor = None


def _disown() -> None:
    """A fork of this process must start a supervisor of its own."""
    global _supervisor, _starting
    _supervisor, _starting = None, threading.Lock()


atexit.register(dismiss)
os.register_at_fork(after_in_child=_disown)


def accepted(failures: dict[str, str]) -> Tier:
    """The tier where these mechanisms fail; logs it. Raises BoxError if it is weaker than what is accepted."""
    tier = Tier.of(failures)
    name = os.environ.get(ACCEPTED, Tier.SECCOMP.name.lower())
    names = {tier.name.lower(): tier for tier in Tier}
    if name not in names:
        raise BoxError(f"{ACCEPTED}={name} names no tier of the sandbox; there are: {', '.join(names)}")
    lacking = "; ".join(f"{mechanism} fails: {why}" for mechanism, why in failures.items())
    if tier < names[name]:
        raise BoxError(
            f"programs would run with too little held back on this machine ({lacking}). Mend that, or accept it by "
            f"name: {ACCEPTED}={tier.name.lower()}"
        )
    _log.info("programs run in tier %s%s", tier.name, f" ({lacking})" if lacking else "")
    return tier


def rows_at_once(frames: Frame) -> int:
    """How many of these frames ``uint8[M, H, W, 3]`` fit into one request; raises BoxError if not one does."""
    rows = PASSING // 2 // max(1, prod(frames.shape[1:]))
    if rows == 0:
        raise BoxError(
            f"frames of {frames.shape[1]} x {frames.shape[2]} pixels are too large to judge; scale them down"
        )
    return min(MAX_ROWS, rows)


def _address(array: NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


def _start_zygote(control: int) -> "subprocess.Popen[bytes]":
    # As python -I, which would also ignore the hash seed: nothing comes from outside, the environment is ENVIRONMENT.
    command = [sys.executable, "-P", "-s", "-S", zygote.__file__, str(control), *_import_folders()]
    try:
        return subprocess.Popen(
            command,
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[control],
        )
    except OSError as error:
        raise BoxError(f"cannot start the process that runs programs: {error}") from error


@cache
def _import_folders() -> tuple[str, ...]:
    """Where numpy, cv2, xxhash, pyseccomp and carl are imported from here: the zygote is told no other places."""
    folders = [str(Path(carl.__file__).resolve().parents[1])]
    for name in ("numpy", "cv2", "xxhash", "pyseccomp"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:  # the zygote says what it lacks
            place = Path(spec.origin)
            folders.append(str(place.parents[1] if place.name == "__init__.py" else place.parent))
    return tuple(dict.fromkeys(folders))


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None)


def _current_core() -> int:
    return int(_libc().sched_getcpu())
