"""MiniGrid: rooms seen from above, with keys, doors, boxes and goals.

The policy sees MiniGrid's own partial view, one-hot; programs see the whole room as a picture.
"""

from collections import deque
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym

from carl.errors import TaskError
from carl.task import Environment, Task
from carl.tasks.minigrid_picture import TopDown
from carl.tasks.minigrid_view import STEPS, FlatView

TILE = 8
"""Pixels a tile is drawn at."""

Cell = tuple[int, int]
Pose = tuple[int, int, int]
"""Column, row and direction; 0 right, 1 down, 2 left, 3 up."""

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)


def make(env_id: str) -> Environment:
    """``gym.make`` with a flat one-hot observation and the whole room as its frame, without highlight."""
    import minigrid  # noqa: F401  registers the environments

    env = gym.make(env_id, render_mode="rgb_array", highlight=False, tile_size=TILE, disable_env_checker=True)
    return FlatView(TopDown(env))


class Planner:
    """Acts by shortest plans over the true grid: key, door, then box or goal, whichever there are.

    Ties are broken at random, differently in every episode and the same under the same seed.
    """

    def __init__(self, env: Environment) -> None:
        self._world: Any = env.unwrapped
        self._rng = deepcopy(self._world.np_random)
        self._plan: deque[int] = deque()

    def __call__(self, observation: Any) -> int:  # noqa: ARG002  it looks at the grid
        """The next action; raises TaskError where no plan exists."""
        if not self._plan:
            self._plan.extend(self._next_plan())
        return self._plan.popleft()

    def _next_plan(self) -> list[int]:
        door, key, box, goal = (find(self._world, kind) for kind in ("door", "key", "box", "goal"))
        carrying = self._world.carrying
        if door and not self._world.grid.get(*door).is_open:
            if key and not carrying and self._world.grid.get(*door).is_locked:
                return [*self._route(lambda pose: ahead(pose) == key), PICKUP]
            return [*self._route(lambda pose: ahead(pose) == door), TOGGLE]
        if box and carrying:
            return [*self._route(lambda pose: self._may_drop(pose, box)), DROP]
        if box:
            return [*self._route(lambda pose: ahead(pose) == box), PICKUP]
        return self._route(lambda pose: pose[:2] == goal)

    def _may_drop(self, pose: Pose, target: Cell) -> bool:
        """Whether the cell ahead is free, and the target can still be reached with something lying there."""
        spot = ahead(pose)
        if self._world.grid.get(*spot) is not None:
            return False
        return self._search(pose, lambda other: ahead(other) == target, blocked=spot) is not None

    def _route(self, arrived: Callable[[Pose], bool]) -> list[int]:
        x, y = self._world.agent_pos
        route = self._search((int(x), int(y), int(self._world.agent_dir)), arrived)
        if route is None:
            raise TaskError(f"the planner finds no way on from here:\n{self._world.pprint_grid()}")
        return route

    def _search(self, start: Pose, arrived: Callable[[Pose], bool], blocked: Cell | None = None) -> list[int] | None:
        """Breadth-first from ``start``: the actions of a shortest way to a pose that has arrived, or None."""
        came: dict[Pose, tuple[Pose, int] | None] = {start: None}
        queue = deque([start])
        while queue:
            pose = queue.popleft()
            if arrived(pose):
                return _actions_to(pose, came)
            for action in self._rng.permutation((LEFT, RIGHT, FORWARD)).tolist():
                then = move(pose, action)
                if then not in came and then[:2] != blocked and self._passable(then[:2]):
                    came[then] = pose, action
                    queue.append(then)
        return None

    def _passable(self, cell: Cell) -> bool:
        thing = self._world.grid.get(*cell)
        return thing is None or bool(thing.can_overlap())


def _actions_to(pose: Pose, came: dict[Pose, tuple[Pose, int] | None]) -> list[int]:
    actions = []
    while (step := came[pose]) is not None:
        pose, action = step
        actions.append(action)
    return actions[::-1]


def move(pose: Pose, action: int) -> Pose:
    """The pose after turning left or right or going forward, walls ignored."""
    x, y, direction = pose
    if action == FORWARD:
        return (*ahead(pose), direction)
    return x, y, (direction + (1 if action == RIGHT else -1)) % 4


def ahead(pose: Pose) -> Cell:
    """The cell in front."""
    x, y, direction = pose
    return x + STEPS[direction][0], y + STEPS[direction][1]


def find(world: Any, kind: str) -> Cell | None:
    """Where the first object of that type lies, or None: it is not there, or carried."""
    for index, thing in enumerate(world.grid.grid):
        if thing is not None and thing.type == kind:
            return index % world.width, index // world.width
    return None


def _carried(world: Any, kind: str) -> bool:
    return world.carrying is not None and world.carrying.type == kind


def key_carried(world: Any) -> bool:
    """The agent carries the key now."""
    return _carried(world, "key")


def key_put_down(world: Any) -> bool:
    """The key lies somewhere after it was carried, its first place included."""
    cell = find(world, "key")
    if cell is None:
        return False
    key = world.grid.get(*cell)
    return key.cur_pos is not key.init_pos  # one and the same tuple until MiniGrid moves the object


def door_open(world: Any) -> bool:
    """The door is there, and open now."""
    cell = find(world, "door")
    return cell is not None and bool(world.grid.get(*cell).is_open)


def goal_reached(world: Any) -> bool:
    """The agent stands on the goal."""
    thing = world.grid.get(*world.agent_pos)
    return thing is not None and thing.type == "goal"


def box_carried(world: Any) -> bool:
    """The agent carries the box now."""
    return _carried(world, "box")


EVENTS: dict[str, Callable[[Any], bool]] = {
    "key carried": key_carried,
    "door open": door_open,
    "key put down": key_put_down,
    "box carried": box_carried,
    "goal reached": goal_reached,
}


def oracle(names: tuple[str, ...], env: Environment) -> dict[str, bool]:
    """Which of the named events hold now, read from the true grid; for measuring only."""
    return {name: EVENTS[name](env.unwrapped) for name in names}


def _task(name: str, words: str, events: tuple[str, ...], env_steps: int, reason: str = "", **reward: float) -> Task:
    return Task(
        name=name,
        description=f"A grid world seen from above; the red triangle is the agent. {words}",
        make=partial(make, f"MiniGrid-{name}-v0"),
        expert=Planner,
        oracle=partial(oracle, events),
        defaults={"train.env_steps": env_steps, **{f"reward.{name}": value for name, value in reward.items()}},
        env_reward_reason=reason,
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
