"""Numbers that are computed from a frame and the initial one, and the code that computes them.

Lengths are in pixels. A number that cannot be had, such as the place of a colour that is not there, fulfils nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from carl.induction.pixels import Property
from carl.induction.regions import Region

AT_LEAST, AT_MOST = 1, -1
"""The senses of a condition."""

GONE = 0.4
"""Share of a thing from which on, when it has changed, it is called gone; up to which, when it is lit, it is dark."""


class Feature(Protocol):
    """A number by frame."""

    @property
    def seen(self) -> Property:
        """What is looked for in the frame."""

    @property
    def cost(self) -> float:
        """How far-fetched it is: 1 for the simplest."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions of the initial frame that it looks at."""

    @property
    def eventful(self) -> bool:
        """Whether it tells what becomes of a thing, not where something is for the moment."""

    def words(self, sense: int, threshold: float) -> str:
        """What it means that it is at least or at most so much, as in "the smallest yellow thing is gone"."""

    def code(self, sense: int, threshold: float, names: Sequence[str]) -> str:
        """The condition as an expression over ``frame`` and ``initial``; ``names`` are functions for its regions."""


def number(value: float) -> str:
    """A number as it is written in a program."""
    return repr(round(value, 6)).removesuffix(".0") if abs(value) >= 1 else repr(round(value, 6))


def _compared(value: str, sense: int, threshold: float) -> str:
    return f"{value} {'>=' if sense == AT_LEAST else '<='} {number(threshold)}"


def _bound(sense: int, threshold: float, unit: str = "") -> str:
    return f"{'at least' if sense == AT_LEAST else 'at most'} {number(threshold)}{unit}"


def _percent(share: float) -> float:
    return float(f"{100 * share:.2g}")


@dataclass(frozen=True)
class Cell:
    """A fixed box of the picture."""

    x: int
    y: int
    w: int
    h: int

    @property
    def words(self) -> str:
        """As in "the box of 8 x 8 at (24, 16)"."""
        return f"the box of {self.w} x {self.h} at ({self.x}, {self.y})"


@dataclass(frozen=True)
class Share:
    """Which part of a region, or of a fixed box, has a property."""

    seen: Property
    where: Region | Cell
    cost: float
    eventful: bool

    @property
    def regions(self) -> tuple[Region, ...]:
        """The region, unless it is a fixed box."""
        return (self.where,) if isinstance(self.where, Region) else ()

    def words(self, sense: int, threshold: float) -> str:
        """As in "the smallest yellow thing is gone from where it was"."""
        place, several = self.where.words, isinstance(self.where, Region) and self.where.several
        if isinstance(self.where, Region) and self.where.boxed:
            place, several = f"the box around {place}", False
        have, are, they = ("have", "are", "they were") if several else ("has", "is", "it was")
        if self.seen.words == "changed" and sense == AT_LEAST:
            if threshold >= GONE:
                return f"{place} {are} gone from where {they}"
            return f"{_bound(sense, _percent(threshold), ' %')} of {place} {have} changed"
        if self.seen.words == "lit" and sense == AT_MOST:
            if threshold <= GONE:
                return f"{place} {have} gone dark"
            return f"{_bound(AT_LEAST, _percent(1 - threshold), ' %')} of {place} {are} dark"
        return f"{_bound(sense, _percent(threshold), ' %')} of {place} {are} {self.seen.words}"

    def code(self, sense: int, threshold: float, names: Sequence[str]) -> str:
        """A comparison of ``vision.share``."""
        if isinstance(self.where, Cell):
            x, y, w, h = self.where.x, self.where.y, self.where.w, self.where.h
            return _compared(f"({self.seen.code})[{y}:{y + h}, {x}:{x + w}].mean()", sense, threshold)
        share = _compared(f"vision.share({self.seen.code}, {names[0]}(initial))", sense, threshold)
        return share if sense == AT_LEAST else f"{names[0]}(initial).any() and {share}"


@dataclass(frozen=True)
class Area:
    """How many pixels have a property; or how many more than in the initial frame."""

    seen: Property
    more: bool
    cost: float
    regions: tuple[Region, ...] = ()
    eventful: bool = False

    def words(self, sense: int, threshold: float) -> str:
        """As in "at least 12 more pixels are red"."""
        if self.more and threshold < 0:
            return f"{_bound(-sense, -threshold)} fewer pixels are {self.seen.words}"
        if not self.more and sense == AT_LEAST and threshold <= 1:
            return f"there is a pixel {self.seen.words}"
        return f"{_bound(sense, threshold)}{' more' * self.more} pixels are {self.seen.words}"

    def code(self, sense: int, threshold: float, names: Sequence[str]) -> str:  # noqa: ARG002  it has no regions
        """A comparison of one or two counts."""
        count = f"np.count_nonzero({self.seen.code})"
        if self.more:
            count += f" - np.count_nonzero({self.seen.before})"
        return _compared(count, sense, threshold)


@dataclass(frozen=True)
class Place:
    """Where the centre of the pixels with a property is: column (axis 0) or row (axis 1)."""

    seen: Property
    axis: int
    cost: float
    regions: tuple[Region, ...] = ()
    eventful: bool = False

    def words(self, sense: int, threshold: float) -> str:
        """As in "the centre of red is at least 30 px from the left"."""
        side = ("left", "top")[self.axis]
        return f"the centre of {self.seen.words} is {_bound(sense, threshold, ' px')} from the {side}"

    def code(self, sense: int, threshold: float, names: Sequence[str]) -> str:  # noqa: ARG002  it has no regions
        """A comparison of ``vision.centre``, which is negative where there is no such pixel."""
        compared = _compared(f"vision.centre({self.seen.code})[{self.axis}]", sense, threshold)
        return compared if sense == AT_LEAST else f"0 <= {compared}"


@dataclass(frozen=True)
class Distance:
    """From the centre of the pixels with a property to that of a region."""

    seen: Property
    where: Region
    cost: float
    eventful: bool = False

    @property
    def regions(self) -> tuple[Region, ...]:
        """The region."""
        return (self.where,)

    def words(self, sense: int, threshold: float) -> str:
        """As in "red is at most 9 px from the largest green thing"."""
        return f"{self.seen.words} is {_bound(sense, threshold, ' px')} from {self.where.words}"

    def code(self, sense: int, threshold: float, names: Sequence[str]) -> str:
        """A comparison of ``vision.distance``, which is infinite where there is no such pixel."""
        compared = _compared(self.value(names), sense, threshold)
        return compared if sense == AT_MOST else f"np.inf > {compared}"

    def value(self, names: Sequence[str]) -> str:
        """The distance as an expression."""
        return f"vision.distance({self.seen.code}, {names[0]}(initial))"


AHEAD = """def ahead(mask, moved):
    # boxes as large as things that have moved, next to them on the side that they point to: where there is less of them
    found, moved = np.zeros_like(mask), moved & mask
    for b in vision.blobs(mask, 4):
        if not moved[b.y : b.y + b.h, b.x : b.x + b.w].any():
            continue
        x, y = vision.centre(mask[b.y : b.y + b.h, b.x : b.x + b.w])
        x, y = 0.5 - (x + 0.5) / b.w, 0.5 - (y + 0.5) / b.h
        if max(abs(x), abs(y)) > 0.06:
            left = b.x + b.w * int(np.sign(x)) * (abs(x) > abs(y))
            top = b.y + b.h * int(np.sign(y)) * (abs(x) <= abs(y))
            found[max(top, 0) : max(top + b.h, 0), max(left, 0) : max(left + b.w, 0)] = True
    return found
"""
"""The code of a function of programs. Of a triangle a third of its height lies between centre and base, two thirds
between centre and tip, so that a share of 0.17 separates its centre from that of its box."""


@dataclass(frozen=True)
class Pointing:
    """How many pixels of a region lie where a thing with a property, which has moved, points to."""

    seen: Property
    where: Region
    cost: float
    eventful: bool = False

    @property
    def regions(self) -> tuple[Region, ...]:
        """The region."""
        return (self.where,)

    def words(self, sense: int, threshold: float) -> str:
        """As in "something red that has moved points to the largest blue thing next to it"."""
        points = "points" if sense == AT_LEAST else f"points by {_bound(sense, threshold, ' px')}"
        return f"something {self.seen.words} that has moved {points} to {self.where.words} next to it"

    def code(self, sense: int, threshold: float, names: Sequence[str]) -> str:
        """A comparison of a count."""
        ahead = f"ahead({self.seen.code}, vision.changed(frame, initial))"
        return _compared(f"np.count_nonzero({ahead} & {names[0]}(initial))", sense, threshold)
