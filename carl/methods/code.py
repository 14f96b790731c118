"""Code as reward: a VLM writes a program, and what passes verification is the reward."""

from collections.abc import Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carl.artefacts import (
    ASKED,
    CANDIDATES,
    PAIRS,
    PROGRAM,
    SYNTHESIS,
    VERIFICATION,
    read_json,
    whole,
    write_bytes,
    write_json,
    write_text,
)
from carl.cluster.logs import about
from carl.config import EMBEDDED_MODEL, RunConfig
from carl.errors import ConfigError, ProgramError
from carl.methods.method import Stage, Stages, Work
from carl.methods.recorded import made, recorded
from carl.program import RewardProgram
from carl.synthesis.ledger import Ledger
from carl.synthesis.search import HELD_OUT_FAILED, Found, HeldOutGate, SearchGate, search
from carl.synthesis.tried import Budget
from carl.synthesis.vlm_proposer import VlmProposer
from carl.task import Frame
from carl.verification import VerificationReport
from carl.verification import verify as judge
from carl.vlm.client import VlmClient, connect

if TYPE_CHECKING:
    from carl.rewards.program import ProgramReward


def collect(work: Work[RunConfig]) -> None:
    """Record the expert and random episodes that synthesis is judged on."""
    recorded(work)


def synthesize(work: Work[RunConfig]) -> None:
    """Have the VLM write a program that survives the episodes of the search, and then held-out ones.

    Raises VlmError if the model fails, and ProgramError if no program survives.
    """
    config, ledger = work.config, _ledger(work)
    experts, randoms = recorded(work)
    shown = islice(experts, config.synthesis.pairs)
    pairs = [(np.array(episode.frames[0]), np.array(episode.frames[-1])) for episode in shown]
    _keep_pairs(work, pairs)
    gate = SearchGate(
        lambda program: judge(program, experts, randoms, config.verify, work.progress), _held_out_gate(work)
    )
    with connect(config.vlm, work.directory / ASKED, work.progress) as client:
        proposer = VlmProposer(work.task.description, pairs, client, config.synthesis, config.seed, work.progress)
        found = search([proposer], gate, Budget(calls=config.synthesis.max_requests), ledger.keep)
    work.progress("asking the VLM", found.spent.calls, found.spent.calls)
    ledger.reject(found.rejections)
    _keep_synthesis(work, found, client)
    if found.program is None:
        raise (
            _used_up(ledger)
            if gate.held_out.used_up
            else ProgramError(
                f"{found.outcome}. {ledger.folder} holds what was tried and why it was rejected; try "
                "another --seed, more synthesis.samples, or a larger model"
            )
        )
    write_text(work.directory / PROGRAM, found.program.to_json())


def verify(work: Work[RunConfig]) -> None:
    """Report how the program in the run's directory was judged on episodes that synthesis never saw.

    A program that synthesis did not judge on them, say an edited one, is judged now. Raises ProgramError if they refuse
    it: synthesis is not done then, and would find another one.
    """
    program, ledger = program_of(work), _ledger(work)
    verdict = ledger.verdicts().get(program.id)
    if verdict is None:
        verdict = _held_out_gate(work).judge(program)
        if verdict is None:
            raise _used_up(ledger)
        if not verdict.report.accepted:
            ledger.refuse(program, verdict)
    write_json(work.directory / VERIFICATION, verdict.report.model_dump(mode="json"))
    if not verdict.report.accepted:
        raise ProgramError(
            f"the program in {work.directory / PROGRAM} fails on fresh episodes: {verdict.report.failed[0].message}. "
            f"Correct it, or run `carl run {work.config.task}`: synthesis then goes on and replaces it"
        )


def program_of(work: Work[RunConfig]) -> RewardProgram:
    """The program in the run's directory, whether it was verified or not; logs are about it from now on.

    Raises ConfigError if there is none, and ProgramError if it is malformed.
    """
    if not (work.directory / PROGRAM).exists():
        raise ConfigError(f"{work.directory} holds no program yet; run `carl synthesize {work.config.task}` first")
    program = RewardProgram.load(work.directory / PROGRAM)
    about(program=program.id)
    return program


def source(work: Work[RunConfig]) -> "ProgramReward":
    """The reward of the program in the run's directory; raises as ``program_of``."""
    from carl.rewards.program import ProgramReward

    return ProgramReward.of(program_of(work), work.config.verify, cache=work.config.reward.cache)


def check_model(work: Work[RunConfig]) -> None:
    """Raise VlmError, before anything is recorded, if the embedded model is asked and cannot be shown the frames."""
    from carl.episodes.play import first_frame
    from carl.nano.known import check

    if work.config.vlm.model == EMBEDDED_MODEL and work.config.vlm.recording is None:
        check(work.task.name, first_frame(work.task)[0])


def verified(directory: Path) -> str | None:
    """The id of the program in ``directory`` if it is the one that passed verification there; raises CarlError."""
    if not (directory / PROGRAM).exists() or not (directory / VERIFICATION).exists():
        return None
    program = RewardProgram.load(directory / PROGRAM).id
    with whole(str(directory / VERIFICATION)):
        report = read_json(directory / VERIFICATION, dict)
        return program if report["accepted"] is True and report["program_id"] == program else None


def _program_made(directory: Path, _: RunConfig) -> str | None:
    """Whatever the program is by now, unless held-out episodes refused it: verification finds out which one it is."""
    path = directory / PROGRAM
    if not path.exists():
        return None
    verdict = Ledger(directory / CANDIDATES).verdicts().get(RewardProgram.load(path).id)
    return "there" if verdict is None or verdict.report.accepted else None


def _ledger(work: Work[RunConfig]) -> Ledger:
    return Ledger(work.directory / CANDIDATES)


def _held_out_gate(work: Work[RunConfig]) -> HeldOutGate:
    """The gate on held-out episodes, each set of which is recorded when it is first needed."""

    def judge_held_out(program: RewardProgram, number: int) -> VerificationReport:
        return judge(program, *recorded(work, held_out=number), work.config.verify, work.progress)

    return HeldOutGate(judge_held_out, _ledger(work).refusals())


def _used_up(ledger: Ledger) -> ProgramError:
    return ProgramError(
        f"{HELD_OUT_FAILED}; see {ledger.folder}. Try more episodes (collect.experts, collect.randoms) in another "
        "--run-dir"
    )


def _keep_pairs(work: Work[RunConfig], pairs: Sequence[tuple[Frame, Frame]]) -> None:
    packed = BytesIO()
    np.savez_compressed(packed, initial=np.stack([a for a, _ in pairs]), goal=np.stack([b for _, b in pairs]))
    write_bytes(work.directory / PAIRS, packed.getvalue())


def _keep_synthesis(work: Work[RunConfig], found: Found, client: VlmClient) -> None:
    usage = {"model": work.config.vlm.model, **client.usage.model_dump(), "wanted": client.wanted}
    content = {"candidates": len(found.candidates), "stopped": found.stopped, "usage": usage}
    write_json(work.directory / SYNTHESIS, content)


STAGES: Stages = (
    Stage("collect", collect, made, settles=("collect",)),
    Stage("synthesize", synthesize, _program_made, settles=("verify",)),
    Stage("verify", verify, lambda at, _: verified(at), settles=("vlm", "synthesis")),
)
"""What comes before training on a program."""
