"""The supervisor of a process: it makes its zygote fork the children of boxes, and keeps a spare one ready."""

import atexit
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import carl
from carl.errors import BoxError
from carl.sandbox import zygote
from carl.sandbox.lockdown import Tier
from carl.sandbox.shared import Shared

START_S = 60.0
"""Seconds in which a zygote has to be ready, by default."""

ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENCV_OPENCL_RUNTIME": "disabled",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same hashes of strings in every child
}

ACCEPTED = "CARL_SANDBOX"
"""Environment variable: the name of the weakest Tier to accept, in small letters; ``seccomp`` unless it is set."""

_log = logging.getLogger(__name__)


class StartError(BoxError):
    """A process could not be started. It may pass: the machine is busy, or something killed the process."""


class Supervisor:
    """Makes its zygote fork children, and keeps a spare one ready. Thread-safe.

    Raises StartError if the zygote cannot start, and BoxError if this machine enforces too little.
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
        except BaseException:  # whatever is raised, no half-started zygote may remain
            self.close()
            raise

    def _greeted(self, process: "subprocess.Popen[bytes]", start_s: float) -> Tier:
        self._control.settimeout(start_s)
        try:
            failures: dict[str, str] = json.loads(self._control.recv(zygote.MESSAGE_BYTES))["failures"]
        except (OSError, ValueError) as error:
            late = isinstance(error, TimeoutError)
            process.kill()
            assert process.stderr is not None  # it was asked to be a pipe
            words = process.stderr.read().decode(errors="replace").strip()
            silent = f"it was not ready within {start_s:g} s" if late else "it ended before it was ready"
            reason = words[-2000:] or f"{silent}, without a message"
            raise StartError(f"the process that runs programs did not start: {reason}") from error
        return accepted(failures)

    def take(self, memory_mb: int) -> "Fork":
        """A locked-down child: the spare one, if it has this limit of ``memory_mb``. The next spare is then started."""
        with self._exchange():
            fork, self._spare = self._spare, None
            if fork is not None and fork.memory_mb != memory_mb:
                self.end(fork)
                fork = None
            fork = fork or self._fork(memory_mb)
            with suppress(BoxError):  # there is no room for a spare; the next call tries again
                self._spare = self._fork(memory_mb)
            while fork.pid is None:
                self._take_pid()
        return fork

    def end(self, fork: "Fork") -> int:
        """Kill the child, if it still runs, and wait for it; returns its exit code, negative for a signal."""
        with self._exchange():
            while fork.pid is None:
                self._take_pid()
            self._send({"end": fork.pid})
            while self._unanswered:
                self._take_pid()
            fork.close()
            return int(self._receive()["status"])

    def close(self) -> None:
        """End the zygote and all its children; without effect when called twice, or in a fork of its owner."""
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
        """Hold the zygote's lock. An interrupted exchange leaves answers unread, so it ends the zygote."""
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
                raise StartError(f"there is no room for another process that runs programs: {error}") from error
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
    """A process that the zygote forked: its shared memory, its socket, and its process id once it is known."""

    shared: Shared
    channel: socket.socket
    memory_mb: int
    pid: int | None = None

    def close(self) -> None:
        """Close the socket."""
        self.channel.close()


_supervisor: Supervisor | None = None
_starting = threading.Lock()


def taken(memory_mb: int, start_s: float) -> tuple[Supervisor, Fork]:
    """A new child of this process's supervisor, which is started if there is none, and dismissed if it fails."""
    supervisor = supervise(start_s)
    try:
        return supervisor, supervisor.take(memory_mb)
    except OSError:
        dismiss(supervisor)
        raise


def supervise(start_s: float = START_S) -> Supervisor:
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
    """In a fork of this process: forget the supervisor, which belongs to the parent."""
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


def _start_zygote(control: int) -> "subprocess.Popen[bytes]":
    # The options of python -I except the one that ignores PYTHONHASHSEED; the environment is ENVIRONMENT alone.
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
        raise StartError(f"cannot start the process that runs programs: {error}") from error


@cache
def _import_folders() -> tuple[str, ...]:
    """The folders that numpy, cv2, xxhash, pyseccomp and carl are imported from, the only ones that the zygote gets."""
    folders = [str(Path(carl.__file__).resolve().parents[1])]
    for name in ("numpy", "cv2", "xxhash", "pyseccomp"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:  # the zygote reports what is missing
            place = Path(spec.origin)
            folders.append(str(place.parents[1] if place.name == "__init__.py" else place.parent))
    return tuple(dict.fromkeys(folders))
