"""How chains do in episodes that they were not found in."""

from collections.abc import Iterator, Sequence

import numpy as np

from carl.induction.chains import Chain, Steps, nexts
from carl.induction.milestones import Mask
from carl.induction.table import Table
from carl.verification.replay import AFTER


def errors(table: Table, found: Sequence[Chain]) -> list[float]:
    """In which share of the experts' episodes of a table, plus that of the others, chains err.

    An expert that does not reach the milestones one after the other is an error, as is one that reaches the last before
    the end; and another episode that reaches the last and is not solved, or does not and is. So is one in which a
    milestone is undone as the gate's rule ``lasting`` refuses it, but for what only the task calls idle. Chains are to
    be found in other episodes than these.
    """
    every = {each: nexts(table, each.holds(table)[None])[0] for chain in found for each in chain.milestones}
    return [_errors(table, [every[each] for each in chain.milestones]) for chain in found]


def _errors(table: Table, milestones: Sequence[Steps]) -> float:
    """For ``nexts`` of milestones in order."""
    episodes, experts, never = np.arange(len(table.lengths)), table.experts, int(table.lengths.max())
    at, reached = np.zeros(len(episodes), np.int16), []
    wrong = np.zeros(len(episodes), bool)
    for each in milestones:
        reached.append(each[episodes, at])
        wrong[:experts] |= reached[-1][:experts] <= at[:experts]
        at = reached[-1]
    wrong[:experts] |= at[:experts] != table.lengths[:experts] - 1
    wrong[experts:] = (at[experts:] < never) != table.solved[experts:]
    for undone in _undone(table, milestones, reached):
        wrong |= undone
    return float(wrong[:experts].mean()) + (float(wrong[experts:].mean()) if len(wrong) > experts else 0.0)


def _undone(table: Table, milestones: Sequence[Steps], reached: Sequence[Steps]) -> Iterator[Mask]:
    """Of each milestone, in which episodes it is undone, ``bool[E]``: in an expert's not as another is reached; in
    another one soon, by a usual action."""
    experts, never = np.arange(len(table.lengths)) < table.experts, int(table.lengths.max())
    for each, since in zip(milestones, reached, strict=True):
        step = np.arange(never)
        beyond = (step > since[:, None]) & (step < table.lengths[:, None]) & (each[:, :never] != step)
        first = np.where(beyond.any(axis=1), beyond.argmax(axis=1), never)
        other = np.any([first == one for one in reached], axis=0)
        moved = table.usual[np.minimum(table.first + first, table.last)]
        yield (first < never) & ~other & (experts | (moved & (first <= since + AFTER)))
