"""Progress in between: something comes nearer to the thing that a milestone is about.

Nothing else is graded. Whatever merely goes along with an expert's way has a policy stay where that is largest.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from carl.induction.features import Distance
from carl.induction.milestones import Milestone
from carl.induction.table import Table

CAP = 0.5
"""The most that being near may pay."""

SHORTEST, MONOTONE, CONCORDANT = 3, 0.5, 0.7
"""Fewest frames on the way in half of the expert episodes. Least share of all changes of a distance that bring it
nearer in the end; and least share of pairs of episodes, equally far in time, of which the nearer is done sooner."""

FOR_NOTHING, LEAST = 0.015, 0.05
"""What other play may earn of a sub-task on average without getting it done, to which CAP is lowered; and a cap
that is worth its code."""

SOON = 3
"""Frames within which a milestone is near in time."""

Way = tuple[int, int]
"""Frames of one episode from where a milestone's turn comes to where it is reached; the last is not included."""


@dataclass(frozen=True)
class Grade:
    """Progress is ``cap`` where ``distance`` is 0, and 0 from ``far`` pixels on."""

    distance: Distance
    far: float
    cap: float


def grades(table: Table, milestones: Sequence[Milestone]) -> list[Grade | None]:
    """What is paid on the way to each of some milestones in order; None for nothing."""
    turns = table.first
    found: list[Grade | None] = []
    for milestone in milestones:
        reached = _reached(table, milestone, turns)
        found.append(_grade(table, milestone, turns, reached))
        turns = reached
    return found


def _reached(table: Table, milestone: Milestone, turns: NDArray[np.intp]) -> NDArray[np.intp]:
    """The first frame from the turn on in which it is reached, ``intp[E]``; N where it never is, or has no turn."""
    frames = table.values.shape[1]
    positions = np.where(milestone.holds(table), np.arange(frames), frames)
    ends = table.starts[1:]
    return np.array(
        [
            positions[turn:end].min() if turn < frames and turn < end else frames
            for turn, end in zip(turns, ends, strict=True)
        ]
    )


def _grade(table: Table, milestone: Milestone, turns: NDArray[np.intp], reached: NDArray[np.intp]) -> Grade | None:
    ways = [*zip(turns[: table.experts].tolist(), reached[: table.experts].tolist(), strict=True)]
    if np.median([end - start for start, end in ways]) < SHORTEST:
        return None
    rated = []
    for index, distance in _distances(table, milestone):
        values = table.values[index]
        far = float(np.nan_to_num(values[[start for start, _ in ways]], nan=0.0).max())
        if far <= 0:
            continue
        progress = np.nan_to_num(CAP * (1 - values / far), nan=0.0).clip(0, CAP)
        nearer, told = _monotone(progress, ways), _concordance(progress, ways)
        idle = _for_nothing(table, progress, turns, reached)
        cap = math.floor(100 * CAP * min(1.0, FOR_NOTHING / max(idle, 1e-6))) / 100
        if nearer >= MONOTONE and told >= CONCORDANT and cap >= LEAST:
            rated.append((told + nearer - 0.1 * distance.cost, Grade(distance, float(np.ceil(far)), cap)))
    return max(rated, key=lambda pair: pair[0])[1] if rated else None


def _distances(table: Table, milestone: Milestone) -> Iterator[tuple[int, Distance]]:
    """The distances in a table to the things that a milestone is about."""
    regions = {region for each in milestone.conditions for region in table.features[each.feature].regions}
    plain = {replace(region, boxed=False) for region in regions}
    for index, feature in enumerate(table.features):
        if isinstance(feature, Distance) and feature.where in plain and not feature.seen.exact:
            yield index, feature


def _monotone(progress: NDArray[np.float32], ways: Sequence[Way]) -> float:
    """What is gained on the way, as a share of all ups and downs."""
    gained = [float(progress[end - 1] - progress[start]) for start, end in ways if end > start]
    moved = [float(np.abs(np.diff(progress[start:end])).sum()) for start, end in ways if end > start]
    return float(np.sum(gained) / max(np.sum(moved), 1e-6))


def _concordance(progress: NDArray[np.float32], ways: Sequence[Way]) -> float:
    """Harrell's index (JAMA 247, 1982) over pairs of episodes equally long after the turn.

    Of one that is done within SOON frames and one that takes longer, the share in which the first shows more; 1 if
    there are no pairs.
    """
    told, pairs = 0.0, 0
    for elapsed in range(max(end - start for start, end in ways)):
        there = [(progress[start + elapsed], end - start - elapsed) for start, end in ways if end - start > elapsed]
        shown, left = (np.array(column, float) for column in zip(*there, strict=True))
        for near in np.flatnonzero(left <= SOON):
            gaps = shown[near] - shown[left > left[near]]
            told += float((gaps > 1e-9).sum() + 0.5 * (np.abs(gaps) <= 1e-9).sum())
            pairs += len(gaps)
    return told / pairs if pairs else 1.0


def _for_nothing(
    table: Table, progress: NDArray[np.float32], turns: NDArray[np.intp], reached: NDArray[np.intp]
) -> float:
    """What other play that has its turn and never gets it done earns, on average over all other episodes."""
    frames, earned = table.values.shape[1], 0.0
    others = range(table.experts, len(table.lengths))
    for episode in others:
        if turns[episode] < frames and reached[episode] >= frames:
            shown = progress[turns[episode] : table.starts[episode + 1]]
            earned += float(shown.max() - shown[0])
    return earned / max(len(others), 1)
