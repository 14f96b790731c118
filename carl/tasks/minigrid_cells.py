"""The cells of a MiniGrid room, and which of them changed since they were last read."""

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

ENV, GRID, THINGS = "minigrid.minigrid_env", "minigrid.core.grid", "minigrid.core.world_object"
"""Modules that MiniGrid's own methods come from."""

_COLOUR_AND_TYPE = attrgetter("color", "type")

Cell = tuple[int, int]
"""Column and row."""

LOOKS = ("render", "encode", "see_behind")
"""The methods of an object that decide how it is drawn and seen."""


def own(thing: Any, module: str, *names: str) -> bool:
    """Whether these methods of ``thing`` are MiniGrid's own, from ``module``, and not overridden."""
    homes = (getattr(getattr(thing, name, None), "__globals__", {}) for name in names)
    return all(home.get("__name__") == module for home in homes)


def place(world: Any) -> int | None:
    """Index of the agent's cell; None if it is nowhere in the room."""
    x, y = map(int, world.agent_pos)  # MiniGrid's are numpy's at times, which compute slowly
    grid = world.grid
    return y * grid.width + x if 0 <= x < grid.width and 0 <= y < grid.height else None


def cells_where(world: Any, holds: Callable[[Any], bool]) -> frozenset[Cell]:
    """The cells in which an object (or None) lies that ``holds``."""
    return frozenset(divmod(at, world.grid.width)[::-1] for at, thing in enumerate(world.grid.grid) if holds(thing))


def find(world: Any, kind: str) -> Cell | None:
    """Where the first object of that type lies, or None: it is not there, or carried."""
    for index, thing in enumerate(world.grid.grid):
        if thing is not None and thing.type == kind:
            return index % world.width, index // world.width
    return None


class Cells:
    """Keeps what a room's cells hold, and compares it with what they hold now.

    An object of MiniGrid's own is drawn by its code, ``encode()``. What codes are made from is read instead of the
    codes, because that takes a third of the time. A method that is put on an object while it lies there is not noticed.
    """

    def __init__(self) -> None:
        self._cells: list[Any] = []
        self._codes: list[Any] = []
        self._things: list[Any] = []
        self._stateful: list[Any] = []
        self._marks: tuple[list[Any], list[Any]] = [], []

    def changed(self, cells: list[Any]) -> list[int] | None:
        """Indices of the cells whose code changed; all of them at first, and when their number changes.

        None where an object has methods of its own for how it is drawn; nothing is then kept.
        """
        if cells == self._cells and self._read() == self._marks:  # MiniGrid's things are equal to themselves only
            return []
        things = [cell for cell in cells if cell is not None]
        if not all(map(_looks_like_its_code, things)):
            return None
        before, self._codes = self._codes, [None if cell is None else cell.encode() for cell in cells]
        self._remember(cells.copy(), things)
        if len(before) != len(cells):
            return list(range(len(cells)))
        return [index for index, code in enumerate(self._codes) if code != before[index]]

    def _remember(self, cells: list[Any], things: list[Any]) -> None:
        from minigrid.core.world_object import WorldObj

        self._cells, self._things = cells, things
        self._stateful = [thing for thing in things if type(thing).encode is not WorldObj.encode]
        self._marks = self._read()

    def _read(self) -> tuple[list[Any], list[Any]]:
        """What the codes are made from: colours and types, and the whole code where a thing has a state as well."""
        return list(map(_COLOUR_AND_TYPE, self._things)), [one.encode() for one in self._stateful]


def _looks_like_its_code(thing: Any) -> bool:
    kind: Any = type(thing)
    return _own_kind(kind) and vars(thing).keys().isdisjoint(LOOKS)


@cache
def _own_kind(kind: Any) -> bool:
    return own(kind, THINGS, *LOOKS)
