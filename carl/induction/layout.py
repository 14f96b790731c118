"""What is measured of every episode: which features, of which regions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from carl import vision
from carl.episodes.trajectory import Trajectory
from carl.induction.features import Area, Cell, Distance, Feature, Place, Pointing, Share
from carl.induction.pixels import COLOURED, FRESH, HUED, IS_CHANGED, IS_LIT, LATE, Property, Rgb, telling, tint
from carl.induction.regions import Found, Region

GRID = 10
"""Columns and rows of the grid of fixed boxes."""

SHARED = (IS_CHANGED, IS_LIT, *COLOURED)
MOVING = (*COLOURED, IS_CHANGED, *FRESH)


class Look(IntEnum):
    """How closely is looked: what takes longer, and is needed seldom."""

    PLAIN = 0
    COLOURS = 1
    """At exact colours as well."""
    POINTING = 2
    """At what things point to as well."""


@dataclass(frozen=True, eq=False)
class Layout:
    """What is measured of every episode, in the order of the table's features.

    Attributes:
        found: regions and their costs.
        cells: fixed boxes.
        pointing: whether it is measured what things point to.
        tints: exact colours.
    """

    found: Sequence[Found]
    cells: Sequence[Cell]
    pointing: bool = False
    tints: Sequence[Rgb] = ()

    @classmethod
    def of(cls, found: Sequence[Found], experts: Sequence[Trajectory], look: Look = Look.PLAIN) -> "Layout":
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
        tints = _tints([one for one in experts if len(one) > 1]) if look >= Look.COLOURS else []
        return cls(found, [*grid, *(Cell(b.x, b.y, b.w, b.h) for b in zones)], look >= Look.POINTING, tints)

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

    @property
    def pointers(self) -> tuple[Property, ...]:
        """The colours of things of which it is measured what they point to."""
        return HUED if self.pointing else ()

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
        areas = [
            Area(seen, more, 1.0 if seen.exact else 4.0, eventful=seen.exact)
            for more in (False, True)
            for seen in self.moving
        ]
        centres = [Place(seen, axis, 3.0) for axis in (0, 1) for seen in self.moving]
        distances = [Distance(seen, each.region, 2.5 + each.cost) for seen, each in product(self.moving, self.found)]
        pointing = [Pointing(seen, each.region, 2.0 + each.cost) for seen, each in product(self.pointers, self.found)]
        return [*shares, *areas, *centres, *distances, *pointing]

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Of the features."""
        return np.array([feature.cost for feature in self.features])


def _tints(experts: Sequence[Trajectory]) -> Sequence[Rgb]:
    if not experts:
        return []
    return telling([np.array(one.frames[0]) for one in experts], [np.asarray(one.frames[-LATE:]) for one in experts])


def _its_own(seen: Property, where: Region | Cell) -> bool:
    """Whether a property tells what becomes of a thing, not what stands in front of it."""
    return seen in (IS_CHANGED, IS_LIT) or (isinstance(where, Region) and where.kind.words == f"{seen.words} thing")
