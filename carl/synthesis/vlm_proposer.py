"""Programs that a VLM writes: decompose, write, and repair what the gate's evidence speaks against."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from carl.config import SynthesisConfig
from carl.console.progress import Progress, silent
from carl.program import RewardProgram, SubTask
from carl.synthesis.author import Author
from carl.synthesis.failures import NONE, Findings
from carl.synthesis.parse import Plan, hold_of
from carl.synthesis.shown import Examples
from carl.synthesis.tried import BudgetSpentError, Proposal, Tried
from carl.vlm.client import VlmClient
from carl.vlm.prompts import PromptFile

MAX_REPAIRS = 2
"""Repair requests for one sub-task before the plan is given up."""


@dataclass(frozen=True, eq=False)
class VlmProposer:
    """Asks a VLM for plans, for a program for each of their sub-tasks, and for repairs.

    Attributes:
        examples: what is shown of recorded episodes.
        seed: of the search: every request has its own seed, so that the same search asks the same again.
        files: other prompts than this package's, by name.
    """

    description: str
    examples: Examples
    client: VlmClient
    config: SynthesisConfig
    seed: int = 0
    progress: Progress = silent
    files: Mapping[str, PromptFile] | None = None
    exhausted: str = "the model names no further plan that could be tried"

    def propose(self, tried: Tried) -> Iterator[Proposal]:
        """Programs, what fails being replaced where the report blames it.

        Answers that cannot be used are noted in ``tried``, never raised. Raises VlmError if the model fails; what it
        answered until then is in the client's recording, so that the next search with the same arguments goes on from
        there. Where the budget is spent, what was sampled already is tried in other combinations first.
        """
        asked = self.client, self.config, self.seed, self.progress, tried, self.files
        author = Author(self.description, self.examples, *asked)
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
                SubTask(name=step.name, description=step.description, code=shelf.code, hold=hold_of(shelf.code))
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
        rejected, findings = "", NONE
        stale = 0
        while stale < 2:
            plans = [plan for plan in self._author.plans(rejected, findings) if plan.key not in self._planned]
            if not plans:
                stale += 1
                findings = findings or Findings(self._author.complaints())
                yield from self.over_variants()
            for plan in plans:
                findings = yield from self._develop(plan)
                rejected = str(plan)

    def over_variants(self) -> Iterator[Proposal]:
        """Where no single sub-task was to blame and no other plan is to be had, other samples may do; asks nothing."""
        for draft in self._unclear:
            for program in draft.variants():
                yield Proposal(program)

    def _develop(self, plan: Plan) -> Generator[Proposal, None, Findings]:
        """Write and mend programs for one plan; returns what was found against the last."""
        self._planned.add(plan.key)
        shelves: list[_Shelf] = []
        for index in range(len(plan.steps)):
            shelves.append(self._shelf(plan, index, [shelf.code for shelf in shelves]))
            if not shelves[-1].codes:
                return Findings(self._author.complaints())
        draft = _Draft(plan, tuple(shelves))
        while True:
            program = draft.program()
            yield Proposal(program)
            report = self._tried.verdict(program)
            to_blame = [check.subtask for check in report.failed if check.subtask is not None]
            findings = Findings.of(report)
            if not to_blame:
                self._unclear.append(draft)
                return findings
            index = min(to_blame)  # what comes later was judged on what this one let through
            if not shelves[index].advance() and not self._mended(draft, index, findings):
                return findings

    def _shelf(self, plan: Plan, index: int, earlier: Sequence[str]) -> _Shelf:
        """Codes for one step, asked for once: plans that name the same step at the same place share them."""
        key = (index, len(plan.steps), plan.key[index])
        if key not in self._shelves:
            codes = self._author.codes(plan, index, earlier)
            for _ in range(MAX_REPAIRS):
                codes = codes or self._author.codes(plan, index, earlier, self._author.complaints())
            self._shelves[key] = _Shelf(codes)
        return self._shelves[key]

    def _mended(self, draft: _Draft, index: int, findings: Findings) -> bool:
        """Ask for better code, of all steps that fail for one reason; False if the model answers nothing new."""
        shelf = draft.shelves[index]
        while shelf.repairs < MAX_REPAIRS:
            shelf.repairs += 1
            answers = self._author.mended(draft.plan, index, [each.code for each in draft.shelves], findings)
            new = [
                each.restock([answer[step] for answer in answers if step in answer])
                for step, each in enumerate(draft.shelves)
            ]
            if any(new):
                return True
            if answers:
                return False
        return False
