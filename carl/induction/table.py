"""The values of all features in all frames of some episodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product

import numpy as np
import xxhash
from numpy.typing import NDArray

from carl import vision
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.induction.features import Area, Cell, Distance, Feature, Place, Share
from carl.induction.pixels import (
    CODES,
    COLOURED,
    FRESH,
    IS_CHANGED,
    IS_LIT,
    Codes,
    Property,
    Rgb,
    coded,
    telling,
    tint,
    weights,
)
from carl.induction.regions import Found, Region, Scene, regions
from carl.vision import Frame, Mask

GRID = 10
"""Columns and rows of the grid of fixed boxes."""

MOST_REGIONS = 90
PIXELS_AT_ONCE = 2 << 20
PIXELS, FEWEST = 300_000_000, 10
"""Most pixels of all frames of a table, and the episodes that are measured in any case."""

SHARED = (IS_CHANGED, IS_LIT, *COLOURED)
MOVING = (*COLOURED, IS_CHANGED, *FRESH)
LATE = 12
"""Frames before the end of an expert episode in which exact colours are looked for."""

SEED = 0
"""Of the random numbers that tell sets of regions apart."""

Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Table:
    """Features by frame. Episodes lie one behind the other, those of experts first.

    Attributes:
        values: ``float32[F, N]``; NaN where a feature has no value.
        costs: of the features and their regions, ``float64[F]``.
        starts: where each of the E episodes begins, and N: ``intp[E + 1]``.
        experts: how many of the episodes are an expert's.
        solved: ``bool[E]``.
        stir: how many pixels of the picture as a whole have got another colour since the frame before, ``float32[N]``:
            what moves keeps its colours, what vanishes or opens does not.
    """

    features: tuple[Feature, ...]
    values: Values
    costs: NDArray[np.float64]
    starts: NDArray[np.intp]
    experts: int
    solved: NDArray[np.bool_]
    stir: NDArray[np.float32]

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
) -> Table:
    """Measure as many ``experts``, in half the room at most, and ``others`` as there is room for in so many ``frames``.

    Of either the first episodes are taken, ``FEWEST`` at least.
    """
    height, width = experts[0].frames.shape[1:3]
    room = min(frames, PIXELS // (height * width))
    solved = [*_within(experts, room // 2)]
    episodes = [*solved, *_within(others, room - sum(len(one.frames) for one in solved))]
    scenes = [Scene(np.array(episode.frames[0])) for episode in episodes]
    layout = Layout.of(regions(scenes, MOST_REGIONS), solved)
    lengths = [len(episode.frames) for episode in episodes]
    starts = np.cumsum([0, *lengths])
    values = np.empty((len(layout.features), starts[-1]), np.float32)
    stir = np.empty(starts[-1], np.float32)
    for number, (episode, scene) in enumerate(zip(episodes, scenes, strict=True)):
        here = slice(starts[number], starts[number + 1])
        values[:, here], stir[here] = _measured(episode, scene, layout)
        progress("measuring frames", int(starts[number + 1]), int(starts[-1]))
    kept = _distinct(values, layout.costs)
    return Table(
        tuple(layout.features[index] for index in kept),
        values[kept],
        layout.costs[kept],
        starts,
        len(solved),
        np.array([episode.success for episode in episodes]),
        stir,
    )


def _within(episodes: Sequence[Trajectory], room: int) -> Iterator[Trajectory]:
    """The first episodes, of ``room`` frames together, ``FEWEST`` at least."""
    for number, episode in enumerate(episodes):
        room -= len(episode.frames)
        if room < 0 and number >= FEWEST:
            return
        yield episode


@dataclass(frozen=True, eq=False)
class Layout:
    """What is measured of every episode, in the order of the table's features.

    Attributes:
        found: regions and their costs.
        cells: fixed boxes.
        tints: exact colours.
    """

    found: Sequence[Found]
    cells: Sequence[Cell]
    tints: Sequence[Rgb]

    @classmethod
    def of(cls, found: Sequence[Found], experts: Sequence[Trajectory]) -> "Layout":
        """Cells are a grid over the picture, and boxes that have changed by the end of every expert episode."""
        height, width = experts[0].frames.shape[1:3]
        xs = np.linspace(0, width, GRID + 1).round().astype(int).tolist()
        ys = np.linspace(0, height, GRID + 1).round().astype(int).tolist()
        grid = [
            Cell(x, y, after - x, below - y)
            for (y, below), (x, after) in product(pairwise(ys), pairwise(xs))
            if after > x and below > y
        ]
        ends = [vision.changed(np.array(one.frames[-1]), np.array(one.frames[0])) for one in experts]
        zones = vision.blobs(np.mean(ends, axis=0) >= 0.95, 3)[:6]
        tints = telling([np.asarray(one.frames[-LATE:]) for one in experts if len(one) > 1])
        return cls(found, [*grid, *(Cell(b.x, b.y, b.w, b.h) for b in zones)], tints)

    @cached_property
    def _exact(self) -> tuple[Property, ...]:
        return tuple(tint(number, rgb) for number, rgb in enumerate(self.tints))

    @property
    def shared(self) -> tuple[Property, ...]:
        """What is measured of every place."""
        return (*SHARED, *self._exact)

    @property
    def moving(self) -> tuple[Property, ...]:
        """What is measured of the picture as a whole; the first are colours."""
        return (*MOVING, *self._exact)

    @cached_property
    def places(self) -> list[tuple[Region | Cell, float, bool]]:
        """Regions, the boxes around them, and cells: with what they cost, and whether they are things."""
        plain = [(each.region, each.cost, not each.large) for each in self.found]
        boxed = [(replace(region, boxed=True), cost + 0.3, thing) for region, cost, thing in plain]
        return [*plain, *boxed, *((cell, 0.8, False) for cell in self.cells)]

    @cached_property
    def features(self) -> list[Feature]:
        """All features."""
        shares = [
            Share(seen, where, 1.0 + cost + 0.2 * (seen is not IS_CHANGED), thing and _its_own(seen, where))
            for seen, (where, cost, thing) in product(self.shared, self.places)
        ]
        areas = [Area(seen, more, 1.0 if seen.exact else 4.0) for more in (False, True) for seen in self.moving]
        centres = [Place(seen, axis, 3.0) for axis in (0, 1) for seen in self.moving]
        distances = [Distance(seen, each.region, 2.5 + each.cost) for seen, each in product(self.moving, self.found)]
        return [*shares, *areas, *centres, *distances]

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Of the features."""
        return np.array([feature.cost for feature in self.features])


def _its_own(seen: Property, where: Region | Cell) -> bool:
    """Whether a property tells what becomes of a thing, not what stands in front of it."""
    return seen in (IS_CHANGED, IS_LIT) or (isinstance(where, Region) and where.kind.words == f"{seen.words} thing")


def _measured(episode: Trajectory, scene: Scene, layout: Layout) -> tuple[Values, NDArray[np.float32]]:
    """The features of an episode of T + 1 frames, ``float32[F, T + 1]``, and how it stirs, ``float32[T + 1]``."""
    masks = [
        where.mask(scene) if isinstance(where, Region) else _mask(where, scene.initial) for where, *_ in layout.places
    ]
    atoms = Atoms.of(masks)
    centres = np.array([vision.centre(mask) for mask in masks[: len(layout.found)]]).reshape(-1, 2)
    step, before = max(1, PIXELS_AT_ONCE // scene.initial[..., 0].size), np.zeros(len(layout.moving))
    parts, colours = [], []
    for start in range(0, len(episode.frames), step):
        codes = coded(np.asarray(episode.frames[start : start + step]), scene.initial, layout.tints)
        moments = _moments(codes, layout.moving)
        before = moments[0, 0] if start == 0 else before
        colours.append(moments[0, :, : len(COLOURED)])
        parts.append(np.concatenate([atoms.shares(codes, layout.shared), *_whole(moments, before, centres)]))
    areas = np.concatenate(colours)
    stir = np.abs(np.diff(areas, axis=0, prepend=areas[:1])).sum(axis=1) / 2
    return np.concatenate(parts, axis=1), stir.astype(np.float32)


def _mask(cell: Cell, initial: Frame) -> Mask:
    mask = np.zeros(initial.shape[:2], bool)
    mask[cell.y : cell.y + cell.h, cell.x : cell.x + cell.w] = True
    return mask


@dataclass(frozen=True, eq=False)
class Atoms:
    """The coarsest parts of a picture of which all given masks are made: what is counted once serves every mask.

    Attributes:
        atom: of each pixel, ``intp[H * W]``.
        inside: which of A atoms belong to which of M masks, ``float32[M, A]``.
        sizes: pixels of each mask, ``float32[M]``.
    """

    atom: NDArray[np.intp]
    inside: NDArray[np.float32]
    sizes: NDArray[np.float32]

    @classmethod
    def of(cls, masks: Sequence[Mask]) -> "Atoms":
        """The atoms of ``masks``."""
        names = np.random.default_rng(SEED).integers(1 << 62, size=len(masks), dtype=np.uint64)
        signature = np.zeros(masks[0].size, np.uint64)
        for mask, name in zip(masks, names, strict=True):
            signature[np.flatnonzero(mask)] += name
        _, example, atom = np.unique(signature, return_index=True, return_inverse=True)
        inside = np.array([mask.ravel()[example] for mask in masks], np.float32)
        sizes = np.array([np.count_nonzero(mask) for mask in masks], np.float32)
        return cls(atom.astype(np.intp), inside, sizes)

    def shares(self, codes: Codes, shared: tuple[Property, ...]) -> Values:
        """Shares of the pixels of each mask with each property, ``float32[len(shared) * M, T]``; counts are exact."""
        frames, occurring = len(codes), np.flatnonzero(np.bincount(codes.ravel(), minlength=CODES))
        position = np.zeros(CODES, np.intp)
        position[occurring] = np.arange(len(occurring))
        count, kinds = self.inside.shape[1], len(occurring)
        index = self.atom * kinds + position[codes.reshape(frames, -1)]
        index += (np.arange(frames) * (count * kinds))[:, None]
        counts = np.bincount(index.ravel(), minlength=frames * count * kinds).astype(np.float32)
        by_atom = counts.reshape(frames * count, kinds) @ weights(shared)[occurring]
        of_mask = np.matmul(self.inside, by_atom.reshape(frames, count, -1))
        shares = of_mask.astype(np.float64) / np.maximum(self.sizes, 1)[:, None]
        return np.asarray(shares.transpose(2, 1, 0).reshape(-1, frames), np.float32)


def _moments(codes: Codes, moving: tuple[Property, ...]) -> NDArray[np.float64]:
    """Pixels, and the sums of their columns and rows, by property: ``float64[3, T, len(moving)]``."""
    frames, height, width = codes.shape
    index = (codes.reshape(frames, -1) + (np.arange(frames) * CODES)[:, None]).ravel()
    rows, columns = np.indices((height, width)).reshape(2, -1)
    counts = [
        np.bincount(index, weight, minlength=frames * CODES)
        for weight in (None, np.tile(columns, frames), np.tile(rows, frames))
    ]
    return np.asarray(np.array(counts, float).reshape(3, frames, CODES) @ weights(moving).astype(float))


def _whole(moments: NDArray[np.float64], before: NDArray[np.float64], centres: NDArray[np.float64]) -> Iterator[Values]:
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


def _distinct(values: Values, costs: NDArray[np.float64]) -> list[int]:
    """Features that vary, of equal ones the cheapest, in their order."""
    seen: dict[bytes, int] = {}
    for index in np.argsort(costs, kind="stable").tolist():
        row = values[index]
        known = row[~np.isnan(row)]
        if known.size and known.max() - known.min() > 1e-3:
            seen.setdefault(xxhash.xxh3_128_digest(row.data), index)
    return sorted(seen.values())
