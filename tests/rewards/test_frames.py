"""The frames of a vector environment in one array: any camera's, and safe from those who look at them."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from carl.errors import TaskError
from carl.program import RewardProgram, SubTask
from carl.rewards.frames import Frames
from carl.rewards.latch import PROGRESS_SLOTS
from carl.rewards.program import ProgramReward
from carl.rewards.source import Judged, Seen
from carl.rewards.vector import PaidVectorEnv
from carl.sandbox.box import Box
from carl.task import Environment, Frame, Redraw, Task
from carl.tasks import get_task
from tests.fakes.corridor import CORRIDOR, Corridor, Furthest


def slots(*which: int) -> np.ndarray:
    return np.array(which, dtype=np.intp)


def corridors(*positions: int) -> list[Corridor]:
    envs = [Corridor() for _ in positions]
    move(envs, *positions)
    return envs


def move(envs: list[Corridor], *positions: int) -> None:
    for env, position in zip(envs, positions, strict=True):
        env.position = position


def positions(frames: Frame) -> list[int]:
    return frames[:, 0, 0, 0].tolist()


def filmed(camera: Any) -> Task:
    return Task(name="filmed", description="", make=Corridor, camera=camera)


def test_all_frames_lie_in_one_array_that_the_next_look_changes() -> None:
    envs = corridors(1, 2, 3)
    frames = Frames(CORRIDOR, envs)
    first = frames.take(slots(0, 1, 2))
    assert first.dtype == np.uint8
    assert first.shape == (3, 8, 8, 3)
    assert positions(first) == [1, 2, 3]
    envs[1].position = 9
    assert frames.take(slots(0, 1, 2)) is first
    assert positions(first) == [1, 9, 3]


def test_some_frames_are_those_of_the_slots_asked_about() -> None:
    envs = corridors(1, 2, 3)
    frames = Frames(CORRIDOR, envs)
    assert positions(frames.take(slots(2))) == [3]
    move(envs, 11, 12, 13)
    assert positions(frames.take(slots(0, 2))) == [11, 13]
    assert [env.renders for env in envs] == [1, 0, 2], "nobody else is looked at"
    assert len(frames.take(slots())) == 0


def test_nobody_can_draw_in_the_array() -> None:
    frames = Frames(CORRIDOR, corridors(1, 2)).take(slots(0, 1))
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0


@pytest.mark.parametrize(
    "picture", [None, np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)]
)
def test_every_frame_is_checked(picture: Any) -> None:
    good = np.zeros((8, 8, 3), np.uint8)
    frames = Frames(filmed(lambda env: picture if env.position == 5 else good), envs := corridors(1, 2))
    frames.take(slots(0, 1))
    envs[1].position = 5
    with pytest.raises(TaskError, match="render_mode='rgb_array'"):
        frames.take(slots(0, 1))


@pytest.mark.parametrize("later", [False, True])
def test_frames_of_another_size_are_a_clear_error(later: bool) -> None:
    """In another slot, or in a later episode; without the check, one of height 1 would fill the frame."""
    camera = lambda env: np.zeros((1 if env.position == 5 else 8, 8, 3), np.uint8)  # noqa: E731
    frames = Frames(filmed(camera), envs := corridors(1, 2))
    if later:
        frames.take(slots(0, 1))
    envs[1].position = 5
    with pytest.raises(TaskError, match=r"'filmed'.*\[1, 8, 3\].*\[8, 8, 3\].*one size"):
        frames.take(slots(0, 1))


class Drawing:
    """A camera that redraws, except where ``able`` says that it cannot."""

    def __init__(self, able: Any = lambda env: True) -> None:
        self.able = able
        self.filmed: list[Environment] = []
        self.opened: list[Environment] = []

    def __call__(self, env: Environment) -> Frame:
        self.filmed.append(env)
        return np.full((8, 8, 3), env.position, np.uint8)

    def onto(self, env: Environment, frame: Frame) -> Redraw | None:
        self.opened.append(env)

        def redraw() -> bool:
            if self.able(env):
                frame[...] = env.position
            return self.able(env)

        return redraw if env.length == 4 else None


def test_a_camera_that_redraws_is_opened_once_and_films_no_more() -> None:
    camera, envs = Drawing(), corridors(1, 2)
    frames = Frames(filmed(camera), envs)
    for places in ((1, 2), (4, 5), (4, 9)):
        move(envs, *places)
        assert positions(frames.take(slots(0, 1))) == list(places)
    assert camera.opened == envs
    assert camera.filmed == [envs[0]], "for the size"


def test_where_it_cannot_redraw_it_films() -> None:
    camera, envs = Drawing(able=lambda env: env.position != 7), [*corridors(1, 2), Corridor(length=5)]
    frames = Frames(filmed(camera), envs)
    for places in ((1, 2, 3), (7, 3, 4), (2, 7, 5)):
        move(envs, *places)
        assert positions(frames.take(slots(0, 1, 2))) == list(places)
    assert camera.filmed == [envs[0], envs[2], envs[0], envs[2], envs[1], envs[2]]


class Bordered(gym.Wrapper):
    def render(self) -> Any:
        picture = self.env.render()
        picture[0] = 99
        return picture


def test_a_wrapper_that_draws_around_a_redrawing_environment_is_seen() -> None:
    task = get_task("Empty-8x8")
    envs = [Bordered(task.make()), task.make()]
    for env in envs:
        env.reset(seed=1)
    frames = Frames(task, envs)
    for action in (2, 1, 2, 0):
        taken = frames.take(slots(0, 1))
        for frame, env in zip(taken, envs, strict=True):
            assert np.array_equal(frame, env.render())
            env.step(action)
    assert (taken[0, 0] == 99).all()
    assert not (taken[1] == 99).all(axis=(1, 2)).any()


# What looks at the frames has to keep no hold of them.

LEVEL = """
def progress(frame, initial):
    return max(0, int(frame[0, 0, 0]) - int(initial[0, 0, 0])) / 100
"""
PROGRAM = RewardProgram(subtasks=(SubTask(name="level", code=LEVEL),))


def level(*values: int) -> Frame:
    frames = np.zeros((len(values), 6, 6, 3), np.uint8)
    frames[..., 0] = np.array(values)[:, None, None]
    return frames


def test_a_session_keeps_its_own_initial_frames_and_knows_a_frame_by_what_it_shows() -> None:
    array = level(10, 20)
    frames = array.view()
    frames.flags.writeable = False
    session = ProgramReward(PROGRAM).open(2)
    try:
        session.look(Seen(slots(0, 1), np.ones(2, bool), frames))
        for values, earned in (((40, 60), [0.3, 0.4]), ((10, 60), [0, 0]), ((50, 90), [0.1, 0.3])):
            array[...] = level(*values)
            assert session.look(Seen(slots(0, 1), np.zeros(2, bool), frames)).reward.tolist() == pytest.approx(earned)
            array[...] = 255
    finally:
        session.close()


def test_a_box_reads_frames_only_during_the_call() -> None:
    array = level(50, 70)
    with Box(PROGRAM) as box:
        judgement = box.judge(array, level(0, 0), np.zeros(2, np.intp))
        array[...] = 0
        assert judgement.values.tolist() == [0.5, 0.7]
        assert box.judge(array, level(0, 0), np.zeros(2, np.intp)).values.tolist() == [0, 0]
        assert judgement.values.tolist() == [0.5, 0.7]


class Witness(Furthest):
    """Keeps a copy of every frame it is shown: (what, slot, frame)."""

    def open(self, slots: int) -> Any:
        session = WitnessSession()
        self.opened.append(session)
        return session


class WitnessSession:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, Frame]] = []

    @property
    def counts(self):
        return {}

    def close(self) -> None: ...

    def look(self, seen: Seen) -> Judged:
        rows = zip(seen.began, seen.slots, seen.frames, strict=True)
        self.seen += [("reset" if began else "step", int(slot), frame.copy()) for began, slot, frame in rows]
        nothing = np.zeros(len(seen.slots))
        return Judged(nothing, np.zeros((len(seen.slots), PROGRESS_SLOTS), np.float32), nothing.astype(bool))


def test_sessions_see_what_the_environments_show_over_resets_and_a_change_of_version() -> None:
    task = get_task("DoorKey-5x5")
    envs = SyncVectorEnv([partial(patient, task, steps) for steps in (4, 7, 20)])
    env = PaidVectorEnv(envs, task, first := Witness())
    sources, shown, rng = [first], [], np.random.default_rng(0)
    worlds = [slot.unwrapped for slot in envs.envs]

    def note(began: np.ndarray) -> None:
        for slot, world in enumerate(worlds):
            picture = type(world).get_frame(world, highlight=False, tile_size=8)
            shown.append((slot, "reset" if began[slot] else "step", picture.tobytes()))

    env.reset(seed=[1, 2, 3])
    note(np.ones(3, bool))
    over = np.zeros(3, bool)
    for step in range(60):
        if step == 30:
            env.set_source(2, second := Witness())
            sources.append(second)
        _, _, terminated, truncated, _ = env.step(rng.integers(7, size=3))
        note(over)
        over = terminated | truncated
    seen = [row for source in sources for row in source.opened[0].seen]
    for slot in range(3):
        mine = [(what, frame.tobytes()) for what, which, frame in seen if which == slot]
        assert mine == [(what, picture) for which, what, picture in shown if which == slot]
    assert second.opened[0].seen
    env.close()


def patient(task: Task, steps: int) -> Environment:
    return TimeLimit(task.make(), steps)
