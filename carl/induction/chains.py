"""Chains: milestones in an order that every expert keeps, each rare in other play once those before are reached."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from carl.induction.milestones import Final, Mask, Milestone
from carl.induction.table import Table

BEAM, LONGEST, MOST = 80, 5, 200
"""Chains that are extended, most milestones before the last, and chains that are kept."""

PER_TENTH = 20
"""Intermediate milestones that are kept for each tenth of an expert's episode."""

AT_ONCE = 400
SOON = 8
"""Frames within which other play must not undo what was reached."""

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
            of the frames soon after in other play.
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


def errors(table: Table, found: Sequence[Chain]) -> list[float]:
    """In which share of the experts' episodes of a table, plus that of the others, chains err.

    An expert that does not reach the milestones one after the other is an error, as is one that reaches the last before
    the end or undoes one before the next, and another episode that reaches the last and is not solved, or does not and
    is. Chains are to be found in other episodes than these.
    """
    nexts = {each: _nexts(table, each.holds(table)[None])[0] for chain in found for each in chain.milestones}
    return [_errors(table, [nexts[each] for each in chain.milestones]) for chain in found]


def _errors(table: Table, nexts: Sequence[Steps]) -> float:
    episodes, never, experts = np.arange(len(table.lengths)), int(table.lengths.max()), table.experts
    at = np.zeros(len(episodes), np.int16)
    wrong = np.zeros(len(episodes), bool)
    for number, each in enumerate(nexts):
        reached = each[episodes, at]
        wrong[:experts] |= reached[:experts] <= at[:experts]
        if number:
            wrong[:experts] |= _undone(nexts[number - 1], at, reached)[:experts]
        at = reached
    wrong[:experts] |= at[:experts] != table.lengths[:experts] - 1
    wrong[experts:] = (at[experts:] < never) != table.solved[experts:]
    return float(wrong[:experts].mean()) + (float(wrong[experts:].mean()) if len(wrong) > experts else 0.0)


def _undone(nexts: Steps, since: Steps, until: Steps) -> Mask:
    """Whether a milestone does not hold somewhere from a step of each episode to before another one, ``bool[E]``."""
    steps = np.arange(nexts.shape[1])
    between = (steps >= since[:, None]) & (steps < until[:, None])
    return np.asarray((between & (nexts != steps)).any(axis=1))


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
        agreed: how many kinds of things show that it is reached, each by itself, at the same frames of all episodes.
    """

    milestone: Milestone
    late: float
    quality: float
    common: float
    moved: float
    agreed: int = 1


def candidates(table: Table, milestones: Sequence[Milestone]) -> list[Candidate]:
    """Of milestones that come at the same frames the best, and of these the best of each tenth of an episode.

    What really happens shows in several ways at once; what only seems to, by a thing that is taken for another in some
    episodes, in one.
    """
    groups: dict[bytes, list[Candidate]] = {}
    for start in range(0, len(milestones), AT_ONCE):
        for key, candidate in _measured(table, milestones[start : start + AT_ONCE]):
            if candidate.common <= COMMON:
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
    lasting = np.add(*persistence(table, holds, hits))
    for row, milestone in enumerate(milestones):
        quality = 0.5 * min(rare[row], 3) / 3 + lasting[row] + 0.5 * min(milestone.margin, 0.5)
        quality -= 0.2 * milestone.cost(table) + WEIGHTS.moved * moved[row]
        common = float(reached[row]) / max(hits.shape[1] - experts, 1)
        yield hits[row].tobytes(), Candidate(milestone, float(late[row]), float(quality), common, float(moved[row]))


def _moved(table: Table, hits: NDArray[np.int32]) -> NDArray[np.float64]:
    """See ``Candidate.moved``; for first hits ``int32[P, E]``."""
    stirs = np.sort(table.stir[: table.starts[table.experts]])
    less = np.searchsorted(stirs, table.stir[hits[:, : table.experts]], side="left") / len(stirs)
    return np.asarray(1.0 - less.mean(axis=1))


def persistence(table: Table, holds: Mask, hits: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far P milestones, once reached, go on to hold: the share of the expert episodes in which they do to the end,
    and of the ``SOON`` frames after it in other ones.

    Where other play hardly reaches a milestone, the experts' is taken for both.
    """
    counts = np.concatenate([np.zeros((len(holds), 1), np.int32), np.cumsum(holds, axis=1, dtype=np.int32)], axis=1)
    reached = hits < holds.shape[1]
    since = np.take_along_axis(counts, np.where(reached, hits, 0), axis=1)
    until = np.broadcast_to(table.starts[1:], hits.shape).copy()
    until[:, table.experts :] = np.minimum(until[:, table.experts :], hits[:, table.experts :] + SOON)
    held = (np.take_along_axis(counts, until, axis=1) - since) / np.maximum(until - hits, 1)
    by_experts = (held[:, : table.experts] == 1.0).mean(axis=1)
    others = reached[:, table.experts :]
    by_others = (held[:, table.experts :] * others).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
    return by_experts, np.where(others.sum(axis=1) >= 5, by_others, by_experts)


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
        nexts: the first step from a step on at which a milestone holds, ``int16[M, E, T + 2]``; T + 1 if never.
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
        return cls(table, milestones, len(middles), _nexts(table, holds), flaws)

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


def _nexts(table: Table, holds: Mask) -> Steps:
    """See ``_Search.nexts``."""
    longest = int(table.lengths.max())
    padded = np.zeros((len(holds), len(table.lengths), longest + 1), bool)
    step = np.arange(holds.shape[1]) - np.repeat(table.first, table.lengths)
    padded[:, table.episode, step] = holds
    nexts = np.full(padded.shape, longest, np.int16)
    for at in range(longest - 1, -1, -1):
        nexts[:, :, at] = np.where(padded[:, :, at], at, nexts[:, :, at + 1])
    return nexts
