"""Runs programs that the policy accepts without a box, and prints what the interpreter's own audit saw them try."""

import json
import resource
import signal
import sys
from contextlib import suppress

from carl.sandbox import lockdown
from carl.sandbox.child import SubTaskCode, namespace, warm_up
from tests.sandbox.test_names import SMALL

AUDITED = ("open", "import", "os.", "socket.", "subprocess.", "ctypes.", "shutil.", "sys.", "object.__", "code.__")
"""Events of the interpreter that a program must not cause: see docs.python.org/3/library/audit_events.html."""


def events(sources: list[str]) -> str:
    """What events the sources cause; this process can do little harm should they."""
    warm_up()
    codes = [SubTaskCode(index, source, namespace()) for index, source in enumerate(sources)]
    for code in codes:
        code.function()
    resource.setrlimit(resource.RLIMIT_AS, (lockdown.address_space() + (256 << 20),) * 2)
    lockdown.restrict_files()
    seen: set[str] = set()
    sys.addaudithook(lambda event, arguments: event.startswith(AUDITED) and seen.add(f"{event} {arguments}"[:200]))
    for code in codes:
        signal.alarm(5)
        with suppress(Exception):
            code.function()(*SMALL)
    signal.alarm(0)
    return "; ".join(sorted(seen))


if __name__ == "__main__":
    said = events(json.load(sys.stdin))
    sys.stdout.write(said)
