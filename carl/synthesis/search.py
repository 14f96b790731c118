"""The search for a program that passes the gate: on the episodes of the search, and then on held-out ones."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from carl.program import RewardProgram
from carl.synthesis.standing import furthest, weakness
from carl.synthesis.tried import (
    Budget,
    BudgetSpentError,
    Candidate,
    Cost,
    HeldOut,
    Proposal,
    Proposer,
    Rejection,
    Tried,
)
from carl.verification.report import VerificationReport

VERDICTS = 10
"""Sets of held-out episodes that may refuse a program before a search gives up."""

SECOND_LOOKS = 8
"""Programs that are judged after one was accepted that may be too weak to learn from, to find one that is not."""

HELD_OUT_FAILED = f"{VERDICTS} sets of fresh episodes refused programs that had survived all others"
"""Why a search ends then."""

Judge = Callable[[RewardProgram], VerificationReport]
OnCandidate = Callable[[Candidate], None]


class HeldOutGate:
    """Verdicts on episodes that the search never saw.

    What survives a set of episodes that refused another program may have been chosen for that. So a set that refused
    one accepts none: every later program has to survive it before it is judged on a new set. There are ``VERDICTS``.
    """

    def __init__(
        self, judge: Callable[[RewardProgram, int], VerificationReport], refused: Iterable[HeldOut] = ()
    ) -> None:
        """``judge`` takes the number of the set, from 1; ``refused`` are the refusals of earlier attempts."""
        self._judge = judge
        self._refused = {each.report.program_id: each for each in refused}

    @property
    def used(self) -> int:
        """How many sets have refused a program."""
        return max((each.number for each in self._refused.values()), default=0)

    def judge(self, program: RewardProgram) -> HeldOut | None:
        """The verdict on a program, without judging a refused one again; None if it survives and no set is left."""
        if program.id in self._refused:
            return self._refused[program.id]
        verdict = None
        for number in range(1, min(self.used + 1, VERDICTS) + 1):
            verdict = HeldOut(number, self._judge(program, number))
            if not verdict.report.accepted:
                self._refused[program.id] = verdict
                return verdict
        return verdict if verdict and verdict.number > self.used else None


@dataclass(frozen=True)
class SearchGate:
    """What a program has to pass: the gate on the episodes of the search, and then the one on held-out episodes."""

    judge: Judge
    held_out: HeldOutGate


@dataclass(frozen=True)
class Found:
    """What came of a search: the accepted program or None, all that was tried, and why it ended.

    Attributes:
        answers: how many answers models gave; ``rejections`` are those that could not be used.
        spent: by all proposers together.
    """

    program: RewardProgram | None
    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]
    answers: int
    spent: Cost
    stopped: str

    @property
    def best(self) -> Candidate | None:
        """The candidate that got furthest; None if nothing was tried."""
        return furthest(self.candidates)

    @property
    def accepted(self) -> Candidate | None:
        """The candidate that ``program`` was."""
        return next((one for one in self.candidates if one.program == self.program), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the program that was accepted."""
        weak = weakness(self.accepted.report) if self.accepted else ""
        return (f"Too weak to learn from? In this program {weak}.",) if weak else ()

    @property
    def outcome(self) -> str:
        """How it ended, in a sentence, with the commonest reason for which answers or programs were rejected."""
        found = [_unusable(self.rejections, self.answers)] if self.rejections else []
        if not self.candidates:
            return "; ".join([f"there was no program to try: {self.stopped}", *found])
        if self.program:
            return self.stopped
        return "; ".join([f"no program survived verification: {self.stopped}", _failed(self.candidates), *found])


def _unusable(rejections: Sequence[Rejection], answers: int) -> str:
    kind, times = Counter(each.kind for each in rejections).most_common(1)[0]
    example = next(each.reason for each in rejections if each.kind == kind)
    often = "all for one reason" if times == len(rejections) else f"most often ({times} times) for this reason"
    return f"{len(rejections)} of {answers} answers could not be used, {often}: {example}"


def _failed(candidates: Sequence[Candidate]) -> str:
    """The check that most programs failed first."""
    failed = [each.verdict.failed[0].name for each in candidates if each.verdict.failed]
    if not failed:
        return "nothing speaks against the last"
    name, times = Counter(failed).most_common(1)[0]
    return f"{times} of {len(candidates)} programs failed at {name}"


def search(
    proposers: Sequence[Proposer],
    gate: SearchGate,
    budget: Budget,
    on_candidate: OnCandidate = lambda _: None,
    before: float = 0.0,
) -> Found:
    """Judge what ``proposers``, listed cheapest first, propose, each program once, until one is accepted.

    A proposer is asked when all cheaper ones have nothing more to propose. They are asked again before a dearer one
    spends anything, and when it has nothing more, since they may build on what it brought. A program that passes on
    the episodes of the search is judged on held-out ones; a refusal there is evidence as any other. One that is
    accepted and may be too weak to learn from is kept while ``SECOND_LOOKS`` more are judged. Where the requests,
    tokens or money of the budget are used up, proposers that need none go on; its seconds end the search.
    ``on_candidate`` is called with every verdict, so twice with a program that is judged on held-out episodes.
    ``before`` are the seconds of earlier attempts at this search. Raises what proposers and the gate raise, except
    BudgetSpentError.
    """
    start = time.monotonic()
    tried = Tried(budget, clock=lambda: before + time.monotonic() - start)
    program, stopped = _searched(_Asked(proposers, tried), gate, tried, on_candidate)
    return Found(program, tuple(tried.candidates), tuple(tried.rejections), tried.answers, tried.spent, stopped)


def _searched(
    asked: "_Asked", gate: SearchGate, tried: Tried, on_candidate: OnCandidate
) -> tuple[RewardProgram | None, str]:
    """The accepted program or None, and why the search ended."""
    weak: Candidate | None = None
    try:
        for name, proposal in asked.proposals():
            tried.in_time()
            candidate = _judged(name, proposal, gate, tried, on_candidate)
            if candidate.accepted and not weakness(candidate.report):
                return candidate.program, "accepted"
            if candidate.report.accepted and candidate.held_out is None:
                stopped = HELD_OUT_FAILED
                break
            weak = weak or (candidate if candidate.accepted else None)
            if weak and candidate.number >= weak.number + SECOND_LOOKS:
                break
        else:
            stopped = "; ".join(asked.reasons())
    except BudgetSpentError as error:
        stopped = str(error)
    return (weak.program, "accepted") if weak else (None, stopped)


class _Asked:
    """Proposers, cheapest first, and why each had nothing more to propose."""

    def __init__(self, proposers: Sequence[Proposer], tried: Tried) -> None:
        self._proposers, self._tried = proposers, tried
        self._spent: dict[str, str] = {}

    def proposals(self) -> Iterator[tuple[str, Proposal]]:
        """New programs, each with the name of its proposer."""
        return self._of(self._proposers)

    def reasons(self) -> list[str]:
        """Why nothing more was proposed, each reason once."""
        reasons = (self._spent.get(each.name, each.exhausted) for each in self._proposers)
        return list(dict.fromkeys(filter(None, reasons)))

    def _of(self, proposers: Sequence[Proposer]) -> Iterator[tuple[str, Proposal]]:
        if not proposers:
            return
        *cheaper, dearest = proposers
        yield from self._of(cheaper)
        try:
            for proposal in dearest.propose(self._tried):
                if proposal is None:
                    yield from self._of(cheaper)
                elif proposal.program not in self._tried:
                    yield dearest.name, proposal
        except BudgetSpentError as error:
            self._spent[dearest.name] = str(error)
        yield from self._of(cheaper)


def _judged(name: str, proposal: Proposal, gate: SearchGate, tried: Tried, on_candidate: OnCandidate) -> Candidate:
    candidate = tried.add(proposal, gate.judge(proposal.program), name)
    on_candidate(candidate)
    if candidate.report.accepted and (held_out := gate.held_out.judge(candidate.program)):
        candidate = tried.decide(candidate, held_out)
        on_candidate(candidate)
    return candidate
