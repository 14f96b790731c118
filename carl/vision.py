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

HUES = {
    "red": ((0, 8), (172, 180)),
    "orange": ((9, 20),),
    "yellow": ((21, 38),),
    "green": ((39, 85),),
    "cyan": ((86, 100),),
    "blue": ((101, 126),),
    "purple": ((127, 160),),
    "pink": ((161, 171),),
}
"""Bands of OpenCV's hue, half a degree a unit, both ends included. ``colour`` takes them by name."""

_STEP = 16
"""Levels of a channel that count as one colour where colours are counted."""


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
    """Pixels of a colour by its name: red, orange, yellow, green, cyan, blue, purple, pink, grey, white or black.

    HSV as OpenCV has it: hue 0 to 180, saturation and value 0 to 255. A colour has a hue in its band, at least
    ``saturation`` and at least ``value``. Below ``saturation`` a pixel is black below ``value``, white from 200 on, and
    grey between.
    """
    h, s, v = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV))
    if name in ("grey", "gray", "white", "black"):
        low, high = {"black": (0.0, value), "white": (200.0, 256.0)}.get(name, (value, 200.0))
        return np.asarray((s < saturation) & (v >= low) & (v < high))
    hue = np.zeros(h.shape, dtype=bool)
    for first, last in HUES[name]:
        hue |= (h >= first) & (h <= last)
    return np.asarray(hue & (s >= saturation) & (v >= value))


@_remembered
def near(frame: Frame, rgb: tuple[int, int, int], tolerance: int = 24) -> Mask:
    """Pixels near a colour: each of their three channels differs from that of ``rgb`` by at most ``tolerance``."""
    low, high = ([min(255, max(0, int(level) + way * tolerance)) for level in rgb] for way in (-1, 1))
    return np.asarray(cv2.inRange(frame, np.array(low), np.array(high)), dtype=np.uint8) > 0


@_remembered
def saturated(frame: Frame, saturation: float = 80, value: float = 50) -> Mask:
    """Pixels that have a colour, whichever: HSV saturation and value (0 to 255) of at least these."""
    _, s, v = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV))
    return np.asarray((s >= saturation) & (v >= value))


@_remembered
def background(frame: Frame, least: float = 0.05) -> Mask:
    """Pixels of the colours that each fill at least the share ``least`` of the picture, connected or not.

    Colours are the same here whose channels lie in the same steps of 16 levels (0 to 15, 16 to 31, ...). A thing of the
    walls' or the floor's colour is background too.
    """
    steps = np.asarray(frame // _STEP, dtype=np.intp)
    levels = 256 // _STEP
    colours = (steps[..., 0] * levels + steps[..., 1]) * levels + steps[..., 2]
    counts = np.bincount(colours.ravel(), minlength=levels**3)
    return np.asarray((counts >= least * colours.size)[colours])


@_remembered
def things(frame: Frame, min_area: int = 4, least: float = 0.05) -> Mask:
    """All regions of at least ``min_area`` pixels that are not ``background``; neighbours touch at sides or corners."""
    return shaped(~background(frame, least), min_area=min_area)


@_remembered
def border_region(frame: Frame, tolerance: int = 8) -> Mask:
    """What the picture is framed by: pixels of the border's usual colour that are connected to the border.

    The usual colour is the median of the outermost pixels, channel by channel; ``tolerance`` is in levels of a channel.
    Neighbours touch at sides, not at corners.
    """
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
    """Pixels that differ by more than ``tolerance`` (0 to 255) in some channel."""
    return np.asarray(brightness(np.asarray(cv2.absdiff(frame, initial), dtype=np.uint8)) > tolerance)


@_remembered
def moved(frame: Frame, initial: Frame, tolerance: int = 24, least: float = 0.05) -> Mask:
    """Where something is in ``frame`` that was not there in ``initial``: pixels ``changed``, and not ``background``.

    ``moved(initial, frame)`` is where what moved was before.
    """
    return changed(frame, initial, tolerance) & ~background(frame, least)


def cells(picture: Frame | Mask, rows: int, columns: int) -> NDArray[np.float64]:
    """The picture as a grid: of a mask the share of each cell that is set, of a frame each cell's mean colour.

    ``float64[rows, columns]`` or ``float64[rows, columns, 3]``. Cell (i, j) has the pixel rows i * H // rows up to, and
    without, (i + 1) * H // rows, columns likewise; there are at most H rows and W columns.
    """
    height, width = picture.shape[:2]
    rows, columns = max(1, min(rows, height)), max(1, min(columns, width))
    top, left = np.arange(rows) * height // rows, np.arange(columns) * width // columns
    sums = np.add.reduceat(np.add.reduceat(picture.astype(np.float64), top, axis=0), left, axis=1)
    sizes = np.outer(np.diff(top, append=height), np.diff(left, append=width))
    return np.asarray(sums / (sizes if picture.ndim == 2 else sizes[..., None]))


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
    """The connected regions of at least ``min_area`` pixels, largest first; neighbours touch at sides or corners."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    found = [Blob(*(int(number) for number in row)) for row in stats[1:] if row[4] >= min_area]
    return sorted(found, key=lambda blob: -blob.area)


@_remembered
def largest(mask: Mask) -> Mask:
    """The largest connected region (neighbours touch at sides or corners); empty if the mask is."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    if len(stats) == 1:
        return np.zeros_like(mask)
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, 4])))


@_remembered
def shaped(mask: Mask, taller: float = 0.0, wider: float = 0.0, min_area: int = 1, min_width: int = 1) -> Mask:
    """The connected regions that are at least ``taller`` times as high as wide and ``wider`` times as wide as high.

    Neighbours touch at sides or corners. They have at least ``min_area`` pixels, in a box at least ``min_width`` wide.
    """
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


def tilt(mask: Mask) -> float:
    """Degrees by which the longer axis of a mask is turned, above -90 and up to 90; 0 if it is empty or round.

    0 is level, 90 upright, and 45 falls to the right: x grows to the right and y downwards. The axis is that of the
    pixels' second moments.
    """
    found = cv2.moments(_bytes(mask), binaryImage=True)
    across, along = 2.0 * found["mu11"], found["mu20"] - found["mu02"]
    if max(abs(across), abs(along)) <= 1e-9 * found["m00"] ** 2:
        return 0.0
    degrees = float(np.degrees(np.arctan2(across, along))) / 2.0
    return degrees if degrees > -90.0 else 90.0


def _bytes(mask: Mask) -> NDArray[np.uint8]:
    return np.ascontiguousarray(mask).view(np.uint8)


def _dilated(mask: Mask, size: int) -> Mask:
    kernel = np.ones((size, size), dtype=np.uint8)
    anchor = (size - 1) // 2  # mirrors _eroded's, so that opening and closing with an even size do not shift the mask
    return np.asarray(cv2.dilate(_bytes(mask), kernel, anchor=(anchor, anchor)), dtype=np.uint8).view(np.bool_)


def _eroded(mask: Mask, size: int) -> Mask:
    kernel = np.ones((size, size), dtype=np.uint8)
    return np.asarray(cv2.erode(_bytes(mask), kernel, anchor=(size // 2, size // 2)), dtype=np.uint8).view(np.bool_)
