"""Programs of the functions that did best, each for its sub-task, in all samples and plans; asks nobody."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from carl.program import RewardProgram, SubTask
from carl.synthesis.standing import standing
from carl.synthesis.tried import Proposal, Tried, named
from carl.verification.sample import Sample

PLANS = 4
"""Plans that are pooled for, those that got furthest."""

BEAM = 4
"""Beginnings of a program that are kept, and programs that are proposed for one plan."""


@dataclass(eq=False)
class Pooled:
    """Puts a program together from functions that were written for a step of the same name, or for the step at the same
    place of a plan with as many.

    Attributes:
        sample: the episodes on which functions are compared, made when they are first needed.
    """

    sample: Callable[[], Sample]
    name: str = "pool"
    exhausted: str = ""
    _pooled: set[tuple[str, ...]] = field(default_factory=set)

    def propose(self, tried: Tried) -> Iterator[Proposal | None]:
        """The best programs that were not tried, of the plans that got furthest, best first."""
        for plan, furthest in _plans(tried).items():
            pools = [_pool(tried, furthest, index) for index in range(len(plan))]
            key = (*plan, *(each.code for pool in pools for each in pool))
            if key in self._pooled or all(len(pool) == 1 for pool in pools):
                continue
            self._pooled.add(key)
            for one in tried.candidates[-BEAM:]:
                self.sample().learn(one.verdict)
            for program in self._best(pools, tried):
                yield Proposal(program)

    def _best(self, pools: Sequence[Sequence[SubTask]], tried: Tried) -> list[RewardProgram]:
        """At most ``BEAM`` programs that are no worse than those of them that were tried."""
        sample, kept = self.sample(), [list[SubTask]()]
        for index, pool in enumerate(pools):
            tried.in_time()
            ways = [[*way, each] for way in kept for each in pool]
            kept = sorted(ways, key=lambda way: _rank(sample, way, index + 1 < len(pools)))[:BEAM]
        programs = [RewardProgram(subtasks=tuple(way)) for way in kept]
        bound = min((sample.against(each) for each in programs if each in tried), default=float("inf"))
        return [each for each in programs if each not in tried and sample.against(each) <= bound]


def _rank(sample: Sample, way: Sequence[SubTask], prefix: bool) -> tuple[float, float]:
    program = RewardProgram(subtasks=tuple(way))
    return sample.against(program, prefix), sample.rarity(program)


def _plans(tried: Tried) -> dict[tuple[str, ...], RewardProgram]:
    """By the names of its sub-tasks the program of each plan that got furthest; the plans that got furthest first."""
    programs = [one.program for one in sorted(tried.candidates, key=standing, reverse=True)]
    plans: dict[tuple[str, ...], RewardProgram] = {}
    for program in programs:
        plans.setdefault(tuple(named(subtask.name) for subtask in program.subtasks), program)
    return dict(list(plans.items())[:PLANS])


def _pool(tried: Tried, program: RewardProgram, index: int) -> list[SubTask]:
    """The functions for a sub-task under its name, in the order in which they were written; each code once."""
    own = program.subtasks[index]
    alike = list(tried.functions.get(named(own.name), {}).values())
    alike += [
        one.program.subtasks[index] for one in tried.candidates if len(one.program.subtasks) == len(program.subtasks)
    ]
    called = {"name": own.name, "description": own.description, "weight": own.weight}
    return [each.model_copy(update=called) for each in {each.code: each for each in reversed(alike)}.values()][::-1]
