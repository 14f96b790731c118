"""MiniGrid: rooms seen from above, with keys, doors, boxes and goals.

The policy sees MiniGrid's own partial view, one-hot; programs see the whole room as a picture.
"""

from collections import deque
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.errors import TaskError
from carl.task import Environment, Frame, Task

TILE = 8
"""Pixels a tile is drawn at."""

SEEN = ("unseen", "empty", "wall", "door", "key", "box", "goal")
"""Object types that these tasks show the agent, in the order of the one-hot columns."""

COLOURS, STATES, DIRECTIONS = 6, 3, 4

Cell = tuple[int, int]
Pose = tuple[int, int, int]
"""Column, row and direction; 0 right, 1 down, 2 left, 3 up."""

STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)


def make(env_id: str) -> Environment:
    """``gym.make`` with a flat one-hot observation and the whole room as its frame, without highlight."""
    import minigrid  # noqa: F401  registers the environments

    env = gym.make(env_id, render_mode="rgb_array", highlight=False, tile_size=TILE, disable_env_checker=True)
    return FlatView(TopDown(env))


class TopDown(gym.Wrapper[Any, Any, Any, Any]):
    """Renders what MiniGrid renders, redrawing only the tiles that changed since the last picture."""

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._cells: list[Any] = []
        self._doors: dict[int, Any] = {}
        self._agent = (-1, -1)
        self._picture: Frame = np.zeros((0, 0, 3), dtype=np.uint8)

    def render(self) -> Frame:  # type: ignore[override]  # gymnasium's own type is a free variable here
        """``uint8[TILE * height, TILE * width, 3]``, a fresh array."""
        world: Any = self.env.unwrapped
        for index in self._changed(world):
            x, y = index % world.width, index // world.width
            tile = world.grid.render_tile(
                self._cells[index],
                agent_dir=self._agent[1] if index == self._agent[0] else None,
                tile_size=world.tile_size,
            )
            size = world.tile_size
            self._picture[y * size : (y + 1) * size, x * size : (x + 1) * size] = tile
        return self._picture.copy()

    def _changed(self, world: Any) -> set[int]:
        """Compare the room with the one last drawn, remember it, and return the indices of changed cells."""
        cells, before = world.grid.grid, self._cells
        agent = int(world.agent_pos[1]) * world.width + int(world.agent_pos[0]), int(world.agent_dir)
        changed: set[int] = set()
        if len(cells) != len(before):
            self._picture = np.zeros((world.height * world.tile_size, world.width * world.tile_size, 3), np.uint8)
            changed.update(range(len(cells)))
        elif cells != before:
            changed.update(i for i, cell in enumerate(cells) if cell is not before[i])
        if changed:
            self._cells = list(cells)
        doors = {i: c.encode() for i, c in enumerate(cells) if c is not None and c.type == "door"}
        changed.update(i for i in doors if doors[i] != self._doors.get(i))
        if agent != self._agent:
            changed.update(i for i in (agent[0], self._agent[0]) if i >= 0)
        self._agent, self._doors = agent, doors
        return changed


class FlatView(gym.ObservationWrapper[Any, Any, Any]):
    """The agent's 7x7 view and its direction as a flat one-hot vector, ``float32[7 * 7 * 16 + 4]``."""

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        view = env.observation_space["image"].shape  # type: ignore[index]  # MiniGrid's Dict space
        self._table = _one_hot_table()
        self._cells, self._width = view[0] * view[1], self._table.shape[1]
        size = self._cells * self._width + DIRECTIONS
        self.observation_space = gym.spaces.Box(0.0, 1.0, (size,), np.float32)

    def observation(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        flat = np.zeros(self._cells * self._width + DIRECTIONS, dtype=np.float32)
        image = observation["image"].reshape(self._cells, 3)
        codes = (image[:, 0].astype(np.intp) * COLOURS + image[:, 1]) * STATES + image[:, 2]
        flat[:-DIRECTIONS] = self._table[codes].reshape(-1)
        flat[observation["direction"] - DIRECTIONS] = 1.0
        return flat


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
    return _carried(world, "key")


def key_put_down(world: Any) -> bool:
    """The key lies somewhere after it was carried, its first place included."""
    cell = find(world, "key")
    if cell is None:
        return False
    key = world.grid.get(*cell)
    return key.cur_pos is not key.init_pos  # one and the same tuple until MiniGrid moves the object


def door_open(world: Any) -> bool:
    cell = find(world, "door")
    return cell is not None and bool(world.grid.get(*cell).is_open)


def goal_reached(world: Any) -> bool:
    thing = world.grid.get(*world.agent_pos)
    return thing is not None and thing.type == "goal"


def box_carried(world: Any) -> bool:
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


def _task(name: str, words: str, events: tuple[str, ...], env_steps: int, **more: Any) -> Task:
    return Task(
        name=name,
        description=f"A grid world seen from above; the red triangle is the agent. {words}",
        make=partial(make, f"MiniGrid-{name}-v0"),
        expert=Planner,
        oracle=partial(oracle, events),
        env_steps=env_steps,
        **more,
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
        env_reward_weight=1.0,
        env_reward_reason=(
            "A box that is toggled vanishes exactly as one that is picked up, so no program on frames can tell "
            "them apart; only the environment's own reward decides."
        ),
    ),
)
