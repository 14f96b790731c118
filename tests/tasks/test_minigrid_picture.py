"""The fast picture is MiniGrid's own, pixel for pixel; and whoever draws otherwise is asked."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AddWhiteNoise, TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Goal, Key, Wall
from minigrid.utils.rendering import fill_coords, point_in_rect

from carl.rewards.frames import Frames
from carl.task import Rendered, Task
from carl.tasks import minigrid_picture
from carl.tasks.minigrid import ROOMS, TASKS, make
from carl.tasks.minigrid_cells import Cells
from carl.tasks.minigrid_picture import Picture, TopDown
from carl.tasks.minigrid_planner import PICKUP
from carl.tasks.minigrid_view import FlatView
from tests.tasks.rooms import DONE, Room, edits, furnished, minigrids_picture, room, turn_the_room, walk

STEPS, LATER_STEPS = 10_000, 1_000
SLOTS = 4
PLAIN = {"render_mode": "rgb_array", "highlight": False, "tile_size": 8}


@pytest.fixture(autouse=True)
def tiles_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """MiniGrid keeps every tile it ever drew for the whole process, those of strange objects too."""
    monkeypatch.setattr(Grid, "tile_cache", {})


class Drawn:
    """MiniGrid's own pictures, each drawn once: they are a function of what this looks them up by.

    One in a hundred is drawn anew all the same, which tests that they are.
    """

    def __init__(self) -> None:
        self._pictures: dict[Any, np.ndarray] = {}
        self._asked = 0

    def of(self, world: Any) -> np.ndarray:
        self._asked += 1
        key = world.grid.encode().tobytes(), tuple(map(int, world.agent_pos)), int(world.agent_dir)
        if key not in self._pictures or self._asked % 100 == 0:
            picture = minigrids_picture(world)
            assert np.array_equal(self._pictures.setdefault(key, picture), picture)
        return self._pictures[key]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_thousands_of_random_steps_of_a_vector_environment(task: Task) -> None:
    envs = [task.make() for _ in range(SLOTS)]
    steps = STEPS if task in ROOMS else LATER_STEPS
    walks = [walk(env, steps // SLOTS - 1, seed) for seed, env in enumerate(envs)]
    frames, drawn, slots = Frames(task, envs), Drawn(), np.arange(SLOTS)
    compared = 0
    for _ in zip(*walks, strict=True):
        taken = frames.take(slots)
        for slot, env in enumerate(envs):
            assert np.array_equal(taken[slot], drawn.of(env.unwrapped))
            compared += 1
    assert compared == steps


@settings(max_examples=150, deadline=None, derandomize=True)
@given(furnished(), st.lists(edits, max_size=8))
def test_any_room_whatever_is_done_to_it(world: Any, changes: list[Callable[[Any], None]]) -> None:
    env, frame = TopDown(world), np.zeros_like(minigrids_picture(world))
    redraw = env.render_onto(frame)
    for change in (lambda world: None, *changes):
        change(world)
        expected = minigrids_picture(world)
        assert np.array_equal(env.render(), expected)
        assert redraw() == (frame.shape == expected.shape)
        assert frame.shape != expected.shape or np.array_equal(frame, expected)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(furnished(), st.lists(st.tuples(edits, st.booleans()), max_size=8))
def test_any_room_as_the_agent_observed_it(world: Any, changes: list[tuple[Callable[[Any], None], bool]]) -> None:
    env, frame = FlatView(TopDown(world)), np.zeros_like(minigrids_picture(world))
    redraw = Rendered().onto(env, frame)
    env.reset(seed=0)
    for change, looked_at in ((lambda world: None, True), *changes):
        change(world)
        env.step(DONE)
        if looked_at:  # what changed before somebody looks adds up
            expected = minigrids_picture(world)
            assert redraw() == (frame.shape == expected.shape)
            assert frame.shape != expected.shape or np.array_equal(frame, expected)


def test_a_new_room_of_another_shape_with_as_many_cells() -> None:
    world = room(4, 9, lambda world: world.grid.set(2, 2, Goal()))
    env = TopDown(world)
    before = env.render()
    turn_the_room(world)
    assert env.render().shape == (16, 36, 3) != before.shape
    assert np.array_equal(env.render(), minigrids_picture(world))


def test_a_new_room_of_tiles_so_large_that_the_picture_keeps_its_size() -> None:
    world = room(8, 8, tile_size=4)
    env = TopDown(world)
    world.agent_pos = (6, 6)
    before = env.render()
    world.grid, world.tile_size, world.agent_pos = Grid(4, 4), 8, (1, 1)
    assert env.render().shape == before.shape
    assert np.array_equal(env.render(), minigrids_picture(world))


def test_an_agent_outside_the_room_is_not_drawn() -> None:
    world = room()
    env = TopDown(world)
    for world.agent_pos in [(4, 1), (-1, 2), (5, 1), (1, -1), (1, 5), np.array([2, 2])]:
        assert np.array_equal(env.render(), minigrids_picture(world))


class Lamp(Ball):
    """Drawn by what no code of its tells."""

    def __init__(self) -> None:
        super().__init__("blue")
        self.level = 0

    def render(self, img: np.ndarray) -> None:
        fill_coords(img, point_in_rect(0, 1, 0, 1), (self.level * 10, 0, 0))


class Dial(Lamp):
    """The same, with a code that tells."""

    def encode(self) -> tuple[int, int, int]:
        return (*super().encode()[:2], self.level)


class Chameleon(Ball):
    """MiniGrid's ball in all but its colour, which nobody sets."""

    steps = 0

    @property
    def color(self) -> str:
        return ("red", "green", "blue")[self.steps % 3]

    @color.setter
    def color(self, colour: str) -> None: ...


def ball_of(level: int) -> Ball:
    ball = Ball()
    ball.render = lambda img: img.fill(level)
    return ball


Change = Callable[[Any, int], None]


class Ticking(Room):
    """Changes its thing in every step, and can show in its corner how many there were. Nothing can be picked up."""

    ticks = 0

    def __init__(self, thing: Any = None, change: Callable[[Any, int], None] = lambda thing, step: None, **more: Any):
        self.thing, self.change = thing or Ball(), change
        super().__init__(
            6, 5, self._furnish, **{"render_mode": "rgb_array", "highlight": False, "tile_size": 8, **more}
        )

    def _furnish(self, world: Any) -> None:
        self.grid.wall_rect(0, 0, 6, 5)
        self.grid.set(3, 2, self.thing)

    def step(self, action: int) -> Any:
        self.ticks += 1
        self.change(self.thing, self.ticks)
        return super().step(DONE if action == PICKUP else action)

    def marked(self, picture: np.ndarray) -> np.ndarray:
        picture[0, 0] = self.ticks
        return picture


def turn_up(lamp: Any, step: int) -> None:
    lamp.level = step % 20


def in_colours(thing: Any, step: int) -> None:
    thing.color = ("red", "green", "blue")[step % 3]


def as_another(thing: Any, step: int) -> None:
    thing.type = ("ball", "key")[step % 2]


def count(thing: Any, step: int) -> None:
    thing.steps = step


def obstacles() -> gym.Env:
    return gym.make("MiniGrid-Dynamic-Obstacles-8x8-v0", **PLAIN)


def as_a_key() -> gym.Env:
    Grid.render_tile(Key("blue"), tile_size=8)  # from now on MiniGrid draws it for whatever says that it is one
    return Ticking(Ball(), as_another)


SEEN_TO: dict[str, Callable[[], gym.Env]] = {
    "objects that move": obstacles,
    "a ball that is painted": lambda: Ticking(Ball(), in_colours),
    "a wall that is painted": lambda: Ticking(Wall(), in_colours),
    "a ball that becomes something else": as_a_key,
    "a ball that paints itself": lambda: Ticking(Chameleon(), count),
}
"""Rooms that change by themselves, and are drawn fast all the same."""


class ByFrame(Ticking):
    def get_frame(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self.marked(super().get_frame(*args, **kwargs))


class ByFullRender(Ticking):
    def get_full_render(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self.marked(super().get_full_render(*args, **kwargs))


class ByRender(Ticking):
    def render(self) -> np.ndarray:
        return self.marked(super().render())


class OnItself(Ticking):
    def __init__(self) -> None:
        super().__init__()
        self.get_frame = lambda *args: self.marked(Ticking.get_frame(self, *args))


class Hiding(Grid):
    """Shows nobody what lies in one of its cells."""

    def get(self, i: int, j: int) -> Any:
        return None if (i, j) == (3, 2) else super().get(i, j)


class WithGrid(Ticking):
    def _gen_grid(self, width: int, height: int) -> None:
        super()._gen_grid(width, height)
        cells, self.grid = self.grid.grid, Hiding(width, height)
        self.grid.grid = cells


class Marking(gym.Wrapper[Any, Any, Any, Any]):
    def render(self) -> Any:
        return self.env.unwrapped.marked(self.env.render())


LEFT_TO_OTHERS: dict[str, Callable[[], gym.Env]] = {
    "get_frame": ByFrame,
    "get_full_render": ByFullRender,
    "render": ByRender,
    "get_frame of one environment": OnItself,
    "a grid of its own": WithGrid,
    "highlight": lambda: Ticking(highlight=True),
    "the agent's view": lambda: Ticking(agent_pov=True),
    "a wrapper that draws": lambda: Marking(Ticking()),
}
"""Rooms that somebody draws who does not draw as MiniGrid does."""

STRANGE_THINGS: dict[str, Callable[[], gym.Env]] = {
    "a hidden state": lambda: Ticking(Lamp(), turn_up),
    "a state of its own": lambda: Ticking(Dial(), turn_up),
    "one object's own method": lambda: Ticking(ball_of(level=3)),
}
"""Rooms with an object that is not drawn as MiniGrid's are."""


def cases(builds: dict[str, Callable[[], gym.Env]]) -> Any:
    return pytest.mark.parametrize("build", builds.values(), ids=builds)


def wrong(inner: gym.Env, steps: int = 60) -> int:
    """How often the fast picture of ``inner`` is not what ``inner`` renders; both have to change now and then."""
    env, pictures, found = TopDown(inner), set(), 0
    for _ in walk(env, steps):
        picture, expected = env.render(), inner.render()
        found += not np.array_equal(picture, expected)
        pictures.add(expected.tobytes())
    assert len(pictures) > 3
    return found


def wrong_frames(env: gym.Env, steps: int = 60) -> int:
    """How often the frame taken of ``env`` is not what the innermost environment renders."""
    frames, found = Frames(Task(name="room", description="", make=Ticking), [env]), 0
    for _ in walk(env, steps):
        found += not np.array_equal(frames.take(np.arange(1))[0], env.unwrapped.render())
    return found


def fast(inner: gym.Env) -> bool:
    return Picture(inner, np.zeros_like(inner.render())).redraw()


@cases(SEEN_TO)
def test_what_changes_by_itself_is_seen_to(build: Callable[[], gym.Env]) -> None:
    inner = build()
    assert wrong(inner, steps=300) == 0
    assert fast(inner)


@cases({**SEEN_TO, **LEFT_TO_OTHERS, "a hidden state": STRANGE_THINGS["a hidden state"]})
def test_what_is_looked_at_once_for_view_and_picture(build: Callable[[], gym.Env]) -> None:
    assert wrong_frames(FlatView(TopDown(build().unwrapped))) == 0


class Repainting(gym.Wrapper[Any, Any, Any, Any]):
    """Changes the room after it was observed."""

    def step(self, action: Any) -> Any:
        result = super().step(action)
        self.unwrapped.grid.set(1, 2, self.np_random.choice([None, Wall()]))
        return result


def test_who_changes_the_room_after_it_was_observed_is_looked_at() -> None:
    env = Repainting(FlatView(TopDown(Ticking())))
    env.np_random = np.random.default_rng(0)
    assert wrong_frames(env) == 0


def test_of_two_that_draw_one_room_the_last_is_told_what_changed() -> None:
    env = FlatView(TopDown(Ticking()))
    env.reset(seed=0)
    first, last = (Rendered().onto(env, np.zeros_like(env.render())) for _ in range(2))
    assert not first()
    assert last()


@cases(SEEN_TO)
def test_if_nobody_looked_the_picture_would_be_wrong(
    build: Callable[[], gym.Env], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = Cells.changed
    monkeypatch.setattr(Cells, "changed", lambda self, cells: [] if self._cells else changed(self, cells))
    assert wrong(build()) > 10


@cases({**LEFT_TO_OTHERS, **STRANGE_THINGS})
def test_what_others_draw_is_taken_from_them(build: Callable[[], gym.Env]) -> None:
    inner = build()
    assert wrong(inner) == 0
    assert not fast(inner)


@cases(LEFT_TO_OTHERS)
def test_if_others_were_not_asked_the_picture_would_be_wrong(
    build: Callable[[], gym.Env], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(self: Picture) -> bool:
        self._grid = self._world.grid
        return True

    monkeypatch.setattr(Picture, "_drawable", look)
    assert wrong(build()) > 10


@pytest.mark.parametrize("asked", [True, False])
def test_tiles_that_somebody_else_draws(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, draw = Ticking(), Grid.render_tile
    tinted = staticmethod(lambda *args, **kwargs: draw(*args, **kwargs) + np.uint8(inner.ticks))
    monkeypatch.setattr(Grid, "render_tile", tinted)
    if not asked:
        monkeypatch.setattr(minigrid_picture, "own", lambda *_: True)
    assert (wrong(inner, steps=20) == 0) == asked


def test_what_is_told_between_two_pictures_counts() -> None:
    inner = Ticking()
    env = TopDown(inner)
    env.reset(seed=0)
    for key, value in (("highlight", True), ("highlight", False), ("tile_size", 5), ("agent_pov", True)):
        env.render()
        setattr(inner, key, value)
        assert np.array_equal(env.render(), inner.render())
    inner.agent_pov, inner.render_mode = False, None
    assert env.render() is None


def test_what_was_drawn_otherwise_is_drawn_over() -> None:
    inner = Ticking()
    env = TopDown(inner)
    env.reset(seed=0)
    frames = Frames(Task(name="room", description="", make=Ticking), [env])
    for highlight in (False, False, True, False, False):
        inner.highlight = highlight
        assert np.array_equal(frames.take(np.arange(1))[0], inner.render())


def test_what_an_error_left_half_drawn_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Ticking()
    env = TopDown(inner)
    env.reset(seed=0)
    env.render()
    inner.grid.set(1, 2, Wall())
    inner.grid.set(2, 2, Wall())
    with monkeypatch.context() as broken:
        broken.setattr(Picture, "_paint", lambda self, index: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            env.render()
    assert np.array_equal(env.render(), inner.render())


def test_before_the_first_reset_the_error_is_gymnasiums() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        make("MiniGrid-Empty-5x5-v0").render()


def test_wrappers_around_it_hand_on_the_drawing_unless_they_draw_themselves() -> None:
    env = TimeLimit(make("MiniGrid-Empty-5x5-v0"), 10)
    env.reset(seed=0)
    frame = np.zeros_like(env.render())
    redraw = Rendered().onto(env, frame)
    assert redraw is not None
    assert redraw()
    assert np.array_equal(frame, env.render())
    assert Rendered().onto(AddWhiteNoise(env, 0.5), frame) is None
    assert Rendered().onto(env.unwrapped, frame) is None


class Inverted(TopDown):
    def render(self) -> Any:
        return 255 - super().render()


def test_who_inherits_the_drawing_and_renders_otherwise_is_rendered() -> None:
    env = Inverted(Ticking())
    env.reset(seed=0)
    assert Rendered().onto(env, np.zeros_like(env.render())) is None
