"""Ray's core, the processes without which no task runs, and a translation of Ray's exceptions into carl's errors."""

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from carl.errors import CarlError, ResourceError, TaskError

CORE = ("gcs_server", "raylet")
"""Ray's names of the core's processes."""

LOOK_S = 1.0
"""Seconds between two checks of the core."""

CLUSTER_PATIENCE_S = 40.0
"""Seconds without an answer after which a cluster's core counts as lost; after 60 s Ray ends the driver's process."""

GOES_ON = "the same command goes on from where the run is"

_lost: list[str] = []


class CoreLostError(ResourceError):
    """Ray's core was lost in mid-run. The run can go on from its directory with another Ray."""


def lost() -> bool:
    """Whether the core of the running Ray is gone: any further call of Ray would wait without end."""
    return bool(_lost)


@contextmanager
def watched(gone: Callable[[], str] | None = None) -> Iterator[None]:
    """Send SIGTERM to the main thread once ``gone`` returns a text that names the lost process; see ``clearly``.

    Ray itself raises nothing: without the raylet tasks never end, and without the GCS Ray ends the driver's process
    after 60 s. The main thread must enter this context, since SIGTERM raises KeyboardInterrupt there; in any other
    thread nothing is watched.
    """
    _lost.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over, gone = threading.Event(), gone or Core().gone

    def watch() -> None:
        while not over.wait(LOOK_S):
            if what := gone():
                _lost.append(what)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return

    threading.Thread(target=watch, name="carl-core", daemon=True).start()
    try:
        yield
    finally:
        over.set()


class Core:
    """The core of the Ray that this process is connected to."""

    def __init__(self) -> None:
        self._heard = time.monotonic()

    def gone(self) -> str:
        """The lost process and its exit code, or the address without an answer, as text; empty if the core runs."""
        from ray._private import worker

        node: Any = worker._global_node
        if node is None:
            return ""
        processes = [(name, info.process) for name in CORE for info in node.all_processes.get(name, ())]
        if not processes:  # a cluster's, which this process did not start
            return self._unanswered(node.gcs_address)
        ended = [(name, code) for name, process in processes if (code := process.poll()) is not None]
        return f"its {ended[0][0]} ended with exit code {ended[0][1]}" if ended else ""

    def _unanswered(self, address: str) -> str:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), LOOK_S).close()
        except OSError as error:
            silent_s = time.monotonic() - self._heard
            return f"{address} does not answer: {error}" if silent_s > CLUSTER_PATIENCE_S else ""
        self._heard = time.monotonic()
        return ""


@contextmanager
def clearly() -> Iterator[None]:
    """Translate Ray's exceptions: a CarlError of another process is raised itself, a lost process is a ResourceError,
    a lost core a CoreLostError. Every other exception passes unchanged.
    """
    try:
        yield
    except KeyboardInterrupt:
        if _lost:
            raise _core_lost() from None
        raise
    except Exception as error:  # every exception is inspected and raised again
        ours = _translated(error)
        if ours is None:
            raise
        raise ours from (None if ours is getattr(error, "cause", None) else error)


def _core_lost() -> CoreLostError:
    return CoreLostError(f"Ray's core is gone in mid-run, as when memory runs out: {_lost[0]}; {GOES_ON}")


def _translated(error: Exception) -> CarlError | None:
    """The CarlError for an exception of Ray's; None for any other exception, and for a CarlError itself."""
    if "ray" not in sys.modules:
        return None
    from ray import exceptions

    if isinstance(error, exceptions.RayTaskError) and isinstance(error.cause, CarlError):
        return error.cause  # the task error is a CarlError as well, but its text is a traceback
    if isinstance(error, CarlError):
        return None
    if _lost:
        return _core_lost()
    if unread := _unread(error):
        return TaskError(
            f"Ray's processes cannot import what the task needs ({unread}): install its package where they run, or run "
            "carl in the folder where its module lies"
        )
    reason = next(iter(str(error).strip().splitlines()), "no reason is given").rstrip(".")
    if isinstance(error, exceptions.OutOfMemoryError):
        return ResourceError(
            f"a worker process was ended because memory ran out ({reason}): ask for fewer environments at a time "
            f"(train.env_runners, train.envs_per_runner), or for smaller frames, or use a larger machine; {GOES_ON}"
        )
    if isinstance(error, exceptions.WorkerCrashedError | exceptions.RayActorError | exceptions.NodeDiedError):
        return ResourceError(
            f"a worker process ended unexpectedly, as when memory runs out or a library crashes ({reason}); {GOES_ON}"
        )
    if isinstance(error, exceptions.LocalRayletDiedError | exceptions.RaySystemError):
        return CoreLostError(f"Ray's core fails in mid-run: {reason}; {GOES_ON}")
    return None


def _unread(error: Exception) -> str:
    """Python's message if a process of Ray's could not unpickle what it received; empty for other errors."""
    from ray import exceptions

    cause: Any = getattr(error, "cause", None) or error
    return f"{cause.client_exc}" if isinstance(cause, exceptions.RaySystemError) and cause.traceback_str else ""
