"""Where the program of a run came from, as program.json keeps it, and whether it may be trained on."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carl.artefacts import EXCHANGES, PROGRAM, records
from carl.config import VerifyConfig
from carl.errors import ApprovalError
from carl.methods.method import Work
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


def in_short(report: "VerificationReport") -> Verdict:
    """A verdict as provenance keeps it."""
    failed = tuple(dict.fromkeys(check.name for check in report.failed))
    passed = tuple(dict.fromkeys(check.name for check in report.checks if check.name not in failed))
    return Verdict(
        digest=report.digest, accepted=report.accepted, episodes=report.episodes, passed=passed, failed=failed
    )


def with_verdict(program: RewardProgram, verdict: "HeldOut") -> RewardProgram:
    """``program`` with the verdict in its provenance, and the set of episodes that it is on."""
    origin = program.provenance or Provenance()
    splits = {**origin.splits, _held_out(verdict): verdict.report.episodes}
    noted = origin.model_copy(update={"verdict": in_short(verdict.report), "splits": splits})
    return program.model_copy(update={"provenance": noted})


def _held_out(verdict: "HeldOut") -> str:
    return f"held-out-{verdict.number}"


def require_approval(program: RewardProgram, config: VerifyConfig, directory: Path) -> None:
    """Raise ApprovalError, which says what to do, if ``program``, in ``directory``, may not be trained on."""
    if approved(program, config):
        return
    do = f"read it with `carl program show {directory}` and approve it with `carl program approve {directory}`"
    approvals = program.provenance.approvals if program.provenance else ()
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
