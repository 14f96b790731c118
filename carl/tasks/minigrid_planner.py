"""The expert of the MiniGrid tasks: shortest plans over the true grid."""

from collections import deque
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from carl.errors import TaskError
from carl.task import Environment
from carl.tasks.minigrid_cells import find
from carl.tasks.minigrid_view import STEPS

Cell = tuple[int, int]
Pose = tuple[int, int, int]
"""Column, row and direction; 0 right, 1 down, 2 left, 3 up."""

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)
WALKING = (LEFT, RIGHT, FORWARD)

_State = tuple[Pose, Any, tuple[tuple[Any, Any], ...]]


class Planner:
    """Acts by shortest plans over the true grid: key, door, then box or goal, whichever there are.

    Ties are broken at random, differently in every episode and the same under the same seed. A plan is made anew where
    the room or the agent is not as the actions so far should have left it: it plays well from any state.
    """

    def __init__(self, env: Environment) -> None:
        self._world: Any = env.unwrapped
        self._rng = deepcopy(self._world.np_random)
        self._plan: deque[int] = deque()
        self._expected: _State | None = None

    def __call__(self, observation: Any) -> int:  # noqa: ARG002  it looks at the grid
        """The next action; raises TaskError where no plan exists."""
        now = self._state()
        if not self._plan or now != self._expected:
            self._plan = deque(self._next_plan())
        action = self._plan.popleft()
        self._expected = (move(now[0], action), *now[1:]) if action in WALKING else None
        return action

    def _state(self) -> _State:
        """The agent's pose, what it carries, and the things in the room, doors with whether they are open."""
        world = self._world
        things = tuple((thing, getattr(thing, "is_open", None)) for thing in world.grid.grid)
        return self._pose(), world.carrying, things

    def _pose(self) -> Pose:
        x, y = self._world.agent_pos
        return int(x), int(y), int(self._world.agent_dir)

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
        route = self._search(self._pose(), arrived)
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
            for action in self._rng.permutation(WALKING).tolist():
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
