"""Which proposers the search of a run asks, and what it leaves behind of itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from carl.artefacts import ASKED, SYNTHESIS, write_json
from carl.config import EMBEDDED_MODEL, InductionConfig, SynthesisConfig, VerifyConfig, VlmConfig
from carl.methods.method import Work
from carl.methods.recorded import Episodes
from carl.task import Frame
from carl.verification.rule import Evidence

if TYPE_CHECKING:
    from carl.synthesis.ledger import Ledger
    from carl.synthesis.search import Found
    from carl.synthesis.shown import Examples
    from carl.synthesis.tried import Budget, Candidate, Proposer
    from carl.vlm.client import VlmClient

ORIGINS: Mapping[str, str] = {
    "model": "a vision-language model",
    "induction": "induction, without a model",
    "pool": "functions of several answers, put together",
    "tune": "a function of a model with other numbers",
    "step": "a model, and induction for one sub-task",
}
"""Proposers by the names that ``synthesis.proposers`` takes, and where what they propose comes from."""

OTHERWISE = (
    "Try another --seed, a larger budget (synthesis.max_requests, max_tokens, max_seconds, max_money), more samples "
    "(synthesis.samples), or a larger model"
)
WITHOUT_MODEL = (
    "Name a model (vlm.model, and vlm.base_url if a server has it), collect more episodes (collect.experts) in another "
    "--run-dir, or have the environment draw what success looks like"
)
MORE_TIME = "Raise synthesis.max_seconds, and the same command goes on"
MORE_EPISODES = "Try more episodes (collect.experts, collect.randoms) in another --run-dir"
"""What to do where a search ended without a program."""

HELPS: Mapping[str, str] = {
    "cost": "Raise verify.max_frame_ms, and training waits as long for each frame, or make frames smaller "
    "(camera=carl.cameras.Shrunk(128) in the Task) in another --run-dir",
    "lasting": "Raise verify.max_undone if what is done in this task does not last",
}
"""What to do about a check that the best program failed."""

ENOUGH = frozenset({"cost"})
"""Checks for which another program, from more episodes or a larger model, is no remedy."""


def names_of(vlm: VlmConfig, synthesis: SynthesisConfig, frame: Frame) -> tuple[str, ...]:
    """The proposers to ask, cheapest first: those of the settings, or else by what there is.

    A model that is named is helped by all that asks nobody. The embedded one comes before induction where it knows
    pictures such as ``frame``, ``uint8[H, W, 3]``; where it does not, induction is alone.
    """
    from carl.nano.known import reads

    if synthesis.proposers:
        return synthesis.proposers
    if vlm.model != EMBEDDED_MODEL or vlm.recording is not None:
        return "pool", "tune", "step", "model", "induction"
    return ("model", "induction") if reads(frame) else ("induction",)


def budget_of(config: SynthesisConfig) -> "Budget":
    """What a search may spend."""
    from carl.synthesis.tried import Budget

    return Budget(config.max_requests, config.max_tokens, config.max_seconds, config.max_money)


@contextmanager
def client_for(names: Sequence[str], work: Work[Any]) -> "Iterator[VlmClient | None]":
    """The client of the run's model, which is served meanwhile if no server has it; None where no model is asked."""
    if "model" not in names:
        yield None
        return
    from carl.vlm.client import connect

    with connect(work.config.vlm, work.directory / ASKED, work.progress) as client:
        yield client


def proposers_of(
    names: Sequence[str], work: Work[Any], episodes: Episodes, examples: "Examples", client: "VlmClient | None"
) -> "list[Proposer]":
    """The proposers called ``names``; those that ask nobody look at ``episodes``."""
    from carl.sandbox.box import Limits
    from carl.synthesis.induce import InductionProposer
    from carl.synthesis.pooled import Pooled
    from carl.synthesis.stepped import StepInduction
    from carl.synthesis.tuned import Tuned
    from carl.synthesis.vlm_proposer import VlmProposer
    from carl.verification.sample import Sample

    config, progress = work.config, work.progress
    verify: VerifyConfig = config.verify
    induction: InductionConfig = config.induction

    @cache
    def sample() -> Sample:
        limits = Limits(deadline_s=verify.deadline_s, memory_mb=verify.memory_mb)
        return Sample(episodes, limits, among=examples.sets)

    def model() -> VlmProposer:
        if client is None:
            raise ValueError("a model that is to be asked needs a client")
        return VlmProposer(work.task.description, examples, client, config.synthesis, config.seed, progress)

    def whole() -> InductionProposer:
        others = [one for kind in (Evidence.MIXED, Evidence.CUT, Evidence.POLICY) for one in episodes.get(kind, ())]
        return InductionProposer(episodes[Evidence.EXPERTS], episodes[Evidence.RANDOMS], others, induction, progress)

    made: dict[str, Callable[[], Proposer]] = {
        "pool": lambda: Pooled(sample),
        "tune": lambda: Tuned(sample, progress),
        "step": lambda: StepInduction(sample, induction, progress),
        "model": model,
        "induction": whole,
    }
    return [made[name]() for name in names]


def keep(work: Work[Any], names: Sequence[str], found: "Found", client: "VlmClient | None", ledger: "Ledger") -> None:
    """Write how a search ended: who was asked, what it took, and the best program where none was accepted."""
    usage = {"model": client.model, **client.usage.model_dump(), "wanted": client.wanted} if client else None
    content = {
        "candidates": len(found.candidates),
        "stopped": found.stopped,
        "proposers": list(names),
        "proposer": found.accepted.proposer if found.accepted else None,
        "program": found.accepted.program.id if found.accepted else None,
        "spent": asdict(found.spent),
        "best": None if found.program else _named(found, ledger),
        "notes": list(found.notes),
        "usage": usage,
    }
    write_json(work.directory / SYNTHESIS, content)


def _best(found: "Found", ledger: "Ledger") -> "Candidate | None":
    """What got furthest: of this attempt or, if it came to nothing, of those before."""
    from carl.synthesis.standing import furthest

    return found.best or furthest(ledger.candidates())


def _named(found: "Found", ledger: "Ledger") -> dict[str, str] | None:
    from carl.synthesis.standing import shortfall

    best = _best(found, ledger)
    if best is None:
        return None
    file = ledger.path(best)
    return {
        "file": f"{file.parent.name}/{file.name}",
        "program_id": best.program.id,
        "proposer": best.proposer,
        "words": shortfall(best),
    }


def nothing_found(found: "Found", names: Sequence[str], ledger: "Ledger", budget: "Budget") -> str:
    """How a search ended without a program; what got furthest, each of its failures on a line; and what to do."""
    from carl.synthesis.search import HELD_OUT_FAILED
    from carl.synthesis.standing import failures, passed

    advice = OTHERWISE if "model" in names else WITHOUT_MODEL
    advice = MORE_EPISODES if found.stopped == HELD_OUT_FAILED else advice
    advice = MORE_TIME if budget.late(found.spent) else advice
    best = _best(found, ledger)
    if best is None:
        return f"{found.outcome}. {advice}"
    failed = {check.name for check in best.verdict.failed}
    helps = [text for name, text in HELPS.items() if name in failed]
    if advice == MORE_TIME or not failed or failed - ENOUGH:
        helps.append(advice)
    got = f"The best is {ledger.path(best)}: it {passed(best)}"
    lines = [f"{got}, and failed", *(f"- {each}" for each in failures(best))] if failed else [f"{got}."]
    return "\n".join([f"{found.outcome}.", *lines, *(f"{each}." for each in helps)])
