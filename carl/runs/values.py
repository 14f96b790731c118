"""The values in the files of a run, as far as they are shown: which there may be, and of what types.

A file may lack any of them that is not required here, as those of older versions do, and hold others.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from carl.artefacts import (
    CANDIDATES,
    CONFIG,
    CURVE,
    EXCHANGES,
    LIVE,
    PROGRAM,
    REPAIR,
    RESULT,
    STAGES,
    STAMP,
    SUBJECT,
    SYNTHESIS,
    VERIFICATION,
    WATCH,
    artefact,
    of_arm,
)

Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Number | None
"""A number that cannot be negative: of episodes, steps, seconds."""

Figure = float | None
"""Any number, NaN and infinities included."""


class Values(BaseModel):
    """A JSON object. A number is a number here: neither a text that looks like one, nor true."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")


class _Named(Values):
    name: str


class _Program(Values):
    subtasks: list[_Named]


class _Verify(Values):
    deadline_s: Count = None
    memory_mb: Count = None


class _Reward(Values):
    source: str | None = None
    method: str | None = None


class _Train(Values):
    baselines: bool | None = None


class _Vlm(Values):
    model: str | None = None


class _Config(Values):
    task: str | None = None
    seed: Count = None
    vlm: _Vlm | None = None
    verify: _Verify | None = None
    reward: _Reward | None = None
    train: _Train | None = None


class _Failed(Values):
    """How a stage failed: the error's class, its sentence, and when, in seconds since 1970."""

    error: str
    message: str
    time: float


class _Stage(Values):
    """Whether a stage is done, the seconds it took, when it began if it runs, how it failed, what it made, and whether
    one before it undid that."""

    done: bool = False
    seconds: Number = 0.0
    since: Number = 0.0
    failed: _Failed = _Failed(error="", message="", time=0.0)
    made: str | None = None
    undone: bool = False


class _Stages(RootModel[dict[str, _Stage]]):
    """By a stage's name."""


class _Asked(_Vlm):
    """What asking the VLM cost."""

    calls: Count = None
    samples: Count = None
    wanted: Count = None
    prompt_tokens: Count = None
    completion_tokens: Count = None
    seconds: Count = None


class _Draw(Values):
    n: Count = None


class _Exchange(Values):
    usage: _Asked
    draw: _Draw | None = None
    prompt: str | None = None
    error: str | None = None


class _Best(Values):
    """The program that got furthest where none was accepted."""

    file: str | None = None
    words: str | None = None


class _Search(Values):
    """Who was asked for programs, who brought the accepted one, what that took, and what is to be said of it."""

    proposers: list[str] | None = None
    proposer: str | None = None
    program: str | None = None
    spent: dict[str, Count] | None = None
    notes: list[str] | None = None


class _Synthesis(_Search):
    best: _Best | None = None
    candidates: Count = None
    stopped: str | None = None
    reason: str | None = None
    usage: _Asked | None = None


class _Frame(Values):
    source: str | None = None
    seed: Figure = None
    step: Figure = None


class _Check(Values):
    name: str | None = None
    passed: bool | None = None
    message: str | None = None
    evidence: str | None = None
    figures: dict[str, bool | float | str | list[float] | None] | None = None
    frames: list[_Frame] | None = None


class _Report(Values):
    accepted: bool | None = None
    program_id: str | None = None
    checks: list[_Check] | None = None
    unjudged: dict[str, str] | None = None
    episodes: dict[str, int] | None = None


class _HeldOut(Values):
    report: _Report | None = None


class _Candidate(Values):
    program: dict[str, Any] | None = None
    report: _Report | None = None
    held_out: _HeldOut | None = None
    rejected: str | None = None
    answer: str | None = None


class _Evaluation(Values):
    episodes: Count = None
    success_rate: Figure = None
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    mean_length: Figure = None
    mean_return: Figure = None
    cut: Count = None


class _Counters(Values):
    """How far a training has come."""

    env_steps: Number
    seconds: Count = None
    episodes: Count = None
    succeeded: Count = None
    iterations: Count = None
    abstaining: Count = None
    rework_steps: Count = None
    reward_version: Count = None


class _Point(_Counters):
    success_rate: Figure = None
    mean_return: Figure = None
    evaluation: _Evaluation | None = None
    reward: dict[str, Count] | None = None


class _Live(_Counters):
    counts: dict[str, Count]


class _Alarm(Values):
    rule: str
    message: str


class _Repair(Values):
    number: Number
    state: str
    program: str | None = None
    why: str | None = None


class _Look(Values):
    """One look of the watch over a training."""

    iterations: Number
    env_steps: Number
    share: Number
    program: str
    weight: Number
    lowered: Figure = None
    succeeded: Count = None
    episodes: Count = None
    earned: Figure = None
    checks: list[_Check]
    alarms: list[_Alarm]
    repair: _Repair | None = None
    seconds: Number


class _Raised(_Alarm):
    env_steps: Number
    share: Number


class _Watched(Values):
    raised: list[_Raised] | None = None
    standing: list[str] | None = None
    weight: Number | None = None
    program: str | None = None
    replaced: list[str] | None = None
    repairs: list[_Repair] | None = None
    films: Count = None
    seconds: Figure = None


class _Subject(Values):
    program: str | None = None


class _Arm(_Evaluation):
    """An arm's part of the result; one that was evaluated in a single mode has its figures here."""

    headline: str | None = None
    filmed: bool | None = None
    sampled: _Evaluation | None = None
    greedy: _Evaluation | None = None
    env_steps: Count = None
    env_steps_per_s: Count = None
    seconds: Count = None
    iterations: Count = None
    abstaining: Count = None
    watch: _Watched | None = None


class _Final(_Evaluation):
    arms: dict[str, _Arm] | None = None


class _Paid(Values):
    kind: str | None = None
    env_reward_weight: Count = None
    env_reward_reason: str | None = None
    progress_in_observation: bool | None = None


class _Experts(Values):
    recorded: Count = None
    failed: Count = None


class _Approval(Values):
    by: str | None = None
    program: str | None = None


class _Provenance(Values):
    origin: str | None = None
    model: str | None = None
    approvals: list[_Approval] | None = None


class _Result(Values):
    task: str | None = None
    seed: Count = None
    algorithm: str | None = None
    reward: _Paid | None = None
    experts: _Experts | None = None
    program_id: str | None = None
    provenance: _Provenance | None = None
    vlm: _Asked | None = None
    search: _Search | None = None
    candidates: Count = None
    env_steps: Count = None
    env_steps_per_s: Count = None
    seconds: dict[str, Count] | None = None
    evaluation: _Final | None = None
    abstains: Count = None
    cut: Count = None
    rework_steps: Count = None
    reward_counts: dict[str, Count] | None = None
    versions: dict[str, str] | None = None


class _Copy(Values):
    copies: Count = None


VALUES: Mapping[str, type[BaseModel]] = {
    CONFIG: _Config,
    STAGES: _Stages,
    EXCHANGES: _Exchange,
    SYNTHESIS: _Synthesis,
    f"{CANDIDATES}/*.json": _Candidate,
    PROGRAM: _Program,
    VERIFICATION: _Report,
    of_arm("*", SUBJECT): _Subject,
    of_arm("*", LIVE): _Live,
    of_arm("*", CURVE): _Point,
    of_arm("*", WATCH): _Look,
    of_arm("*", f"{REPAIR}-*/{PROGRAM}"): _Program,
    RESULT: _Result,
    STAMP: _Copy,
}
"""By a file's pattern, what a mapping in it may hold."""


def check(name: str, content: Mapping[str, Any]) -> None:
    """Raise ValidationError where a mapping in a file, named by its path from the run directory, has a wrong value."""
    if kind := VALUES.get(artefact(name).pattern):
        kind.model_validate(content)
