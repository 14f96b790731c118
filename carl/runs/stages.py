"""What each stage of a run leaves behind, and so whether it is done: a short text that changes with it, None if not."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from carl.artefacts import CURVE, RESULT, STATE, read_json
from carl.config import RunConfig
from carl.methods.code import STAGES as BEFORE
from carl.methods.recorded import MANIFEST
from carl.training.checkpoint import Checkpoints

Made = Callable[[Path, RunConfig], str | None]


def _trainings(directory: Path, config: RunConfig) -> str | None:
    found = []
    for arm in config.arms:
        folder = directory / "training" / arm
        newest = Checkpoints(folder / "checkpoints", folder / CURVE).newest()
        if newest is None or not (folder / CURVE).exists():
            return None
        found.append(f"{arm} {newest.name} {hashlib.sha256((newest / STATE).read_bytes()).hexdigest()[:8]}")
    return ", ".join(found)


def _result(directory: Path, config: RunConfig) -> str | None:
    episodes = [directory / "training" / arm / "episode" / MANIFEST for arm in config.arms]
    if not all(path.exists() for path in (directory / RESULT, *episodes)):
        return None
    read_json(directory / RESULT, dict)
    return "there"


def _always(_: Path, __: RunConfig) -> str | None:
    return "anew each time"


MADE: Mapping[str, Made] = {
    **{stage.name: stage.made for stage in BEFORE},
    "train": _trainings,
    "evaluate": _result,
    "report": _always,
}

FOR_A_PROGRAM = tuple(stage.name for stage in BEFORE)
"""Stages that have nothing to do in a run without a program."""


def made(stage: str, directory: Path, config: RunConfig) -> str | None:
    """What ``stage`` left in ``directory``; None if it is not there. Raises CarlError where a file is damaged."""
    if stage in FOR_A_PROGRAM and not config.learns_from_code:
        return "nothing"
    return MADE[stage](directory, config)
