"""Reward programs as data: what a VLM wrote, frozen, hashed, and never executed here."""

import hashlib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carl.artefacts import remedy
from carl.errors import ProgramError, briefly

MAX_SUBTASKS = 8
"""Progress slots in an observation, hence sub-tasks in a program."""

DONE = 1.0 - 1e-6
"""A sub-task is done when its progress is at least this."""

FUNCTION = "progress"
"""Name of the function that a sub-task's source defines."""


class SubTask(BaseModel):
    """One step of a task, and the code that tells from a frame how far it is done.

    ``source`` defines ``progress(frame, initial) -> float``: a pure function of two
    ``uint8[H, W, 3]`` RGB frames (now, and at the episode's start) to [0, 1], 1 meaning done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    description: str = ""
    source: str = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)


class RewardProgram(BaseModel):
    """Sub-tasks in the order they have to be done (any order if ``ordered`` is false)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subtasks: tuple[SubTask, ...] = Field(min_length=1, max_length=MAX_SUBTASKS)
    ordered: bool = True

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the program's JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def max_return(self) -> float:
        """The most an episode can earn, whatever the policy does."""
        return sum(subtask.weight for subtask in self.subtasks)

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse ``to_json``'s output; raises ProgramError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ProgramError(f"not a reward program: {briefly(error)}") from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a program from a JSON file; raises ProgramError, also if a name holds what would steer a terminal."""
        try:
            program = cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ProgramError) as error:
            raise ProgramError(f"{path} cannot be used ({briefly(error)}): {remedy(str(path))}") from error
        for number, subtask in enumerate(program.subtasks, 1):
            if not subtask.name.isprintable():
                raise ProgramError(f"{path}: the name of sub-task {number} holds control characters: {subtask.name!a}")
        return program
