"""What a person does to the program of a run: put an edited one in its place, and approve the one that is there."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carl.artefacts import CANDIDATES, CONFIG, PROGRAM, VERIFICATION, of_arm, write_json, write_text
from carl.errors import ApprovalError, ConfigError, ProgramError, command
from carl.methods.origin import arrived
from carl.program import RewardProgram
from carl.provenance import Approval, Provenance
from carl.runs.directory import RunDirectory, read_config
from carl.runs.files import Files
from carl.runs.holding import held
from carl.runs.pipeline import Pipeline
from carl.runs.programs.located import Located
from carl.runs.reader import Run
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
        return _put_run(program, pipeline.task.name, pipeline.dir)


def _put_file(program: RewardProgram, target: Path) -> bool:
    if target.exists():
        with suppress(ProgramError):
            if RewardProgram.load(target) == program:
                return False
        raise ConfigError(f"{target} holds something else: give the name of a new file")
    write_text(target, program.to_json())
    return True


def trained_on_others(program: RewardProgram, run: Path) -> list[Path]:
    """The trainings of the run in ``run`` that are of another program than ``program``."""
    found = Run(Files(run)) if (run / CONFIG).exists() else None
    subjects = {arm: found.subject(arm).get("program") for arm in found.arms} if found else {}
    return [run / of_arm(arm, "") for arm, one in subjects.items() if one and one != program.id]


def _put_run(program: RewardProgram, task: str, directory: RunDirectory) -> bool:
    before = directory.run.program
    if before == program:
        return False
    with directory.attempt(STAGE), directory.stage(STAGE):
        if before is not None:
            _keep(before, directory)
        known = (one.program for one in directory.run.candidates if one.program == program)
        splits = next((one.provenance.splits for one in known if one and one.provenance), None)
        origin = arrived(program, task, directory.config.seed, splits, before.id if before else "")
        write_text(directory / PROGRAM, program.model_copy(update={"provenance": origin}).to_json())
        directory.undo_after(STAGE)
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

    What somebody approved so already is not noted again. Raises ApprovalError unless the gate accepted it, and
    ConfigError where it cannot be written.
    """
    program, report = found.program, found.report
    if found.run is None:
        raise ApprovalError(f"{found.where} is not the directory of a run, whose program and verdict can be approved")
    if report is None:
        raise ApprovalError(
            f"the program {program.id} in {found.where} is not verified: "
            f"run {command('program verify', found.where)} first"
        )
    if not report.accepted:
        raise ApprovalError(f"the gate refused the program {program.id}: {report.failed[0].message}")
    origin = program.provenance or Provenance(program=program.id)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    approval = Approval(by=by, at=at, program=program.id, verdict=report.digest, note=note, seed=origin.seed)
    if again := [one for one in origin.approvals if one.model_copy(update={"at": at}) == approval]:
        return again[-1]
    origin = origin.model_copy(update={"approvals": (*origin.approvals, approval)})
    with held(found.run):
        if RewardProgram.load(found.run / PROGRAM) != program:
            raise ApprovalError(f"the program in {found.run} was replaced meanwhile: look at the new one first")
        write_text(found.run / PROGRAM, program.model_copy(update={"provenance": origin}).to_json())
    return approval
