"""Painting of gridworld frames from MiniGrid's own tiles, each rendered once: full top-down view, no highlight."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Wall, WorldObj

from carl.task import Frame

TILE = 8
"""Pixels a tile is drawn at."""

Cell = tuple[int, int]
"""Column and row."""

Thing = tuple[str, str, str]
"""Kind, colour and, for doors, state."""


@dataclass(frozen=True)
class State:
    """The things in a room, by cell, and the agent's cell and direction (0 right, 1 down, 2 left, 3 up)."""

    things: dict[Cell, Thing]
    agent: Cell
    direction: int


def _object(kind: str, colour: str, state: str) -> WorldObj:
    if kind == "door":
        return Door(colour, is_open=state == "open", is_locked=state == "locked")
    if kind == "goal":
        goal = Goal()
        goal.color = colour
        return goal
    thing: WorldObj = {"key": Key, "ball": Ball, "box": Box, "wall": Wall}[kind](colour)
    return thing


@cache
def tile(thing: Thing | None, direction: int | None) -> Frame:
    """A thing, or the floor, and the agent on it if ``direction`` is not None: ``uint8[8, 8, 3]``."""
    drawn = Grid.render_tile(_object(*thing) if thing else None, direction, tile_size=TILE)
    return np.asarray(drawn, dtype=np.uint8)


WALL: Thing = ("wall", "grey", "")


@cache
def _empty_room(width: int, height: int) -> Frame:
    room = np.tile(tile(None, None), (height, width, 1))
    for x in range(width):
        for y in range(height):
            if x in (0, width - 1) or y in (0, height - 1):
                _paste(room, (x, y), tile(WALL, None))
    return room


def _paste(frame: Frame, cell: Cell, tile: Frame) -> None:
    x, y = cell
    frame[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] = tile


def paint(size: Cell, walls: Iterable[Cell], state: State) -> Frame:
    """The full view of a room of ``size`` (columns, rows), as ``uint8[8 * rows, 8 * columns, 3]``."""
    frame = _empty_room(*size).copy()
    for cell in walls:
        _paste(frame, cell, tile(WALL, None))
    for cell, thing in state.things.items():
        _paste(frame, cell, tile(thing, None))
    _paste(frame, state.agent, tile(state.things.get(state.agent), state.direction))
    return frame
