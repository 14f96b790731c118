"""A program and the verdict on it, wherever both lie: in a run, a file, or a folder of exported code."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carl.artefacts import CANDIDATES, CONFIG, PROGRAM, VERIFICATION, whole
from carl.errors import ConfigError, ProgramError, StoreError, briefly, command
from carl.methods.origin import of_older
from carl.methods.proposing import ORIGINS
from carl.program import RewardProgram
from carl.provenance import Provenance
from carl.runs.files import Files
from carl.runs.programs.folder import LISTING, read_folder
from carl.verification import VerificationReport

KINDS = f"those are {PROGRAM} of a run, the files in its {CANDIDATES}/, and the files that `carl program import` writes"
"""Which files hold programs."""


@dataclass(frozen=True)
class Located:
    """A program that was found.

    Attributes:
        where: how messages call its place: a run directory, a URI, a file or a folder.
        report: the verdict that decided last about this very program; None if there is none there.
        run: the directory of the run that it is the program of; None for files, folders and URIs.
    """

    where: str
    program: RewardProgram
    report: VerificationReport | None = None
    run: Path | None = None


def located(name: str) -> Located:
    """The program that a command line names: a run directory or its URI, a file of JSON, or a folder that
    ``carl program export`` wrote.

    Raises ConfigError where there is none, and ProgramError or StoreError for one that cannot be used.
    """
    far, name = "://" in name, name.rstrip("/") or "/"
    if name.endswith(".json") and (far or not os.path.isdir(_here(name))):
        return _in_file(name)
    if not far and not os.path.isdir(_here(name)):
        raise _neither(name)
    if not far and (_here(name) / LISTING).exists():
        return Located(name, read_folder(_here(name)))
    return _in_run(name)


def _here(name: str) -> Path:
    return Path(os.path.expanduser(name))


def _in_run(name: str) -> Located:
    files = Files(name)
    program: RewardProgram | None = files.read(PROGRAM)
    if program is not None:
        return _of_run(name, files, program, None if files.far else _here(name))
    if not files.holds(CONFIG):
        raise _neither(name)
    tried = f"; what was tried is in {files.where(CANDIDATES)}" if files.holds(CANDIDATES) else ""
    again = "`carl run`" if files.far else command("run", name)
    raise ConfigError(f"{name} holds no program yet: {again} makes one{tried}")


def _neither(name: str) -> ConfigError:
    return ConfigError(
        f"{name} is neither a run, nor a program's file (.json), nor a folder that `carl program export` wrote"
    )


def _in_file(name: str) -> Located:
    """A program.json, or a candidate's file, which holds the program with its report."""
    folder, _, file = name.rpartition("/")
    files = Files(folder or ".")
    if not files.far and not os.path.exists(_here(name)):
        raise ConfigError(f"there is no file {name}")
    of_run = file == PROGRAM and files.holds(CONFIG)
    try:
        content = files.mapping(file)
        if content is None:
            raise ConfigError(f"there is no file {name}")
        beside = isinstance(content.get("program"), dict)
        if not beside and "rejected" in content:
            raise ConfigError(f"{name} holds an answer that never became a program: {content['rejected']}")
        tree = content["program"] if beside else content
        if "subtasks" not in tree and not of_run:
            raise ProgramError(f"{name} is no reward program (it has no subtasks): {KINDS}")
        program = RewardProgram.parse(json.dumps(tree).encode(), name)
    except (ConfigError, ProgramError) as error:
        if of_run or error.__cause__ is None:
            raise
        raise ProgramError(f"{name} is no reward program ({_cause(error)}): {KINDS}") from error
    if beside:
        held_out = content.get("held_out") or {}
        report = _report(held_out.get("report") or content.get("report"), name)
        return Located(name, _proposed(program, content), _about(report, program))
    if file != PROGRAM:
        return Located(name, program)
    return _of_run(name, files, program, _here(folder or ".") if of_run and not files.far else None)


def _cause(error: BaseException) -> str:
    """What is wrong with a file, without what the readers of a run's files advise."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return briefly(error) if isinstance(error, Exception) else str(error)


def _of_run(name: str, files: Files, program: RewardProgram, run: Path | None) -> Located:
    """The program of a run, with the verdict of the stage verify or else of the search."""
    judged = _verdict(files, VERIFICATION)
    program = of_older(program, judged)
    return Located(name, program, _about(judged, program) or _judged(files, program), run)


def _proposed(program: RewardProgram, content: Mapping[str, Any]) -> RewardProgram:
    """A candidate's program; of an older carl its file says who proposed it, and not its provenance."""
    proposer = str(content.get("proposer") or "")
    if program.provenance or not proposer:
        return program
    origin = Provenance(program=program.id, origin=ORIGINS.get(proposer, proposer))
    return program.model_copy(update={"provenance": origin})


def _verdict(files: Files, name: str) -> VerificationReport | None:
    """The report in a file, whatever program it is about."""
    try:
        return _report(files.mapping(name), files.where(name))
    except StoreError:
        if files.holds(name):
            raise
        return None


def _judged(files: Files, program: RewardProgram) -> VerificationReport | None:
    """The verdict on held-out episodes that the search noted, before the stage verify has reported it."""
    for name in files.names(CANDIDATES) if files.holds(CANDIDATES) else []:
        if name.endswith(f"{program.id}.json"):
            held_out = (files.mapping(name) or {}).get("held_out") or {}
            if report := _about(_report(held_out.get("report"), files.where(name)), program):
                return report
    return None


def _report(content: Any, where: str) -> VerificationReport | None:
    """The report in ``content``, None if it is empty; raises ConfigError for a damaged one."""
    if not content:
        return None
    with whole(where):
        return VerificationReport.model_validate(content)


def _about(report: VerificationReport | None, program: RewardProgram) -> VerificationReport | None:
    return report if report and report.program_id == program.id else None
