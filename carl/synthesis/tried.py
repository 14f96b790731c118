"""What a search has tried, what it may spend, and what proposers add to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from carl.program import RewardProgram, SubTask
from carl.verification.report import VerificationReport


@dataclass(frozen=True)
class Cost:
    """What proposing took.

    Attributes:
        calls: requests to a model.
        tokens: of these requests and of their answers.
        seconds: of the search's own wall clock, judging included.
        money: at the prices per token of the settings, in whatever currency they are.
    """

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    money: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
            self.money + other.money,
        )

    def __sub__(self, other: "Cost") -> "Cost":
        return self + Cost(-other.calls, -other.tokens, -other.seconds, -other.money)


@dataclass(frozen=True)
class Budget:
    """The most that all proposers of a search may spend together; None is no limit.

    What a request takes in tokens and money is known after it: the one that exceeds a limit is the last.
    """

    calls: int
    tokens: int | None = None
    seconds: float | None = None
    money: float | None = None

    def late(self, spent: Cost) -> str:
        """Why nothing at all may follow what is spent, in words; empty if something may."""
        over = self.seconds is not None and spent.seconds >= self.seconds
        return f"all {self.seconds:g} seconds of the search are used up" if over else ""

    def refusal(self, spent: Cost) -> str:
        """Why no request may follow what is spent, in words; empty if one may."""
        if late := self.late(spent):
            return late
        if spent.calls >= self.calls:
            return f"all {self.calls} requests are used up"
        if self.tokens is not None and spent.tokens >= self.tokens:
            return f"{spent.tokens:,} tokens are used up, of {self.tokens:,}"
        if self.money is not None and spent.money >= self.money:
            return f"the money is used up: {spent.money:.4g} of {self.money:g}"
        return ""


class BudgetSpentError(Exception):
    """The budget of the search allows no further request, or nothing at all; the message says what is used up."""


@dataclass(frozen=True)
class HeldOut:
    """A verdict on episodes that the search never saw.

    Attributes:
        number: of the set of episodes, from 1.
    """

    number: int
    report: VerificationReport


@dataclass(frozen=True)
class Proposal:
    """A program to be judged."""

    program: RewardProgram


@dataclass(frozen=True)
class Candidate:
    """A program that was judged, and how that went.

    Attributes:
        number: counts from 1.
        proposer: the name of the one that proposed it.
        report: the verdict on the episodes of the search.
        held_out: the one on held-out episodes; None where it is still due, or never will be.
        cost: what was spent since the candidate before, until this one was judged on the episodes of the search.
        spent: what the search had spent by then.
    """

    number: int
    program: RewardProgram
    report: VerificationReport
    held_out: HeldOut | None = None
    cost: Cost = Cost()
    spent: Cost = Cost()
    proposer: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the program passed on held-out episodes too."""
        return self.held_out is not None and self.held_out.report.accepted

    @property
    def verdict(self) -> VerificationReport:
        """The report that decided last."""
        return self.held_out.report if self.held_out else self.report


@dataclass(frozen=True)
class Rejection:
    """An answer that is neither a plan nor a program.

    Attributes:
        request: the number of the request in its search, from 1.
        sample: counts from 0.
        reason: why, with what is this answer's own; ``kind`` without, so that equal kinds can be counted.
    """

    request: int
    sample: int
    prompt: str
    reason: str
    kind: str


def _timeless() -> float:
    return 0.0


@dataclass(eq=False)
class Tried:
    """One search so far.

    Attributes:
        clock: seconds of the search so far, those before a stop included.
        candidates: programs in the order in which they were judged, each once.
        rejections: answers that never became a program.
        answers: how many answers models gave.
        functions: sub-tasks that were written, whether they were part of a program yet or not, by ``named`` of their
            name and by their code.
    """

    budget: Budget
    clock: Callable[[], float] = _timeless
    candidates: list[Candidate] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    answers: int = 0
    functions: dict[str, dict[str, SubTask]] = field(default_factory=dict)
    _paid: Cost = field(default=Cost(), init=False)

    @property
    def spent(self) -> Cost:
        """By all proposers together."""
        return replace(self._paid, seconds=self.clock())

    def spend(self, calls: int = 1) -> None:
        """Count a request before it is made; raises BudgetSpentError if the budget allows none."""
        if refusal := self.budget.refusal(self.spent):
            raise BudgetSpentError(refusal)
        self._paid += Cost(calls=calls)

    def pay(self, tokens: int, money: float = 0.0) -> None:
        """Add what a request that was made took."""
        self._paid += Cost(tokens=tokens, money=money)

    def in_time(self) -> None:
        """Raise BudgetSpentError if the seconds of the budget are used up."""
        if late := self.budget.late(self.spent):
            raise BudgetSpentError(late)

    def offer(self, *subtasks: SubTask) -> None:
        """Have other proposers know of functions that were written."""
        for each in subtasks:
            self.functions.setdefault(named(each.name), {}).setdefault(each.code, each)

    def add(self, proposal: Proposal, report: VerificationReport, proposer: str = "") -> Candidate:
        """The candidate that ``proposal`` becomes with its verdict on the episodes of the search."""
        self.offer(*proposal.program.subtasks)
        spent, number = self.spent, len(self.candidates) + 1
        cost = spent - (self.candidates[-1].spent if self.candidates else Cost())
        self.candidates.append(Candidate(number, proposal.program, report, cost=cost, spent=spent, proposer=proposer))
        return self.candidates[-1]

    def decide(self, candidate: Candidate, held_out: HeldOut) -> Candidate:
        """The candidate with its verdict on held-out episodes."""
        decided = self.candidates[candidate.number - 1] = replace(candidate, held_out=held_out)
        return decided

    def __contains__(self, program: RewardProgram) -> bool:
        return any(each.program.id == program.id for each in self.candidates)

    def verdict(self, program: RewardProgram) -> VerificationReport:
        """What decided about a program that was judged; raises LookupError if it was not."""
        for candidate in self.candidates:
            if candidate.program.id == program.id:
                return candidate.verdict
        raise LookupError(f"the program {program.id} was not judged")


def named(name: str) -> str:
    """Equal for names that differ in case and spaces only."""
    return " ".join(name.casefold().split())


class Proposer(Protocol):
    """Brings programs to a search."""

    @property
    def name(self) -> str:
        """What settings and records call it, in one word."""

    @property
    def exhausted(self) -> str:
        """Why the search ends when this proposer has nothing more to propose, for its result; may be empty."""

    def propose(self, tried: Tried) -> Iterator[Proposal | None]:
        """Programs to judge, until there are no more.

        None says that the next program will cost something: cheaper proposers are asked first.

        By the time the next one is asked for, ``tried`` holds the verdict on the last: a refusal, or the acceptance of
        a program that may be too weak to learn from. A program that was judged before is not judged again. A request is
        accounted for with ``tried.spend`` before and ``tried.pay`` after it, and long work asks ``tried.in_time`` now
        and then; their BudgetSpentError, raised from here, ends the search.
        """
