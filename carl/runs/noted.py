"""What ``stages.json`` says of the stages of a run."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from carl.artefacts import STAGES, read_json, whole


class Failed(BaseModel):
    """How a stage failed: the error's class, its sentence, and when, in seconds since 1970."""

    error: str
    message: str
    time: float


class Noted(BaseModel):
    """An entry of ``stages.json``: whether the stage is done, the seconds it took, when it began if it runs, how it
    failed, and what it made."""

    model_config = ConfigDict(extra="allow")

    done: bool = False
    seconds: float = 0.0
    since: float = 0.0
    failed: Failed = Failed(error="", message="", time=0.0)
    made: str | None = None


def checked(tree: dict[str, Any], where: str, known: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """The content of ``stages.json``; raises ConfigError that names the file, ``where``, if it is something else, or
    notes a stage that is not ``known``."""
    with whole(where):
        if known is not None and (unknown := tree.keys() - set(known)):
            raise ValueError(f"{min(unknown)} is no stage")
        return {name: Noted.model_validate(stage).model_dump(exclude_unset=True) for name, stage in tree.items()}


def seconds_of(directory: Path) -> dict[str, float]:
    """Wall-clock seconds that each stage of a run has taken, over all the times that it was started and came to an
    end; raises ConfigError."""
    path = directory / STAGES
    stages = checked(read_json(path, dict), str(path)) if path.exists() else {}
    return {name: stage["seconds"] for name, stage in stages.items() if "seconds" in stage}
