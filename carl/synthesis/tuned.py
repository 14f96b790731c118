"""Programs with other numbers in a function that failed: bounds, areas, distances, what is paid; asks nobody."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median_low

import numpy as np
from numpy.typing import NDArray

from carl.console.progress import Progress, silent
from carl.program import RewardProgram, SubTask
from carl.synthesis.damped import damped
from carl.synthesis.numbers import Number, numbers, replaced
from carl.synthesis.standing import standing, to_blame
from carl.synthesis.tried import Candidate, Proposal, Tried
from carl.verification.sample import Sample

MOST_NUMBERS = 4
"""Numbers that are tuned in one function."""

EVALUATIONS = 24
"""Programs that are looked at for one number, about."""

FACTOR = 4.0
"""A number is looked for between this part and this multiple of what was written."""

WORST = 1e3
"""Stands for infinity, which DIRECT does not take."""

TRIED = 2
"""Candidates that are tuned each time, those that got furthest."""


@dataclass(eq=False)
class Tuned:
    """Looks for numbers with which a program fails less, one after the other, by DIRECT (Jones, Perttunen and Stuckman
    1993).

    That is deterministic, starts from the number that was written, and needs no derivatives, which counts of episodes
    do not have. Each number is scaled by a power of ``FACTOR``.

    Attributes:
        sample: the episodes on which programs are compared, made when they are first needed.
    """

    sample: Callable[[], Sample]
    progress: Progress = silent
    name: str = "tune"
    exhausted: str = ""
    _tuned: set[tuple[str, ...]] = field(default_factory=set)

    def propose(self, tried: Tried) -> Iterator[Proposal | None]:
        """What got furthest, with the numbers that do best in the function to blame, or in the last one.

        Where all that is wrong is how much is paid for coming near, the check says how much less may be.
        """
        for candidate in sorted(tried.candidates, key=standing, reverse=True)[:TRIED]:
            less = damped(candidate)
            found = less if less is not None and less not in tried else self._better(candidate, tried)
            if found is not None:
                yield Proposal(found)

    def _better(self, candidate: Candidate, tried: Tried) -> RewardProgram | None:
        """The program with tuned numbers; None if it has none, was tuned before, or gets no better."""
        program, blamed = candidate.program, to_blame(candidate.verdict)
        index = len(program.subtasks) - 1 if blamed is None else blamed
        found = numbers(program.subtasks[index].code)[:MOST_NUMBERS]
        key = _key(program, index, found)
        if not found or key in self._tuned:
            return None
        self._tuned.add(key)
        self.sample().learn(candidate.verdict)
        chosen = _Scale(program, index, found, self.sample(), tried, self.progress).best()
        return None if chosen is None or chosen in tried else chosen


def _key(program: RewardProgram, index: int, found: Sequence[Number]) -> tuple[str, ...]:
    """Equal for programs that differ in the tuned numbers only."""
    codes = [subtask.code for subtask in program.subtasks]
    codes[index] = replaced(codes[index], found, [1.0] * len(found))
    return *codes, str(index)


class _Scale:
    """One program whose numbers are scaled."""

    def __init__(
        self,
        program: RewardProgram,
        index: int,
        found: Sequence[Number],
        sample: Sample,
        tried: Tried,
        progress: Progress,
    ) -> None:
        self._program, self._index, self._found = program, index, found
        self._sample, self._tried, self._progress = sample, tried, progress
        self._seen: dict[str, float] = {}

    def best(self) -> RewardProgram | None:
        """The program that fails least; None if none fails less than what was written."""
        chosen = [0.0] * len(self._found)
        written = self._against(chosen)
        for index in range(len(self._found)):
            if 0.0 < self._against(chosen) < WORST:
                chosen[index] = self._along(chosen, index)
        self._progress("tuning numbers", 1, 1)
        return self._scaled(chosen) if self._against(chosen) < written else None

    def _along(self, chosen: Sequence[float], index: int) -> float:
        """The best exponent of one number, the middle of several as good; what it is if none is better."""
        from scipy.optimize import direct

        looked_at: dict[float, float] = {}

        def against(where: NDArray[np.float64]) -> float:
            exponent = float(np.ravel(where)[0])
            looked_at[exponent] = self._against([*chosen[:index], exponent, *chosen[index + 1 :]])
            done = index + min(len(looked_at) / EVALUATIONS, 1.0)
            self._progress("tuning numbers", done, len(self._found))
            return looked_at[exponent]

        direct(against, [(-1.0, 1.0)], maxfun=EVALUATIONS, locally_biased=False)
        least = min(looked_at.values())
        if least >= self._against(chosen):
            return chosen[index]
        return float(median_low(exponent for exponent, found in looked_at.items() if found == least))

    def _against(self, exponents: Sequence[float]) -> float:
        """What speaks against the program with these numbers."""
        program = self._scaled(exponents)
        if program.id not in self._seen:
            self._tried.in_time()
            self._seen[program.id] = min(self._sample.against(program), WORST)
        return self._seen[program.id]

    def _scaled(self, exponents: Sequence[float]) -> RewardProgram:
        values = [number.value * FACTOR**power for number, power in zip(self._found, exponents, strict=True)]
        subtasks: list[SubTask] = list(self._program.subtasks)
        before = subtasks[self._index]
        subtasks[self._index] = before.model_copy(update={"code": replaced(before.code, self._found, values)})
        return self._program.model_copy(update={"subtasks": tuple(subtasks)})
