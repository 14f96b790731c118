"""The expert of the MiniGrid tasks: shortest plans over the true grid, whatever stands in the way."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple

from carl.errors import TaskError
from carl.task import Environment
from carl.tasks.minigrid_cells import Cell, cells_where, find
from carl.tasks.minigrid_view import STEPS

Pose = tuple[int, int, int]
"""Column, row and direction; 0 right, 1 down, 2 left, 3 up."""

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)
WALKING = (LEFT, RIGHT, FORWARD)

_State = tuple[Pose, Any, tuple[tuple[Any, Any], ...]]

DOORS, THINGS = ("door",), ("key", "ball", "box")

DETOURS = {"door": 2, "locked": 8, "thing": 4}
"""Actions that a closed door, a locked one and a thing in the way cost about, beside those of walking."""


class Aim(NamedTuple):
    """What to bring about: to face one of ``cells`` and take ``action``; without one, to face it or to stand on it."""

    cells: frozenset[Cell]
    action: int | None = None


def aim_at(world: Any, thing: Any, action: int | None = None) -> Aim:
    """The Aim of that very object, or of nothing where it lies nowhere."""
    return Aim(cells_where(world, lambda other: other is thing), action)


def by_sight(world: Any) -> Aim:
    """What a room asks for by what lies there: get to the goal, pick up the room's own object, or open the door."""
    goal = find(world, "goal")
    if goal is not None:
        return Aim(frozenset({goal}))
    if hasattr(world, "obj"):
        return aim_at(world, world.obj, PICKUP)
    return aim_at(world, world.door, TOGGLE)


class Planner:
    """Acts by shortest plans over the true grid towards what ``aim`` says, and clears the way where it is blocked.

    A door in the way is opened, its key fetched before, out of a box if it is hidden there; a thing in the way is
    carried off. Ties are broken at random, differently in every episode and the same under the same seed. A plan is
    made anew where the room or the agent is not as the actions so far should have left it: it plays well from any
    state.
    """

    def __init__(self, env: Environment, aim: Callable[[Any], Aim] = by_sight) -> None:
        self._world: Any = env.unwrapped
        self._aim = aim
        self._rng = deepcopy(self._world.np_random)
        self._plan: deque[int] = deque()
        self._expected: _State | None = None

    def __call__(self, observation: Any) -> int:  # noqa: ARG002  it looks at the grid
        """The next action; raises TaskError where no plan exists."""
        now = self._state()
        if not self._plan or now != self._expected:
            self._plan = deque(self._towards([self._aim(self._world)]))
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

    def _towards(self, aims: list[Aim]) -> list[int]:
        """Actions that bring about the last of ``aims``, or something on the way to it; the others come after it."""
        aim = aims[-1]
        if aim in aims[:-1]:
            raise self._lost()
        first = self._first(aim)
        if first is not None:
            return self._towards([*aims, first])
        if aim.action == PICKUP and self._world.carrying:
            return self._put_down(aims)
        return [*self._route(self._arrival(aim)), *([] if aim.action is None else [aim.action])]

    def _first(self, aim: Aim) -> Aim | None:
        """What has to be brought about before ``aim`` can be; None if nothing has."""
        blocked = self._in_the_way(aim.cells)
        cell = next(iter(aim.cells)) if blocked is None else blocked
        thing = self._world.grid.get(*cell)
        if thing.type == "door" and thing.is_locked and not self._opens(thing):
            return self._key(thing.color)
        if blocked is None:
            return None
        return Aim(frozenset({blocked}), TOGGLE if thing.type == "door" else PICKUP)

    def _opens(self, door: Any) -> bool:
        held = self._world.carrying
        return held is not None and held.type == "key" and bool(held.color == door.color)

    def _key(self, colour: str) -> Aim:
        """The next thing to do for a key of that colour: pick it up, or open the box that hides it."""

        def is_key(thing: Any) -> bool:
            return thing is not None and thing.type == "key" and bool(thing.color == colour)

        if keys := cells_where(self._world, is_key):
            return Aim(keys, PICKUP)
        return Aim(cells_where(self._world, lambda thing: is_key(getattr(thing, "contains", None))), TOGGLE)

    def _in_the_way(self, cells: frozenset[Cell]) -> Cell | None:
        """The first thing to clear on the cheapest way to one of ``cells``, None if nothing is; raises TaskError."""
        x, y = map(int, self._world.agent_pos)
        came: dict[Cell, Cell | None] = {}
        queue: list[tuple[int, Cell, Cell | None]] = [(0, (x, y), None)]
        while queue:
            cost, cell, before = heappop(queue)
            if cell in came:
                continue
            came[cell] = before
            if cell in cells:
                return self._first_blocked(before, came)
            for dx, dy in STEPS:
                then = cell[0] + dx, cell[1] + dy
                price = 1 if then in cells else self._price(then)
                if price is not None:
                    heappush(queue, (cost + price, then, cell))
        raise self._lost()

    def _first_blocked(self, cell: Cell | None, came: dict[Cell, Cell | None]) -> Cell | None:
        blocked = None
        while cell is not None:
            before = came[cell]
            if before is not None and not self._passable(cell):
                blocked = cell
            cell = before
        return blocked

    def _price(self, cell: Cell) -> int | None:
        """Actions that entering a cell takes; None if nobody can or should."""
        thing = self._world.grid.get(*cell)
        if self._passable(cell):
            return 1
        if thing.type in ("wall", "lava"):
            return None
        return 1 + DETOURS[("locked" if thing.is_locked else "door") if thing.type == "door" else "thing"]

    def _arrival(self, aim: Aim) -> Callable[[Pose], bool]:
        onto = aim.action is None and all(self._passable(cell) for cell in aim.cells)
        return lambda pose: (pose[:2] if onto else ahead(pose)) in aim.cells

    def _put_down(self, aims: Sequence[Aim]) -> list[int]:
        """Drop what is carried where all that is still to do can be reached, once the way is clear if it is not yet."""
        for through in (DOORS, (*DOORS, *THINGS)):
            with suppress(TaskError):
                return [*self._route(partial(self._may_drop, aims=aims, through=through)), DROP]
        return [*self._route(lambda pose: self._world.grid.get(*ahead(pose)) is None), DROP]

    def _may_drop(self, pose: Pose, aims: Sequence[Aim], through: tuple[str, ...]) -> bool:
        """Whether the cell ahead is free, and every aim can still be faced with something lying there."""
        spot = ahead(pose)
        if self._world.grid.get(*spot) is not None:
            return False
        return all(self._search(pose, self._arrival(aim), spot, through) is not None for aim in aims)

    def _route(self, arrived: Callable[[Pose], bool]) -> list[int]:
        route = self._search(self._pose(), arrived)
        if route is None:
            raise self._lost()
        return route

    def _search(
        self, start: Pose, arrived: Callable[[Pose], bool], blocked: Cell | None = None, through: tuple[str, ...] = ()
    ) -> list[int] | None:
        """Breadth-first from ``start``: the actions of a shortest way to a pose that has arrived, or None.

        The way avoids ``blocked``, and may lead through objects of the types ``through`` besides.
        """
        came: dict[Pose, tuple[Pose, int] | None] = {start: None}
        queue = deque([start])
        while queue:
            pose = queue.popleft()
            if arrived(pose):
                return _actions_to(pose, came)
            for action in self._rng.permutation(WALKING).tolist():
                then = move(pose, action)
                if then not in came and then[:2] != blocked and self._passable(then[:2], through):
                    came[then] = pose, action
                    queue.append(then)
        return None

    def _passable(self, cell: Cell, through: tuple[str, ...] = ()) -> bool:
        thing = self._world.grid.get(*cell)
        if thing is None or thing.type in through:
            return True
        return bool(thing.can_overlap()) and thing.type != "lava"

    def _lost(self) -> TaskError:
        return TaskError(f"the planner finds no way on from here:\n{self._world.pprint_grid()}")


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
