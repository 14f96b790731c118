"""The order in which a model is asked: plans compared by what the gate finds, and repairs where they bring most."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from carl.program import RewardProgram, SubTask
from carl.synthesis.author import Author
from carl.synthesis.failures import NONE, WEAK, Findings
from carl.synthesis.parse import Plan, Step, hold_of
from carl.synthesis.standing import Standing, furthest, standing, to_blame, weakness
from carl.synthesis.tried import Candidate, Proposal, Tried, named

MAX_REPAIRS = 2
"""Repair requests for one sub-task before the plan is given up."""

Steps = Generator[Proposal | None, None, None]
"""Programs to judge; None before a request."""


class _Shelf:
    """The codes for one sub-task, best first, and the one in use."""

    def __init__(self, codes: Sequence[str]) -> None:
        self.codes = list(codes)
        self.position = 0
        self.repairs = 0

    @property
    def code(self) -> str:
        return self.codes[self.position] if self.codes else ""

    def use(self, code: str) -> None:
        """Go on with this code, which may be another proposer's."""
        if code not in self.codes:
            self.codes.append(code)
        self.position = self.codes.index(code)

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


@dataclass(eq=False)
class _Draft:
    """A plan with a shelf for each of its steps, and what came of its latest program.

    Attributes:
        blamed: the sub-task that would be repaired; None if no single one is to blame.
        closed: whether the model had nothing new to say to a repair.
    """

    plan: Plan
    shelves: tuple[_Shelf, ...]
    findings: Findings = NONE
    blamed: int | None = None
    closed: bool = False

    @property
    def open(self) -> bool:
        """Whether a repair may bring something new."""
        return self.blamed is not None and not self.closed

    @property
    def mendable(self) -> bool:
        """Whether a repair is due before other plans are asked for."""
        return self.open and self.shelves[self.blamed or 0].repairs < MAX_REPAIRS

    def program(self) -> RewardProgram:
        return RewardProgram(subtasks=tuple(map(_subtask, self.plan.steps, (shelf.code for shelf in self.shelves))))

    def variants(self) -> Iterator[RewardProgram]:
        """Programs with one sub-task's code exchanged for another sample, the last sub-task's first."""
        for shelf in reversed(self.shelves):
            chosen = shelf.position
            for position in range(len(shelf.codes)):
                shelf.position = position
                yield self.program()
            shelf.position = chosen


@dataclass(eq=False)
class Drafts:
    """The drafts of one search.

    Attributes:
        written: in the order in which they were.

    Of the plans of a request the one with the most votes is written first. It is repaired for as long as every repair
    brings it further; after one that does not, the next plan is written, and what got furthest of all that were
    written is repaired next.
    """

    author: Author
    tried: Tried
    written: list[_Draft] = field(default_factory=list)
    _planned: set[tuple[str, ...]] = field(default_factory=set)
    _unclear: list[_Draft] = field(default_factory=list)
    _shelves: dict[tuple[int, int, str], _Shelf] = field(default_factory=dict)

    def over_plans(self) -> Iterator[Proposal | None]:
        """Programs for one plan after the other, until two requests in a row name no new one."""
        rejected, findings = "", NONE
        stale = 0
        while stale < 2:
            yield None
            plans = [plan for plan in self.author.plans(rejected, findings) if plan.key not in self._planned]
            if plans:
                rejected, findings = yield from self._over(plans)
            else:
                stale += 1
                findings = findings or Findings(self.author.complaints())
                yield from self.over_variants()
        yield from self._insist()

    def over_variants(self) -> Iterator[Proposal]:
        """Where no single sub-task was to blame and no other plan is to be had, other samples may do; asks nothing."""
        for draft in self._unclear:
            for program in draft.variants():
                yield Proposal(program)

    def _insist(self) -> Steps:
        """Where no plan is left, repair what got furthest for as long as the model answers anything new."""
        while open_drafts := [draft for draft in self.written if draft.open]:
            draft = max(open_drafts, key=self._standing)
            draft.shelves[draft.blamed or 0].repairs -= 1
            yield from self._mend(draft)

    def _over(self, plans: Sequence[Plan]) -> Generator[Proposal | None, None, tuple[str, Findings]]:
        """Write and repair programs for ``plans``; returns the one that got furthest, and what was found against it."""
        left, written = list(plans), list[_Draft]()
        stalled = True
        while left or any(draft.mendable for draft in written):
            open_drafts = [draft for draft in written if draft.mendable]
            if left and (stalled or not open_drafts):
                written.append(draft := _Draft(left.pop(0), ()))
                self.written.append(draft)
                yield from self._write(draft)
                stalled = False
                continue
            draft = max(open_drafts, key=self._standing)
            before = self._standing(draft)
            yield from self._mend(draft)
            stalled = self._standing(draft) <= before
        best = max(written, key=self._standing)
        return str(best.plan), self._questioned(best)

    def _questioned(self, draft: _Draft) -> Findings:
        """What was found against a draft, and that random play hardly reaches its first sub-task, if so."""
        best = self._best(draft)
        weak = weakness(best.verdict) or weakness(best.report) if best else ""
        return draft.findings.beside(f"{WEAK.capitalize()}: {weak}" if weak else "")

    def _best(self, draft: _Draft) -> Candidate | None:
        """The candidate with the sub-tasks of a draft that got furthest, whoever proposed it."""
        alike = [one for one in self.tried.candidates if _key(one.program) == draft.plan.key]
        return furthest(alike)

    def _standing(self, draft: _Draft) -> Standing:
        best = self._best(draft)
        return standing(best) if best else (False, False, -1, 0.0, 0, 0.0)

    def _write(self, draft: _Draft) -> Steps:
        """Have each step of the plan written and try what came; without code for one of them there is no program."""
        self._planned.add(draft.plan.key)
        shelves: list[_Shelf] = []
        yield None
        for index in range(len(draft.plan.steps)):
            shelves.append(self._shelf(draft.plan, index, [shelf.code for shelf in shelves]))
            if not shelves[-1].codes:
                draft.findings = Findings(self.author.complaints())
                return
        draft.shelves = tuple(shelves)
        yield from self._try(draft)

    def _try(self, draft: _Draft) -> Steps:
        """Propose the program in use and, as long as the sub-task to blame has another sample, the next."""
        while True:
            program = draft.program()
            yield Proposal(program)
            blamed = to_blame(self.tried.verdict(program))
            if blamed is None:
                self._unclear.append(draft)
            if blamed is None or not draft.shelves[blamed].advance():
                break
        self._settle(draft)

    def _settle(self, draft: _Draft) -> None:
        """Go back to what got furthest with this plan, whoever proposed it."""
        if best := self._best(draft):
            for shelf, subtask in zip(draft.shelves, best.program.subtasks, strict=True):
                shelf.use(subtask.code)
            draft.blamed = to_blame(best.verdict)
            draft.findings = Findings.of(best.verdict)

    def _mend(self, draft: _Draft) -> Steps:
        """Ask for better code where the report blames it, once no other proposer brings the plan further."""
        before = draft.program()
        yield None
        self._settle(draft)
        if draft.program() != before:
            yield from self._try(draft)
        index = draft.blamed
        if index is None or not draft.mendable:
            return
        if self._repaired(draft, index):
            yield from self._try(draft)
        else:
            draft.closed = True
            draft.findings = draft.findings.beside(self.author.unfit())

    def _shelf(self, plan: Plan, index: int, earlier: Sequence[str]) -> _Shelf:
        """Codes for one step, asked for once: plans that name the same step at the same place share them."""
        key = (index, len(plan.steps), plan.key[index])
        if key not in self._shelves:
            codes = self.author.codes(plan, index, earlier)
            for _ in range(MAX_REPAIRS):
                codes = codes or self.author.codes(plan, index, earlier, self.author.complaints())
            self._shelves[key] = _Shelf(codes)
            self._offer(plan, index, codes)
        return self._shelves[key]

    def _repaired(self, draft: _Draft, index: int) -> bool:
        """Ask for better code, of all steps that fail for one reason; False if the model answers nothing new, or that
        there can be none."""
        shelf = draft.shelves[index]
        while shelf.repairs < MAX_REPAIRS:
            shelf.repairs += 1
            answers = self.author.mended(draft.plan, index, [each.code for each in draft.shelves], draft.findings)
            new = False
            for step, each in enumerate(draft.shelves):
                codes = [answer[step] for answer in answers if step in answer]
                self._offer(draft.plan, step, codes)
                new |= each.restock(codes)
            if new or answers or self.author.unfit():
                return new
        return False

    def _offer(self, plan: Plan, index: int, codes: Sequence[str]) -> None:
        self.tried.offer(*(_subtask(plan.steps[index], code) for code in codes))


def _subtask(step: Step, code: str) -> SubTask:
    return SubTask(name=step.name, description=step.description, code=code, hold=hold_of(code))


def _key(program: RewardProgram) -> tuple[str, ...]:
    """As ``Plan.key``."""
    return tuple(named(subtask.name) for subtask in program.subtasks)
