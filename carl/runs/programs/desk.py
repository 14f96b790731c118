"""What a person does to the program of a run: put an edited one in its place, and approve the one that is there."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carl.artefacts import CANDIDATES, CONFIG, PROGRAM, VERIFICATION, write_json, write_text
from carl.errors import ApprovalError, ConfigError, ProgramError
from carl.program import RewardProgram
from carl.provenance import Approval, Provenance
from carl.runs.directory import RunDirectory, read_config
from carl.runs.holding import held
from carl.runs.pipeline import Pipeline
from carl.runs.programs.located import Located
from carl.runs.stages import stages_of
from carl.synthesis.ledger import Ledger

STAGE = "synthesize"
"""The stage whose work a program by hand does."""


def put(program: RewardProgram, target: Path) -> bool:
    """Make ``program`` that of the run in ``target``, or write it to a file of JSON; False if it is there already.

    The earlier program of a run is kept among its candidates. Raises ConfigError if ``target`` is neither a run that
    has a program, nor a file that is free.
    """
    if target.suffix == ".json" and target.name != PROGRAM:
        return _put_file(program, target)
    run = target.parent if target.suffix == ".json" else target
    if not (run / CONFIG).exists():
        raise ConfigError(f"{run} holds no run: `carl collect TASK --run-dir {run}` begins one, whose gate then judges")
    pipeline = Pipeline(read_config(run))
    if STAGE not in [stage.name for stage in stages_of(pipeline.config)]:
        raise ConfigError(f"{run} is a run of {pipeline.method.words}, which has no program")
    with held(pipeline.dir.path):
        return _put_run(program, pipeline.dir)


def _put_file(program: RewardProgram, target: Path) -> bool:
    if target.exists():
        with suppress(ProgramError):
            if RewardProgram.load(target) == program:
                return False
        raise ConfigError(f"{target} holds something else: give the name of a new file")
    write_text(target, program.to_json())
    return True


def _put_run(program: RewardProgram, directory: RunDirectory) -> bool:
    before = directory.run.program
    if before == program:
        return False
    with directory.attempt(STAGE), directory.stage(STAGE):
        if before is not None:
            _keep(before, directory)
        write_text(directory / PROGRAM, program.to_json())
    return True


def _keep(before: RewardProgram, directory: RunDirectory) -> None:
    """Keep a program that another takes the place of, with its verdict, unless it is among the candidates."""
    folder = directory / CANDIDATES
    if any(folder.glob(f"*{before.id}.json")):
        return
    report = directory.read(VERIFICATION, {})
    content: dict[str, Any] = {"program": before.model_dump(mode="json")}
    if report.get("program_id") == before.id:
        number = len(Ledger(folder).refusals()) + 1
        content |= {"report": report, "held_out": {"set": number, "report": report}}
    else:
        content["rejected"] = "another program took its place before it was verified"
    write_json(folder / f"replaced-{before.id}.json", content)


def approve(found: Located, by: str, note: str = "") -> Approval:
    """Note in the program's provenance that ``by`` approves it as it is, with its verdict.

    Raises ApprovalError unless the gate accepted it, and ConfigError where it cannot be written.
    """
    program, report = found.program, found.report
    if found.run is None:
        raise ApprovalError(f"{found.where} is not the directory of a run, whose program and verdict can be approved")
    if report is None:
        raise ApprovalError(
            f"the program {program.id} in {found.where} is not verified: run `carl program verify {found.where}` first"
        )
    if not report.accepted:
        raise ApprovalError(f"the gate refused the program {program.id}: {report.failed[0].message}")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    approval = Approval(by=by, at=at, program=program.id, verdict=report.digest, note=note)
    origin = program.provenance or Provenance()
    origin = origin.model_copy(update={"approvals": (*origin.approvals, approval)})
    with held(found.run):
        if RewardProgram.load(found.run / PROGRAM) != program:
            raise ApprovalError(f"the program in {found.run} was replaced meanwhile: look at the new one first")
        write_text(found.run / PROGRAM, program.model_copy(update={"provenance": origin}).to_json())
    return approval
