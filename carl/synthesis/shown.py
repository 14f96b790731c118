"""What a model is shown of recorded episodes: those that differ most, their middle, near misses, and failing frames."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carl import vision
from carl.episodes.trajectory import Trajectory
from carl.synthesis.failures import Case
from carl.task import Frame
from carl.verification.rule import Evidence

Episodes = Mapping[Evidence, Iterable[Trajectory]]
"""Episodes by their kind."""

LOOKED_AT = 100
"""Episodes of a kind, and frames of an episode, among which is chosen."""

MIDDLES, MISSES = 2, 2
"""Frames from the middle of each episode that is shown, and episodes that missed."""

WHERE_FAILED = "where it failed"
"""What captions of failing frames begin with."""

_PACE = 0.1
"""How far an episode's first and last frame are apart for their time alone, which spreads frames that look alike."""

_GRID, _LEVELS, _SIDE = 16, 32, 128


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame ``uint8[H, W, 3]``, and what it shows in words."""

    frame: Frame
    caption: str


@dataclass(eq=False)
class Examples:
    """Episodes to show, chosen once for a search.

    Attributes:
        experts: whose initial and goal frames are shown.
        misses: episodes that did not solve the task, though they end in much the same look.
        sets: all episodes by kind, of the search and of held-out sets, in which failing frames are looked up.
    """

    experts: Sequence[Trajectory]
    misses: Sequence[Trajectory] = ()
    sets: list[Episodes] = field(default_factory=list)

    @classmethod
    def chosen(cls, episodes: Episodes, pairs: int) -> Self:
        """The ``pairs`` expert episodes that differ most, and failed episodes that look most like success."""
        found = [*islice(episodes[Evidence.EXPERTS], LOOKED_AT)]
        ends = np.stack([np.concatenate([_look(each.frames[0]), _look(each.frames[-1])]) for each in found])
        experts = [found[index] for index in sorted(_apart(ends, pairs))]
        goals = ends[:, ends.shape[1] // 2 :]
        return cls(experts, _near_misses(episodes, goals), [episodes])

    @property
    def pairs(self) -> list[tuple[Frame, Frame]]:
        """The initial and the goal frame of each expert episode."""
        return [(np.array(each.frames[0]), np.array(each.frames[-1])) for each in self.experts]

    def pictures(self, most: int, failing: Sequence[Case] = ()) -> list[Picture]:
        """Initial and goal frames, and up to ``most`` pictures in all what fits of the rest.

        By importance: failing frames, near misses, the frames just before the goals, frames from the middle.
        """
        room, kept = most - len(self._pairs), []
        for group in ([self._case(case) for case in failing], self._misses, self._before, self._middles):
            kept.append(_fitting(group, room))
            room -= len(kept[-1])
        shown, misses, before, middles = kept
        return [*self._pairs, *before, *middles, *misses, *shown]

    def add(self, episodes: Episodes) -> None:
        """Let frames of further episodes be looked up."""
        self.sets.append(episodes)

    def _case(self, case: Case) -> list[Picture]:
        """A failing frame after its initial frame; nothing if the episode is not known any more."""
        ref = case.frame
        episode = self._episode(ref.source, ref.seed)
        if episode is None or ref.step >= len(episode.frames):
            return []
        name = f"{WHERE_FAILED}, {ref.source} episode {ref.seed}"
        initial = [Picture(np.array(episode.frames[0]), f"{name}, its initial frame")] if ref.step else []
        return [*initial, Picture(np.array(episode.frames[ref.step]), f"{name}, frame {ref.step}: {case}")]

    def _episode(self, role: str, seed: int) -> Trajectory | None:
        kinds = (found for episodes in self.sets for kind, found in episodes.items() if kind == role)
        return next((each for each in chain.from_iterable(kinds) if each.seed == seed), None)

    @cached_property
    def _pairs(self) -> list[Picture]:
        names = [f"expert episode {each.seed}" for each in self.experts]
        return [
            Picture(frame, f"{name}, {which} frame")
            for name, pair in zip(names, self.pairs, strict=True)
            for frame, which in zip(pair, ("initial", "goal"), strict=True)
        ]

    @cached_property
    def _before(self) -> list[list[Picture]]:
        found = [(each, len(each) - 1) for each in self.experts if len(each) > 1]
        words = "expert episode {}, frame {}, the one before its goal frame: the last sub-task must not be 1 yet"
        return [[Picture(np.array(each.frames[at]), words.format(each.seed, at))] for each, at in found]

    @cached_property
    def _middles(self) -> list[list[Picture]]:
        found = [(each, at) for each in self.experts for at in _middle(each)]
        words = "expert episode {}, frame {} of {}"
        return [[Picture(np.array(each.frames[at]), words.format(each.seed, at, len(each)))] for each, at in found]

    @cached_property
    def _misses(self) -> list[list[Picture]]:
        return [_miss(episode) for episode in self.misses]


def _miss(episode: Trajectory) -> list[Picture]:
    name = f"near miss, {episode.role} episode {episode.seed}"
    last = f"{name}, its last frame, not solved: the last sub-task must not be 1"
    return [
        Picture(np.array(episode.frames[0]), f"{name}, its initial frame"),
        Picture(np.array(episode.frames[-1]), last),
    ]


def _fitting(group: Iterable[Sequence[Picture]], room: int) -> list[Picture]:
    """The first of ``group`` that have room, each whole or not at all."""
    fitting: list[Picture] = []
    for together in group:
        fitting += together if len(fitting) + len(together) <= room else []
    return fitting


def _look(frame: Frame) -> NDArray[np.float64]:
    """A frame as a vector: the mean colours of a grid of cells, and the square roots of the shares of its colours.

    The latter's distance is Hellinger's: that a small thing has another colour weighs more than where it is. Of large
    frames every second pixel is looked at, or every third, ...
    """
    stride = max(1, min(frame.shape[:2]) // _SIDE)
    frame = frame[::stride, ::stride]
    grid = vision.cells(frame, _GRID, _GRID)
    places = np.zeros((_GRID, _GRID, 3))
    places[: grid.shape[0], : grid.shape[1]] = grid / 255.0
    steps = frame.astype(np.intp) // _LEVELS
    count = 256 // _LEVELS
    colours = (steps[..., 0] * count + steps[..., 1]) * count + steps[..., 2]
    shares = np.bincount(colours.ravel(), minlength=count**3) / colours.size
    return np.concatenate([places.ravel() / np.sqrt(places.size), np.sqrt(shares)])


def _apart(looks: NDArray[np.float64], count: int, start: Sequence[int] = ()) -> list[int]:
    """Indices of ``count`` vectors that lie far apart: each next one is the farthest from those chosen.

    Without a ``start`` the first is the one that is farthest from the mean.
    """
    chosen = [*start] or [int(np.argmax(_distances(looks, looks.mean(axis=0))))]
    nearest = np.min([_distances(looks, looks[index]) for index in chosen], axis=0)
    while len(chosen) < min(count + len(start), len(looks)):
        nearest[chosen] = -1.0
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, _distances(looks, looks[chosen[-1]]))
    return chosen[len(start) :]


def _distances(looks: NDArray[np.float64], look: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded, so that ties are ties on every machine, and the same frames are chosen."""
    return np.asarray(np.round(np.linalg.norm(looks - look, axis=1), 9))


def _middle(episode: Trajectory) -> list[int]:
    """The steps whose frames differ most from the initial and the goal frame, and from each other, in order."""
    steps = np.unique(np.linspace(0, len(episode), min(len(episode) + 1, LOOKED_AT)).astype(int)).tolist()
    times = [_PACE * step / max(1, len(episode)) for step in steps]
    looks = np.stack([np.append(_look(episode.frames[step]), time) for step, time in zip(steps, times, strict=True)])
    shown = [at for at in range(len(steps)) if at in (0, len(steps) - 2, len(steps) - 1)]
    return sorted(steps[at] for at in _apart(looks, MIDDLES, shown))


def _near_misses(episodes: Episodes, goals: NDArray[np.float64]) -> list[Trajectory]:
    """Failed episodes whose last frames look most like a goal frame, in turn of each kind and each way of ending."""
    groups: dict[tuple[Evidence, bool], list[tuple[float, int, Trajectory]]] = {}
    for kind in (kind for kind in episodes if not kind.solved):
        for number, each in enumerate(islice(episodes[kind], LOOKED_AT)):
            if not each.success:
                far = float(_distances(goals, _look(each.frames[-1])).min())
                groups.setdefault((kind, each.terminated), []).append((far, number, each))
    nearest_first = sorted(
        (sorted(group, key=lambda item: item[:2]) for group in groups.values()), key=lambda g: g[0][0]
    )
    turns = [group[place][2] for place in range(MISSES) for group in nearest_first if place < len(group)]
    return turns[:MISSES]
