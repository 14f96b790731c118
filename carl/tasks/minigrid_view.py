"""What MiniGrid shows the agent and the camera, worked out from the cells that changed.

MiniGrid draws its partial view, and its picture, anew in every step, though a step changes at most three cells.
"""

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.task import Environment, Frame

SEEN = ("unseen", "empty", "wall", "door", "key", "box", "goal")
"""Object types that these tasks show the agent, in the order of the one-hot columns."""

COLOURS, STATES, DIRECTIONS = 6, 3, 4
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""One step to the right, down, left, up: MiniGrid's order of directions."""

VIEW = 7
"""Side of the agent's view in cells; it stands in the middle of the nearest row."""

UNSEEN, EMPTY = 0, COLOURS * STATES


class Cells:
    """Remembers a world's cells, and tells which changed since it last looked."""

    def __init__(self) -> None:
        self._cells: list[Any] = []
        self._doors: dict[int, Any] = {}

    def changed(self, world: Any) -> set[int]:
        """Indices of the cells that hold something else, or a door in another state; all of them in a new room."""
        cells, before = world.grid.grid, self._cells
        changed: set[int] = set()
        if len(cells) != len(before):
            changed.update(range(len(cells)))
        elif cells != before:
            changed.update(i for i, cell in enumerate(cells) if cell is not before[i])
        if changed:
            self._cells = list(cells)
            self._doors = {i: None for i, cell in enumerate(cells) if cell is not None and cell.type == "door"}
        for i in self._doors:
            state = cells[i].encode()
            if state != self._doors[i]:
                self._doors[i] = state
                changed.add(i)
        return changed


class TopDown(gym.Wrapper[Any, Any, Any, Any]):
    """Renders what MiniGrid renders, redrawing only the tiles that changed since the last picture."""

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._cells = Cells()
        self._agent = (-1, -1)
        self._picture: Frame = np.zeros((0, 0, 3), dtype=np.uint8)

    def render(self) -> Frame:  # type: ignore[override]  # gymnasium's own type is a free variable here
        """``uint8[tile_size * height, tile_size * width, 3]``, a fresh array."""
        world: Any = self.env.unwrapped
        size, shape = world.tile_size, (world.height * world.tile_size, world.width * world.tile_size, 3)
        if self._picture.shape != shape:
            self._picture, self._cells = np.zeros(shape, np.uint8), Cells()
        for index in self._changed(world):
            x, y = index % world.width, index // world.width
            tile = world.grid.render_tile(
                world.grid.grid[index],
                agent_dir=self._agent[1] if index == self._agent[0] else None,
                tile_size=size,
            )
            self._picture[y * size : (y + 1) * size, x * size : (x + 1) * size] = tile
        return self._picture.copy()

    def _changed(self, world: Any) -> set[int]:
        changed = self._cells.changed(world)
        agent = int(world.agent_pos[1]) * world.width + int(world.agent_pos[0]), int(world.agent_dir)
        if agent != self._agent:
            changed.update(i for i in (agent[0], self._agent[0]) if 0 <= i < len(world.grid.grid))
        self._agent = agent
        return changed


class FlatView(gym.Wrapper[Any, Any, Any, Any]):
    """The agent's 7x7 view and its direction as a flat one-hot vector, ``float32[7 * 7 * 16 + 4]``.

    The view is MiniGrid's own, cell for cell; its own way there is switched off, being most of a step's time.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        world: Any = env.unwrapped
        world.gen_obs = dict
        self._world = world
        self._cells, self._stride = Cells(), 0
        self._codes, self._opaque = np.zeros(0, dtype=np.intp), np.zeros(0, dtype=bool)
        self._table = _one_hot_table()
        size = VIEW * VIEW * self._table.shape[1] + DIRECTIONS
        self.observation_space = gym.spaces.Box(0.0, 1.0, (size,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        _, info = self.env.reset(**kwargs)
        return self._observe(), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], Any, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(), reward, terminated, truncated, info

    def _observe(self) -> NDArray[np.float32]:
        flat = np.zeros(self.observation_space.shape or (), dtype=np.float32)
        flat[:-DIRECTIONS] = self._table[self._view()].reshape(-1)
        flat[self._world.agent_dir - DIRECTIONS] = 1.0
        return flat

    def _view(self) -> NDArray[np.intp]:
        """Codes of the cells in view, ``intp[VIEW * VIEW]``, by column from left to right, each from far to near."""
        world = self._world
        self._look(world)
        here = (world.agent_pos[1] + VIEW - 1) * self._stride + world.agent_pos[0] + VIEW - 1
        places = here + _offsets(self._stride)[world.agent_dir]
        codes: NDArray[np.intp] = self._codes[places]
        if not world.see_through_walls:
            codes[~_visible(self._opaque[places])] = UNSEEN
        codes[VIEW * (VIEW // 2) + VIEW - 1] = _code(world.carrying)
        return codes

    def _look(self, world: Any) -> None:
        """Bring the cells' codes up to date; they lie in a frame of walls, which MiniGrid shows outside the room."""
        frame = VIEW - 1
        shape = world.height + 2 * frame, world.width + 2 * frame
        if (self._stride, self._codes.size) != (shape[1], shape[0] * shape[1]):
            self._stride = shape[1]
            self._codes = np.full(shape[0] * shape[1], _wall())
            self._opaque = np.ones(shape[0] * shape[1], dtype=bool)
            self._cells = Cells()
        for index in self._cells.changed(world):
            thing = world.grid.grid[index]
            place = (index // world.width + frame) * self._stride + index % world.width + frame
            self._codes[place] = _code(thing)
            self._opaque[place] = thing is not None and not thing.see_behind()


def _code(thing: Any) -> int:
    """An object, or None for nothing, as one number: ``(type * COLOURS + colour) * STATES + state``."""
    if thing is None:
        return EMPTY
    kind, colour, state = thing.encode()
    return int((kind * COLOURS + colour) * STATES + state)


@cache
def _wall() -> int:
    from minigrid.core.world_object import Wall

    return _code(Wall())


@cache
def _offsets(stride: int) -> NDArray[np.intp]:
    """For each direction, from the agent's place to the cells of its view, ``intp[4, VIEW * VIEW]``."""
    across, ahead = np.meshgrid(np.arange(VIEW) - VIEW // 2, np.arange(VIEW)[::-1], indexing="ij")
    step = [x + y * stride for x, y in STEPS]
    return np.array([(ahead * step[d] + across * step[(d + 1) % DIRECTIONS]).reshape(-1) for d in range(DIRECTIONS)])


_BITS = 1 << np.arange(VIEW)


def _visible(opaque: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cells the agent sees, given which ones hide what is behind them; both in the order of a view."""
    rows = (_BITS @ opaque.reshape(VIEW, VIEW)).tolist()  # one number a row, a bit a column
    lit, seen = 1 << VIEW // 2, [0] * VIEW
    for row in reversed(range(VIEW)):
        seen[row], lit = _sweep(lit, rows[row])
    visible: NDArray[np.bool_] = (_BITS[:, None] & np.array(seen)).reshape(-1) > 0
    return visible


@cache
def _sweep(lit: int, opaque: int) -> tuple[int, int]:
    """MiniGrid's spread of sight along one row, to the right and then to the left: (this row, the row beyond)."""
    beyond = 0
    for columns, step in ((range(VIEW - 1), 1), (range(VIEW - 1, 0, -1), -1)):
        for column in columns:
            if lit >> column & 1 and not opaque >> column & 1:
                lit |= 1 << column + step
                beyond |= 1 << column | 1 << column + step
    return lit, beyond


@cache
def _one_hot_table() -> NDArray[np.float32]:
    """One row for each (type, colour, state): its one-hot columns side by side."""
    from minigrid.core.constants import OBJECT_TO_IDX

    types = np.zeros((len(OBJECT_TO_IDX), len(SEEN)), dtype=np.float32)
    for column, name in enumerate(SEEN):
        types[OBJECT_TO_IDX[name], column] = 1.0
    shape = (len(types), COLOURS, STATES)
    rows = [
        np.broadcast_to(types[:, None, None], (*shape, len(SEEN))),
        np.broadcast_to(np.eye(COLOURS, dtype=np.float32)[None, :, None], (*shape, COLOURS)),
        np.broadcast_to(np.eye(STATES, dtype=np.float32)[None, None], (*shape, STATES)),
    ]
    return np.concatenate(rows, axis=-1).reshape(-1, len(SEEN) + COLOURS + STATES)
