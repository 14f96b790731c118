"""The fast view is MiniGrid's own, cell for cell; and whoever sees otherwise is asked."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Key, Wall

from carl.errors import TaskError
from carl.task import Task
from carl.tasks.minigrid import ROOMS, TASKS, make
from carl.tasks.minigrid_cells import Cells
from carl.tasks.minigrid_planner import FORWARD
from carl.tasks.minigrid_view import SEEN, SEEN_TOO, FlatView
from tests.tasks.rooms import DONE, Room, edits, furnished, minigrids_view, room, walk

STEPS, LATER_STEPS = 10_000, 1_000
OTHERS = [
    "KeyCorridorS3R2-v0",
    "BlockedUnlockPickup-v0",
    "Dynamic-Obstacles-8x8-v0",
    "MultiRoom-N4-S5-v0",
    "LavaGapS5-v0",
    "Playground-v0",
    "PutNear-6x6-N2-v0",
]


def differences(env: gym.Env, steps: int, seed: int = 0, seen: tuple[str, ...] = SEEN) -> int:
    """Steps at which the observation is not MiniGrid's own view; it has to change now and then."""
    found, views = 0, set()
    for observation in walk(env, steps, seed):
        expected = minigrids_view(env.unwrapped, seen)
        found += not np.array_equal(observation, expected)
        views.add(expected.tobytes())
    assert len(views) > 3
    return found


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_thousands_of_random_steps(task: Task) -> None:
    seen = SEEN if task in ROOMS else SEEN_TOO
    env = task.make()
    assert env.observation_space.shape == (7 * 7 * (len(seen) + 9) + 4,)
    assert differences(env, STEPS - 1 if task in ROOMS else LATER_STEPS, seen=seen) == 0


@pytest.mark.parametrize("name", OTHERS)
def test_rooms_of_no_task(name: str) -> None:
    assert differences(make(f"MiniGrid-{name}"), 500) == 0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data(), st.booleans(), st.lists(edits, max_size=8))
def test_any_room_whatever_is_done_to_it(
    data: st.DataObject, transparent: bool, changes: list[Callable[[Any], None]]
) -> None:
    world = data.draw(furnished(see_through_walls=transparent))
    env = FlatView(world)
    for change in (lambda world: None, *changes):
        change(world)
        assert np.array_equal(env.step(DONE)[0], minigrids_view(world))


class Guarded(Room):
    """A room whose thing, in front of the agent, changes in every step. Nobody can leave the first cell."""

    ticks = 0

    def __init__(self, thing: Any = None, change: Callable[[Any, int], None] = lambda thing, step: None, **more: Any):
        self.thing, self.change = thing or Wall(), change
        super().__init__(7, 7, self._furnish, **more)

    def _furnish(self, world: Any) -> None:
        self.grid.wall_rect(0, 0, 7, 7)
        for place in ((2, 1), (1, 2), (3, 1)):
            self.grid.set(*place, Wall() if place != (2, 1) else self.thing)

    def step(self, action: int) -> Any:
        self.ticks += 1
        self.change(self.thing, self.ticks)
        return super().step(action if action < FORWARD else DONE)


class Curtain(Wall):
    """Hides what is behind it now and then, and no code of its tells."""

    drawn = True

    def see_behind(self) -> bool:
        return not self.drawn


def draw(curtain: Any, step: int) -> None:
    curtain.drawn = step % 2 == 0


def in_colours(thing: Any, step: int) -> None:
    thing.color = ("red", "green", "blue")[step % 3]


def as_another(thing: Any, step: int) -> None:
    thing.type = ("box", "key")[step % 2]


def ball_of(code: list[int]) -> Ball:
    ball = Ball()
    ball.encode = lambda: code
    ball.code = code
    return ball


def encode_anew(ball: Any, step: int) -> None:
    ball.code[1] = step % 6


SEEN_TO: dict[str, Callable[[], gym.Env]] = {
    "a wall that is painted": lambda: Guarded(Wall(), in_colours),
    "a ball that becomes something else": lambda: Guarded(Ball(), as_another),
}


class BySight(Guarded):
    """Its agent sees nothing at every second step."""

    def gen_obs(self) -> Any:
        seen = super().gen_obs()
        seen["image"] *= self.ticks % 2
        return seen


class ByGrid(Guarded):
    def gen_obs_grid(self, agent_view_size: int | None = None) -> Any:
        grid, visible = super().gen_obs_grid(agent_view_size)
        return grid, visible * bool(self.ticks % 2)


class ByPlace(Guarded):
    """Its agent sees from a cell farther back."""

    def get_view_exts(self, agent_view_size: int | None = None) -> Any:
        left, top, right, bottom = super().get_view_exts(agent_view_size)
        return left - 1, top, right - 1, bottom


class Fog(Grid):
    def slice(self, *args: Any) -> Any:
        return Grid(7, 7)


class WithGrid(Guarded):
    def _gen_grid(self, width: int, height: int) -> None:
        super()._gen_grid(width, height)
        cells, self.grid = self.grid.grid, Fog(width, height)
        self.grid.grid = cells


LEFT_TO_OTHERS: dict[str, Callable[[], gym.Env]] = {
    "gen_obs": BySight,
    "gen_obs_grid": ByGrid,
    "get_view_exts": ByPlace,
    "a grid of its own": WithGrid,
    "a smaller view": lambda: Guarded(agent_view_size=5),
    "a hidden state": lambda: Guarded(Curtain(), draw),
    "a code of one object": lambda: Guarded(ball_of([6, 0, 0]), encode_anew),
}
"""Rooms where something is seen that MiniGrid does not show so."""


def cases(builds: dict[str, Callable[[], gym.Env]]) -> Any:
    return pytest.mark.parametrize("build", builds.values(), ids=builds)


@cases({**SEEN_TO, **LEFT_TO_OTHERS})
def test_what_changes_by_itself_and_what_others_show_is_seen(build: Callable[[], gym.Env]) -> None:
    assert differences(FlatView(build()), 60) == 0


@cases(SEEN_TO)
def test_if_nobody_looked_the_view_would_be_wrong(
    build: Callable[[], gym.Env], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = Cells.changed
    monkeypatch.setattr(Cells, "changed", lambda self, cells: [] if self._cells else changed(self, cells))
    assert differences(FlatView(build()), 60) > 10


@cases({name: build for name, build in LEFT_TO_OTHERS.items() if name != "a smaller view"})
def test_if_others_were_not_asked_the_view_would_be_wrong(
    build: Callable[[], gym.Env], monkeypatch: pytest.MonkeyPatch
) -> None:
    from carl.tasks import minigrid_cells, minigrid_view

    monkeypatch.setattr(minigrid_view, "own", lambda *_: True)
    monkeypatch.setattr(minigrid_cells, "_looks_like_its_code", lambda thing: True)
    changed = Cells.changed
    monkeypatch.setattr(Cells, "changed", lambda self, cells: [] if self._cells else changed(self, cells))
    assert differences(FlatView(build()), 60) > 10


def test_what_minigrid_cannot_encode_is_a_clear_error_every_time() -> None:
    key = Key()
    key.encode = lambda: (5, 0, 3)
    env = FlatView(Room(furnish=lambda world: world.grid.set(2, 1, key)))
    for _ in range(2):
        with pytest.raises(TaskError, match=r"encoded as \(5, 0, 3\)"):
            env.reset(seed=0)


def test_an_error_half_way_leaves_nothing_old_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    world = room(7, 7)
    env = FlatView(world)
    env.reset(seed=0)
    world.grid.set(2, 1, Key())
    with monkeypatch.context() as broken:
        broken.setattr(FlatView, "_put", lambda self, index: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            env.step(DONE)
    assert np.array_equal(env.step(DONE)[0], minigrids_view(world))


class Looking(Room):
    """Looks at its own observation in its step, as an environment may."""

    def step(self, action: int) -> Any:
        observation, *rest = super().step(action)
        self.saw = self.agent_sees(2, 1), observation["image"].shape, observation["direction"]
        return observation, *rest


def test_an_environment_may_read_its_own_observation() -> None:
    world = Looking(furnish=lambda world: world.grid.set(2, 1, Key()))
    env = FlatView(world)
    env.reset(seed=0)
    env.step(DONE)
    assert world.saw == (True, (7, 7, 3), 0)
