"""Milestones: conditions on features that are false at the start and become true on the way to success."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from carl.induction.features import AT_LEAST, AT_MOST
from carl.induction.table import Table

CUTS = 3
"""Thresholds that are tried for a feature, in the widest gaps between its values."""

CONTINUOUS = 12
"""A feature with more values on the way is continuous: quantiles are tried as well."""

VISIBLE = 0.015
"""The smallest share of a thing that tells what becomes of it; less may be what moves past it."""

MOST_CONDITIONS = 4
SINGLES, POOL, SEEDS, ENOUGH = 60, 400, 25, 60
"""Final milestones of one condition that are kept; how many conditions, of how many milestones, are joined."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Condition:
    """A feature of a table that is at least or at most a threshold.

    Attributes:
        margin: width of the gap between values around the threshold, as a share of all values' span.
    """

    feature: int
    sense: int
    threshold: float
    margin: float


@dataclass(frozen=True)
class Milestone:
    """Conditions that all hold when it is reached."""

    conditions: tuple[Condition, ...]

    @cached_property
    def margin(self) -> float:
        """The narrowest of its conditions'."""
        return min(condition.margin for condition in self.conditions)

    def cost(self, table: Table) -> float:
        """The sum of its features'."""
        return float(sum(table.costs[condition.feature] for condition in self.conditions))

    def holds(self, table: Table) -> Mask:
        """In which frames it is reached, ``bool[N]``."""
        return np.asarray(np.logical_and.reduce([_holds(table, condition) for condition in self.conditions]))


def _holds(table: Table, condition: Condition) -> Mask:
    values = table.values[condition.feature]
    above = values >= condition.threshold if condition.sense == AT_LEAST else values <= condition.threshold
    return np.asarray(above)


def between(low: float, high: float) -> float:
    """The number with the fewest digits in the middle half of an interval."""
    middle, allowed = (low + high) / 2, (high - low) / 4
    for digits in range(-math.floor(math.log10(abs(allowed) + 1e-12)) - 1, 12):
        value = round(middle, digits)
        if abs(value - middle) <= allowed:
            return float(value)
    return middle


def intermediate(table: Table) -> list[Milestone]:
    """Those of one condition on a thing that no initial frame fulfils, and some frame of every expert episode does."""
    found = []
    for feature, sense, values in _signed(table):
        if not table.features[feature].eventful:
            continue
        start = values[table.first].max()
        ends = table.starts[: table.experts]
        top = np.maximum.reduceat(values[: table.starts[table.experts]], ends).min()
        span = float(table.spans[feature])
        if not top > start + 0.02 * span:
            continue
        low = start if np.isfinite(start) else values[np.isfinite(values)].min() - 0.05 * span
        on_the_way = np.unique(np.append(values[(values > low) & (values <= top)], low))
        found += [
            Milestone((condition,))
            for condition in _cuts(feature, sense, on_the_way, span)
            if sense * condition.threshold >= low + VISIBLE
        ]
    return found


def _signed(table: Table) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Each feature in both senses, so that more is nearer; no value is minus infinity."""
    for feature, values in enumerate(table.values):
        for sense in (AT_LEAST, AT_MOST):
            yield feature, sense, np.nan_to_num(sense * values, nan=-np.inf, neginf=-np.inf)


def _cuts(feature: int, sense: int, values: NDArray[np.float32], span: float) -> Iterator[Condition]:
    """Conditions in the widest gaps between sorted ``values``, and at quantiles if there are many values."""
    gaps = np.diff(values)
    places = set(np.argsort(-gaps, kind="stable")[:CUTS].tolist())
    if len(values) > CONTINUOUS:
        wanted = values[0] + np.array([0.2, 0.4, 0.6, 0.8]) * (values[-1] - values[0])
        places |= set((np.searchsorted(values, wanted).clip(1, len(gaps)) - 1).tolist())
    for place in sorted(places):
        yield _condition(feature, sense, float(values[place]), float(values[place + 1]), span)


def _condition(feature: int, sense: int, low: float, high: float, span: float) -> Condition:
    """That a signed value is nearer to ``high`` than to ``low``."""
    return Condition(feature, sense, sense * between(low, high), (high - low) / (span + 1e-6))


@dataclass(frozen=True, eq=False)
class Goal:
    """What a final milestone has to tell apart.

    Attributes:
        reached: the frame of each expert episode in which it has just been reached, ``intp[experts]``.
        wrong: frames in which it has not been, ``bool[N]``.
        strict: how much it weighs if other play reaches it.
    """

    reached: NDArray[np.intp]
    wrong: Mask
    strict: float = 1.0

    @classmethod
    def success(cls, table: Table) -> "Goal":
        """The task is solved: in the last frame of a solved episode, and nowhere else."""
        wrong = np.ones(table.values.shape[1], bool)
        wrong[table.last[table.solved]] = False
        return cls(table.last[: table.experts], wrong)

    @classmethod
    def step(cls, table: Table, since: Sequence[int], until: Sequence[int]) -> "Goal":
        """Something happens in the frame ``until`` of each expert episode, and has not from ``since`` on."""
        first, at = table.first[: table.experts], np.arange(table.values.shape[1])
        wrong = np.zeros(table.values.shape[1], bool)
        for start, end in zip(first + since, first + until, strict=True):
            wrong |= (at >= start) & (at < end)
        wrong[table.starts[table.experts] :] = True
        return cls(first + until, wrong, strict=0.3)


@dataclass(frozen=True)
class Final:
    """A milestone that coincides with a goal, as far as this table shows.

    Attributes:
        early: share of the experts' episodes in which it is reached before the goal.
        elsewhere: share of the other episodes in which it is reached and the goal is not.
        missed: share of the other episodes that solve the task whose last frame does not fulfil it.
        badness: what speaks against it altogether.
    """

    milestone: Milestone
    early: float
    elsewhere: float
    missed: float
    badness: float


def finals(table: Table, goal: Goal) -> list[Final]:
    """Milestones that every expert's goal fulfils, best first: single conditions, and several joined."""
    singles = sorted(_singles(table, goal), key=lambda final: final.badness)
    joined = _joined(table, goal, singles[:POOL]) if singles else []
    return sorted([*singles[:SINGLES], *joined], key=lambda final: final.badness)[:ENOUGH]


def _singles(table: Table, goal: Goal) -> Iterator[Final]:
    for feature, sense, values in _signed(table):
        reached, start, span = values[goal.reached].min(), values[table.first].max(), float(table.spans[feature])
        if not (np.isfinite(reached) and reached > start + 0.01 * span):
            continue
        below = values[goal.wrong & (values < reached - 1e-4 * span) & np.isfinite(values)]
        low = float(below.max()) if below.size else float(reached) - 0.2 * span
        yield _final(table, goal, Milestone((_condition(feature, sense, low, float(reached), span),)))


def _final(table: Table, goal: Goal, milestone: Milestone) -> Final:
    holds = milestone.holds(table)
    at = np.logical_or.reduceat(holds & goal.wrong, table.first)
    early, elsewhere = float(at[: table.experts].mean()), float(at[table.experts :].sum())
    elsewhere /= max(len(at) - table.experts, 1)
    others = table.last[table.experts :][table.solved[table.experts :]]
    missed = 1.0 - float(holds[others].mean()) if len(others) else 0.0
    badness = early + goal.strict * elsewhere + missed + 0.02 * milestone.cost(table)
    badness -= 0.15 * min(milestone.margin, 0.3)
    return Final(milestone, early, elsewhere, missed, badness)


def _joined(table: Table, goal: Goal, pool: Sequence[Final]) -> list[Final]:
    """The best of ``pool`` that still err, each with the conditions that remove most of its errors, one by one."""
    holds = np.array([final.milestone.holds(table) & goal.wrong for final in pool])
    prices = np.array([0.3 * each.milestone.cost(table) - min(each.milestone.margin, 0.5) for each in pool])
    found = []
    for seed in range(min(SEEDS, len(pool))):
        chosen, left = pool[seed].milestone, holds[seed]
        while left.any() and len(chosen.conditions) < MOST_CONDITIONS:
            episodes = np.logical_or.reduceat(holds & left, table.first, axis=1).sum(axis=1)
            best = int(np.argmin(episodes + prices))
            if episodes[best] >= np.logical_or.reduceat(left, table.first).sum():
                break
            chosen, left = Milestone((*chosen.conditions, *pool[best].milestone.conditions)), left & holds[best]
            found.append(_final(table, goal, chosen))
    return found
