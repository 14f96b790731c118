"""Results that survive a stop: hours of measuring go on where they were. Faults of the machine are no results."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any

from carl.errors import BoxError, ProgramError, TaskError
from carl.verification.episode import Episode

ANSWERS = (ProgramError, TaskError)
"""What a measurement may end with and be kept: there is no program, or the task allows none. All else that carl raises
(processes, memory, disks, servers) passes, and is measured again."""

OF_THE_MACHINE = ("(signal 9)", "which it mostly waited")
"""In the reason of an abstain: the kernel ended the process for want of memory, or others kept it from running. A
program ends its own otherwise, by its limits of memory and processor time."""


def without_faults(episodes: Iterable[Episode]) -> None:
    """Raise BoxError if the machine and not the program is to blame for an abstain in ``episodes``."""
    for episode in episodes:
        for moment in episode.abstains:
            check_fault(moment.note)


def check_fault(reason: str) -> None:
    """Raise BoxError if the machine is to blame for an abstain with this ``reason``."""
    if any(words in reason for words in OF_THE_MACHINE):
        raise BoxError(
            f"a program could not be judged, and nothing is kept of it: {reason}; run the same command again"
        )


class Kept:
    """A JSON file of results by key, written after each; threads may share it. What raises is not kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        """What was found for ``key``, measured unless it is there."""
        if key not in self.found:
            found = measure()
            with self._lock:
                self.found[key] = found
                self._path.parent.mkdir(parents=True, exist_ok=True)
                new = self._path.with_suffix(".new")
                new.write_text(json.dumps(self.found, indent=1))
                new.replace(self._path)
        return self.found[key]
