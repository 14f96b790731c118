"""What verification found: a verdict, and for every check the figures and the frames that decided it."""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from carl.errors import StoreError, briefly
from carl.statistics import left_open

Figure = bool | int | float | str | list[float] | None

_CLOCKS = ("seconds", "_s", "_ms")
"""Ends of the names of figures that differ between equal judgements."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrameRef(_Record):
    """One frame that decided a check.

    Attributes:
        source: "expert", "random", or what else recorded the episode.
        seed: of the episode.
        step: index into the episode's frames; 0 is the initial frame.
        subtask: whose progress was looked at, from 0; None for the whole program.
        expected, got: in words.
    """

    source: str
    seed: int
    step: int
    subtask: int | None
    expected: str
    got: str

    def __str__(self) -> str:
        about = "" if self.subtask is None else f"sub-task {self.subtask + 1}: "
        where = f"{self.source} episode {self.seed}, frame {self.step}"
        return f"{where}: {about}expected {self.expected}; got {self.got}"


class Check(_Record):
    """One property that a program has to have.

    A check that fails is there once for every sub-task (from 0) that is to blame; ``subtask`` None blames the plan as
    a whole, or the episodes.
    """

    name: str
    passed: bool
    message: str
    subtask: int | None = None
    figures: dict[str, Figure] = {}
    frames: tuple[FrameRef, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"- {frame}" for frame in self.frames)])


class VerificationReport(_Record):
    """The verdict on one program.

    Attributes:
        checks: what was checked; after a failure, later checks are not made.
        episodes: how many were judged, by the kind of evidence.
        frames: calls of a sub-task's program.
        seconds: of wall-clock time.
        unjudged: rules that were not applied because there is no evidence for them, and why there is none.
    """

    program_id: str
    accepted: bool
    checks: tuple[Check, ...]
    episodes: dict[str, int]
    frames: int
    seconds: float
    unjudged: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def two_kinds_of_episodes_in_older_reports(cls, values: Any) -> Any:
        """Take ``experts`` and ``randoms``, the two counts of an older report, as ``episodes``."""
        former = {"experts": "expert", "randoms": "random"}
        if not isinstance(values, dict) or not former.keys() <= values.keys():
            return values
        episodes = {kind: values[name] for name, kind in former.items()}
        return {key: value for key, value in values.items() if key not in former} | {"episodes": episodes}

    @property
    def left_open(self) -> str:
        """What so many episodes cannot exclude even where nothing failed in them, in words."""
        return left_open(self.episodes)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all but what a clock measured: equal judgements share it.

        Figures whose names end in ``seconds``, ``_s`` or ``_ms`` are a clock's; of a check that has such a figure, name
        and outcome count.
        """
        content = self.model_dump(mode="json", exclude={"seconds"})
        content["checks"] = [_without_clock(check) for check in content["checks"]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def evidence(self, subtask: int | None = None) -> str:
        """The failed checks, or those of one sub-task (from 0), as text for the next request."""
        failed = [check for check in self.failed if subtask is None or check.subtask == subtask]
        return "\n".join(str(check) for check in failed)

    def to_json(self) -> str:
        """The report as indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a report from a JSON file; raises StoreError."""
        try:
            return cls.model_validate_json(Path(path).read_text())
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise StoreError(f"cannot read the verification report {path}: {briefly(error)}") from error


def _without_clock(check: dict[str, Any]) -> dict[str, Any]:
    if not any(name.endswith(_CLOCKS) for name in check["figures"]):
        return check
    return {name: check[name] for name in ("name", "passed", "subtask")}
