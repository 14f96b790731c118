"""The process that box children are forked from, warm. Started as a script in a clean, isolated interpreter.

It never holds a program's code, and is never a fork of the process that uses it. At the top it imports the standard
library alone: its command line names the folders to import numpy, cv2, xxhash, pyseccomp and carl from.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

MESSAGE_BYTES = 1 << 16
NO_CHILD = -1
ORPHAN_CHECK_S = 10.0


class Zygote:
    """Serves a supervisor: forks a child, or kills one and returns its exit status."""

    def __init__(self, control: socket.socket, failures: Mapping[str, str]) -> None:
        self._control = control
        self._failures = failures
        self._supervisor = os.getppid()

    def serve(self) -> None:
        """Answer until the supervisor closes the socket, or has ended while another process holds its end."""
        self._answer({"failures": dict(self._failures)})
        while True:
            if not select.select([self._control], [], [], ORPHAN_CHECK_S)[0]:
                if os.getppid() != self._supervisor:
                    return
                continue
            message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 3)
            if not message:
                return
            request = json.loads(message)
            if "end" in request:
                self._answer({"status": self._end(request["end"])})
            else:
                self._answer({"pid": self._fork(descriptors, request["memory_mb"])})

    def _answer(self, answer: dict[str, Any]) -> None:
        self._control.send(json.dumps(answer).encode())

    def _end(self, child: int) -> int:
        """Kill a child, if it still runs; returns its exit code, negative for the signal that ended it."""
        if child == NO_CHILD:
            return 1
        os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _fork(self, descriptors: list[int], memory_mb: int) -> int:
        try:
            child = os.fork()
        except OSError as error:  # there is no room for it now; the zygote goes on
            child = NO_CHILD
            os.write(descriptors[0], f"!{error}".encode())
        if child == 0:
            try:
                self._become_child(descriptors, memory_mb)
            except BaseException as error:  # this copy of the zygote must not go on as one, whatever is raised
                os.write(descriptors[0], f"!{type(error).__name__}: {error}".encode())
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        return child

    def _become_child(self, descriptors: list[int], memory_mb: int) -> None:
        from carl.sandbox import child, lockdown
        from carl.sandbox.shared import Shared

        channel, control, frames = descriptors
        shared = Shared.attach(control, frames)
        os.closerange(0, channel)
        os.closerange(channel + 1, 1 << 20)
        lockdown.lock_down(channel, memory_mb, self._failures)
        child.serve(channel, shared)


def main() -> None:
    """Arguments: the descriptor of the socket to the supervisor, then the folders to import from."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    sys.path.extend(sys.argv[2:])
    from carl.sandbox import child, lockdown

    child.warm_up()
    with contextlib.suppress(ImportError, RuntimeError):  # the probe reports that it is missing
        import pyseccomp  # noqa: F401
    failures = lockdown.probe()
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, all of these pages
    Zygote(socket.socket(fileno=int(sys.argv[1])), failures).serve()


if __name__ == "__main__":
    main()
