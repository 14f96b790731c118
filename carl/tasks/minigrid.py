"""MiniGrid: rooms seen from above, with keys, doors, boxes and goals.

The policy sees MiniGrid's own partial view, one-hot; programs see the whole room as a picture.
"""

from functools import partial

import gymnasium as gym

from carl.task import Environment, Task
from carl.tasks.minigrid_events import oracle
from carl.tasks.minigrid_picture import TopDown
from carl.tasks.minigrid_planner import LEFT, RIGHT, Planner
from carl.tasks.minigrid_view import FlatView

TILE = 8
"""Pixels a tile is drawn at."""


def make(env_id: str) -> Environment:
    """``gym.make`` with a flat one-hot observation and the whole room as its frame, without highlight."""
    import minigrid  # noqa: F401  registers the environments

    env = gym.make(env_id, render_mode="rgb_array", highlight=False, tile_size=TILE, disable_env_checker=True)
    return FlatView(TopDown(env))


def _task(name: str, words: str, events: tuple[str, ...], env_steps: int, reason: str = "", **reward: float) -> Task:
    return Task(
        name=name,
        description=f"A grid world seen from above; the red triangle is the agent. {words}",
        make=partial(make, f"MiniGrid-{name}-v0"),
        expert=Planner,
        oracle=partial(oracle, events),
        defaults={"train.env_steps": env_steps, **{f"reward.{name}": value for name, value in reward.items()}},
        env_reward_reason=reason,
        idle=(LEFT, RIGHT),
    )


_DOOR_KEY = "Use the key to open the door and then get to the green goal square."
_DOOR_KEY_EVENTS = ("key carried", "door open", "goal reached")

TASKS = (
    _task("Empty-8x8", "Get to the green goal square.", ("goal reached",), 60_000),
    _task("DoorKey-5x5", _DOOR_KEY, _DOOR_KEY_EVENTS, 60_000),
    _task("DoorKey-6x6", _DOOR_KEY, _DOOR_KEY_EVENTS, 100_000),
    _task("DoorKey-8x8", _DOOR_KEY, _DOOR_KEY_EVENTS, 200_000),
    _task("DoorKey-16x16", _DOOR_KEY, _DOOR_KEY_EVENTS, 600_000),
    _task("Unlock", "Open the door.", ("key carried", "door open"), 150_000),
    _task(
        "UnlockPickup",
        "Pick up the box.",
        ("key carried", "door open", "key put down", "box carried"),
        600_000,
        env_reward_weight=4.0,
        reason=(
            "A box that is toggled vanishes exactly as one that is picked up, so no program on frames can tell "
            "them apart; only the environment's own reward decides. It weighs as much as four sub-tasks together."
        ),
    ),
)
