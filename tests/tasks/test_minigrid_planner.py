"""The planner and BabyAI's bot from states that no room begins with, and what frames cannot show."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from minigrid.core.world_object import Ball, Box, Door, Key, Lava, Wall

from carl.episodes.play import made
from carl.errors import TaskError
from carl.task import Task
from carl.tasks import get_task
from carl.tasks.babyai import DONE, Bot
from carl.tasks.minigrid import TASKS
from carl.tasks.minigrid_planner import DROP, PICKUP, TOGGLE, Planner
from tests.tasks.rooms import room

LONGEST = 200
LEVELS = [task for task in TASKS if task.expert is Bot]


def cell_by_cell(plan: str, objects: dict[str, Callable[[], Any]]) -> Any:
    """A room as the rows of ``plan`` draw it: # wall, ~ lava, @ the agent, T the thing to pick up, others by name."""
    rows = plan.split()
    known = {"#": Wall, "~": Lava, **objects}
    agent = next((x, y) for y, row in enumerate(rows) for x, name in enumerate(row) if name == "@")

    def furnish(world: Any) -> None:
        for y, row in enumerate(rows):
            for x, name in enumerate(row):
                thing = known[name]() if name in known else None
                world.grid.set(x, y, thing)
                if name == "T":
                    world.obj = thing

    world = room(len(rows[0]), len(rows), furnish)
    world.grid.set(1, 1, Wall() if rows[1][1] == "#" else world.grid.get(1, 1))
    world.agent_pos = agent
    return world


def played(world: Any) -> list[int]:
    """The planner's actions until the agent carries what the room asks for."""
    act, actions = Planner(world), []
    while world.carrying is not world.obj:
        actions.append(act(None))
        world.step(actions[-1])
        assert world.grid.get(*world.agent_pos) is None or world.grid.get(*world.agent_pos).type != "lava"
        assert len(actions) < LONGEST
    return actions


def red_door() -> Door:
    return Door("red", is_locked=True)


def test_a_key_behind_a_door_and_in_a_box_behind_a_ball() -> None:
    hidden = {"T": lambda: Ball("blue"), "L": red_door, "D": lambda: Door("grey"), "o": lambda: Ball("red")}
    world = cell_by_cell(
        """
        #########
        #..#...T#
        #@.L....#
        #..######
        #o#######
        #.D..o.k#
        #########
        """,
        {**hidden, "k": lambda: Box("grey", Key("red"))},
    )
    actions = played(world)
    assert actions.count(TOGGLE) == 3  # the grey door, the box, the red door
    assert actions.count(DROP) == actions.count(PICKUP) - 1


def test_hands_that_are_full_are_emptied_where_nothing_is_blocked() -> None:
    """The ball lies before the door, and the agent carries the key already."""
    world = cell_by_cell(
        """
        #######
        #@.####
        #.oL.T#
        #..####
        #######
        """,
        {"T": lambda: Ball("blue"), "L": red_door, "o": lambda: Ball("green")},
    )
    world.carrying = Key("red")
    assert played(world).count(DROP) == 3  # the key, the ball, the key


def test_lava_is_walked_around() -> None:
    world = cell_by_cell("####### #@~.T.# #.~.~.# #.....# #######", {"T": lambda: Key("red")})
    assert len(played(world)) == 11


@pytest.mark.parametrize(
    "plan",
    ["##### #@#T# #####", "##### #@LT# #####", "###### #@LLT# ######"],
    ids=["a wall", "a door without a key", "two doors"],
)
def test_where_there_is_no_way_the_error_shows_the_room(plan: str) -> None:
    world = cell_by_cell(plan, {"T": lambda: Key("blue"), "L": red_door})
    with pytest.raises(TaskError, match="finds no way on from here:\n"):
        Planner(world)(None)


def half_random(task: Task, env: gym.Env, seed: int) -> bool:
    """Whether the expert solves an episode in which a third of the actions are random."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    act, ended = task.expert(env), False
    while not ended:
        action = act(observation)
        random = rng.random() < 1 / 3
        observation, reward, terminated, truncated, info = env.step(int(rng.integers(7)) if random else action)
        ended = terminated or truncated
    return task.success(float(reward), terminated, truncated, info)


@pytest.mark.parametrize("task", LEVELS, ids=lambda task: task.name)
def test_the_bot_goes_on_after_actions_that_were_not_its_own(task: Task) -> None:
    with made(task, 0) as env:
        assert all(half_random(task, env, seed) for seed in range(10))


@pytest.mark.parametrize("task", LEVELS, ids=lambda task: task.name)
def test_a_level_has_one_mission_and_prints_nothing(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    missions = set()
    with made(task, 0) as env:
        for seed in range(20):
            env.reset(seed=seed)
            missions.add(env.unwrapped.mission.replace(" a ", " the "))
    assert len(missions) == 1
    assert not capsys.readouterr().out


def ahead_of_a_door(env: gym.Env, colour: str) -> None:
    """Put the agent in the middle room before the door of that colour, facing it."""
    world = env.unwrapped
    for at, thing in enumerate(world.grid.grid):
        if thing is not None and thing.type == "door" and thing.color == colour:
            x, y = at % world.width, at // world.width
            right = x > world.width // 2
            world.agent_pos, world.agent_dir = (x - 1, y) if right else (x + 1, y), 0 if right else 2


def opened(name: str, *colours: str) -> tuple[bool, bool, dict[str, bool]]:
    """Toggle doors in that order: whether the episode ended, whether it was solved, and the oracle's events."""
    task = get_task(name)
    with made(task, 0) as env:
        env.reset(seed=0)
        for colour in colours:
            ahead_of_a_door(env, colour)
            _, reward, terminated, truncated, info = env.step(TOGGLE)
        return terminated, task.success(float(reward), terminated, truncated, info), task.oracle(env)


@pytest.mark.parametrize("name", ["RedBlueDoors-6x6", "OpenTwoDoors"])
def test_both_doors_open_does_not_mean_that_the_red_one_was_first(name: str) -> None:
    ended, solved, events = opened(name, "red", "blue")
    assert ended
    assert solved
    assert all(events.values())
    ended, solved, _ = opened(name, "blue", "red")
    assert not solved
    assert ended == (name != "OpenTwoDoors")


def test_a_red_door_that_is_closed_again_does_not_count_but_in_babyai() -> None:
    assert opened("RedBlueDoors-6x6", "red", "red", "blue") == (
        True,
        False,
        {"red door open": False, "both doors open": False},
    )
    assert opened("OpenTwoDoors", "red", "red", "blue")[:2] == (True, True)


def test_done_is_the_action_that_does_nothing() -> None:
    task = get_task("GoToRedBall")
    with made(task, 0) as env:
        env.reset(seed=0)
        before = task.frame(env)
        env.step(DONE)
        assert np.array_equal(task.frame(env), before)
