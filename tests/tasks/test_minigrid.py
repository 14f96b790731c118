"""MiniGrid: tasks, planner and oracle against the true grid."""

import hashlib

import numpy as np
import pytest

from carl.episodes.play import made, play, rollout
from carl.seeding import Role, seeds_of
from carl.task import Task
from carl.tasks import get_task
from carl.tasks.minigrid import TASKS
from carl.tasks.minigrid_cells import find
from carl.tasks.minigrid_planner import DROP, FORWARD, PICKUP, TOGGLE

DOORS = [task for task in TASKS if task.name != "Empty-8x8"]
SHORTEST_OF_EMPTY = 11
"""Five steps, a turn, five steps."""


def by_name(task: Task) -> str:
    return task.name


def test_a_picture_shows_what_others_did_to_the_grid() -> None:
    task = get_task("DoorKey-8x8")
    with made(task, 0) as env:
        env.reset(seed=0)
        closed = task.frame(env)
        world = env.unwrapped
        door = world.grid.get(*find(world, "door"))
        door.is_open, door.is_locked = True, False
        assert not np.array_equal(task.frame(env), closed)
        world.agent_pos, world.agent_dir = (1, 6), 3
        assert np.array_equal(task.frame(env), world.render())


@pytest.mark.parametrize(
    ("name", "shape"), [("DoorKey-5x5", (40, 40, 3)), ("DoorKey-16x16", (128, 128, 3)), ("Unlock", (48, 88, 3))]
)
def test_a_tile_is_eight_pixels(name: str, shape: tuple[int, ...]) -> None:
    assert rollout(get_task(name), 0, "random", 1).frames.shape[1:] == shape


@pytest.mark.parametrize("task", TASKS, ids=by_name)
def test_the_planner_solves_fresh_episodes(task: Task) -> None:
    for seed in seeds_of(123, Role.EXPERT, 20):
        trajectory = rollout(task, seed, "expert", with_events=True)
        assert trajectory.terminated
        assert trajectory.rewards[-1] > 0
        assert (trajectory.rewards[:-1] == 0).all()


@pytest.mark.parametrize(
    ("name", "digest"),
    [("DoorKey-6x6", "0b25675ee23e4aa5"), ("Unlock", "378d6cb38bc7b2ca"), ("UnlockPickup", "deb25086ef6b6f47")],
)
def test_an_undisturbed_planner_keeps_to_its_plans(name: str, digest: str) -> None:
    """Recorded stores are known by their seeds: the same seeds have to give the same episodes."""
    task = get_task(name)
    with made(task, 0) as env:
        played = [play(task, env, seed, "expert").actions.astype(np.uint8).tobytes() for seed in range(10)]
    assert hashlib.sha256(b"".join(played)).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", ["DoorKey-6x6", "Unlock"])
def test_a_planner_that_is_led_astray_plans_anew(name: str) -> None:
    task = get_task(name)
    with made(task, 0) as env:
        for seed in range(10):
            observation, _ = env.reset(seed=seed)
            act, rng = task.expert(env), np.random.default_rng(seed)
            for _ in range(200):
                action = act(observation)
                if rng.random() < 0.4:
                    action = int(rng.integers(4))  # without a drop, which may block the only way
                observation, reward, terminated, *_ = env.step(action)
                if terminated:
                    break
            assert terminated
            assert reward > 0


def test_plans_are_shortest() -> None:
    assert len(rollout(get_task("Empty-8x8"), 0, "expert")) == SHORTEST_OF_EMPTY


def test_ties_between_plans_are_broken_by_the_episode() -> None:
    task = get_task("DoorKey-8x8")
    plans = set()
    with made(task, 0) as env:
        for tie in (1, 1, 2, 3, 4):
            observation, _ = env.reset(seed=2)
            env.unwrapped.np_random = np.random.default_rng(tie)
            act, plan, terminated = task.expert(env), [], False
            while not terminated:
                plan.append(act(observation))
                observation, _, terminated, *_ = env.step(plan[-1])
            plans.add(tuple(plan))
    assert 1 < len(plans) < 5


@pytest.mark.parametrize("task", DOORS, ids=by_name)
def test_the_expert_passes_the_events_in_order(task: Task) -> None:
    for seed in range(5):
        events = rollout(task, seed, "expert", with_events=True).events
        firsts = [int(np.argmax(happened)) for happened in events.values()]
        assert all(happened.any() and not happened[0] for happened in events.values())
        assert firsts == sorted(firsts)


def test_the_oracle_knows_a_dropped_key() -> None:
    task = get_task("UnlockPickup")
    with made(task, 0) as env:
        observation, _ = env.reset(seed=0)
        act = task.expert(env)
        while True:
            assert not task.oracle(env)["key put down"]
            action = act(observation)
            observation, *_ = env.step(action)
            if action == PICKUP:
                break
        assert task.oracle(env)["key carried"]
        env.step(DROP)  # on its first cell, where it looks as if it had never been taken
        now = task.oracle(env)
        assert now["key put down"]
        assert not now["key carried"]


@pytest.mark.parametrize("name", ["UnlockPickup", "BlockedUnlockPickup"])
def test_a_toggled_box_vanishes_like_a_picked_up_one(name: str) -> None:
    """The reason why these tasks mix in the environment's own reward."""
    task = get_task(name)
    actions = rollout(task, 7, "expert").actions
    last = {}
    for ending in (PICKUP, TOGGLE):
        with made(task, 0) as env:
            env.reset(seed=7)
            for action in [*actions[:-1], ending]:
                _, reward, terminated, truncated, info = env.step(int(action))
            last[ending] = task.frame(env), task.success(float(reward), terminated, truncated, info)
    assert np.array_equal(last[PICKUP][0], last[TOGGLE][0])
    assert last[PICKUP][1]
    assert not last[TOGGLE][1]


def test_walking_into_the_goal_is_success() -> None:
    task = get_task("Empty-8x8")
    with made(task, 0) as env:
        env.reset(seed=0)
        env.unwrapped.agent_pos, env.unwrapped.agent_dir = (6, 5), 1
        _, reward, terminated, truncated, info = env.step(FORWARD)
        assert task.success(float(reward), terminated, truncated, info)


@pytest.mark.parametrize("run_seed", range(5))
@pytest.mark.parametrize("name", ["Unlock", "UnlockPickup"])
def test_sixty_expert_episodes_contain_the_hard_colours(name: str, run_seed: int) -> None:
    """Grey things are no brighter than the grid's lines, and red ones look like the agent."""
    task = get_task(name)
    kinds = ("door", "key", "box") if name == "UnlockPickup" else ("door", "key")
    found: dict[str, set[str]] = {kind: set() for kind in kinds}
    with made(task, 0) as env:
        for seed in seeds_of(run_seed, Role.EXPERT, 60):
            env.reset(seed=seed)
            for kind in kinds:
                found[kind].add(env.unwrapped.grid.get(*find(env.unwrapped, kind)).color)
    assert all({"grey", "red"} <= colours for colours in found.values())
