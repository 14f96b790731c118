"""MiniGrid rooms of any shape with anything in them, as hypothesis draws them, and what others do to them."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import gymnasium as gym
import numpy as np
from hypothesis import strategies as st
from minigrid.core.constants import COLOR_NAMES, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall
from minigrid.minigrid_env import MiniGridEnv

from carl.tasks.minigrid_view import SEEN

DONE = 6
"""MiniGrid's action that does nothing."""

Edit = Callable[[Any], None]


class Room(MiniGridEnv):
    """What ``furnish`` makes of an empty grid; the agent stands in a corner that was cleared for it."""

    def __init__(self, width: int = 5, height: int = 5, furnish: Edit = lambda world: None, **kwargs: Any) -> None:
        self.furnish = furnish
        mission = MissionSpace(mission_func=lambda: "look")
        super().__init__(mission, width=width, height=height, max_steps=10**6, **kwargs)

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        self.agent_pos, self.agent_dir = (1, 1), 0
        self.furnish(self)
        self.grid.set(1, 1, None)


def room(width: int = 5, height: int = 5, furnish: Edit = lambda world: None, tile_size: int = 4, **kwargs: Any) -> Any:
    """A Room that is drawn without highlight, and reset."""
    env = Room(width, height, furnish, render_mode="rgb_array", highlight=False, tile_size=tile_size, **kwargs)
    env.reset(seed=0)
    return env


colours = st.sampled_from(COLOR_NAMES)
things = st.one_of(
    st.none(),
    st.just(Wall),
    colours.map(lambda colour: lambda: Wall(colour)),
    st.builds(lambda kind, colour: lambda: kind(colour), st.sampled_from((Floor, Key, Ball, Box, Goal)), colours),
    st.builds(lambda colour, *state: lambda: Door(colour, *state), colours, st.booleans(), st.booleans()),
    st.just(Lava),
)
"""None, or what makes an object."""

places = st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
"""A cell of any room: the share of its width and height."""


def cell(world: Any, place: tuple[float, float], margin: int = 0) -> tuple[int, int]:
    width, height = world.grid.width - 2 * margin, world.grid.height - 2 * margin
    return margin + int(place[0] * width), margin + int(place[1] * height)


def put(place: tuple[float, float], make: Callable[[], Any] | None) -> Edit:
    return lambda world: world.grid.set(*cell(world, place), make() if make else None)


def paint(place: tuple[float, float], colour: str) -> Edit:
    """Recolour the object that lies there, in place."""

    def edit(world: Any) -> None:
        if (thing := world.grid.get(*cell(world, place))) is not None:
            thing.color = colour

    return edit


def open_or_close(is_open: bool, is_locked: bool) -> Edit:
    def edit(world: Any) -> None:
        for thing in world.grid.grid:
            if isinstance(thing, Door):
                thing.is_open, thing.is_locked = is_open, is_locked

    return edit


def carry(make: Callable[[], Any] | None) -> Edit:
    return lambda world: setattr(world, "carrying", make() if make else None)


def stand(place: tuple[float, float], direction: int) -> Edit:
    """Somewhere away from the border: nobody can step there while looking out of the room."""

    def edit(world: Any) -> None:
        world.agent_pos, world.agent_dir = cell(world, place, margin=1), direction

    return edit


def turn_the_room(world: Any) -> None:
    """Another room with as many cells; where it is square, upside down."""
    grid = Grid(world.grid.height, world.grid.width)
    grid.grid = world.grid.grid[::-1]
    world.grid, (x, y) = grid, world.agent_pos
    world.width, world.height, world.agent_pos = grid.width, grid.height, (y, x)


def raise_the_roof(height: int) -> Edit:
    """The same room with more rows or fewer, all but the first two of them empty."""

    def edit(world: Any) -> None:
        grid = Grid(world.grid.width, height)
        grid.grid[: 2 * grid.width] = world.grid.grid[: 2 * grid.width]
        world.grid, world.height, world.agent_pos = grid, height, (world.agent_pos[0], 1)

    return edit


edits = st.one_of(
    st.builds(raise_the_roof, st.integers(3, 9)),
    st.builds(put, places, things),
    st.builds(paint, places, colours),
    st.builds(open_or_close, st.booleans(), st.booleans()),
    st.builds(carry, things),
    st.builds(stand, places, st.integers(0, 3)),
    st.just(turn_the_room),
    st.just(lambda world: world.reset()),
)


@st.composite
def furnished(draw: st.DrawFn, **kwargs: Any) -> Any:
    """A Room of 3 x 3 to 9 x 9 cells with a thing in each, or nothing."""
    width, height = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    makers = draw(st.lists(things, min_size=width * height, max_size=width * height))

    def furnish(world: Any) -> None:
        world.grid.grid = [make() if make else None for make, _ in zip(cycle(makers), world.grid.grid, strict=False)]

    return room(width, height, furnish, tile_size=draw(st.sampled_from((4, 5))), **kwargs)


def minigrids_picture(world: Any) -> np.ndarray:
    return type(world).get_frame(world, highlight=False, tile_size=world.tile_size)


def minigrids_view(world: Any, seen: tuple[str, ...] = SEEN) -> np.ndarray:
    """MiniGrid's own image and direction, one-hot by the book."""
    columns = {OBJECT_TO_IDX[name]: column for column, name in enumerate(seen)}
    shown = type(world).gen_obs(world)
    kinds, colours, states = np.moveaxis(shown["image"].reshape(-1, 3), 1, 0)
    expected = np.zeros((len(kinds), len(seen) + 9), dtype=np.float32)
    for place, kind in enumerate(kinds.tolist()):
        if kind in columns:
            expected[place, columns[kind]] = 1.0
    everywhere = np.arange(len(kinds))
    expected[everywhere, len(seen) + colours] = 1.0
    expected[everywhere, len(seen) + 6 + states] = 1.0
    return np.concatenate([expected.reshape(-1), np.eye(4, dtype=np.float32)[shown["direction"]]])


def walk(env: gym.Env, steps: int, seed: int = 0) -> Any:
    """Random steps, half of them forward (a walk that only turns sees little); yields at the start and after each.

    Episodes that end are followed by the next ones.
    """
    rng = np.random.default_rng(seed)
    yield env.reset(seed=seed)[0]
    ended = False
    for _ in range(steps):
        if ended:
            observation, ended = env.reset()[0], False
        else:
            action = 2 if rng.random() < 0.5 else int(rng.integers(7))
            observation, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
        yield observation
