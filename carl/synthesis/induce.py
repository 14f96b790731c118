"""Programs that a search without a model found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from carl.config import InductionConfig
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.induction import Unseen, induce, mingled
from carl.program import RewardProgram
from carl.synthesis.tried import Proposal, Tried

Beginning = tuple[str, ...]
"""Names of the first sub-tasks of a program."""

GRADED = ("degrees_", "for_nothing_", "cost", "abstains", "deterministic", "stable")
"""Checks that a program may fail for what it pays on the way."""


@dataclass(eq=False)
class InductionProposer:
    """Proposes the programs of ``carl.induction``, best first.

    The search runs when the first program is asked for, on two thirds of each kind of episodes. The last third ranks
    what it found. Whatever accepts a program has to judge it on episodes of its own: held-out ones.

    Attributes:
        experts, randoms, others: the episodes of the search; ``others`` are what else there is, such as experts with
            random actions mixed in.
        exhausted: why there are no more programs.
    """

    experts: Iterable[Trajectory]
    randoms: Iterable[Trajectory]
    others: Iterable[Trajectory] = ()
    config: InductionConfig = field(default_factory=InductionConfig)
    progress: Progress = silent
    name: str = "induction"
    exhausted: str = field(default="the search without a model was not asked", init=False)

    def propose(self, tried: Tried) -> Iterator[Proposal]:
        """The programs, but for those that begin as one that was refused: with the sub-tasks up to the one to blame.

        The same episodes give the same programs, so a search that was stopped is repeated.
        """
        (experts, experts2), (randoms, randoms2), (others, others2) = (
            _split(episodes) for episodes in (self.experts, self.randoms, self.others)
        )
        unseen = Unseen(experts2, mingled(others2, randoms2))
        progress = partial(self._within, tried)
        induced = induce(experts, randoms, others=others, unseen=unseen, settings=self.config, progress=progress)
        self.exhausted = induced.refusal or (
            f"none of the {len(induced.programs)} programs that were found without a model is accepted"
        )
        refused: set[Beginning] = set()
        for program in induced.programs:
            names = _names(program)
            if not any(names[: len(each)] == each for each in refused):
                yield Proposal(program)
                refused |= _blamed(program, tried)

    def _within(self, tried: Tried, label: str, done: float, total: float | None = None) -> None:
        """Report progress, unless the seconds of the budget are used up."""
        tried.in_time()
        self.progress(label, done, total)


def _names(program: RewardProgram) -> Beginning:
    return tuple(subtask.name for subtask in program.subtasks)


def _blamed(program: RewardProgram, tried: Tried) -> set[Beginning]:
    """The beginnings of a program for which it was refused, whatever is paid on the way: its conditions have the same
    names with and without."""
    if program not in tried:
        return set()
    failed = [check for check in tried.verdict(program).failed if not check.name.startswith(GRADED)]
    names = _names(program)
    return {names if check.subtask is None else names[: check.subtask + 1] for check in failed}


def _split(episodes: Iterable[Trajectory]) -> tuple[list[Trajectory], list[Trajectory]]:
    """The first two thirds, rounded up, and the others."""
    every = [*episodes]
    count = -(-2 * len(every) // 3)
    return every[:count], every[count:]
