"""Degrees judged as degrees: partial progress has to grow with how near a sub-task is, also off an expert's way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carl.verification.episode import Episode
from carl.verification.report import Check, Figure, FrameRef
from carl.verification.rule import Case, Evidence, Rule, deciding

SOON = 3
"""Frames within which a sub-task gets done that is near."""

CONCORDANT = 0.6
"""Least share of pairs in which what is nearer shows more progress. On 60 experts and 45 half-trained episodes each of
DoorKey-6x6, DoorKey-8x8, Unlock and UnlockPickup the distance to a sub-task's own object has 0.68 to 0.97; of a program
graded by something else (changed pixels, the agent's column or row, another object, a corner, having moved) some
sub-task has at most 0.53."""

CONCORDANT_NEAR_MISS = 0.5
"""That share among cut episodes, of which a third come as near as those that get it done, and no nearer: distances have
0.59 to 0.87 there. A film of a policy is as few episodes of any kind, and judged by the same."""

FEWEST = 100
"""Pairs below which nothing is said."""

SLIGHT = 0.05
"""Partial progress that is not looked at: it is as good as none."""


@dataclass(frozen=True)
class Concordance:
    """How well a sub-task's progress tells who is nearer to it.

    Attributes:
        share: of the pairs in which the nearer one showed more progress; equal progress counts half.
        pairs: how many there were.
        worst: the pairs that were told worst: (gap, frame far from done, frame near to it), each an episode and a step.
    """

    share: float
    pairs: int
    worst: tuple[tuple[float, tuple[Episode, int], tuple[Episode, int]], ...] = ()


@dataclass(frozen=True)
class _AtRisk:
    """Episodes whose sub-task was active for equally long and not done: progress, frames till done and till the end."""

    episodes: Sequence[Episode]
    shown: NDArray[np.float64]
    left: NDArray[np.float64]
    seen: NDArray[np.float64]


def graded(case: Case, subtask: int) -> bool:
    """Whether a sub-task has paid partial progress worth looking at."""
    return any(episode.tracks[subtask].part > SLIGHT for episode in case.everything)


def least(kind: Evidence) -> float:
    """The least share of pairs of episodes of a kind in which progress that tells who is nearer is the larger one."""
    return CONCORDANT_NEAR_MISS if kind in (Evidence.CUT, Evidence.POLICY) else CONCORDANT


def concordance(episodes: Sequence[Episode], subtask: int) -> Concordance:
    """Harrell's index of concordance (JAMA 247, 1982) for progress that changes with time.

    Compared are episodes in which the sub-task has been active for equally many frames, as in Cox's risk sets (Journal
    of the Royal Statistical Society B 34, 1972), so that a timer tells nothing: one in which it is done within ``SOON``
    frames, and one in which it takes longer, or is not done while it is watched.
    """
    told, pairs, worst = 0.0, 0, []
    for elapsed, risk in _risk_sets(episodes, subtask):
        near = np.flatnonzero(risk.left <= SOON)
        for one in near.tolist():
            far = np.flatnonzero((risk.left > risk.left[one]) & (risk.seen >= risk.left[one]))
            gaps = risk.shown[far] - risk.shown[one]
            told += float((gaps < -1e-9).sum() + 0.5 * (abs(gaps) <= 1e-9).sum())
            pairs += len(far)
            if len(far) and gaps.max() >= 0:
                worst.append(
                    (
                        float(gaps.max()),
                        _at(risk, far[gaps.argmax()], subtask, elapsed),
                        _at(risk, one, subtask, elapsed),
                    )
                )
    worst = sorted(worst, key=lambda pair: -pair[0])[:2]
    return Concordance(told / pairs if pairs else 0.0, pairs, tuple(worst))


def _risk_sets(episodes: Sequence[Episode], subtask: int) -> Iterator[tuple[int, _AtRisk]]:
    """For every number of frames since the sub-task became active, the episodes in which it is not done yet."""
    tracks = [(episode, episode.tracks[subtask]) for episode in episodes if episode.tracks[subtask].shown]
    for elapsed in range(max((len(track.shown) for _, track in tracks), default=0)):
        there = [(one, track) for one, track in tracks if len(track.shown) > elapsed + track.done]
        seen = np.array([len(track.shown) - 1.0 - elapsed for _, track in there])
        done = np.array([track.done for _, track in there], dtype=bool)
        shown = np.array([track.shown[elapsed] for _, track in there])
        yield elapsed, _AtRisk([one for one, _ in there], shown, np.where(done, seen, np.inf), seen)


def _at(risk: _AtRisk, index: int, subtask: int, elapsed: int) -> tuple[Episode, int]:
    episode = risk.episodes[index]
    return episode, episode.tracks[subtask].active_at + elapsed


class Degrees(Rule):
    """Partial progress tells who is nearer to a sub-task, in episodes of one kind; what pays none is not looked at.

    Progress by something that merely goes along with an expert's way has a policy stay where that is largest.
    """

    def __init__(self, kind: Evidence) -> None:
        self.name, self.needs = f"degrees_{kind}", frozenset({kind})
        self._kind, self._least = kind, least(kind)

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task whose progress misleads."""
        paid = [index for index in range(len(case.program.subtasks)) if graded(case, index)]
        found = {index: concordance(case.episodes[self._kind], index) for index in paid}
        said = {index: one for index, one in found.items() if one.pairs >= FEWEST}
        failed = [self._refused(case, index, one) for index, one in said.items() if one.share < self._least]
        figures: dict[str, Figure] = {"concordance": [one.share for one in said.values()], "least": self._least}
        figures |= {"graded": len(paid), "compared": len(said)}
        return failed or [self.passed(self._praise(len(paid), len(said)), figures)]

    def _praise(self, paid: int, said: int) -> str:
        if not paid:
            return f"at most {SLIGHT:g} is paid in part, too little to mislead"
        if not said:
            return f"{self._kind} episodes differ too little to say whether partial progress tells who is nearer"
        return f"partial progress grows with how near a sub-task is, in {self._kind} episodes"

    def _refused(self, case: Case, index: int, found: Concordance) -> Check:
        message = (
            f"misread: the partial progress of {case.named(index)} does not tell who is nearer. Of {found.pairs} pairs "
            f"of {self._kind} frames, equally long after its turn came, the one that gets it done within {SOON} frames "
            f"shows more in {found.share:.0%}; {self._least:.0%} are needed. Measure what the sub-task is about, or "
            "show 0 until it is done"
        )
        figures: dict[str, Figure] = {"concordance": found.share, "pairs": found.pairs, "least": self._least}
        refs = [ref for _, far, near in found.worst for ref in _told_wrongly(far, near, index)]
        return self.failed(message, figures, index, refs)


def _told_wrongly(far: tuple[Episode, int], near: tuple[Episode, int], subtask: int) -> Iterator[FrameRef]:
    """The two frames of a pair in which the farther one showed no less."""
    track = near[0].tracks[subtask]
    values = [one.tracks[subtask].shown[step - one.tracks[subtask].active_at] for one, step in (far, near)]
    yield deciding(*far, subtask, f"less than {values[1]:.4g}, as it is far from done", f"{values[0]:.4g}")
    left = track.done_at - near[1]
    yield deciding(*near, subtask, f"more than {values[0]:.4g}, as it is done {left} frames later", f"{values[1]:.4g}")
