"""A check whether a frame is one that the embedded model was trained to read."""

from functools import cache
from itertools import product

from carl.errors import VlmError
from carl.nano.painting import TILE, Thing, tile
from carl.nano.scenes import COLOURS
from carl.task import Frame

MOST_TILES = 16
"""Tiles on a side of the largest room that the model's canvas holds."""

KINDS = (
    *product(("key", "ball", "box", "wall", "goal"), COLOURS, ("",)),
    *product(("door",), COLOURS, ("open", "shut", "locked")),
)


OTHERS = (
    "leave synthesis.proposers at its default, which then searches without a model, name a larger model (vlm.model, "
    "and vlm.base_url if a server has it), or replay a recording (vlm.recording)"
)
"""The advice for tasks that the embedded model cannot read."""


def reads(frame: Frame) -> bool:
    """Whether the embedded model was trained on pictures such as ``frame``, ``uint8[H, W, 3]``."""
    return _fits(frame) and not strange_tiles(frame)


def check(task: str, frame: Frame) -> None:
    """Check that the embedded model can read ``frame``, ``uint8[H, W, 3]``, of the task called ``task``.

    Raises VlmError for a size that the model cannot take, and for tiles that it was not trained on. Rooms are not
    compared: one of known tiles passes, even if the model was trained on none like it.
    """
    height, width = frame.shape[:2]
    most = MOST_TILES * TILE
    if not _fits(frame):
        raise VlmError(
            f"the embedded model cannot be shown {task!r}: it reads MiniGrid's rooms, in tiles of {TILE}x{TILE} pixels "
            f"up to {most}x{most}, and frames are {height}x{width}. Either {OTHERS}"
        )
    if strange := strange_tiles(frame):
        raise VlmError(
            f"the embedded model cannot read {task!r}: it reads MiniGrid's rooms, and {strange} of the "
            f"{height * width // TILE**2} tiles of a frame are none that it was trained on. Either {OTHERS}"
        )


def _fits(frame: Frame) -> bool:
    """Whether the model can take a frame of that size."""
    height, width = frame.shape[:2]
    return not (height % TILE or width % TILE or max(height, width) > MOST_TILES * TILE)


def strange_tiles(frame: Frame) -> int:
    """The number of tiles of ``frame`` that the model was not trained on."""
    height, width = frame.shape[:2]
    corners = product(range(0, height, TILE), range(0, width, TILE))
    return sum(frame[y : y + TILE, x : x + TILE].tobytes() not in _tiles() for y, x in corners)


@cache
def _tiles() -> frozenset[bytes]:
    """The pixels of every thing, by itself and with the agent on it in each direction."""
    things: list[Thing | None] = [None, *KINDS]
    return frozenset(tile(thing, facing).tobytes() for thing, facing in product(things, (None, 0, 1, 2, 3)))
