"""What each stage of a run leaves behind, and so whether it is done: a short text that changes with it, None if not."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from carl.artefacts import CURVE, PROGRAM, RESULT, STATE, VERIFICATION, read_json, whole
from carl.config import RunConfig
from carl.program import RewardProgram
from carl.training.checkpoint import Checkpoints

STORES = ("expert", "random")
MANIFEST = "manifest.json"

Made = Callable[[Path, RunConfig], str | None]


def verified(directory: Path) -> str | None:
    """The id of the program in ``directory`` if it is the one that passed verification there; raises CarlError."""
    if not (directory / PROGRAM).exists() or not (directory / VERIFICATION).exists():
        return None
    program = RewardProgram.load(directory / PROGRAM).id
    with whole(str(directory / VERIFICATION)):
        report = read_json(directory / VERIFICATION, dict)
        return program if report["accepted"] is True and report["program_id"] == program else None


def _episodes(directory: Path, _: RunConfig) -> str | None:
    """By the lengths of the episodes: those of the same seeds are recorded again just so."""
    manifests = [directory / "trajectories" / store / MANIFEST for store in STORES]
    if not all(path.exists() for path in manifests):
        return None
    lengths = []
    for path in manifests:
        content = read_json(path, dict)
        with whole(str(path)):
            lengths.append([length for part in content["parts"] for length in part["lengths"]])
    return hashlib.sha256(json.dumps(lengths).encode()).hexdigest()[:16]


def _program(directory: Path, _: RunConfig) -> str | None:
    """Whatever it is by now: verification says whether it is the one that was judged."""
    return "there" if (directory / PROGRAM).exists() else None


def _verdict(directory: Path, _: RunConfig) -> str | None:
    return verified(directory)


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
    "collect": _episodes,
    "synthesize": _program,
    "verify": _verdict,
    "train": _trainings,
    "evaluate": _result,
    "report": _always,
}

FOR_A_PROGRAM = ("collect", "synthesize", "verify")
"""Stages that have nothing to do in a run without a program."""


def made(stage: str, directory: Path, config: RunConfig) -> str | None:
    """What ``stage`` left in ``directory``; None if it is not there. Raises CarlError where a file is damaged."""
    if stage in FOR_A_PROGRAM and not config.learns_from_code:
        return "nothing"
    return MADE[stage](directory, config)
