"""Whether a frame is one that the embedded model can have learned to read."""

import logging
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


OTHERS = "name a larger model (vlm.model, and vlm.base_url if a server has it), or replay a recording (vlm.recording)"
"""What to do where the embedded model knows nothing."""

_log = logging.getLogger(__name__)


def check(task: str, frame: Frame) -> None:
    """Say if the embedded model does not know such pictures as ``frame``, ``uint8[H, W, 3]``, of the task so called.

    One of the wrong size raises VlmError, as the model cannot be shown it. Strange tiles are a warning: what lies on
    them may not matter. Rooms are not told apart: one of known tiles passes, though the model has never seen its like.
    """
    height, width = frame.shape[:2]
    most = MOST_TILES * TILE
    if height % TILE or width % TILE or max(height, width) > most:
        raise VlmError(
            f"the embedded model cannot be shown {task!r}: it reads MiniGrid's rooms, in tiles of {TILE}x{TILE} pixels "
            f"up to {most}x{most}, and frames are {height}x{width}. Either {OTHERS}"
        )
    if strange := strange_tiles(frame):
        _log.warning(
            "the embedded model reads MiniGrid's rooms, and %d of the %d tiles of a frame of %r are none of theirs: "
            "its answers are likely to be useless. If no program passes, %s",
            *(strange, height * width // TILE**2, task, OTHERS),
        )


def strange_tiles(frame: Frame) -> int:
    """How many tiles of ``frame`` show something that the model was not trained on."""
    height, width = frame.shape[:2]
    corners = product(range(0, height, TILE), range(0, width, TILE))
    return sum(frame[y : y + TILE, x : x + TILE].tobytes() not in _tiles() for y, x in corners)


@cache
def _tiles() -> frozenset[bytes]:
    """Every thing by itself and with the agent on it, looking each way."""
    things: list[Thing | None] = [None, *KINDS]
    return frozenset(tile(thing, facing).tobytes() for thing, facing in product(things, (None, 0, 1, 2, 3)))
