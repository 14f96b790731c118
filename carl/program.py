"""Reward programs as data: frozen, hashed by content, and never executed here."""

import hashlib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from carl.artefacts import remedy
from carl.config import VerifyConfig
from carl.errors import ProgramError, briefly
from carl.provenance import Approval, Provenance

MAX_SUBTASKS = 8
"""Progress slots in an observation, hence sub-tasks in a program."""

DONE = 1.0 - 1e-6
"""A sub-task is done when its progress is at least this."""

FUNCTION = "progress"
"""Name of the function that a sub-task's code defines."""

AS_DATA = ConfigDict(
    frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
)
"""Frozen records whose fields may have another key in JSON."""


class SubTask(BaseModel):
    """One step of a task, and the code that measures in a frame how far it is done.

    ``code`` defines ``progress(frame, initial) -> float``: a pure function of two ``uint8[H, W, 3]`` RGB frames (now,
    and at the episode's start) to [0, 1], 1 meaning done. In JSON its key is ``source``, the field's older name, which
    the constructor takes as well. ``weight`` is what the finished sub-task has earned.

    ``hold`` is for what has to last (landing, resting, balancing): the sub-task is done once its code has shown it done
    in so many frames in a row. JSON, and so the id, leaves it out where it is 1.
    """

    model_config = AS_DATA

    name: str = Field(min_length=1)
    description: str = ""
    code: str = Field(min_length=1, validation_alias="source", serialization_alias="source")
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    hold: int = Field(default=1, ge=1, le=1_000)

    @model_serializer(mode="wrap")
    def _without_usual_hold(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Programs older than ``hold`` keep their JSON and their ids."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if name != "hold" or value != 1}


class RewardProgram(BaseModel):
    """One to :data:`MAX_SUBTASKS` sub-tasks in the order they have to be done (any order if ``ordered`` is false).

    ``provenance`` says where it came from; it is no part of the id nor of equality, and left out of the JSON where
    there is none. Read from JSON, that of another program says that it was edited by hand, and names its parent.
    """

    model_config = AS_DATA

    subtasks: tuple[SubTask, ...] = Field(min_length=1, max_length=MAX_SUBTASKS)
    ordered: bool = True
    provenance: Provenance | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = serialize(self)
        return {key: value for key, value in tree.items() if key != "provenance" or value is not None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RewardProgram) and (self.subtasks, self.ordered) == (other.subtasks, other.ordered)

    def __hash__(self) -> int:
        return hash((self.subtasks, self.ordered))

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the program's JSON without its provenance."""
        return hashlib.sha256(self.model_dump_json(exclude={"provenance"}).encode()).hexdigest()[:16]

    @property
    def approval(self) -> Approval | None:
        """The latest approval that holds; None if there is none."""
        return self.approval_on()

    def approval_on(self, verdict: str = "") -> Approval | None:
        """The latest approval of this very content on ``verdict``, the digest of a report, or on the one that is in its
        provenance, and in a run of the same seed; None if there is none. Where no verdict is known, any holds."""
        origin = self.provenance or Provenance()
        known = {verdict, origin.verdict.digest if origin.verdict else ""} - {""}
        for one in reversed(origin.approvals):
            if one.program == self.id and (not known or one.verdict in known) and one.seed in (None, origin.seed):
                return one
        return None

    @property
    def _descended(self) -> Self:
        """It with the note that a person made it out of the program that its provenance is about, if another."""
        origin = self.provenance
        if origin is None or origin.program in ("", self.id):
            return self
        return self.model_copy(update={"provenance": origin.of_edited(self.id, origin.program)})

    @property
    def max_return(self) -> float:
        """The sum of the weights: an upper bound of an episode's return."""
        return sum(subtask.weight for subtask in self.subtasks)

    def to_json(self) -> str:
        """The program as indented JSON, as program.json holds it."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse ``to_json``'s output; raises ProgramError."""
        try:
            return cls.model_validate_json(text)._descended
        except ValidationError as error:
            raise ProgramError(f"not a reward program: {briefly(error)}") from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a program from a JSON file; raises ProgramError, also for control characters in a name."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise _unusable(str(path), error) from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: bytes, where: str) -> Self:
        """The program in the file at ``where``; raises ProgramError, also for control characters in a name."""
        try:
            program = cls.from_json(content.decode())
        except (UnicodeDecodeError, ProgramError) as error:
            raise _unusable(where, error) from error
        for number, subtask in enumerate(program.subtasks, 1):
            if not subtask.name.isprintable():
                raise ProgramError(f"{where}: the name of sub-task {number} holds control characters: {subtask.name!a}")
        return program


def approved(program: RewardProgram, config: VerifyConfig, verdict: str = "") -> bool:
    """Whether ``config`` lets ``program`` be trained on: none has to be approved, or somebody approved it as it is, on
    ``verdict`` or on the one in its provenance."""
    return not config.require_approval or program.approval_on(verdict) is not None


def _unusable(where: str, error: Exception) -> ProgramError:
    return ProgramError(f"{where} cannot be used ({briefly(error)}): {remedy(where)}")
