"""Results that survive a stop: hours of measuring go on where they were."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any


class Kept:
    """A JSON file of results by key, written after each; threads may share it."""

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
