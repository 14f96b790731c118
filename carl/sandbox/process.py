"""The child process of a box, seen from outside: started, given frames, listened to, and ended."""

import fcntl
import importlib.util
import json
import mmap
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

import carl
from carl.errors import BoxError
from carl.sandbox import child as inside
from carl.task import Frame

GRACE_S = 2.0
"""The kernel's alarm in the child keeps the deadline; this much later the parent ends the child itself."""

ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENCV_OPENCL_RUNTIME": "disabled",
    "LC_ALL": "C.UTF-8",
}


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        deadline_s: seconds of wall-clock time for one frame.
        memory_mb: MiB of address space beyond what the interpreter and its libraries take.
        max_kills: a sub-task that ended its process so often in one call of ``judge`` is not run again in that call.
        start_s: seconds in which the child has to be ready.
    """

    deadline_s: float = 1.0
    memory_mb: int = 1024
    max_kills: int = 3
    start_s: float = 60.0


@dataclass(frozen=True, eq=False)
class Answer:
    """Values and reasons of the rows that were finished; and how the child ended, if it did, on the one after."""

    values: NDArray[np.float64]
    reasons: NDArray[np.bytes_]
    ended: str | None


class Child:
    """One process that holds a program's code, and the memory shared with it. Raises BoxError if it cannot start."""

    def __init__(self, sources: list[str], limits: Limits) -> None:
        if sys.platform != "linux":
            raise BoxError(f"programs run in a box that needs Linux; this is {sys.platform}. Use a container or WSL.")
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._memory = os.memfd_create("carl-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._memory, inside.CONTROL_BYTES + inside.FRAMES_BYTES)
            fcntl.fcntl(self._memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # so no child can cut it under our feet
            self._control = inside.Control(mmap.mmap(self._memory, inside.CONTROL_BYTES))
            self._frames = mmap.mmap(self._memory, inside.FRAMES_BYTES, offset=inside.CONTROL_BYTES)
            self._start(sources)
        except BaseException:  # whatever went wrong, half a child must not stay behind
            self.stop()
            raise

    def _start(self, sources: list[str]) -> None:
        command = [sys.executable, "-I", "-S", inside.__file__, str(self._memory), *_import_folders()]
        pipe = subprocess.PIPE
        shared = [self._memory]
        try:
            process = self._process = subprocess.Popen(
                command, env=ENVIRONMENT, cwd="/", stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=shared, bufsize=0
            )
        except OSError as error:
            raise BoxError(f"cannot start the process that runs programs: {error}") from error
        self._requests, self._replies, self._complaints = map(_open, (process.stdin, process.stdout, process.stderr))
        limits = self._limits
        settings = {"sources": sources, "deadline_s": limits.deadline_s, "memory_mb": limits.memory_mb}
        try:
            self._send(json.dumps(settings).encode() + b"\n")
            reply = self._receive(limits.start_s)
        except BrokenPipeError:
            reply = b""
        if reply != inside.READY:
            raise BoxError(f"the process that runs programs did not start: {self._last_words()}")
        self._complaints.close()  # what generated code or cv2 prints from here on is nobody's

    def _last_words(self) -> str:
        self._end()
        said = self._complaints.read().decode(errors="replace").strip()
        return said[-2000:] or f"it was not ready within {self._limits.start_s:g} s, and said nothing"

    def run(self, frames: Frame, initials: Frame, subtasks: NDArray[np.intp]) -> Answer:
        """Judge at most ``rows_at_once`` rows. Raises BrokenPipeError if the child was gone before."""
        rows, height, width, _ = frames.shape
        shared: Frame = np.ndarray((2, *frames.shape), np.uint8, self._frames)
        shared[0], shared[1] = frames, initials
        self._control.tasks[:rows] = subtasks
        self._control.cursor[0] = 0
        self._send(inside.REQUEST.pack(rows, height, width))
        reply = self._receive(self._limits.deadline_s * rows + GRACE_S)
        ended = None
        finished = rows
        if reply != inside.FINISHED:
            ended = self._how_it_ended(late=reply is None)
            finished = min(max(int(self._control.cursor[0]), 0), rows - 1)
        return Answer(self._control.values[:finished].copy(), self._control.reasons[:finished].copy(), ended)

    def _send(self, message: bytes) -> None:
        while message:
            message = message[self._requests.write(message) :]

    def _receive(self, timeout_s: float) -> bytes | None:
        """One byte; b"" if the child hung up, None if it took too long."""
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        return self._replies.read(1) if poll.poll(timeout_s * 1000) else None

    def _how_it_ended(self, late: bool) -> str:
        code = self._end()
        if late or code == -signal.SIGALRM:
            return f"ran past its deadline of {self._limits.deadline_s:g} s"
        return f"ended its process ({f'signal {-code}' if code < 0 else f'exit code {code}'})"

    def _end(self) -> int:
        """Kill the process and wait for it; its exit code, or what it had ended with before, negative for a signal."""
        if self._process is None:
            return 0
        self._process.kill()
        return self._process.wait()

    def stop(self) -> None:
        """End the process, and give back descriptors and memory; harmless when called twice."""
        self._end()
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # subprocess gives None only for what was not asked to be a pipe
    return pipe


def rows_at_once(frames: Frame) -> int:
    """How many of these frames ``uint8[M, H, W, 3]`` fit into one request; raises BoxError if not one does."""
    rows = inside.FRAMES_BYTES // max(1, 2 * frames[:1].nbytes)
    if rows == 0:
        raise BoxError(
            f"frames of {frames.shape[1]} x {frames.shape[2]} pixels are too large to judge; scale them down"
        )
    return min(inside.MAX_ROWS, rows)


def _import_folders() -> list[str]:
    """Where numpy, cv2 and carl are imported from here: the child is told no other places."""
    folders = [str(Path(carl.__file__).resolve().parents[1])]
    for name in ("numpy", "cv2"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise BoxError(f"programs need {name}; install it")
        folders.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(folders))
