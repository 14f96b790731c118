"""Code as reward: a program that a VLM wrote or a search found, if it passes verification, is the reward."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import model_validator

from carl.artefacts import (
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
from carl.config import (
    EMBEDDED_MODEL,
    CollectConfig,
    InductionConfig,
    RunConfig,
    SynthesisConfig,
    VerifyConfig,
    VlmConfig,
    WatchConfig,
)
from carl.console.progress import Progress
from carl.errors import ConfigError, ProgramError, TaskError, shown
from carl.methods.method import Method, Stage, Work
from carl.methods.origin import notes_on, of_older, report_in, require_approval, with_origin, with_verdict
from carl.methods.proposing import (
    MORE_EPISODES,
    budget_of,
    client_for,
    keep,
    names_of,
    nothing_found,
    proposers_of,
)
from carl.methods.recorded import Episodes, check_sound, dealt, made, recorded
from carl.methods.watching import watch
from carl.program import RewardProgram, SubTask
from carl.rewards.latch import PROGRESS
from carl.rewards.source import Need
from carl.task import Frame, Task

if TYPE_CHECKING:
    from carl.rewards.program import ProgramReward
    from carl.synthesis.ledger import Ledger
    from carl.synthesis.search import HeldOutGate
    from carl.verification import VerificationReport

NOTHING = RewardProgram(subtasks=(SubTask(name="nothing", code="def progress(frame, initial):\n    return 0.0\n"),))
"""A program that judges any frame."""


class CodeConfig(RunConfig):
    """A run whose reward is a program that a search found."""

    vlm: VlmConfig = VlmConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    induction: InductionConfig = InductionConfig()
    collect: CollectConfig = CollectConfig()
    verify: VerifyConfig = VerifyConfig()
    watch: WatchConfig = WatchConfig()

    @model_validator(mode="after")
    def enough_random_episodes(self) -> Self:
        """Raise ValueError if fewer random episodes are collected than verification needs."""
        if self.collect.randoms is not None and self.collect.randoms < self.verify.min_randoms:
            raise ValueError(
                f"collect.randoms ({self.collect.randoms}) is below verify.min_randoms ({self.verify.min_randoms})"
            )
        return self


def collect(work: Work[CodeConfig]) -> None:
    """Record the episodes that synthesis is judged on; raises TaskError if nothing can be judged on them."""
    episodes_of(work)


def episodes_of(work: Work[CodeConfig], held_out: int = 0) -> Episodes:
    """Episodes by their kind: those to search with, or the n-th held-out ones, and the part of those ``beside`` that
    belongs to them. Raises TaskError if no program can be judged on them."""
    collect, verify = work.config.collect, work.config.verify
    plan = collect.model_copy(update={"randoms": max(collect.random_episodes, verify.min_randoms)})
    there = replace(work, directory=work.recordings or work.directory)
    episodes = recorded(there, plan, work.config.synthesis.pairs, held_out)
    check_sound(work.task, episodes, verify)
    return {**episodes, **{kind: dealt(beside, held_out) for kind, beside in work.beside.items()}}


def synthesize(work: Work[CodeConfig]) -> None:
    """Search for a program that survives the episodes of the search, and then held-out ones.

    Raises VlmError if a model is asked and fails, and ProgramError if no program survives.
    """
    from carl.synthesis.search import SearchGate, search
    from carl.synthesis.shown import Examples

    config, ledger = work.config, _ledger(work)
    budget, episodes = budget_of(config.synthesis), episodes_of(work)
    examples = Examples.chosen(episodes, config.synthesis.pairs)
    names = names_of(config.vlm, config.synthesis, examples.pairs[0][0])
    if "model" in names:
        _keep_pairs(work, examples.pairs)
    with client_for(names, work) as client:
        proposers = proposers_of(names, work, episodes, examples, client)
        held_out = _held_out_gate(work, before=client.release if client else _idle, after=examples.add)
        gate = SearchGate(lambda program: judge(program, episodes, config.verify, work.progress), held_out)
        found = search(
            proposers,
            gate,
            budget,
            lambda candidate: ledger.keep(with_origin(work, candidate)),
            before=ledger.seconds(),
        )
    if client:
        work.progress("asking the VLM", found.spent.calls, found.spent.calls)
    ledger.reject(found.rejections)
    keep(work, names, found, client, ledger)
    if found.accepted is None:
        raise ProgramError(nothing_found(found, names, ledger, budget))
    write_text(work.directory / PROGRAM, with_origin(work, found.accepted).program.to_json())


def verify(work: Work[CodeConfig]) -> None:
    """Report how the program in the run's directory was judged on episodes that synthesis never saw.

    A program that synthesis did not judge on them, say an edited one, is judged now. Raises ProgramError if they refuse
    it: synthesis is not done then, and would find another one.
    """
    program, ledger = of_older(program_of(work), report_in(work.directory)), _ledger(work)
    verdict = ledger.verdicts().get(program.id)
    if verdict is None:
        verdict = _held_out_gate(work).judge(program)
        if verdict is None:
            raise _used_up(ledger)
        if not verdict.report.accepted:
            ledger.refuse(program, verdict)
    write_json(work.directory / VERIFICATION, verdict.report.model_dump(mode="json"))
    noted = with_verdict(program, verdict, work.task.name, work.config.seed)
    if noted.provenance != program.provenance:
        write_text(work.directory / PROGRAM, noted.to_json())
    if not verdict.report.accepted:
        raise ProgramError(
            f"the program in {work.directory / PROGRAM} fails on fresh episodes: {verdict.report.failed[0].message}. "
            f"Correct it, or run {work.command('run')}: synthesis then goes on and replaces it"
        )


def tried_out(work: Work[CodeConfig], program: RewardProgram) -> "VerificationReport":
    """What the gate makes of ``program`` on the episodes of the search, which are recorded unless they are there."""
    return judge(program, episodes_of(work), work.config.verify, work.progress)


def program_of(work: Work[CodeConfig]) -> RewardProgram:
    """The program in the run's directory, verified or not; log lines name it from now on.

    Raises ConfigError if there is none, and ProgramError if it is malformed.
    """
    if not (work.directory / PROGRAM).exists():
        raise ConfigError(f"{work.directory} holds no program yet; run {work.command('synthesize')} first")
    program = RewardProgram.load(work.directory / PROGRAM)
    about(program=program.id)
    return program


def source(work: Work[CodeConfig]) -> "ProgramReward":
    """The reward of the verified program.

    Raises ConfigError unless the program there is the one that was verified, and ApprovalError if somebody has to
    approve it first.
    """
    from carl.rewards.program import ProgramReward

    program = _checked(work)
    report = report_in(work.directory)
    require_approval(program, work.config.verify, work.directory, report.digest if report else "")
    return ProgramReward.of(program, work.config.verify, cache=work.config.reward.cache)


def _checked(work: Work[CodeConfig]) -> RewardProgram:
    path, verify = work.directory / PROGRAM, work.command("verify")
    program = program_of(work) if path.exists() else None
    if program and verified(work.directory):
        return program
    judged = _read(work.directory, VERIFICATION).get("program_id")
    if program and judged and program.id != judged:
        raise ConfigError(
            f"{path} is not the program that was verified ({program.id}, not {judged}): put that one back, or "
            f"run {verify}, which judges the one that is there"
        )
    raise ConfigError(f"there is no verified program yet; run {verify} first")


def check_frames(task: Task, config: CodeConfig, frames: Frame) -> None:
    """Raise TaskError if a program that does nothing cannot judge ``frames``, ``uint8[N, H, W, 3]``, within the limits;
    BoxError if no box starts here."""
    from carl.sandbox.box import Box, Limits

    limits = Limits(deadline_s=config.verify.deadline_s, memory_mb=config.verify.memory_mb)
    with Box(NOTHING, limits) as box:
        judgement = box.judge(frames, frames, np.zeros(len(frames), dtype=np.intp))
    for reason in judgement.reasons.values():
        raise TaskError(
            f"task {task.name!r}: a program that does nothing cannot judge its frames, uint8"
            f"{list(frames.shape[1:])}: {reason}; raise verify.deadline_s or memory_mb, or take smaller frames"
        )


def found(directory: Path) -> dict[str, Any]:
    """What ``result.json`` has of the search, of the VLM, of the programs that were tried, and of the one that was
    verified and where it came from; raises CarlError for a damaged file."""
    synthesis = _read(directory, SYNTHESIS, usage=dict | None, candidates=int)
    verification = _read(directory, VERIFICATION, program_id=str)
    program = RewardProgram.load(directory / PROGRAM) if (directory / PROGRAM).exists() else None
    known = program.provenance if program and program.id == verification.get("program_id") else None
    search = {key: synthesis[key] for key in ("proposers", "proposer", "program", "spent") if key in synthesis}
    notes = notes_on(verification.get("program_id"), synthesis, lambda: _accepted(directory))
    return {
        "program_id": verification.get("program_id"),
        "provenance": known.model_dump(mode="json") if known else None,
        "vlm": synthesis.get("usage"),
        "search": search | ({"notes": notes} if "notes" in synthesis else {}),
        "candidates": synthesis.get("candidates", 0),
        "verification": verification or None,
    }


def _read(directory: Path, name: str, **kinds: type | UnionType) -> dict[str, Any]:
    """The content of a file with values of these kinds; empty if there is no such file. Raises ConfigError."""
    if not (directory / name).exists():
        return {}
    content = read_json(directory / name, dict)
    with whole(str(directory / name)):
        for key, kind in kinds.items():
            if not isinstance(content[key], kind):
                raise TypeError(f"{key} is {shown(content[key])}")
    return content


def check_model(work: Work[CodeConfig]) -> None:
    """Raise VlmError, before anything is recorded, if the embedded model is asked and cannot be shown the frames, or if
    the recording that is to be replayed answers other versions of the prompts."""
    from carl.episodes.play import first_frame
    from carl.nano.known import check
    from carl.vlm.client import check_recording

    config = work.config
    if config.vlm.recording is not None:
        check_recording(config.vlm.recording)
    elif config.vlm.model == EMBEDDED_MODEL:
        frame = first_frame(work.task)[0]
        if "model" in names_of(config.vlm, config.synthesis, frame):
            check(work.task.name, frame)


def verified(directory: Path) -> str | None:
    """The id of the program in ``directory`` if it is the one that passed verification there; raises CarlError."""
    if not (directory / PROGRAM).exists() or not (directory / VERIFICATION).exists():
        return None
    program = RewardProgram.load(directory / PROGRAM).id
    with whole(str(directory / VERIFICATION)):
        report = read_json(directory / VERIFICATION, dict)
        return program if report["accepted"] is True and report["program_id"] == program else None


def judge(program: RewardProgram, episodes: Episodes, config: VerifyConfig, progress: Progress) -> "VerificationReport":
    """What verification makes of ``program`` on these episodes; raises BoxError."""
    from carl.verification import verify

    return verify(program, episodes, config, progress)


def _program_made(directory: Path, _: CodeConfig) -> str | None:
    """Whatever the program is by now, unless held-out episodes refused it: verification finds out which one it is."""
    from carl.synthesis.ledger import Ledger

    path = directory / PROGRAM
    if not path.exists():
        return None
    verdict = Ledger(directory / CANDIDATES).verdicts().get(RewardProgram.load(path).id)
    return "there" if verdict is None or verdict.report.accepted else None


def _accepted(directory: Path) -> list[str]:
    from carl.synthesis.ledger import Ledger

    return [one.program.id for one in Ledger(directory / CANDIDATES).candidates() if one.accepted]


def _ledger(work: Work[CodeConfig]) -> "Ledger":
    from carl.synthesis.ledger import Ledger

    return Ledger(work.directory / CANDIDATES)


def _idle() -> None:
    """Nothing has to be freed."""


def _held_out_gate(
    work: Work[CodeConfig],
    before: Callable[[], object] = _idle,
    after: Callable[[Episodes], object] = lambda _: None,
) -> "HeldOutGate":
    """The gate on held-out episodes, each set of which is recorded when it is first needed, after a call of ``before``.

    ``after`` gets the set. Recording takes all CPUs there are, and would wait for those that a model is served on.
    """
    from carl.synthesis.search import HeldOutGate

    @cache
    def held_out(number: int) -> Episodes:
        before()
        episodes = episodes_of(work, held_out=number)
        after(episodes)
        return episodes

    def judge_held_out(program: RewardProgram, number: int) -> "VerificationReport":
        return judge(program, held_out(number), work.config.verify, work.progress)

    return HeldOutGate(judge_held_out, _ledger(work).refusals())


def _used_up(ledger: "Ledger") -> ProgramError:
    from carl.synthesis.search import HELD_OUT_FAILED

    return ProgramError(f"{HELD_OUT_FAILED}; see {ledger.folder}. {MORE_EPISODES}")


def _keep_pairs(work: Work[CodeConfig], pairs: Sequence[tuple[Frame, Frame]]) -> None:
    packed = BytesIO()
    np.savez_compressed(packed, initial=np.stack([a for a, _ in pairs]), goal=np.stack([b for _, b in pairs]))
    write_bytes(work.directory / PAIRS, packed.getvalue())


def _max_failed(config: CodeConfig) -> float:
    return config.collect.max_failed


CODE = Method(
    "code",
    words="code reward",
    config=CodeConfig,
    stages=(
        Stage(
            "collect",
            collect,
            made,
            settles=("collect",),
            help="Record the episodes that programs are judged on: expert, random, resting, half-trained, cut off.",
            max_failed=_max_failed,
        ),
        Stage(
            "synthesize",
            synthesize,
            _program_made,
            settles=("verify",),
            help="Search for a reward program, and reject what fails on the recorded episodes.",
            check=check_model,
            max_failed=_max_failed,
        ),
        Stage(
            "verify",
            verify,
            lambda directory, _: verified(directory),
            settles=("vlm", "synthesis", "induction"),
            help="Judge the accepted program on episodes that synthesis never saw.",
            max_failed=_max_failed,
        ),
    ),
    source=source,
    shows=lambda _: PROGRESS,
    noun="program",
    needs=frozenset({Need.FRAMES}),
    check_frames=check_frames,
    teacher=watch,
    found=found,
)
