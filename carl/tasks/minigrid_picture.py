"""MiniGrid's picture of the whole room, redrawn where it changed: a step changes at most three cells."""

from collections.abc import Callable, Collection
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from carl.task import Environment, Frame, Redraw
from carl.tasks.minigrid_cells import ENV, GRID, Cells, own, place

HANDING_ON = (gym.Wrapper.render, OrderEnforcing.render, PassiveEnvChecker.render)
"""The ``render`` of wrappers that return the picture as it is."""

Changes = Callable[[], Collection[int] | None]
"""Cells that changed since it was last called; None if that is not known."""


class TopDown(gym.Wrapper[Any, Any, Any, Any]):
    """Renders what the environment renders, pixel for pixel; faster where MiniGrid's own code draws it."""

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._picture = Picture(env, np.zeros((0, 0, 3), np.uint8))

    def render(self) -> Frame:  # type: ignore[override]  # gymnasium's own type is a free variable here
        """``uint8[tile_size * height, tile_size * width, 3]``, a fresh array."""
        size = _size(self.env.unwrapped)
        if self._picture.frame.shape != size:
            self._picture = Picture(self.env, np.zeros(size, np.uint8))
        if self._picture.redraw():
            return self._picture.frame.copy()
        picture: Any = self.env.render()
        return picture  # type: ignore[no-any-return]

    def render_onto(self, frame: Frame, changes: Changes | None = None) -> Redraw:
        """What draws the room into ``frame`` from now on; see ``carl.task.Rendered``, and Picture for ``changes``."""
        return Picture(self.env, frame, changes).redraw


class Picture:
    """The room of ``env`` in ``frame``, in which nothing else may draw.

    It compares all cells with what they held, unless ``changes`` gives the cells that changed.
    """

    def __init__(self, env: Environment, frame: Frame, changes: Changes | None = None) -> None:
        self.frame = frame
        self._env = env
        self._world: Any = env.unwrapped
        self._grid: Any = None
        self._by_the_book = False
        self._cells = Cells()
        self._changes = changes or self._look
        self._up_to_date = False
        self._agent: tuple[int | None, Any] = None, None

    def redraw(self) -> bool:
        """Bring the frame up to date; False if it was left alone, because only the environment can draw this.

        So it is where MiniGrid's drawing is overridden, where it highlights or shows the agent's view, where an object
        is drawn by methods of its own, and where the picture has another size than the frame.
        """
        changed = self._changed() if self._drawable() else None
        was_up_to_date, self._up_to_date = self._up_to_date, False
        if changed is None:
            return False
        for index in changed if was_up_to_date else range(len(self._grid.grid)):
            self._paint(index)
        self._up_to_date = True  # not after an error, which leaves the frame half drawn
        return True

    def _look(self) -> Collection[int] | None:
        return self._cells.changed(self._world.grid.grid)

    def _changed(self) -> Collection[int] | None:
        world, changed = self._world, self._changes()
        agent, before = (place(world), world.agent_dir), self._agent
        if changed is None or agent == before:
            return changed
        self._agent = agent
        return {at for at in (agent[0], before[0]) if at is not None and at < len(world.grid.grid)}.union(changed)

    def _drawable(self) -> bool:
        world = self._world
        if world.grid is not self._grid:
            self._grid, self._by_the_book = world.grid, _by_the_book(self._env)
        other = world.highlight or world.agent_pov or world.render_mode != "rgb_array"
        return self._by_the_book and not other and world.agent_pos is not None and self.frame.shape == _size(world)

    def _paint(self, index: int) -> None:
        grid, size = self._grid, self._world.tile_size
        row, column = divmod(index, grid.width)
        here, direction = self._agent
        tile = grid.render_tile(grid.grid[index], agent_dir=direction if index == here else None, tile_size=size)
        self.frame[row * size : (row + 1) * size, column * size : (column + 1) * size] = tile


def _size(world: Any) -> tuple[int, int, int]:
    return world.grid.height * world.tile_size, world.grid.width * world.tile_size, 3


def _by_the_book(env: Environment) -> bool:
    """Whether MiniGrid's own code draws the picture, and no wrapper around it changes it."""
    while isinstance(env, gym.Wrapper):
        if getattr(env.render, "__func__", None) not in HANDING_ON:
            return False
        env = env.env
    drawn = own(env, ENV, "render", "get_frame", "get_full_render")
    return drawn and own(env.grid, GRID, "render", "render_tile", "get")  # type: ignore[attr-defined]
