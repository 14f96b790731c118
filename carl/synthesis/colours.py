"""The exact colours of frames, as a table for a prompt."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carl import vision
from carl.task import Frame

ROWS = 24
"""Colours of a table, those with the most pixels."""

PICTURES, BOXES = 4, 2
"""Of a colour the largest boxes in the first pictures are listed."""

NAMES = (*vision.HUES, "white", "black", "grey")


def colour_table(frames: Sequence[Frame]) -> str:
    """A line for each of the most frequent colours of ``frames``, numbered from 1: RGB, name, share, and boxes.

    A box is left,top,width,height of a region of exactly that colour, whose pixels touch at sides or corners.
    """
    packed = [_packed(frame) for frame in frames]
    colours, counts = np.unique(np.concatenate([each.ravel() for each in packed]), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    total = int(counts.sum())
    lines = [_line(int(colours[at]), counts[at] / total, packed) for at in order[:ROWS]]
    rest = order[ROWS:]
    if rest.size:
        lines.append(f"and {rest.size} further colours, {_share(counts[rest].sum() / total)} together")
    return "\n".join(lines)


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
