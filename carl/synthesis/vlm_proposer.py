"""Programs that a VLM writes: decompose, write, and repair what the gate's evidence speaks against."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from carl.config import SynthesisConfig
from carl.console.progress import Progress, silent
from carl.program import RewardProgram, SubTask
from carl.synthesis.author import Author
from carl.synthesis.parse import Plan
from carl.synthesis.tried import BudgetSpentError, Proposal, Tried
from carl.task import Frame
from carl.vlm.client import VlmClient

MAX_REPAIRS = 2
"""Repair requests for one sub-task before the plan is given up."""


@dataclass(frozen=True, eq=False)
class VlmProposer:
    """Asks a VLM for plans, for a program for each of their sub-tasks, and for repairs.

    Attributes:
        pairs: the initial and the goal frame of expert episodes, ``uint8[H, W, 3]``; the first ``config.pairs`` are
            shown.
        seed: of the search: every request has its own seed, so that the same search asks the same again.
    """

    description: str
    pairs: Sequence[tuple[Frame, Frame]]
    client: VlmClient
    config: SynthesisConfig
    seed: int = 0
    progress: Progress = silent
    exhausted: str = "the model names no further plan that could be tried"

    def propose(self, tried: Tried) -> Iterator[Proposal]:
        """Programs, what fails being replaced where the report blames it.

        Answers that cannot be used are noted in ``tried``, never raised. Raises VlmError if the model fails; what it
        answered until then is in the client's recording, so that the next search with the same arguments goes on from
        there. Where the budget is spent, what was sampled already is tried in other combinations first.
        """
        author = Author(self.description, self.pairs, self.client, self.config, self.seed, self.progress, tried)
        drafts = _Drafts(author, tried)
        try:
            yield from drafts.over_plans()
        except BudgetSpentError:
            yield from drafts.over_variants()
            raise


class _Shelf:
    """The codes sampled for one sub-task, best first, and the one in use."""

    def __init__(self, codes: Sequence[str]) -> None:
        self.codes = list(codes)
        self.position = 0
        self.repairs = 0

    @property
    def code(self) -> str:
        return self.codes[self.position] if self.codes else ""

    def advance(self) -> bool:
        """Go on to the next code; False if there is none."""
        left = self.position + 1 < len(self.codes)
        self.position += left
        return left

    def restock(self, codes: Sequence[str]) -> bool:
        """Add the codes that are new and go on to the first of them; False if none is new."""
        new = [code for code in codes if code not in self.codes]
        if new:
            self.position = len(self.codes)
            self.codes += new
        return bool(new)


@dataclass(frozen=True)
class _Draft:
    """A plan with a shelf for each of its steps."""

    plan: Plan
    shelves: tuple[_Shelf, ...]

    def program(self) -> RewardProgram:
        return RewardProgram(
            subtasks=tuple(
                SubTask(name=step.name, description=step.description, code=shelf.code)
                for step, shelf in zip(self.plan.steps, self.shelves, strict=True)
            )
        )

    def variants(self) -> Iterator[RewardProgram]:
        """Programs with one sub-task's code exchanged for another sample, the last sub-task's first."""
        for shelf in reversed(self.shelves):
            chosen = shelf.position
            for position in range(len(shelf.codes)):
                shelf.position = position
                yield self.program()
            shelf.position = chosen


class _Drafts:
    """The drafts of one search."""

    def __init__(self, author: Author, tried: Tried) -> None:
        self._author, self._tried = author, tried
        self._planned: set[tuple[str, ...]] = set()
        self._unclear: list[_Draft] = []
        self._shelves: dict[tuple[int, int, str], _Shelf] = {}

    def over_plans(self) -> Iterator[Proposal]:
        """Programs for one plan after the other, until two requests in a row name no new one."""
        rejected, evidence = "", ""
        stale = 0
        while stale < 2:
            plans = [plan for plan in self._author.plans(rejected, evidence) if plan.key not in self._planned]
            if not plans:
                stale += 1
                evidence = evidence or self._author.complaints()
                yield from self.over_variants()
            for plan in plans:
                evidence = yield from self._develop(plan)
                rejected = str(plan)

    def over_variants(self) -> Iterator[Proposal]:
        """Where no single sub-task was to blame and no other plan is to be had, other samples may do; asks nothing."""
        for draft in self._unclear:
            for program in draft.variants():
                yield Proposal(program)

    def _develop(self, plan: Plan) -> Generator[Proposal, None, str]:
        """Write and mend programs for one plan; returns the evidence against the last."""
        self._planned.add(plan.key)
        shelves: list[_Shelf] = []
        for index in range(len(plan.steps)):
            shelves.append(self._shelf(plan, index))
            if not shelves[-1].codes:
                return self._author.complaints()
        draft = _Draft(plan, tuple(shelves))
        while True:
            program = draft.program()
            yield Proposal(program)
            report = self._tried.verdict(program)
            to_blame = [check.subtask for check in report.failed if check.subtask is not None]
            if not to_blame:
                self._unclear.append(draft)
                return report.evidence()
            index = min(to_blame)  # what comes later was judged on what this one let through
            evidence = report.evidence(index)
            if not shelves[index].advance() and not self._repaired(plan, index, shelves[index], evidence):
                return evidence

    def _shelf(self, plan: Plan, index: int) -> _Shelf:
        """Codes for one step, asked for once: plans that name the same step at the same place share them."""
        key = (index, len(plan.steps), plan.key[index])
        if key not in self._shelves:
            shelf = self._shelves[key] = _Shelf(self._author.codes(plan, index))
            if not shelf.codes:
                self._repaired(plan, index, shelf, self._author.complaints())
        return self._shelves[key]

    def _repaired(self, plan: Plan, index: int, shelf: _Shelf, evidence: str) -> bool:
        """Ask for better code; False if the model answers nothing new."""
        while shelf.repairs < MAX_REPAIRS:
            shelf.repairs += 1
            codes = self._author.codes(plan, index, shelf.code, evidence)
            if shelf.restock(codes):
                return True
            if codes:
                return False
        return False
