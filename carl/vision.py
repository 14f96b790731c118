"""General pixel operations that reward programs may use.

Frames are ``uint8[H, W, 3]`` RGB, masks are ``bool[H, W]``. No function depends on an environment's
sprites. Every function is pure and returns a new array.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import cv2
import numpy as np
import xxhash
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_HUES = {
    "red": ((0, 8), (172, 180)),
    "orange": ((9, 20),),
    "yellow": ((21, 38),),
    "green": ((39, 85),),
    "cyan": ((86, 100),),
    "blue": ((101, 126),),
    "purple": ((127, 160),),
    "pink": ((161, 171),),
}
"""Bands of OpenCV's hue, half a degree a unit."""


class Blob(NamedTuple):
    """A connected region: its box (left, top, width, height) and its number of pixels."""

    x: int
    y: int
    w: int
    h: int
    area: int


_P = ParamSpec("_P")
_R = TypeVar("_R")
"""An array or a list."""

_MEMORY_BYTES = 16 << 20
"""Room for remembered results."""


class _Memory:
    """Results by arguments, up to ``_MEMORY_BYTES``; the least recently used is dropped first."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, Any] = OrderedDict()
        self._bytes = 0

    def answer(self, key: Any, ask: Callable[[], Any]) -> Any:
        """The remembered result for this key, else that of ``ask``."""
        if key in self._known:
            self._known.move_to_end(key)
        else:
            self._keep(key, ask())
        return self._known[key]

    def _keep(self, key: Any, found: Any) -> None:
        self._known[key] = found
        self._bytes += _size(found)
        while self._bytes > _MEMORY_BYTES and len(self._known) > 1:
            self._bytes -= _size(self._known.popitem(last=False)[1])


_memory = _Memory()


def _remembered(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``function`` with remembered results: programs compute the same of the initial frame at every frame."""

    @wraps(function)
    def answer(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        key = function.__name__, *map(_content, args), *((name, _content(value)) for name, value in kwargs.items())
        try:
            hash(key)
        except TypeError:  # such as a list
            return function(*args, **kwargs)
        found = _memory.answer(key, lambda: function(*args, **kwargs))
        return found.copy()  # type: ignore[no-any-return]

    return answer


def _content(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return xxhash.xxh3_64_intdigest(np.ascontiguousarray(value).data), value.shape, value.dtype.char
    return value


def _size(found: Any) -> int:
    return 500 + (found.nbytes if isinstance(found, np.ndarray) else 200 * len(found))


def brightness(frame: Frame) -> NDArray[np.uint8]:
    """The largest of a pixel's three channels, ``uint8[H, W]``."""
    red, green, blue = cv2.split(frame)
    return np.asarray(cv2.max(cv2.max(red, green), blue), dtype=np.uint8)


@_remembered
def band(frame: Frame, low: float, high: float = 255) -> Mask:
    """Pixels whose brightness is between ``low`` and ``high``, both included."""
    value = brightness(frame)
    return (value >= low) & (value <= high)


@_remembered
def colour(frame: Frame, name: str, saturation: float = 80, value: float = 50) -> Mask:
    """Pixels of a colour by its name: red, orange, yellow, green, cyan, blue, purple, pink, grey, white or black."""
    h, s, v = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV))
    if name in ("grey", "gray", "white", "black"):
        low, high = {"black": (0.0, value), "white": (200.0, 256.0)}.get(name, (value, 200.0))
        return np.asarray((s < saturation) & (v >= low) & (v < high))
    hue = np.zeros(h.shape, dtype=bool)
    for first, last in _HUES[name]:
        hue |= (h >= first) & (h <= last)
    return np.asarray(hue & (s >= saturation) & (v >= value))


@_remembered
def border_region(frame: Frame, tolerance: int = 8) -> Mask:
    """What the picture is framed by: pixels of the border's usual colour that are connected to the border."""
    rim = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
    usual = np.median(rim, axis=0)
    low, high = np.clip(usual - tolerance, 0, 255), np.clip(usual + tolerance, 0, 255)
    alike = cv2.inRange(frame, low, high)
    count, labels = cv2.connectedComponents(alike, connectivity=4)
    touching = np.zeros(count, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touching[edge] = True
    touching[0] = False
    return np.asarray(touching[labels])


def changed(frame: Frame, initial: Frame, tolerance: int = 24) -> Mask:
    """Pixels that differ by more than ``tolerance`` in some channel."""
    return np.asarray(brightness(np.asarray(cv2.absdiff(frame, initial), dtype=np.uint8)) > tolerance)


def share(mask: Mask, where: Mask) -> float:
    """Which part of the pixels of ``where`` is set in ``mask``, in [0, 1]; 0 if ``where`` is empty."""
    total = int(np.count_nonzero(where))
    return int(np.count_nonzero(mask & where)) / total if total else 0.0


@_remembered
def solid(mask: Mask, size: int) -> Mask:
    """The parts of a mask that a square of ``size`` pixels fits into: thin lines and small things vanish."""
    return _dilated(_eroded(mask, size), size)


@_remembered
def filled(mask: Mask, size: int) -> Mask:
    """The mask with those gaps closed that no square of ``size`` pixels fits into."""
    return _eroded(_dilated(mask, size), size)


@_remembered
def grown(mask: Mask, pixels: int = 1) -> Mask:
    """The mask made larger by ``pixels`` on every side."""
    return _dilated(mask, 2 * pixels + 1)


@_remembered
def outline(mask: Mask) -> Mask:
    """The outermost pixels of a mask."""
    return mask & ~_eroded(mask, 3)


@_remembered
def blobs(mask: Mask, min_area: int = 1) -> list[Blob]:
    """The connected regions of at least ``min_area`` pixels, largest first."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    found = [Blob(*(int(number) for number in row)) for row in stats[1:] if row[4] >= min_area]
    return sorted(found, key=lambda blob: -blob.area)


@_remembered
def largest(mask: Mask) -> Mask:
    """The largest connected region; empty if the mask is."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    if len(stats) == 1:
        return np.zeros_like(mask)
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, 4])))


@_remembered
def shaped(mask: Mask, taller: float = 0.0, wider: float = 0.0, min_area: int = 1, min_width: int = 1) -> Mask:
    """The connected regions that are at least ``taller`` times as high as wide and ``wider`` times as wide as high."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    w, h, area = stats[:, 2], stats[:, 3], stats[:, 4]
    keep = (h >= taller * w) & (w >= wider * h) & (area >= min_area) & (w >= min_width)
    keep[0] = False
    return np.asarray(keep[labels])


def centre(mask: Mask) -> tuple[float, float]:
    """Mean (x, y) of the mask's pixels; (-1, -1) if it is empty."""
    ys, xs = np.nonzero(mask)
    return (float(xs.mean()), float(ys.mean())) if xs.size else (-1.0, -1.0)


def distance(first: Mask, second: Mask) -> float:
    """Pixels between the centres of two masks; infinite if one is empty."""
    if not first.any() or not second.any():
        return float("inf")
    (x1, y1), (x2, y2) = centre(first), centre(second)
    return float(np.hypot(x1 - x2, y1 - y2))


def _bytes(mask: Mask) -> NDArray[np.uint8]:
    return np.ascontiguousarray(mask).view(np.uint8)


def _dilated(mask: Mask, size: int) -> Mask:
    kernel = np.ones((size, size), dtype=np.uint8)
    anchor = (size - 1) // 2  # mirrors _eroded's, so that opening and closing with an even size do not shift the mask
    return np.asarray(cv2.dilate(_bytes(mask), kernel, anchor=(anchor, anchor)), dtype=np.uint8).view(np.bool_)


def _eroded(mask: Mask, size: int) -> Mask:
    kernel = np.ones((size, size), dtype=np.uint8)
    return np.asarray(cv2.erode(_bytes(mask), kernel, anchor=(size // 2, size // 2)), dtype=np.uint8).view(np.bool_)
