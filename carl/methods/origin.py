"""Where the program of a run came from, as program.json keeps it, and whether it may be trained on."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carl.artefacts import EXCHANGES, PROGRAM, VERIFICATION, records
from carl.config import VerifyConfig
from carl.errors import ApprovalError, StoreError, command
from carl.methods.method import Work
from carl.methods.proposing import ORIGINS
from carl.program import RewardProgram, approved
from carl.provenance import Provenance, Verdict, versions

if TYPE_CHECKING:
    from carl.synthesis.tried import Candidate, HeldOut
    from carl.verification import VerificationReport


def provenance_of(work: Work[Any], candidate: "Candidate", origin: str = "") -> Provenance:
    """Where an accepted ``candidate`` came from: ``origin`` proposed it in the search of ``work``.

    Raises ConfigError if the record of what a model was asked is damaged.
    """
    splits = {"search": candidate.report.episodes}
    if candidate.held_out:
        splits[_held_out(candidate.held_out)] = candidate.held_out.report.episodes
    asked = _answered(work)
    return Provenance(
        program=candidate.program.id,
        origin=origin,
        task=work.task.name,
        seed=work.config.seed,
        model=", ".join(_distinct(asked, "model")),
        prompts=tuple(_distinct(asked, "prompt")),
        pictures=_pictures(asked),
        splits=splits,
        verdict=in_short(candidate.verdict),
        versions=versions(),
    )


def with_origin(work: Work[Any], candidate: "Candidate") -> "Candidate":
    """A candidate of the search of ``work`` whose program says where it came from; raises as ``provenance_of``."""
    origin = provenance_of(work, candidate, ORIGINS.get(candidate.proposer, candidate.proposer))
    return replace(candidate, program=candidate.program.model_copy(update={"provenance": origin}))


def in_short(report: "VerificationReport") -> Verdict:
    """A verdict as provenance keeps it."""
    failed = tuple(dict.fromkeys(check.name for check in report.failed))
    passed = tuple(dict.fromkeys(check.name for check in report.checks if check.name not in failed))
    return Verdict(
        digest=report.digest, accepted=report.accepted, episodes=report.episodes, passed=passed, failed=failed
    )


def with_verdict(program: RewardProgram, verdict: "HeldOut", task: str, seed: int) -> RewardProgram:
    """``program`` with the verdict of a run in its provenance, and the set of episodes that it is on."""
    origin = program.provenance or Provenance()
    if (origin.task, origin.seed) != (task, seed):
        origin = arrived(program, task, seed)
    splits = {**origin.splits, _held_out(verdict): verdict.report.episodes}
    changed = {"program": program.id, "verdict": in_short(verdict.report), "splits": splits}
    return program.model_copy(update={"provenance": origin.model_copy(update=changed)})


def arrived(
    program: RewardProgram,
    task: str,
    seed: int,
    splits: Mapping[str, Mapping[str, int]] | None = None,
    replaced: str = "",
) -> Provenance:
    """The provenance of a ``program`` that was brought into a run of ``task`` with ``seed``: of the episodes that it
    names only the ``splits`` are the run's, and no verdict is. ``replaced`` is the id of the run's earlier program."""
    origin = program.provenance or Provenance()
    elsewhere = bool(origin.task) and (origin.task, origin.seed) != (task, seed)
    whose = f"of a run of {origin.task}, seed {origin.seed}" if elsewhere else ""
    changed: dict[str, Any] = {"task": task, "seed": seed, "splits": splits or {}, "verdict": None}
    changed |= {"program": program.id, "origin": "; ".join(filter(None, [origin.origin, whose]))}
    return origin.model_copy(update=changed | {"replaced": "" if replaced == origin.parent else replaced})


def of_older(program: RewardProgram, judged: "VerificationReport | None") -> RewardProgram:
    """``program`` with the note that a person made it out of the one that the run's report is about, where its
    provenance has that verdict and is of a carl that did not note the program it is about."""
    origin = program.provenance
    if origin is None or origin.program or origin.verdict is None or judged is None:
        return program
    if judged.program_id == program.id or judged.digest != origin.verdict.digest:
        return program
    return program.model_copy(update={"provenance": origin.of_edited(program.id, judged.program_id)})


def notes_on(program: str | None, synthesis: Mapping[str, Any], accepted: Callable[[], Iterable[str]]) -> list[str]:
    """What the search whose end is ``synthesis`` said of ``program``: nothing if it is about another one.

    Programs are ids. An older carl did not note which one it found: it is one of those that ``accepted`` gives.
    """
    told = [str(note) for note in synthesis.get("notes") or ()]
    if not told or program is None:
        return told
    found = {synthesis["program"]} if synthesis.get("program") else set(accepted())
    return told if not found or program in found else []


def report_in(directory: Path) -> "VerificationReport | None":
    """The report of a run, whatever program it is about; None if there is none that can be read."""
    from carl.verification import VerificationReport

    with suppress(StoreError):
        return VerificationReport.load(directory / VERIFICATION)
    return None


def _held_out(verdict: "HeldOut") -> str:
    return f"held-out-{verdict.number}"


def require_approval(program: RewardProgram, config: VerifyConfig, directory: Path, verdict: str = "") -> None:
    """Raise ApprovalError, which says what to do, if ``program``, in ``directory``, may not be trained on; ``verdict``
    is the digest of the run's report on it."""
    if approved(program, config, verdict):
        return
    read, approve = command("program show", directory), command("program approve", directory)
    do = f"read it with {read} and approve it with {approve}"
    approvals = program.provenance.approvals if program.provenance else ()
    if given := [one for one in approvals if one.program == program.id]:
        raise ApprovalError(
            f"the approval in {directory / PROGRAM}, by {given[-1].by}, was given on another verdict: on "
            f"{given[-1].verdict}, and this run's, {verdict}, is on other episodes or by other settings; {do} again, "
            "then the same command goes on"
        )
    if approvals:
        raise ApprovalError(
            f"the approval in {directory / PROGRAM}, by {approvals[-1].by}, is for a changed source: it is of the "
            f"program {approvals[-1].program}, and {program.id} is there now; {do}, then the same command goes on"
        )
    raise ApprovalError(
        f"verify.require_approval is set, and nobody has approved the program {program.id}: {do}, then the same "
        "command goes on"
    )


def _answered(work: Work[Any]) -> list[dict[str, Any]]:
    """The exchanges with a model that it answered."""
    path = work.directory / EXCHANGES
    asked = records(path.read_text(), str(path)) if path.exists() else []
    return [one for one in asked if not one.get("error")]


def _distinct(asked: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return sorted({str(one[key]) for one in asked if one.get(key)})


def _pictures(asked: Sequence[Mapping[str, Any]]) -> str:
    """First 16 hexadecimal digits of a SHA-256 over those of all pictures that were shown; empty if none was."""
    contents = (message["content"] for one in asked for message in one.get("messages") or ())
    parts = (part for content in contents if isinstance(content, list) for part in content)
    shown = sorted({str(part["sha256"]) for part in parts if "sha256" in part})
    return hashlib.sha256("\n".join(shown).encode()).hexdigest()[:16] if shown else ""
