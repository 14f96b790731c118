"""Regions of an initial frame: things of a kind, and which of them is meant.

A region is found anew in every episode. It is worth building on if it looks alike wherever it is found: the smallest
bright thing may be the key in one episode and a corner of the wall in the next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from types import CodeType
from typing import Any

import cv2
import numpy as np
import xxhash
from numpy.typing import NDArray

from carl import vision
from carl.induction.pixels import COLOURS
from carl.vision import Blob, Frame, Mask

MIN_AREA = 4
"""Pixels of the smallest thing."""

MOST_THINGS = 40
"""A kind with more things in some initial frame is noise; only all of it together is a region."""

ALIKE = 0.12
"""Share of the median by which area, width and height of things that look alike may differ."""

LARGE, BACKGROUND = 0.1, 0.25
"""Share of the picture that no thing fills, nor do all things of a colour; nor those of another kind."""

LEVELS, GAP, DIMMEST, BRIGHTEST = 3, 8, 10, 150
"""Most levels of brightness that are learned, the narrowest gap for one, and between which values they lie."""


@cache
def _compiled(code: str) -> CodeType:
    return compile(code, "<region>", "eval")


def computed(code: str, **names: Any) -> Any:
    """The value of an expression of this module: what the table holds and what a program says is one text."""
    return eval(_compiled(code), {"vision": vision, "np": np, **names})


@cache
def defined(source: str, name: str) -> Any:
    """The function ``name`` of a piece of a program."""
    names: dict[str, Any] = {"vision": vision, "np": np}
    exec(compile(source, "<helper>", "exec"), names)
    return names[name]


@dataclass(frozen=True)
class Kind:
    """Things of one kind in an initial frame.

    Attributes:
        words: what one of them is called, as in "yellow thing".
        code: an expression over ``initial`` for their mask.
        detail: what else there is to say, as in "above brightness 39".
    """

    words: str
    code: str
    detail: str = ""


@dataclass(frozen=True)
class Pick:
    """Which of the things of a kind are meant: all, the last by a key, or those of a size.

    Attributes:
        words: as in "tallest"; empty for all.
        key: an expression over a blob ``b`` and the brightness ``light``; the thing with the largest is meant.
        size: an expression over a blob ``b`` that is true of the things that are meant.
        cost: how far-fetched it is.
    """

    words: str = ""
    key: str = ""
    size: str = ""
    cost: float = 0.0

    def of(self, scene: "Scene", kind: Kind) -> list[Blob]:
        """The things that are meant."""
        found = scene.things(kind)
        if self.key:
            lambda_ = computed(f"lambda b, light: ({self.key}, -b.y, -b.x)")
            return sorted(found, key=lambda b: lambda_(b, scene.light))[-1:]
        return [b for b in found if computed(self.size, b=b)] if self.size else found


_LIGHT = "light[b.y : b.y + b.h, b.x : b.x + b.w].mean()"
RANKS = (
    Pick("largest", "b.area"),
    Pick("smallest", "-b.area"),
    Pick("tallest", "b.h / b.w"),
    Pick("widest", "b.w / b.h"),
    Pick("fullest", "b.area / (b.w * b.h)"),
    Pick("emptiest", "-b.area / (b.w * b.h)"),
    Pick("brightest", _LIGHT),
    Pick("dimmest", f"-{_LIGHT}"),
    Pick("largest-framed", "b.w * b.h"),
    Pick("leftmost", "-b.x", cost=0.02),
    Pick("rightmost", "b.x", cost=0.02),
    Pick("topmost", "-b.y", cost=0.02),
    Pick("lowest", "b.y", cost=0.02),
)
"""The ways to tell one thing from the others of its kind."""


@dataclass(frozen=True)
class Region:
    """Pixels of an initial frame: the things of a kind that are meant, or the boxes around them."""

    kind: Kind
    pick: Pick
    boxed: bool = False
    single: bool = False
    """Whether there is one thing of the kind in every initial frame."""

    @property
    def several(self) -> bool:
        """Whether all things of the kind are meant, of which there may be several."""
        return not self.pick.words and not self.single

    @property
    def words(self) -> str:
        """As in "the smallest yellow thing"."""
        things = f"{self.kind.words}s" if self.several else self.kind.words
        return " ".join(filter(None, ["the", self.pick.words, things, self.kind.detail]))

    def mask(self, scene: "Scene") -> Mask:
        """Where it is, ``bool[H, W]``; all false if there is none."""
        mask = scene.mask(self.kind)
        if not self.boxed and self.pick == Pick():
            return mask
        chosen = np.zeros_like(mask)
        for b in self.pick.of(scene, self.kind):
            box = slice(b.y, b.y + b.h), slice(b.x, b.x + b.w)
            chosen[box] = True if self.boxed else mask[box]
        return chosen

    def source(self, name: str) -> str:
        """The code of a function ``name(initial)`` that computes ``mask``."""
        lines = [f"def {name}(initial):", f"    # {self.words}", f"    mask = {self.kind.code}"]
        if not self.boxed and self.pick == Pick():
            return "\n".join([*lines[:2], f"    return {self.kind.code}", ""])
        found, light = f"vision.blobs(mask, {MIN_AREA})", "    light = vision.brightness(initial)"
        if self.pick.key:
            found = f"sorted({found}, key=lambda b: ({self.pick.key}, -b.y, -b.x))[-1:]"
        if self.pick.size:
            found = f"[b for b in {found} if {self.pick.size}]"
        box = "b.y : b.y + b.h, b.x : b.x + b.w"
        return "\n".join(
            [
                *lines,
                *([light] if "light" in self.pick.key else []),
                "    chosen = np.zeros_like(mask)",
                f"    for b in {found}:",
                f"        chosen[{box}] = {'True' if self.boxed else f'mask[{box}]'}",
                "    return chosen",
                "",
            ]
        )


@dataclass(eq=False)
class Scene:
    """An initial frame, ``uint8[H, W, 3]``, and what was found in it."""

    initial: Frame
    _masks: dict[Kind, Mask] = field(default_factory=dict)
    _things: dict[Kind, list[Blob]] = field(default_factory=dict)

    @cached_property
    def light(self) -> NDArray[np.uint8]:
        """Its brightness, ``uint8[H, W]``."""
        return vision.brightness(self.initial)

    def mask(self, kind: Kind) -> Mask:
        """Where things of a kind are, ``bool[H, W]``."""
        if kind not in self._masks:
            self._masks[kind] = computed(kind.code, initial=self.initial)
        return self._masks[kind]

    def covered(self, kind: Kind) -> float:
        """Which share of the picture they fill."""
        return float(self.mask(kind).mean())

    def things(self, kind: Kind) -> list[Blob]:
        """The things of a kind."""
        if kind not in self._things:
            self._things[kind] = vision.blobs(self.mask(kind), MIN_AREA)
        return self._things[kind]


def _inside(code: str) -> str:
    return f"{code} & ~vision.border_region(initial)"


def kinds(initials: Sequence[Frame]) -> list[Kind]:
    """Kinds of things to look for: by colour, by brightness, and by the levels that these frames leave free."""
    found = []
    for name in COLOURS:
        code = f'vision.colour(initial, "{name}")'
        found.append(Kind(f"{name} thing", code if name in vision.HUES else _inside(code)))
    lit, dim = _inside("vision.band(initial, 60)"), _inside("vision.band(initial, 40, 200)")
    found += [
        Kind("thing", lit),
        Kind("dim thing", dim),
        Kind("bright thing", _inside("vision.band(initial, 200)")),
        Kind("solid thing", f"vision.solid({lit}, 5)"),
        Kind("solid dim thing", f"vision.solid({dim}, 5)"),
    ]
    for level in _levels(initials):
        above = _inside(f"vision.band(initial, {level})")
        found += [
            Kind("thing", above, f"above brightness {level}"),
            Kind("filled thing", f"vision.filled({above}, 3)", f"above brightness {level}"),
        ]
    return found


def _levels(initials: Sequence[Frame]) -> list[int]:
    """Brightness in the middle of the widest gaps, where hardly a pixel of the initial frames lies."""
    counts = sum(np.bincount(vision.brightness(initial).ravel(), minlength=256) for initial in initials)
    used = np.flatnonzero(counts > 5e-5 * np.sum(counts))
    gaps = sorted(((b - a, int(a + b) // 2) for a, b in pairwise(used) if b - a >= GAP), reverse=True)
    return sorted({level for _, level in gaps[:12] if DIMMEST <= level <= BRIGHTEST})[:LEVELS]


@dataclass(frozen=True)
class Found:
    """A region and how well it is suited.

    Attributes:
        cost: 0 for one that looks alike in every episode.
        large: whether it is too large a part of the picture for a thing.
    """

    region: Region
    cost: float
    large: bool


def regions(scenes: Sequence[Scene], most: int) -> list[Found]:
    """The ``most`` regions that look most alike in all of these initial frames, each set of pixels once."""
    candidates: dict[bytes, Found] = {}
    for region in _candidates(scenes):
        looks = _looks(region, scenes)
        if looks is None:
            continue
        digest, found = looks
        if digest not in candidates or found.cost < candidates[digest].cost:
            candidates[digest] = found
    return sorted(candidates.values(), key=lambda found: found.cost)[:most]


def _candidates(scenes: Sequence[Scene]) -> Iterator[Region]:
    for kind in kinds([scene.initial for scene in scenes]):
        yield Region(kind, Pick())
        if max(len(scene.things(kind)) for scene in scenes) <= MOST_THINGS:
            yield from (Region(kind, pick) for pick in (*RANKS, *_sizes([scene.things(kind) for scene in scenes])))


def _looks(region: Region, scenes: Sequence[Scene]) -> tuple[bytes, Found] | None:
    """A digest of the region in all frames, and how well it is suited; None if it is missing in one."""
    digest, shapes, shares, counts = xxhash.xxh3_128(), [], [], []
    for scene in scenes:
        mask = region.mask(scene)
        _, _, width, height = cv2.boundingRect(mask.view(np.uint8))
        if width == 0:
            return None
        area = int(np.count_nonzero(mask))
        digest.update(np.ascontiguousarray(mask).data)
        shapes.append((area, width, height))
        shares.append(area / mask.size)
        counts.append(len(scene.things(region.kind)) if region.pick == Pick() else 1)
    cost = 15.0 * (1.0 - _steadiness(np.array(shapes, float))) + region.pick.cost
    large = float(np.mean(shares)) > LARGE or _background(region.kind, scenes)
    cost += 5.0 * min(0.4, 0.15 * (float(np.mean(counts)) - 1.0)) + 5.0 * large
    single = region.pick == Pick() and {len(scene.things(region.kind)) for scene in scenes} == {1}
    return digest.digest(), Found(replace(region, single=single), cost, large)


def _background(kind: Kind, scenes: Sequence[Scene]) -> bool:
    most = LARGE if kind.words.split()[0] in COLOURS else BACKGROUND
    return float(np.mean([scene.covered(kind) for scene in scenes])) > most


def _steadiness(shapes: NDArray[np.float64]) -> float:
    """Share of ``shapes``, ``float64[N, 3]`` of area, width, height, near the median; lying or standing is the same."""
    median = np.median(shapes, axis=0)
    allowed = np.maximum(1.0, ALIKE * median)
    upright = (np.abs(shapes - median) <= allowed).all(axis=1)
    lying = (np.abs(shapes[:, [0, 2, 1]] - median) <= allowed).all(axis=1)
    return float((upright | lying).mean())


def _sizes(things: Sequence[Sequence[Blob]], most: int = 6) -> list[Pick]:
    """Sizes of which every frame has a thing, those of which there are fewest first."""
    signatures = [{(min(b.w, b.h), max(b.w, b.h), b.area) for b in found} for found in things]
    picks: dict[Pick, float] = {}
    for short, long, area in sorted(set.intersection(*map(set, signatures)) if signatures else ()):
        pick = _sized(short, long, area)
        counts = [sum(bool(computed(pick.size, b=b)) for b in found) for found in things]
        picks[pick] = float(np.mean(counts))
    return sorted(picks, key=lambda pick: (picks[pick], pick.size))[:most]


def _sized(short: int, long: int, area: int) -> Pick:
    slack = max(1, round(ALIKE * area))
    size = f"abs(b.area - {area}) <= {slack} and abs(min(b.w, b.h) - {short}) <= 1 and abs(max(b.w, b.h) - {long}) <= 1"
    return Pick(f"{short} x {long}", size=size, cost=0.02)
