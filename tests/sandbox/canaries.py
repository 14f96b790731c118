"""Things outside the box that a program must not reach: files, listeners, processes, and this process itself."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

NOBODY = 65534
UNTOUCHED = b"untouched"
SECRET = "CARL_TEST_SECRET"
"""An environment variable of this process."""

LEFT_BEHIND = ("/a", "/tmp/carl-escaped", "/dev/shm/carl-escaped")
"""Files that programs try to leave elsewhere."""


class Canaries:
    """Everybody may write the files, connect to the listeners and, being the same user, signal the processes."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="carl-canary-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.folder.chmod(0o777)
            self.file = self.folder / "file"
            self.listeners = [stack.enter_context(listener) for listener in self._listeners()]
            self._siblings: dict[str, subprocess.Popen[bytes]] = {}
            stack.callback(self._end_siblings)
            self.reset()
            self._state = self._looks()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def places(self) -> dict[str, Any]:
        """What the programs of ``hostile`` call these things."""
        tcp, udp, unix, abstract = (listener.getsockname() for listener in self.listeners)
        return {
            "folder": self.folder,
            "file": self.file,
            "port": tcp[1],
            "udp": udp[1],
            "unix": unix,
            "abstract": abstract[1:].decode(),
            "parent": os.getpid(),
            "secret": SECRET,
            **{name: process.pid for name, process in self._siblings.items()},
        }

    def reset(self) -> None:
        """Put files and processes back as they were."""
        for path in self.folder.iterdir():
            if path != Path(self.listeners[2].getsockname()):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.file.write_bytes(UNTOUCHED)
        self.file.chmod(0o666)
        users = {"sibling": None, "nobody": NOBODY if os.geteuid() == 0 else None}
        for name, user in users.items():
            if name not in self._siblings or self._siblings[name].poll() is not None:
                self._siblings[name] = subprocess.Popen(["sleep", "600"], preexec_fn=_becoming(user))

    def touched(self) -> list[str]:
        """What a program did to any of them."""
        now = self._looks()
        return [f"{name}: {self._state[name]} became {now[name]}" for name in now if now[name] != self._state[name]]

    def _looks(self) -> dict[str, object]:
        file = self.file.stat() if self.file.is_file() else None
        return {
            "the file": self.file.read_bytes() if file else None,
            "its state": file and (file.st_mode, file.st_mtime_ns, file.st_nlink, file.st_ino, file.st_uid),
            "the folder": sorted(os.listdir(self.folder)),
            "left behind": [path for path in LEFT_BEHIND if os.path.lexists(path)],
            "listeners": [_heard(listener) for listener in self.listeners],
            **{name: _manners(process) for name, process in self._siblings.items()},
            "this process": (
                os.getpriority(os.PRIO_PROCESS, 0),
                os.sched_getaffinity(0),
                os.getcwd(),
                signal.sigpending(),
                resource.getrlimit(resource.RLIMIT_NOFILE),
                os.environ.get(SECRET),
            ),
        }

    def _listeners(self) -> list[socket.socket]:
        made = []
        addresses = (
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "socket")),
            (socket.AF_UNIX, socket.SOCK_STREAM, f"\0carl-canary-{os.getpid()}"),
        )
        for family, kind, address in addresses:
            listener = socket.socket(family, kind)
            listener.setblocking(False)
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            made.append(listener)
        os.chmod(self.folder / "socket", 0o777)
        return made

    def _end_siblings(self) -> None:
        for process in self._siblings.values():
            process.kill()
            process.wait()


def _becoming(user: int | None) -> Callable[[], None] | None:
    return None if user is None else lambda: os.setresuid(user, user, user)


def _heard(listener: socket.socket) -> bool:
    with suppress(BlockingIOError):
        if listener.type == socket.SOCK_DGRAM:
            listener.recv(1)
        else:
            listener.accept()[0].close()
        return True
    return False


def _manners(process: "subprocess.Popen[bytes]") -> object:
    """How a process runs; None if it does no more. It may be stopped, traced, slowed down or limited."""
    if process.poll() is not None:
        return None
    status = Path(f"/proc/{process.pid}/status").read_text()
    stopped = "State:\tT" in status or "TracerPid:\t0" not in status
    return (
        stopped,
        os.getpriority(os.PRIO_PROCESS, process.pid),
        os.sched_getaffinity(process.pid),
        Path(f"/proc/{process.pid}/limits").read_text(),
    )
