"""Programs that a search without a model found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from carl.config import InductionConfig
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.induction import Unseen, induce, mingled
from carl.synthesis.tried import Proposal, Tried


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

    def propose(self, tried: Tried) -> Iterator[Proposal]:  # noqa: ARG002  it learns nothing from verdicts
        """The programs. The same episodes give the same ones, so a search that was stopped is repeated."""
        (experts, experts2), (randoms, randoms2), (others, others2) = (
            _split(episodes) for episodes in (self.experts, self.randoms, self.others)
        )
        unseen = Unseen(experts2, mingled(others2, randoms2))
        settings, progress = self.config, self.progress
        induced = induce(experts, randoms, others=others, unseen=unseen, settings=settings, progress=progress)
        self.exhausted = induced.refusal or (
            f"none of the {len(induced.programs)} programs that were found without a model is accepted"
        )
        for program in induced.programs:
            yield Proposal(program)


def _split(episodes: Iterable[Trajectory]) -> tuple[list[Trajectory], list[Trajectory]]:
    """The first two thirds, rounded up, and the others."""
    every = [*episodes]
    count = -(-2 * len(every) // 3)
    return every[:count], every[count:]
