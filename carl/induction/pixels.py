"""What a pixel of a frame shows: its colour by name, whether it is lit, and whether it has changed.

One number a pixel, its code, holds all three, so that one count over codes answers every question about a region.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from carl import vision
from carl.vision import Frame

TOLERANCE = 7
"""By which the channels of an exact colour may differ."""

STRONG, DARK, PALE, CHANGED, LIT = 80, 50, 200, 24, 40
"""Saturation from which a pixel has a hue; brightness below which it is black or has none, from which it is white;
the defaults of ``vision.colour``. Difference above which it has changed: that of ``vision.changed``. Brightness from
which it is lit."""

COLOURS = (*vision.HUES, "grey", "white", "black")
"""The names of colours. A dark pixel with a hue has none of them."""

TINTS = 2
"""Most exact colours that are told apart beside."""

LATE = 12
"""Frames before the end of an expert episode in which exact colours are looked for."""

PLAIN = 4 * (len(COLOURS) + 1)
CODES = PLAIN << TINTS
"""A code is (colour's number from 1, or 0) + 12 if changed + 24 if lit + 48 or 96 if it has an exact colour."""

Rgb = tuple[int, int, int]

Codes = NDArray[np.uint8]
"""``uint8[N]``, each below CODES."""


@dataclass(frozen=True)
class Property:
    """Something that pixels of a frame can be.

    Attributes:
        words: what such pixels are called, as in "red" or "changed".
        code: an expression over ``frame`` and ``initial`` for the mask of such pixels.
        codes: which codes such pixels have, as 0 and 1.
        before: the same expression over ``initial`` alone; empty where that is always an empty mask.
        exact: whether it is an exact colour, not one of those that have names.
    """

    words: str
    code: str
    codes: tuple[float, ...]
    before: str = ""
    exact: bool = False


def _flags() -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.bool_]]:
    codes, colours = np.arange(CODES), len(COLOURS) + 1
    return codes % colours, codes // colours % 2 == 1, codes // (2 * colours) % 2 == 1


def tint(number: int, rgb: Rgb) -> Property:
    """Pixels of an exact colour, the ``number``-th of a table from 0."""
    has = (np.arange(CODES) // (PLAIN << number)) % 2 == 1
    code = f"vision.near({{}}, {rgb}, {TOLERANCE})"
    codes = tuple(has.astype(float))
    return Property(f"of colour {rgb}", code.format("frame"), codes, code.format("initial"), exact=True)


def _properties() -> tuple[Property, Property, tuple[Property, ...], tuple[Property, ...]]:
    colour, changed, lit = _flags()
    plain, fresh = [], []
    for number, name in enumerate(COLOURS, 1):
        has, code = colour == number, f'vision.colour(frame, "{name}")'
        plain.append(Property(name, code, tuple(has.astype(float)), f'vision.colour(initial, "{name}")'))
        if name in vision.HUES:
            both = f"{code} & vision.changed(frame, initial)"
            fresh.append(Property(f"new {name}", both, tuple((has & changed).astype(float))))
    return (
        Property("changed", "vision.changed(frame, initial)", tuple(changed.astype(float))),
        Property("lit", f"vision.band(frame, {LIT})", tuple(lit.astype(float)), f"vision.band(initial, {LIT})"),
        tuple(plain),
        tuple(fresh),
    )


IS_CHANGED, IS_LIT, COLOURED, FRESH = _properties()
"""Changed pixels; lit ones; those of each colour; and those of each hue that have changed."""

HUED = COLOURED[: len(vision.HUES)]
"""Pixels of each hue."""


def _hues() -> NDArray[np.uint8]:
    """The colour's number for each of OpenCV's hues, ``uint8[256]``."""
    table = np.zeros(256, np.uint8)
    for number, bands in enumerate(vision.HUES.values(), 1):
        for first, last in bands:
            table[first : last + 1] = number
    return table


_HUE = _hues()
_GREY, _WHITE, _BLACK = (COLOURS.index(name) + 1 for name in ("grey", "white", "black"))
_UNSATURATED = np.array([_BLACK if v < DARK else _WHITE if v >= PALE else _GREY for v in range(256)], np.uint8)


def coded(pixels: Frame, before: Frame, tints: Sequence[Rgb] = ()) -> Codes:
    """The codes of ``pixels``, ``uint8[N, 3]``, that were ``before`` in the initial frame: ``uint8[N]``."""
    rows, initial = (np.ascontiguousarray(each).reshape(-1, 1, 3) for each in (pixels, before))
    if not len(rows):
        return np.zeros(0, np.uint8)
    hue, saturation, value = cv2.split(cv2.cvtColor(rows, cv2.COLOR_RGB2HSV))
    with_hue = np.where(value >= DARK, cv2.LUT(hue, _HUE), 0)
    colour = np.where(saturation >= STRONG, with_hue, cv2.LUT(value, _UNSATURATED))
    colours = len(COLOURS) + 1
    codes = colour + np.uint8(colours) * vision.changed(rows, initial) + np.uint8(2 * colours) * (value >= LIT)
    for number, rgb in enumerate(tints):
        codes += np.uint8(PLAIN << number) * vision.near(rows, rgb, TOLERANCE)
    return np.asarray(codes.ravel(), dtype=np.uint8)


def telling(initials: Sequence[Frame], ends: Sequence[Frame]) -> list[Rgb]:
    """At most ``TINTS`` exact colours by which every episode tells how far it is: one that goes on the way, and else
    such as come or go in the last frame and at no time shortly before, the larger a share of them the better.

    Of each episode there are the initial frame, ``uint8[H, W, 3]``, and the last ones, ``uint8[N, H, W, 3]``.
    """
    first = np.array([_histogram(frame) for frame in initials])
    late = [np.array([_histogram(frame) for frame in frames]) for frames in ends]
    last, then = np.array([each[-1] for each in late]), np.array([each[-2] for each in late])
    least, most = (np.array([of(each[:-1], axis=0) for each in late]) for of in (np.min, np.max))
    at_the_end = _best(np.maximum(_drop(last, most), _drop(least, last)))
    found = [*_best(_drop(first, then))[:1], *at_the_end][:TINTS]
    return [(16 * (index >> 8) + 8, 16 * (index >> 4 & 15) + 8, 16 * (index & 15) + 8) for index in found]


def _drop(more: NDArray[np.intp], fewer: NDArray[np.intp]) -> NDArray[np.float64]:
    """By which share of the one even its least counts are above all of the other, ``float64[4096]``."""
    return np.asarray((more.min(axis=0) - fewer.max(axis=0)) / np.maximum(more.max(axis=0), 1))


def _best(rated: NDArray[np.float64]) -> list[int]:
    """Those of a table of colours with a positive number, the largest first."""
    return [index for index in np.argsort(-rated, kind="stable")[:TINTS].tolist() if rated[index] > 0]


def _histogram(frame: Frame) -> NDArray[np.intp]:
    """Pixels by colour, each channel in 16 steps, ``intp[4096]``."""
    red, green, blue = (frame[..., channel].astype(np.intp) >> 4 for channel in range(3))
    return np.bincount((red * 256 + green * 16 + blue).ravel(), minlength=4096)


def weights(properties: tuple[Property, ...]) -> NDArray[np.float32]:
    """Which codes have which property, ``float32[CODES, len(properties)]``."""
    return np.array([each.codes for each in properties], np.float32).T
