"""The values of all features in all frames of some episodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash
from numpy.typing import NDArray

from carl import vision
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.induction.counting import Atoms, Moments, Shown, Values
from carl.induction.features import AHEAD, Cell, Feature
from carl.induction.layout import Layout, Look
from carl.induction.pixels import COLOURED, coded, weights
from carl.induction.regions import Found, Region, Scene, computed, defined, regions
from carl.verification.rules_lasting import usual_actions
from carl.vision import Frame, Mask

MOST_REGIONS = 90
LOOKED_AT = 100
"""Episodes in whose initial frames regions are looked for."""

PIXELS_AT_ONCE = 1 << 20
PIXELS, FEWEST = 200_000_000, 10
"""Most pixels of all frames of a table, and the episodes that are measured in any case."""


@dataclass(frozen=True, eq=False)
class Table:
    """Features by frame. Episodes lie one behind the other, those of experts first.

    Attributes:
        layout: what was measured.
        kept: which of its features are in the table.
        values: ``float32[F, N]``; NaN where a feature has no value.
        starts: where each of the E episodes begins, and N: ``intp[E + 1]``.
        experts: how many of the episodes are an expert's.
        solved: ``bool[E]``.
        stir: how many pixels of the picture as a whole have got another colour since the frame before, ``float32[N]``:
            what moves keeps its colours, what vanishes or opens does not.
        usual: whether one of the actions that experts take most, which move the agent, led to a frame: ``bool[N]``.
    """

    layout: Layout
    kept: tuple[int, ...]
    values: Values
    starts: NDArray[np.intp]
    experts: int
    solved: NDArray[np.bool_]
    stir: NDArray[np.float32]
    usual: Mask

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """What the rows of ``values`` are."""
        return tuple(self.layout.features[index] for index in self.kept)

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Of the features and their regions, ``float64[F]``."""
        return self.layout.costs[list(self.kept)]

    @cached_property
    def episode(self) -> NDArray[np.intp]:
        """The episode of each frame, ``intp[N]``."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @property
    def first(self) -> NDArray[np.intp]:
        """The initial frame of each episode, ``intp[E]``."""
        return self.starts[:-1]

    @property
    def last(self) -> NDArray[np.intp]:
        """The last frame of each episode, ``intp[E]``."""
        return self.starts[1:] - 1

    @property
    def lengths(self) -> NDArray[np.intp]:
        """Frames of each episode, ``intp[E]``."""
        return np.diff(self.starts)

    @cached_property
    def spans(self) -> NDArray[np.float32]:
        """Largest minus smallest value of each feature, ``float32[F]``."""
        return np.asarray(np.nanmax(self.values, axis=1) - np.nanmin(self.values, axis=1))


def table(
    experts: Sequence[Trajectory],
    others: Sequence[Trajectory],
    frames: int = 12_000,
    progress: Progress = silent,
    like: "Table | None" = None,
    look: Look = Look.PLAIN,
) -> Table:
    """Measure as many ``experts``, in half the room at most, and ``others`` as there is room for in so many ``frames``.

    Of either the first episodes are taken, ``FEWEST`` at least. The features are those of the table ``like``, or else
    such as vary here.
    """
    height, width = experts[0].frames.shape[1:3]
    room = min(frames, PIXELS // (height * width))
    solved = [*_within(experts, room // 2)]
    episodes = [*solved, *_within(others, room - sum(len(one.frames) for one in solved))]
    layout = like.layout if like else Layout.of(_regions(episodes), solved, look)
    lengths = [len(episode.frames) for episode in episodes]
    starts = np.cumsum([0, *lengths])
    values = np.empty((len(like.kept if like else layout.features), starts[-1]), np.float32)
    stir = np.empty(starts[-1], np.float32)
    places: _Places | None = None
    for number, episode in enumerate(episodes):
        here = slice(starts[number], starts[number + 1])
        initial = np.array(episode.frames[0])
        if places is None or not np.array_equal(places.initial, initial):
            places = _Places.of(initial, layout)
        measured, stir[here] = _measured(episode, layout, places)
        values[:, here] = measured[list(like.kept)] if like else measured
        progress("measuring frames", int(starts[number + 1]), int(starts[-1]))
    kept = like.kept if like else _distinct(values, layout.costs)
    success = np.array([episode.success for episode in episodes])
    usual = _usual(episodes, solved)
    return Table(layout, kept, values if like else values[list(kept)], starts, len(solved), success, stir, usual)


def _regions(episodes: Sequence[Trajectory]) -> list[Found]:
    """Regions of the initial frames of ``LOOKED_AT`` episodes, evenly chosen."""
    chosen = np.linspace(0, len(episodes) - 1, min(LOOKED_AT, len(episodes))).round().astype(int)
    return regions([Scene(np.array(episodes[number].frames[0])) for number in chosen], MOST_REGIONS)


def _usual(episodes: Sequence[Trajectory], experts: Sequence[Trajectory]) -> Mask:
    """See ``Table.usual``; no frame of a task whose actions are not numbered."""
    actions = [*usual_actions(experts)]
    led = [np.isin(one.actions, actions) if actions else np.zeros(len(one), bool) for one in episodes]
    return np.concatenate([np.append(False, each) for each in led])


def _within(episodes: Sequence[Trajectory], room: int) -> Iterator[Trajectory]:
    """The first episodes, of ``room`` frames together, ``FEWEST`` at least."""
    for number, episode in enumerate(episodes):
        room -= len(episode.frames)
        if room < 0 and number >= FEWEST:
            return
        yield episode


@dataclass(frozen=True, eq=False)
class _Places:
    """What is looked at in an episode that begins with the frame ``initial``.

    Attributes:
        atoms: of the places of a layout.
        centres: of its regions, ``float64[R, 2]``.
    """

    initial: Frame
    atoms: Atoms
    centres: NDArray[np.float64]

    @classmethod
    def of(cls, initial: Frame, layout: Layout) -> "_Places":
        scene = Scene(initial)
        masks = [
            where.mask(scene) if isinstance(where, Region) else _mask(where, initial) for where, *_ in layout.places
        ]
        centres = np.array([vision.centre(mask) for mask in masks[: len(layout.found)]]).reshape(-1, 2)
        return cls(initial, Atoms.of(masks), centres)


def _measured(episode: Trajectory, layout: Layout, places: _Places) -> tuple[Values, NDArray[np.float32]]:
    """The features of an episode of T + 1 frames, ``float32[F, T + 1]``, and how it stirs, ``float32[T + 1]``."""
    initial, atoms = places.initial, places.atoms
    step, before = max(1, PIXELS_AT_ONCE // initial[..., 0].size), np.zeros(len(layout.moving))
    parts, colours = [], []
    for start in range(0, len(episode.frames), step):
        frames = np.asarray(episode.frames[start : start + step])
        shown = Shown.of(frames, initial, layout.tints)
        moments = shown.moments(layout.moving)
        before = moments[0, 0] if start == 0 else before
        colours.append(moments[0, :, : len(COLOURED)])
        parts.append(np.concatenate([atoms.shares(shown, layout.shared), *_whole(moments, before, places.centres)]))
        if layout.pointing:
            parts[-1] = np.concatenate([parts[-1], _pointed_at(frames, initial, atoms, layout)])
    areas = np.concatenate(colours)
    stir = np.abs(np.diff(areas, axis=0, prepend=areas[:1])).sum(axis=1) / 2
    return np.concatenate(parts, axis=1), stir.astype(np.float32)


def _pointed_at(frames: Frame, initial: Frame, atoms: Atoms, layout: Layout) -> Values:
    """Pixels of each of R regions that things of each colour point to, ``float32[len(layout.pointers) * R, T]``."""
    counts = np.zeros((len(layout.pointers), len(layout.found), len(frames)), np.float32)
    ahead, has = defined(AHEAD, "ahead"), weights(layout.pointers)
    for at, frame in enumerate(frames):
        moved = vision.changed(frame, initial)
        for number in np.flatnonzero(has[coded(frame[moved], initial[moved])].any(axis=0)).tolist():
            there = ahead(computed(layout.pointers[number].code, frame=frame), moved).ravel()
            counts[number, :, at] = atoms.sizes_of(there)[: len(layout.found)]
    return counts.reshape(-1, len(frames))


def _mask(cell: Cell, initial: Frame) -> Mask:
    mask = np.zeros(initial.shape[:2], bool)
    mask[cell.y : cell.y + cell.h, cell.x : cell.x + cell.w] = True
    return mask


def _whole(moments: Moments, before: NDArray[np.float64], centres: NDArray[np.float64]) -> Iterator[Values]:
    """Areas, gains, places and distances, in the order of the layout's features; ``before``: areas at the start."""
    areas, x, y = moments
    with np.errstate(invalid="ignore"):
        x, y = x / areas, y / areas
    yield areas.T.astype(np.float32)
    yield (areas - before).T.astype(np.float32)
    yield x.T.astype(np.float32)
    yield y.T.astype(np.float32)
    distances = np.hypot(x[:, :, None] - centres[:, 0], y[:, :, None] - centres[:, 1])
    yield distances.reshape(len(areas), -1).T.astype(np.float32)


def _distinct(values: Values, costs: NDArray[np.float64]) -> tuple[int, ...]:
    """Features that vary, of equal ones the cheapest, in their order."""
    seen: dict[bytes, int] = {}
    for index in np.argsort(costs, kind="stable").tolist():
        row = values[index]
        known = row[~np.isnan(row)]
        if known.size and known.max() - known.min() > 1e-3:
            seen.setdefault(xxhash.xxh3_128_digest(row.data), index)
    return tuple(sorted(seen.values()))
