"""Single sub-tasks that failed, found in the episodes without a model; asks nobody."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from carl.config import InductionConfig
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.induction import induce_step
from carl.program import RewardProgram
from carl.synthesis.standing import furthest, to_blame
from carl.synthesis.tried import Proposal, Tried
from carl.verification.rule import Evidence
from carl.verification.sample import Sample

FEWEST = 8
"""Expert episodes that have to show where the sub-task begins and ends."""

LOOKED_AT, PROPOSED = 24, 3
"""Functions that are compared, and programs that are proposed, for one sub-task."""


@dataclass(eq=False)
class StepInduction:
    """Exchanges the function to blame in the program that got furthest for one that ``carl.induction`` finds.

    The sub-task begins where the one before it is done. It ends where the function that failed has it done, which may
    be wrong in some episodes only; the last sub-task ends with the episode.

    Attributes:
        sample: the episodes on which functions are compared, made when they are first needed.
    """

    sample: Callable[[], Sample]
    config: InductionConfig = field(default_factory=InductionConfig)
    progress: Progress = silent
    name: str = "step"
    exhausted: str = ""
    _looked: set[tuple[str, ...]] = field(default_factory=set)

    def propose(self, tried: Tried) -> Iterator[Proposal | None]:
        """The programs that fail least with another function, if that is less than now."""
        best = furthest(tried.candidates)
        if best is None or not best.verdict.failed:
            return
        program, blamed = best.program, to_blame(best.verdict)
        index = len(program.subtasks) - 1 if blamed is None else blamed
        key = (str(index), *(subtask.code for subtask in program.subtasks))
        if key in self._looked:
            return
        self._looked.add(key)
        for other in self._others(program, index, tried):
            yield Proposal(other)

    def _others(self, program: RewardProgram, index: int, tried: Tried) -> list[RewardProgram]:
        sample, now = self.sample(), self.sample().against(program)
        found = []
        for other in self._induced(program, index):
            tried.in_time()
            if (against := sample.against(other)) < now:
                found.append((against, other))
        return [other for _, other in sorted(found, key=lambda pair: pair[0])[:PROPOSED]]

    def _induced(self, program: RewardProgram, index: int) -> list[RewardProgram]:
        """The program with other functions for one sub-task, which keeps its name."""
        since, until, experts = self._ends(program, index)
        if len(experts) < FEWEST:
            return []
        sample = self.sample()
        others = [one for one, solved in zip(sample.episodes, sample.solved, strict=True) if not solved]
        induced = induce_step(experts, others, since, until, settings=self.config, progress=self.progress)
        return [_with(program, index, each) for each in induced.programs[:LOOKED_AT]]

    def _ends(self, program: RewardProgram, index: int) -> tuple[list[int], list[int], list[Trajectory]]:
        """Where the sub-task begins and where it ends, in the expert episodes that show both."""
        sample = self.sample()
        played = sample.play(program)
        if played is None:
            return [], [], []
        last = index + 1 == len(program.subtasks)
        begins = played.done_at[:, index - 1] if index else np.zeros_like(sample.steps)
        ends = sample.steps if last else played.done_at[:, index]
        of_experts = np.array([kind is Evidence.EXPERTS for kind in sample.kinds])
        rows = np.flatnonzero(of_experts & (begins >= 0) & (ends > begins))
        return begins[rows].tolist(), ends[rows].tolist(), [sample.episodes[row] for row in rows]


def _with(program: RewardProgram, index: int, found: RewardProgram) -> RewardProgram:
    """``program`` with the function of a program of one sub-task in the place of its own."""
    subtasks = list(program.subtasks)
    new, old = found.subtasks[0], subtasks[index]
    words = f"{new.name}: {new.description}" if new.description else new.name
    subtasks[index] = new.model_copy(update={"name": old.name, "description": words, "weight": old.weight})
    return program.model_copy(update={"subtasks": tuple(subtasks)})
