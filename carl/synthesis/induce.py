"""Programs that a search without a model found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from carl.config import InductionConfig
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.induction import induce
from carl.synthesis.tried import Proposal, Tried


@dataclass(eq=False)
class InductionProposer:
    """Proposes the programs of ``carl.induction``, best first.

    The search runs when the first program is asked for. A third of each kind of episodes takes no part in it: the gate,
    which judges all of them, selects.

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
        parts = [_two_thirds(episodes) for episodes in (self.experts, self.randoms, self.others)]
        induced = induce(parts[0], parts[1], others=parts[2], settings=self.config, progress=self.progress)
        self.exhausted = induced.refusal or (
            f"none of the {len(induced.programs)} programs that were found without a model is accepted"
        )
        for program in induced.programs:
            yield Proposal(program)


def _two_thirds(episodes: Iterable[Trajectory]) -> list[Trajectory]:
    every = [*episodes]
    return every[: -(-2 * len(every) // 3)]
