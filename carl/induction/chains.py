"""Chains: milestones in an order that every expert keeps, each rare in other play once those before are reached."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from carl.induction.milestones import Final, Mask, Milestone
from carl.induction.table import Table
from carl.verification.replay import AFTER

BEAM, LONGEST, MOST = 80, 5, 200
"""Chains that are extended, most milestones before the last, and chains that are kept."""

PER_TENTH = 20
"""Intermediate milestones that are kept for each tenth of an expert's episode."""

AT_ONCE = 400
FEW = 5
"""Fewer episodes tell nothing about what lasts."""

MOST_UNDONE = 0.1
"""The gate refuses what moving on undoes in a larger share of other play."""

COMMON = 0.75
"""What a larger share of other play reaches is no step on the way to success."""

AGREED = 4
"""Kinds of things that show an event, from which on more do not make it more certain."""

Steps = NDArray[np.int16]


@dataclass(frozen=True)
class Weights:
    """What speaks against a chain.

    Attributes:
        gap: the square of the time from one milestone to the next, as a share of an expert episode.
        evenness: how unevenly the milestones stop other play.
        length, cost: of each milestone.
        fading, undone: how often it does not hold any more after it was reached: the share of the expert episodes, and
            of other play, by moving on.
        moved: how little the colours in the picture change when it is reached: something has only moved.
        alone: how few kinds of things show it.
        order: how often it comes before the one before it.
        margin: how close values come to its threshold.
        early, elsewhere, missed: errors of the last one.
    """

    gap: float = 2.0
    evenness: float = 0.5
    length: float = 0.01
    cost: float = 0.02
    fading: float = 0.5
    moved: float = 0.5
    undone: float = 0.4
    alone: float = 0.4
    order: float = 0.3
    margin: float = 0.3
    early: float = 1.5
    elsewhere: float = 5.0
    missed: float = 2.0


WEIGHTS = Weights()


@dataclass(frozen=True)
class Chain:
    """Milestones in order, and how well they do.

    Attributes:
        score: less is better.
        early: share of the expert episodes in which the last is reached before the end.
        elsewhere: share of the other episodes that reach all without being solved.
    """

    milestones: tuple[Milestone, ...]
    score: float
    early: float
    elsewhere: float


def chains(table: Table, milestones: Sequence[Milestone], finals: Sequence[Final]) -> list[Chain]:
    """The best ``MOST`` chains, best first: up to ``LONGEST`` of ``milestones``, and a final."""
    steps = candidates(table, milestones)
    return _Search.of(table, steps, [final.milestone for final in finals]).run() if finals else []


def first_hits(table: Table, holds: Mask) -> NDArray[np.int32]:
    """The first frame of each episode in which each of P milestones holds, ``int32[P, E]``; N if never."""
    frames = holds.shape[1]
    positions = np.where(holds, np.arange(frames, dtype=np.int32), np.int32(frames))
    return np.asarray(np.minimum.reduceat(positions, table.first, axis=1))


@dataclass(frozen=True)
class Candidate:
    """An intermediate milestone.

    Attributes:
        late: how late it is reached in expert episodes, 0 to 1.
        quality: how good it is by itself; more is better.
        common: share of the other episodes that reach it.
        moved: share of the experts' frames in which the picture as a whole changes no less than when it is reached.
        undone: share of the other episodes that reach it in which moving on undoes it soon.
        agreed: how many kinds of things show that it is reached, each by itself, at the same frames of all episodes.
    """

    milestone: Milestone
    late: float
    quality: float
    common: float
    moved: float
    undone: float
    agreed: int = 1


def candidates(table: Table, milestones: Sequence[Milestone]) -> list[Candidate]:
    """Of milestones that come at the same frames the best, and of these the best of each tenth of an episode.

    What really happens shows in several ways at once; what only seems to, by a thing that is taken for another in some
    episodes, in one.
    """
    groups: dict[bytes, list[Candidate]] = {}
    for start in range(0, len(milestones), AT_ONCE):
        for key, candidate in _measured(table, milestones[start : start + AT_ONCE]):
            if candidate.common <= COMMON and candidate.undone <= MOST_UNDONE:
                groups.setdefault(key, []).append(candidate)
    best = [_agreed(table, group) for group in groups.values()]
    room, kept = [PER_TENTH] * 10, []
    for candidate in sorted(best, key=lambda each: -each.quality):
        tenth = min(int(10 * candidate.late), 9)
        if room[tenth]:
            room[tenth] -= 1
            kept.append(candidate)
    return kept


def _agreed(table: Table, group: Sequence[Candidate]) -> Candidate:
    best = max(group, key=lambda each: each.quality)
    features = [table.features[each.milestone.conditions[0].feature] for each in group]
    agreed = len({region.kind for feature in features for region in feature.regions})
    return replace(best, agreed=agreed, quality=best.quality + WEIGHTS.alone * min(agreed, AGREED) / AGREED)


def _measured(table: Table, milestones: Sequence[Milestone]) -> Iterator[tuple[bytes, Candidate]]:
    """Each as a candidate, and what is equal for those that are first reached at the same frames."""
    holds = np.array([milestone.holds(table) for milestone in milestones])
    hits, experts = first_hits(table, holds), table.experts
    late = ((hits - table.first) / (table.lengths - 1))[:, :experts].mean(axis=1)
    reached = (hits < holds.shape[1])[:, experts:].sum(axis=1)
    rare = -np.log((reached + 0.5) / (hits.shape[1] - experts + 1))
    moved = _moved(table, hits)
    by_experts, by_others = persistence(table, holds, hits)
    lasting = by_experts + by_others
    for row, milestone in enumerate(milestones):
        quality = 0.5 * min(rare[row], 3) / 3 + lasting[row] + 0.5 * min(milestone.margin, 0.5)
        quality -= 0.2 * milestone.cost(table) + WEIGHTS.moved * moved[row]
        common = float(reached[row]) / max(hits.shape[1] - experts, 1)
        undone = 1.0 - float(by_others[row])
        shares = common, float(moved[row]), undone
        yield hits[row].tobytes(), Candidate(milestone, float(late[row]), float(quality), *shares)


def _moved(table: Table, hits: NDArray[np.int32]) -> NDArray[np.float64]:
    """See ``Candidate.moved``; for first hits ``int32[P, E]``."""
    stirs = np.sort(table.stir[: table.starts[table.experts]])
    less = np.searchsorted(stirs, table.stir[hits[:, : table.experts]], side="left") / len(stirs)
    return np.asarray(1.0 - less.mean(axis=1))


def persistence(table: Table, holds: Mask, hits: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In which share of the expert episodes P milestones, once reached, hold to the end; and in which share of the
    others that reach it, ``FEW`` at least, no usual action undoes it within ``AFTER`` frames.

    Where fewer do, the experts' share is taken for both.
    """
    counts = np.concatenate([np.zeros((len(holds), 1), np.int32), np.cumsum(holds, axis=1, dtype=np.int32)], axis=1)
    reached = hits < holds.shape[1]
    since = np.where(reached, hits, 0)
    held = np.take_along_axis(counts, table.starts[None, 1:], axis=1) - np.take_along_axis(counts, since, axis=1)
    by_experts = (held == table.starts[1:] - hits)[:, : table.experts].mean(axis=1)
    others = reached[:, table.experts :].sum(axis=1)
    undone = (_undone_by_moving(table, holds, hits) & reached)[:, table.experts :].sum(axis=1)
    return by_experts, np.where(others >= FEW, 1.0 - undone / np.maximum(others, 1), by_experts)


def _undone_by_moving(table: Table, holds: Mask, hits: NDArray[np.int32]) -> Mask:
    """Whether the first frame after a hit in which a milestone does not hold comes within ``AFTER`` frames and by a
    usual action, ``bool[P, E]``."""
    undone, lasts = np.zeros(hits.shape, bool), np.ones(hits.shape, bool)
    for after in range(1, AFTER + 1):
        at = np.minimum(hits + after, table.last)
        there = np.take_along_axis(holds, at, axis=1)
        undone |= lasts & ~there & table.usual[at]
        lasts &= there
    return undone


@dataclass(frozen=True, eq=False)
class _Partial:
    """A chain that has been begun.

    Attributes:
        members: indices of milestones.
        at: the step at which the last is reached in each episode, ``int16[E]``.
        late: how late each is reached in expert episodes, 0 to 1: ``float64[experts]`` each.
        passed: how many other episodes reach each, from all of them.
        fixed: the part of the score that no further milestone changes.
    """

    members: tuple[int, ...]
    at: Steps
    late: tuple[NDArray[np.float64], ...]
    passed: tuple[int, ...]
    fixed: float
    score: float = 0.0


@dataclass(frozen=True, eq=False)
class _Search:
    """Beam search over chains of ``milestones``; the last of them, from ``middles`` on, are final.

    Attributes:
        nexts: see ``nexts``.
        flaws: what each milestone adds to the score wherever it stands.
    """

    table: Table
    milestones: list[Milestone]
    middles: int
    nexts: Steps
    flaws: NDArray[np.float64]

    @classmethod
    def of(cls, table: Table, middles: Sequence[Candidate], finals: Sequence[Milestone]) -> "_Search":
        milestones = [*(each.milestone for each in middles), *finals]
        holds = np.array([milestone.holds(table) for milestone in milestones])
        by_experts, by_others = persistence(table, holds, first_hits(table, holds))
        flaws = WEIGHTS.length + WEIGHTS.cost * np.array([each.cost(table) for each in milestones])
        flaws += WEIGHTS.margin * (1 - np.minimum([each.margin / 0.5 for each in milestones], 1))
        lasting = WEIGHTS.fading * (1 - by_experts) + WEIGHTS.undone * (1 - by_others)
        alone = WEIGHTS.alone * (1 - np.array([min(each.agreed, AGREED) / AGREED for each in middles]))
        moved = WEIGHTS.moved * np.array([each.moved for each in middles])
        flaws[: len(middles)] += lasting[: len(middles)] + alone + moved
        return cls(table, milestones, len(middles), nexts(table, holds), flaws)

    @property
    def _never(self) -> int:
        return int(self.nexts.shape[2]) - 1

    @cached_property
    def _order(self) -> NDArray[np.float64]:
        """How often the one comes before the other in episodes where the other comes, ``float64[M, M]``."""
        first = self.nexts[:, :, 0]
        came = first < self._never
        before = np.array([((first[one] < first) & came).sum(axis=1) for one in range(len(first))])
        return np.asarray(before / np.maximum(came.sum(axis=1), 1))

    @cached_property
    def _ends(self) -> NDArray[np.intp]:
        return self.table.lengths - 1

    def run(self) -> list[Chain]:
        """The best chains."""
        episodes = len(self._ends)
        beam = [_Partial((), np.zeros(episodes, np.int16), (np.zeros(self.table.experts),), (), 0.0)]
        found: list[Chain] = []
        for depth in range(LONGEST + 1):
            grown = [each for partial in beam for each in self._extended(partial, found, depth < LONGEST)]
            beam = sorted(grown, key=lambda partial: partial.score)[:BEAM]
            found = sorted(found, key=lambda chain: chain.score)[:MOST]
        return found

    def _extended(self, partial: _Partial, found: list[Chain], further: bool) -> Iterator[_Partial]:
        """Longer beginnings; whole chains are added to ``found``."""
        episodes, experts = np.arange(len(self._ends)), self.table.experts
        reached = self.nexts[:, episodes, partial.at]  # M x E
        ahead = (reached[:, :experts] < self._never) & (reached[:, :experts] > partial.at[:experts])
        middle = np.arange(len(reached)) < self.middles
        in_time = (reached[:, :experts] < self._ends[:experts]).all(axis=1) & further
        usable = ahead.all(axis=1) & (in_time | ~middle)
        usable[list(partial.members)] = False
        for member in np.flatnonzero(usable).tolist():
            longer = self._longer(partial, member, reached[member])
            if middle[member]:
                yield longer
            else:
                found.append(self._chain(longer))

    def _longer(self, partial: _Partial, member: int, reached: Steps) -> _Partial:
        experts = self.table.experts
        late = reached[:experts] / self._ends[:experts]
        gap = float((late - partial.late[-1]).mean())
        fixed = partial.fixed + WEIGHTS.gap * gap**2 + float(self.flaws[member])
        if partial.members:
            fixed += WEIGHTS.order * float(1 - self._order[partial.members[-1], member])
        passed = (*partial.passed, int((reached[experts:] < self._never).sum()))
        members, lates = (*partial.members, member), (*partial.late, late)
        score = fixed + self._unevenness(passed) + WEIGHTS.gap * (1 - float(late.mean())) ** 2
        return _Partial(members, reached, lates, passed, fixed, score)

    def _unevenness(self, passed: tuple[int, ...]) -> float:
        """How unevenly other play is stopped by the milestones, 1 / n to 1 for n of them."""
        counts = np.array([len(self._ends) - self.table.experts, *passed])
        steps = np.log((counts[:-1] + 0.5) / (counts[1:] + 0.5))
        return WEIGHTS.evenness * (float(((steps / steps.sum()) ** 2).sum()) if steps.sum() > 0.1 else 1.0)

    def _chain(self, whole: _Partial) -> Chain:
        experts, solved = self.table.experts, self.table.solved
        early = float((whole.at[:experts] < self._ends[:experts]).mean())
        reached = (whole.at[experts:] < self._never) & ~solved[experts:]
        elsewhere = float(reached.mean()) if reached.size else 0.0
        others = solved[experts:]
        missed = float((whole.at[experts:][others] >= self._never).mean()) if others.any() else 0.0
        score = whole.score + WEIGHTS.early * early + WEIGHTS.elsewhere * elsewhere + WEIGHTS.missed * missed
        return Chain(tuple(self.milestones[member] for member in whole.members), score, early, elsewhere)


def nexts(table: Table, holds: Mask) -> Steps:
    """The first step from a step on at which each of P milestones holds, ``int16[P, E, T + 2]`` for the longest episode
    of T steps; T + 1 if it never does."""
    longest = int(table.lengths.max())
    padded = np.zeros((len(holds), len(table.lengths), longest + 1), bool)
    step = np.arange(holds.shape[1]) - np.repeat(table.first, table.lengths)
    padded[:, table.episode, step] = holds
    found = np.full(padded.shape, longest, np.int16)
    for at in range(longest - 1, -1, -1):
        found[:, :, at] = np.where(padded[:, :, at], at, found[:, :, at + 1])
    return found
