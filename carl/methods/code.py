"""Code as reward: a VLM writes a program, and what passes verification is the reward."""

from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carl.artefacts import PROGRAM, SYNTHESIS, VERIFICATION, read_json, whole, write_bytes, write_json, write_text
from carl.cluster.logs import about
from carl.config import EMBEDDED_MODEL, RunConfig
from carl.errors import ConfigError, ProgramError
from carl.methods.method import Stage, Stages, Work
from carl.methods.recorded import Episodes, made, recorded
from carl.program import RewardProgram
from carl.task import Frame

if TYPE_CHECKING:
    from carl.rewards.program import ProgramReward
    from carl.synthesis.search import Candidate, SynthesisResult
    from carl.verification.report import VerificationReport

VERDICTS = 3
"""Programs that may fail on held-out episodes before a run gives up."""


def collect(work: Work[RunConfig]) -> None:
    """Record the expert and random episodes that synthesis is judged on."""
    recorded(work)


def synthesize(work: Work[RunConfig]) -> None:
    """Have the VLM write a program that survives the recorded episodes."""
    from carl.synthesis.search import synthesize
    from carl.vlm.client import connect

    experts, randoms = recorded(work)
    shown = islice(experts, work.config.synthesis.pairs)
    pairs = [(np.array(episode.frames[0]), np.array(episode.frames[-1])) for episode in shown]
    _keep_pairs(work, pairs)
    with connect(work.config.vlm, work.directory / "synthesis", work.progress) as client:
        result = synthesize(
            work.task.description,
            pairs,
            client,
            work.config.synthesis,
            verify=lambda program: _failed_held_out(work, program) or _verdict(work, program, experts, randoms),
            on_candidate=lambda candidate: _keep_candidate(work, candidate),
            progress=work.progress,
            seed=work.config.seed,
        )
    _keep_synthesis(work, result)
    if result.program is None:
        raise ProgramError(
            f"{result.outcome}. {work.directory / 'candidates'} holds what was tried and why it was rejected; try "
            "another --seed, more synthesis.samples, or a larger model"
        )
    write_text(work.directory / PROGRAM, result.program.to_json())


def verify(work: Work[RunConfig]) -> None:
    """Judge the accepted program once more, on episodes that synthesis never saw; if it fails, synthesize on."""
    candidates, path = work.directory / "candidates", work.directory / PROGRAM
    while (failed := len(list(candidates.glob("held-out-*.json")))) < VERDICTS:
        if failed and (not path.exists() or _failed_held_out(work, program_of(work))):
            synthesize(work)
        program = program_of(work)
        report = _verdict(work, program, *recorded(work, held_out=failed + 1))
        write_json(work.directory / VERIFICATION, report.model_dump(mode="json"))
        if report.accepted:
            return
        content = {"program": program.model_dump(mode="json"), "report": report.model_dump(mode="json")}
        write_json(candidates / f"held-out-{failed + 1}-{program.id}.json", content)
        path.unlink()
    raise ProgramError(
        f"{VERDICTS} programs survived synthesis and failed on fresh episodes; see {candidates}. "
        "Try more episodes (collect.experts, collect.randoms) in another --run-dir"
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


def _verdict(
    work: Work[RunConfig], program: RewardProgram, experts: Episodes, randoms: Episodes
) -> "VerificationReport":
    from carl.verification import verify

    return verify(program, experts, randoms, work.config.verify, work.progress)


def _failed_held_out(work: Work[RunConfig], program: RewardProgram) -> "VerificationReport | None":
    """The report that refused ``program`` after synthesis had accepted it; None if there is none."""
    from carl.verification.report import VerificationReport

    for path in (work.directory / "candidates").glob(f"held-out-*-{program.id}.json"):
        with whole(str(path)):
            return VerificationReport.model_validate(read_json(path, dict)["report"])
    return None


def _keep_pairs(work: Work[RunConfig], pairs: Sequence[tuple[Frame, Frame]]) -> None:
    packed = BytesIO()
    np.savez_compressed(packed, initial=np.stack([a for a, _ in pairs]), goal=np.stack([b for _, b in pairs]))
    write_bytes(work.directory / "synthesis/pairs.npz", packed.getvalue())


def _keep_candidate(work: Work[RunConfig], candidate: "Candidate") -> None:
    report: VerificationReport = candidate.report  # type: ignore[assignment]  # what _verdict made
    content = {"program": candidate.program.model_dump(mode="json"), "report": report.model_dump(mode="json")}
    write_json(work.directory / f"candidates/{candidate.number:02d}-{candidate.program.id}.json", content)


def _keep_synthesis(work: Work[RunConfig], result: "SynthesisResult") -> None:
    for index, rejection in enumerate(result.rejections, 1):
        content = {"rejected": rejection.reason, **asdict(rejection)}
        write_json(work.directory / f"candidates/answer-{index:02d}.json", content)
    usage = {"model": work.config.vlm.model, **result.usage.model_dump(), "wanted": result.wanted}
    content = {"candidates": len(result.candidates), "stopped": result.stopped, "usage": usage}
    write_json(work.directory / SYNTHESIS, content)


STAGES: Stages = (
    Stage("collect", collect, made, settles=("collect",)),
    # Whatever the program is by now: verification says whether it is the one that was judged.
    Stage("synthesize", synthesize, lambda at, _: "there" if (at / PROGRAM).exists() else None, settles=("verify",)),
    Stage("verify", verify, lambda at, _: verified(at), settles=("vlm", "synthesis")),
)
"""What comes before training on a program."""
