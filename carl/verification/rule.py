"""What a rule is: one property that a program has to have, and the episodes that show whether it has it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from carl.program import RewardProgram
from carl.verification.episode import Episode
from carl.verification.report import Check, Figure, FrameRef

FRAMES_SHOWN = 5
"""Frames that a failed check names."""


class Evidence(StrEnum):
    """The kinds of episodes that programs are judged on, in the order in which they are replayed.

    The value is the role that acted in them, ``Trajectory.role``; whether one of them solved the task is
    ``Trajectory.success``. Without the first two no program is accepted; a rule that needs others is not applied where
    there are none.
    """

    EXPERTS = "expert"
    """The task's expert; every episode solves the task."""
    RANDOMS = "random"
    """Actions drawn uniformly."""
    RESTING = "resting"
    """One and the same action throughout: each of a Discrete space in turn, zeros of a Box."""
    MIXED = "mixed"
    """Half-trained play: an expert with a share of random actions mixed in."""
    CUT = "cut"
    """An expert's actions up to some frame, then random ones, or those alone that change nothing (``Task.idle``)."""
    POLICY = "policy"
    """The trained policy's own."""

    @property
    def solved(self) -> bool:
        """Whether every episode of the kind solves its task."""
        return self is Evidence.EXPERTS

    @property
    def required(self) -> bool:
        """Whether no program is accepted without episodes of the kind."""
        return self in (Evidence.EXPERTS, Evidence.RANDOMS)


@dataclass(frozen=True)
class Case:
    """A program, and what it made of the episodes that have been replayed so far.

    After an abstain no further episodes of that kind are replayed, and those of its batch break off there.
    """

    program: RewardProgram
    episodes: Mapping[Evidence, Sequence[Episode]] = field(default_factory=dict)
    step_seconds: float | None = None
    """What a step of the environment takes with its picture, in wall-clock seconds: the median over the episodes that
    were shown. None where it was not measured while they were recorded."""

    @property
    def experts(self) -> Sequence[Episode]:
        """Expert episodes; empty before they are replayed."""
        return self.episodes.get(Evidence.EXPERTS, ())

    @property
    def randoms(self) -> Sequence[Episode]:
        """Episodes of random play; empty before they are replayed."""
        return self.episodes.get(Evidence.RANDOMS, ())

    @property
    def everything(self) -> Sequence[Episode]:
        """The episodes of every kind, cheapest kind first."""
        return [episode for kind in Evidence for episode in self.episodes.get(kind, ())]

    def named(self, subtask: int) -> str:
        """How messages call a sub-task (from 0)."""
        return f"sub-task {subtask + 1} ({self.program.subtasks[subtask].name!r})"


class Rule(ABC):
    """One property that a program has to have. A rule is a pure function of its case.

    Attributes:
        name: of its checks.
        needs: evidence without which the rule is not applied, which the report says; it is applied when all of that is
            there, and anew when more is. Empty: the code alone is judged, once.
        decisive: whether a failure leaves nothing that the rules listed after it could judge.
        varies: whether it looks at what a program makes of frames that look a little different.
    """

    name: str
    needs: frozenset[Evidence] = frozenset()
    decisive: bool = False
    varies: bool = False

    @abstractmethod
    def judge(self, case: Case) -> list[Check]:
        """One check that passed, or one that failed for every sub-task to blame (None: for the plan as a whole)."""

    def passed(self, message: str, figures: Mapping[str, Figure]) -> Check:
        """The check of a program that has the property."""
        return Check(name=self.name, passed=True, message=message, figures={**figures})

    def failed(
        self,
        message: str,
        figures: Mapping[str, Figure],
        subtask: int | None = None,
        frames: Sequence[FrameRef] = (),
    ) -> Check:
        """The check of a program that lacks it; of the deciding ``frames`` the first ``FRAMES_SHOWN`` are kept."""
        return Check(
            name=self.name,
            passed=False,
            message=message,
            subtask=subtask,
            figures={**figures},
            frames=tuple(frames[:FRAMES_SHOWN]),
        )


def deciding(episode: Episode, step: int, subtask: int | None, expected: str, got: str) -> FrameRef:
    """A reference to the frame at ``step`` of an episode."""
    return FrameRef(source=episode.source, seed=episode.seed, step=step, subtask=subtask, expected=expected, got=got)
