"""The exact colours of frames, as a table for a prompt."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carl import vision
from carl.task import Frame

ROWS = 24
"""Colours of a table, those with the most pixels."""

NEAR, LOOKED_AT = 12, 2_000
"""A colour whose channels each differ by at most ``NEAR`` levels from a more frequent one's is counted there, as at the
edges of drawn things; the most frequent ``LOOKED_AT`` are."""

PICTURES, BOXES = 4, 2
"""Of a colour the largest boxes in the first pictures are listed."""

NAMES = (*vision.HUES, "white", "black", "grey")


def colour_table(frames: Sequence[Frame]) -> str:
    """A line for each of the most frequent colours of ``frames``, numbered from 1: RGB, name, share, and boxes.

    A share includes what is ``NEAR`` the colour. A box is left,top,width,height of a region of exactly that colour,
    whose pixels touch at sides or corners.
    """
    packed = [_packed(frame) for frame in frames]
    colours, counts = np.unique(np.concatenate([each.ravel() for each in packed]), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    total = int(counts.sum())
    found = _grouped(colours[order], counts[order])
    rows = sorted(found.items(), key=lambda item: -item[1])[:ROWS]
    lines = [_line(colour, count / total, packed) for colour, count in rows]
    if len(found) > ROWS:
        rest = total - sum(count for _, count in rows)
        more = len(found) - ROWS + max(0, len(colours) - LOOKED_AT)
        lines.append(f"and {more} further colours, {_share(rest / total)} together")
    return "\n".join(lines)


def _grouped(colours: NDArray[np.uint32], counts: NDArray[np.intp]) -> dict[int, int]:
    """Pixels by colour, from the most frequent one on, each with those near it."""
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(int)
    left = np.arange(len(colours)) < LOOKED_AT
    found: dict[int, int] = {}
    for at in range(min(len(colours), LOOKED_AT)):
        if left[at]:
            near = left & (np.abs(channels - channels[at]) <= NEAR).all(axis=1)
            found[int(colours[at])] = int(counts[near].sum())
            left &= ~near
    return found


def _packed(frame: Frame) -> NDArray[np.uint32]:
    """Each pixel's colour as one number."""
    levels = frame.astype(np.uint32)
    return np.asarray(levels[..., 0] << 16 | levels[..., 1] << 8 | levels[..., 2])


def _line(colour: int, share: float, packed: Sequence[NDArray[np.uint32]]) -> str:
    rgb = colour >> 16, colour >> 8 & 255, colour & 255
    where = [
        f"picture {number}: {found}"
        for number, each in enumerate(packed[:PICTURES], 1)
        if (found := _boxes(each == colour))
    ]
    return f"({rgb[0]}, {rgb[1]}, {rgb[2]}) {_name(rgb)}, {_share(share)}; " + "; ".join(where)


def _name(rgb: tuple[int, int, int]) -> str:
    """What ``vision.colour`` calls it."""
    pixel = np.array([[rgb]], dtype=np.uint8)
    return next((name for name in NAMES if vision.colour(pixel, name).any()), "no name")


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{share:.2%}"


def _boxes(mask: NDArray[np.bool_]) -> str:
    """The largest boxes of a colour, and how many more there are."""
    found = vision.blobs(mask)
    listed = " ".join(f"{blob.x},{blob.y},{blob.w},{blob.h}" for blob in found[:BOXES])
    more = len(found) - BOXES
    return f"{listed} and {more} more" if more > 0 else listed
