"""Whether a frame is one that the embedded model can have learned to read."""

from functools import cache
from itertools import product

from carl.nano.painting import TILE, Thing, tile
from carl.nano.scenes import COLOURS
from carl.task import Frame

MOST_TILES = 16
"""Tiles on a side of the largest room that the model's canvas holds."""

KINDS = (
    *product(("key", "ball", "box", "wall", "goal"), COLOURS, ("",)),
    *product(("door",), COLOURS, ("open", "shut", "locked")),
)


def unknown(frame: Frame) -> str:
    """What is strange to the model about ``frame`` (``uint8[H, W, 3]``); empty if all its tiles are MiniGrid's.

    It tells the pictures that the model was trained on, not rooms: other rooms of the same tiles pass.
    """
    height, width = frame.shape[:2]
    if height % TILE or width % TILE or max(height, width) > MOST_TILES * TILE:
        most = MOST_TILES * TILE
        return f"frames are {height}x{width} pixels, not whole tiles of {TILE}x{TILE} up to {most}x{most}"
    parts = [frame[y : y + TILE, x : x + TILE].tobytes() for y in range(0, height, TILE) for x in range(0, width, TILE)]
    strange = sum(part not in _tiles() for part in parts)
    return f"{strange} of {len(parts)} tiles of a frame are none that it was trained on" if strange else ""


@cache
def _tiles() -> frozenset[bytes]:
    """Every thing by itself and with the agent on it, looking each way."""
    things: list[Thing | None] = [None, *KINDS]
    return frozenset(tile(thing, facing).tobytes() for thing, facing in product(things, (None, 0, 1, 2, 3)))
