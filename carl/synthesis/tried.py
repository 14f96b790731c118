"""What a search has tried, what it may spend, and what proposers add to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from carl.program import RewardProgram
from carl.verification.report import VerificationReport


@dataclass(frozen=True)
class Cost:
    """What proposing took.

    Attributes:
        calls: requests to a model.
    """

    calls: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.calls + other.calls)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.calls - other.calls)


@dataclass(frozen=True)
class Budget:
    """The most that all proposers of a search may spend together.

    Attributes:
        calls: requests to a model.
    """

    calls: int

    def covers(self, cost: Cost) -> bool:
        """Whether no more than the budget is spent with ``cost``."""
        return cost.calls <= self.calls


class BudgetSpentError(Exception):
    """The next request of a proposer would exceed the budget of the search."""


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
    """A program to be judged.

    Attributes:
        cost: what was spent on it since the proposal before.
    """

    program: RewardProgram
    cost: Cost = Cost()


@dataclass(frozen=True)
class Candidate:
    """A program that was judged, and how that went.

    Attributes:
        number: counts from 1.
        report: the verdict on the episodes of the search.
        held_out: the one on held-out episodes; None where it is still due, or never will be.
    """

    number: int
    program: RewardProgram
    report: VerificationReport
    held_out: HeldOut | None = None
    cost: Cost = Cost()

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


@dataclass(eq=False)
class Tried:
    """One search so far.

    Attributes:
        candidates: programs in the order in which they were judged, each once.
        rejections: answers that never became a program.
        answers: how many answers models gave.
        spent: by all proposers together.
    """

    budget: Budget
    candidates: list[Candidate] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    answers: int = 0
    spent: Cost = Cost()

    def spend(self, cost: Cost) -> None:
        """Add ``cost`` before it is spent; raises BudgetSpentError if the budget does not cover it."""
        if not self.budget.covers(self.spent + cost):
            raise BudgetSpentError
        self.spent += cost

    def add(self, proposal: Proposal, report: VerificationReport) -> Candidate:
        """The candidate that ``proposal`` becomes with its verdict on the episodes of the search."""
        self.candidates.append(Candidate(len(self.candidates) + 1, proposal.program, report, cost=proposal.cost))
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


class Proposer(Protocol):
    """Brings programs to a search."""

    @property
    def exhausted(self) -> str:
        """Why the search ends when this proposer has nothing more to propose, for its result."""

    def propose(self, tried: Tried) -> Iterator[Proposal]:
        """Programs to judge, until there are no more.

        By the time the next one is asked for, ``tried`` holds the verdict on the last, which was a refusal. A program
        that was judged before is not judged again. What costs something is accounted for with ``tried.spend``; its
        BudgetSpentError, raised from here, ends the search.
        """
