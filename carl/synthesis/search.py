"""Decompose, write, verify, repair: the search for a program that passes verification."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from carl.config import SynthesisConfig
from carl.console.progress import Progress, silent
from carl.program import RewardProgram, SubTask
from carl.synthesis.author import Author, BudgetSpentError, Rejection
from carl.synthesis.parse import Plan
from carl.task import Frame
from carl.vlm.client import VlmClient
from carl.vlm.exchange import Usage

MAX_REPAIRS = 2
"""Repair requests for one sub-task before the plan is given up."""


class Check(Protocol):
    """One check of a report; ``subtask`` (from 0) is the one to blame, None the plan."""

    @property
    def name(self) -> str: ...
    @property
    def passed(self) -> bool: ...
    @property
    def subtask(self) -> int | None: ...
    @property
    def message(self) -> str: ...


class Report(Protocol):
    """What a synthesis needs of a VerificationReport."""

    @property
    def accepted(self) -> bool: ...
    @property
    def checks(self) -> Sequence[Check]: ...
    def evidence(self, subtask: int | None = None) -> str: ...


@dataclass(frozen=True)
class Candidate:
    """A program that was verified, and how that went. ``number`` counts from 1."""

    number: int
    program: RewardProgram
    report: Report


Verify = Callable[[RewardProgram], Report]
OnCandidate = Callable[[Candidate], None]


@dataclass(frozen=True)
class SynthesisResult:
    """What came of a synthesis: the accepted program or None, all that was tried, and why it ended.

    Attributes:
        wanted: answers that were asked for; ``usage.samples`` came.
    """

    program: RewardProgram | None
    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]
    requests: int
    usage: Usage
    stopped: str
    wanted: int = 0

    @property
    def outcome(self) -> str:
        """How it ended, in a sentence, with the commonest reason for which answers or programs were rejected."""
        found = [_unusable(self.rejections, self.usage.samples)] if self.rejections else []
        if not self.candidates:
            return "; ".join([f"the model wrote no program that could be tried: {self.stopped}", *found])
        if self.program:
            return self.stopped
        return "; ".join([f"no program survived verification: {self.stopped}", _failed(self.candidates), *found])


def _unusable(rejections: Sequence[Rejection], samples: int) -> str:
    kind, times = Counter(each.kind for each in rejections).most_common(1)[0]
    example = next(each.reason for each in rejections if each.kind == kind)
    often = "all for one reason" if times == len(rejections) else f"most often ({times} times) for this reason"
    return f"{len(rejections)} of {samples} answers could not be used, {often}: {example}"


def _failed(candidates: Sequence[Candidate]) -> str:
    """The check that most programs failed first, and what it found last."""
    failed = [next(check for check in each.report.checks if not check.passed) for each in candidates]
    name, times = Counter(check.name for check in failed).most_common(1)[0]
    message = next(check.message for check in reversed(failed) if check.name == name)
    return f"{times} of {len(candidates)} programs failed at {name}: {message}"


def synthesize(
    description: str,
    pairs: Sequence[tuple[Frame, Frame]],
    client: VlmClient,
    config: SynthesisConfig,
    verify: Verify,
    on_candidate: OnCandidate = lambda _: None,
    progress: Progress = silent,
    seed: int = 0,
) -> SynthesisResult:
    """Search for a program that ``verify`` accepts.

    ``pairs`` are the initial and the goal frame of expert episodes, ``uint8[H, W, 3]``; the first ``config.pairs``
    are shown. Answers that cannot be used are recorded, never raised. Raises VlmError if the model fails; what it
    answered until then is in the client's recording, so that the next call with the same arguments goes on from there.
    """
    author = Author(description, pairs, client, config, seed, progress)
    search = _Search(author, verify, on_candidate)
    program, stopped = search.run()
    progress("asking the VLM", author.requests, author.requests)
    return SynthesisResult(
        program,
        tuple(search.candidates),
        tuple(author.rejections),
        author.requests,
        client.usage,
        stopped,
        client.wanted,
    )


class _Shelf:
    """The programs sampled for one sub-task, best first, and the one in use."""

    def __init__(self, sources: Sequence[str]) -> None:
        self.sources = list(sources)
        self.position = 0
        self.repairs = 0

    @property
    def source(self) -> str:
        return self.sources[self.position] if self.sources else ""

    def advance(self) -> bool:
        """Take up the next source; False if there is none."""
        left = self.position + 1 < len(self.sources)
        self.position += left
        return left

    def restock(self, sources: Sequence[str]) -> bool:
        """Add the sources that are new and take up the first of them; False if none is."""
        new = [source for source in sources if source not in self.sources]
        if new:
            self.position = len(self.sources)
            self.sources += new
        return bool(new)


@dataclass(frozen=True)
class _Draft:
    """A plan with a shelf for each of its steps."""

    plan: Plan
    shelves: tuple[_Shelf, ...]

    def program(self) -> RewardProgram:
        return RewardProgram(
            subtasks=tuple(
                SubTask(name=step.name, description=step.description, code=shelf.source)
                for step, shelf in zip(self.plan.steps, self.shelves, strict=True)
            )
        )

    def variants(self) -> Iterator[RewardProgram]:
        """Programs with one sub-task's source exchanged for another sample, the last sub-task's first."""
        for shelf in reversed(self.shelves):
            chosen = shelf.position
            for position in range(len(shelf.sources)):
                shelf.position = position
                yield self.program()
            shelf.position = chosen


class _Search:
    """One synthesis. Programs are verified once each; what fails is replaced where the report says it failed."""

    def __init__(self, author: Author, verify: Verify, on_candidate: OnCandidate) -> None:
        self._author, self._verify, self._on_candidate = author, verify, on_candidate
        self._reports: dict[str, Report] = {}
        self._tried: set[tuple[str, ...]] = set()
        self._unclear: list[_Draft] = []
        self._shelves: dict[tuple[int, int, str], _Shelf] = {}
        self.candidates: list[Candidate] = []

    def run(self) -> tuple[RewardProgram | None, str]:
        """The accepted program or None, and why the search ended."""
        try:
            program = self._over_plans()
        except BudgetSpentError:
            program = self._over_variants()
            return program, "accepted" if program else f"all {self._author.requests} requests are used up"
        return program, "accepted" if program else "the model names no further plan that could be tried"

    def _over_plans(self) -> RewardProgram | None:
        rejected, evidence = "", ""
        stale = 0
        while stale < 2:
            plans = [plan for plan in self._author.plans(rejected, evidence) if plan.key not in self._tried]
            if not plans:
                stale += 1
                evidence = evidence or self._author.complaints()
                if program := self._over_variants():
                    return program
            for plan in plans:
                program, evidence = self._develop(plan)
                if program:
                    return program
                rejected = str(plan)
        return None

    def _over_variants(self) -> RewardProgram | None:
        """Where no single sub-task was to blame and no other plan is to be had, other samples may do; asks nothing."""
        for draft in self._unclear:
            for program in draft.variants():
                if self._judged(program).accepted:
                    return program
        return None

    def _develop(self, plan: Plan) -> tuple[RewardProgram | None, str]:
        """Write and mend programs for one plan; returns the accepted program, or None and the evidence against it."""
        self._tried.add(plan.key)
        shelves: list[_Shelf] = []
        for index in range(len(plan.steps)):
            shelves.append(self._shelf(plan, index))
            if not shelves[-1].sources:
                return None, self._author.complaints()
        draft = _Draft(plan, tuple(shelves))
        while True:
            program = draft.program()
            report = self._judged(program)
            if report.accepted:
                return program, ""
            to_blame = [check.subtask for check in report.checks if not check.passed and check.subtask is not None]
            if not to_blame:
                self._unclear.append(draft)
                return None, report.evidence()
            index = min(to_blame)  # what comes later was judged on what this one let through
            evidence = report.evidence(index)
            if not shelves[index].advance() and not self._repaired(plan, index, shelves[index], evidence):
                return None, evidence

    def _shelf(self, plan: Plan, index: int) -> _Shelf:
        """Sources for one step, asked for once: plans that name the same step at the same place share them."""
        key = (index, len(plan.steps), plan.key[index])
        if key not in self._shelves:
            shelf = self._shelves[key] = _Shelf(self._author.sources(plan, index))
            if not shelf.sources:
                self._repaired(plan, index, shelf, self._author.complaints())
        return self._shelves[key]

    def _repaired(self, plan: Plan, index: int, shelf: _Shelf, evidence: str) -> bool:
        """Ask for a better source; False if the model has nothing new to say."""
        while shelf.repairs < MAX_REPAIRS:
            shelf.repairs += 1
            sources = self._author.sources(plan, index, shelf.source, evidence)
            if shelf.restock(sources):
                return True
            if sources:
                return False
        return False

    def _judged(self, program: RewardProgram) -> Report:
        if program.id not in self._reports:
            report = self._reports[program.id] = self._verify(program)
            candidate = Candidate(len(self.candidates) + 1, program, report)
            self.candidates.append(candidate)
            self._on_candidate(candidate)
        return self._reports[program.id]
