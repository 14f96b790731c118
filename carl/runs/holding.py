"""One process at a time works in a run directory, or copies to its URI; others are refused with its name.

A directory is held by a lock of the operating system, which ends with its process however that ends. A URI has no
locks: there a small file, the claim, is renewed while the run goes on, and is void once it is old.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self
from uuid import uuid4

from carl.artefacts import CLAIM, LOCK
from carl.console.progress import Progress, silent
from carl.errors import CarlError, ConfigError
from carl.runs.storage import Storage

BEAT_S = 15.0
"""Seconds between two renewals of a claim."""

STALE_S = 90.0
"""Seconds without a renewal after which a claim is taken over: its process is gone, or does not reach the storage."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of a file system that has no locks."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """A process that works in a directory.

    Attributes:
        host, pid: where it runs.
        since: when it began there, in seconds since 1970.
        token: differs between any two holders.
        process: boot, process namespace and start time, which differ from those of a later process with that ``pid``.
    """

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=lambda: round(time.time(), 3))
    token: str = field(default_factory=lambda: uuid4().hex)
    process: str = field(default_factory=lambda: _process(os.getpid()))

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The holder in the text of a lock or claim; None if there is none, as while it is being written."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def to_json(self) -> str:
        """The text that ``read`` reads."""
        return json.dumps(asdict(self))

    @property
    def gone(self) -> bool:
        """Whether it ran on this machine and has ended; False on any other, where that cannot be found out."""
        boot, _, _ = self.process.rpartition(" ")
        here = self.host == socket.gethostname() and bool(boot) and _process(os.getpid()).startswith(boot)
        return here and _process(self.pid) != self.process

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


def _process(pid: int) -> str:
    """Boot, namespace and start time of a process, which no other of its number shares; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {started}"
    except (OSError, IndexError):
        return ""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep other runs out of ``directory``, which is made if need be; raises ConfigError if one is at work there."""
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(directory / LOCK)
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error}; mend that or give another --run-dir") from error
    try:
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, Holder().to_json().encode(), 0)
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                (directory / LOCK).unlink()
            os.close(descriptor)
        if made:
            with suppress(OSError):  # it holds something
                directory.rmdir()


def _locked(path: Path) -> int | None:
    """The descriptor of a file, locked; None where there are no locks. Raises ConfigError if another has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):  # its holder took it away in between
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            holder = Holder.read(os.pread(descriptor, 10_000, 0).decode(errors="replace")) or "another process"
            os.close(descriptor)
            raise ConfigError(
                f"{path.parent} is in use by {holder}: wait for it, stop it, or give another directory"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            _log.warning("%s has no locks (%s): make sure that only one process works there", path.parent, error)
            return None
        os.close(descriptor)


@contextmanager
def claimed(storage: Storage | None, progress: Progress = silent) -> Iterator[None]:
    """Keep other runs from copying to ``storage`` while the context lasts; nothing is done for None.

    Waits up to STALE_S for a claim whose process may have died. Raises ConfigError if another run is at work there,
    and StoreError where nothing can be read or written.
    """
    if storage is None:
        yield
        return
    with held(storage.folder) if storage.folder else nullcontext():
        claim = _Claim(storage)
        claim.take(progress)
        storage.claim = claim.holder.token
        over = threading.Event()
        thread = threading.Thread(target=claim.keep, args=[over], name="carl-claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(CarlError):
                claim.release()


class _Claim:
    """The claim of this process to a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.holder = Holder()

    def take(self, progress: Progress) -> None:
        storage = self._storage
        storage.try_writing()
        if (other := self._other()) and not other.gone:
            self._outlast(other, progress)
        storage.write(CLAIM, self.holder.to_json())
        if other := self._other():  # two came at once: the later one has it
            raise self._in_use(other)

    def _outlast(self, other: Holder, progress: Progress) -> None:
        """Wait until ``other`` has given no sign of life for STALE_S; raises ConfigError as soon as it gives one."""
        begun, silent_s = time.monotonic(), self._storage.age(CLAIM)
        renewed = self._storage.changed([CLAIM])
        label = f"waiting for a sign of life of {other}"
        while (waited := silent_s + time.monotonic() - begun) < STALE_S:
            progress(label, waited, STALE_S)
            time.sleep(min(1.0, STALE_S - waited))
            now = self._other()
            if now is None:
                break
            if now.token != other.token or self._storage.changed([CLAIM]) != renewed:
                raise self._in_use(now)
        else:
            _log.warning("%s was in use by %s, which is gone, and is taken over", self._storage.uri, other)
        progress(label, STALE_S, STALE_S)

    def _other(self) -> Holder | None:
        holder = Holder.read(self._storage.read(CLAIM) or "")
        return holder if holder and holder.token != self.holder.token else None

    def _in_use(self, other: Holder) -> ConfigError:
        return ConfigError(
            f"storage={self._storage.uri} is in use by {other}: wait for it, stop it, or give another --run-dir and URI"
        )

    def keep(self, over: threading.Event) -> None:
        """Renew the claim until ``over``, or until another process has taken it."""
        while not over.wait(BEAT_S):
            with suppress(CarlError):  # it is tried again
                if self._other():
                    return
                self._storage.write(CLAIM, self.holder.to_json())

    def release(self) -> None:
        if not self._other():
            self._storage.delete(CLAIM)
