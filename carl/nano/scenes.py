"""Random gridworld scenes, drawn on the fly: initial and goal frames of episodes that need the same sub-tasks.

Nothing is simulated: a layout is drawn together with the state in which an expert would leave it, and both are
painted.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from carl.nano.painting import Cell, State, Thing, paint
from carl.task import Frame

T = TypeVar("T")
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
GOAL_COLOURS = ("green", "green", "green", "blue", "yellow")
"""A grey goal looks like a wall, a red one like the agent on it, and a purple one is no brighter than a door."""

Rng = np.random.Generator

STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""MiniGrid's directions: right, down, left, up."""


@dataclass(frozen=True)
class SubGoal:
    """One sub-task of a scene: verb and kind of thing. ``role`` is the key of the thing's colours in the Scene."""

    verb: str
    kind: str
    role: str


@dataclass(frozen=True, eq=False)
class Scene:
    """Episodes of one task.

    Attributes:
        family: the name of its generator.
        frames: initial and goal frame of each episode in turn, all ``uint8[H, W, 3]`` of one size.
        subgoals: the sub-tasks, in order.
        colours: for each role the colour in each episode.
        crowded: whether there are other objects, from which the target has to be distinguished.
    """

    family: str
    frames: tuple[Frame, ...]
    subgoals: tuple[SubGoal, ...]
    colours: dict[str, tuple[str, ...]]
    crowded: bool = False


@dataclass(frozen=True)
class Rooms:
    """Two rooms side by side: outer size, the column of the wall between them, the row of its door.

    ``across`` swaps the axes, so that the rooms lie one above the other.
    """

    width: int
    height: int
    split: int
    door_row: int
    across: bool = False

    @property
    def size(self) -> Cell:
        """Columns and rows of both rooms with their walls."""
        return (self.height, self.width) if self.across else (self.width, self.height)

    @property
    def door(self) -> Cell:
        """The door's cell."""
        return self._turn((self.split, self.door_row))

    @property
    def before_door(self) -> tuple[Cell, int]:
        """The agent's cell and direction when it opens the door."""
        return self._turn((self.split - 1, self.door_row)), 1 if self.across else 0

    @property
    def walls(self) -> list[Cell]:
        """The cells of the wall between the rooms."""
        return [self._turn((self.split, row)) for row in range(1, self.height - 1) if row != self.door_row]

    @property
    def near(self) -> list[Cell]:
        """The cells of the room that the agent starts in."""
        return self._cells(1, self.split)

    @property
    def far(self) -> list[Cell]:
        """The cells of the room behind the door."""
        return self._cells(self.split + 1, self.width - 1)

    def _cells(self, start: int, stop: int) -> list[Cell]:
        return [self._turn((x, y)) for x in range(start, stop) for y in range(1, self.height - 1)]

    def _turn(self, cell: Cell) -> Cell:
        return (cell[1], cell[0]) if self.across else cell


def _pick(rng: Rng, options: list[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _direction(rng: Rng) -> int:
    return int(rng.integers(4))


def _colour(rng: Rng, palette: tuple[str, ...] = COLOURS) -> str:
    return palette[int(rng.integers(len(palette)))]


def _neighbours(cell: Cell) -> list[tuple[Cell, int]]:
    """The four cells around ``cell``, each with the direction that looks from it at ``cell``."""
    return [((cell[0] - dx, cell[1] - dy), direction) for direction, (dx, dy) in enumerate(STEPS)]


def _stand_by(rng: Rng, cell: Cell, free: set[Cell]) -> tuple[Cell, int]:
    return _pick(rng, [option for option in _neighbours(cell) if option[0] in free])


def _interior(size: Cell) -> list[Cell]:
    return [(x, y) for x in range(1, size[0] - 1) for y in range(1, size[1] - 1)]


def _extent(rng: Rng, low: int = 5) -> int:
    """A side in tiles: mostly small, now and then up to the canvas."""
    return int(rng.integers(low, 10)) if rng.random() < 0.8 else int(rng.integers(10, 17))


def _take(rng: Rng, cells: list[Cell], taken: Iterable[Cell]) -> Cell:
    left = [cell for cell in cells if cell not in set(taken)]
    return _pick(rng, left)


Palette = dict[str, str]
Episode = tuple[Frame, Frame]


def _goal_episode(rng: Rng, size: Cell, palette: Palette, corner: bool, crowd: int) -> Episode:
    cells = _interior(size)
    goal = cells[-1] if corner else _pick(rng, cells)
    agent = (1, 1) if corner and goal != (1, 1) else _take(rng, cells, [goal])
    things: dict[Cell, Thing] = {goal: ("goal", palette["goal"], "")}
    for _ in range(min(crowd, len(cells) - 4)):
        things[_take(rng, cells, [*things, agent, *(cell for cell, _ in _neighbours(goal))])] = _clutter(rng)
    _, arrived = _stand_by(rng, goal, set(cells) - set(things))
    start = State(things, agent, 0 if corner else _direction(rng))
    return paint(size, [], start), paint(size, [], State(things, goal, arrived))


def _clutter(rng: Rng) -> Thing:
    return _pick(rng, ["ball", "box"]), _colour(rng), ""


def _door_episode(rng: Rng, rooms: Rooms, palette: Palette, plan: "Plan") -> Episode:
    """Key, door and what lies behind it, as far as the plan has them."""
    door_state = "locked" if plan.key else "closed"
    things: dict[Cell, Thing] = {rooms.door: ("door", palette["door"], door_state)}
    agent = _pick(rng, rooms.near)
    if plan.key:
        things[_take(rng, rooms.near, [agent])] = ("key", palette["door"], "")
    behind = None
    if plan.behind:
        corner = max(rooms.far)
        behind = corner if plan.corner else _pick(rng, rooms.far)
        things[behind] = (plan.behind, palette["behind"], "")
    start = State(things, agent, _direction(rng))
    end = _after_door(rng, rooms, palette, plan, things, behind)
    return paint(rooms.size, rooms.walls, start), paint(rooms.size, rooms.walls, end)


def _after_door(
    rng: Rng, rooms: Rooms, palette: Palette, plan: "Plan", things: dict[Cell, Thing], behind: Cell | None
) -> State:
    left = {cell: thing for cell, thing in things.items() if thing[0] not in ("key", "door")}
    left[rooms.door] = ("door", palette["door"], "open")
    if behind is None:
        return State(left, *rooms.before_door)
    if plan.behind == "goal":
        _, arrived = _stand_by(rng, behind, {*rooms.far, rooms.door})
        return State(left, behind, arrived)
    del left[behind]
    stand = _stand_by(rng, behind, {*rooms.far, rooms.door})
    if plan.key:
        left[_dropped(rng, rooms, stand[0])] = ("key", palette["door"], "")
    return State(left, *stand)


def _dropped(rng: Rng, rooms: Rooms, agent: Cell) -> Cell:
    """Where the key lies in the end: mostly near the door, sometimes anywhere."""
    cells = [cell for cell in [*rooms.near, *rooms.far] if cell != agent]
    x, y = rooms.door
    close = [cell for cell in cells if abs(cell[0] - x) + abs(cell[1] - y) <= 3]
    return _pick(rng, close if close and rng.random() < 0.6 else cells)


@dataclass(frozen=True)
class Plan:
    """What a door family consists of: a key or none, and the kind of thing behind the door or None."""

    key: bool
    behind: str | None
    corner: bool = False

    @property
    def subgoals(self) -> tuple[SubGoal, ...]:
        """The sub-tasks of the plan, in order."""
        found = [SubGoal("pick up", "key", "door")] if self.key else []
        found.append(SubGoal("open", "door", "door"))
        if self.behind == "goal":
            found.append(SubGoal("reach", "goal", "behind"))
        elif self.behind:
            if self.key:
                found.append(SubGoal("put down", "key", "door"))
            found.append(SubGoal("pick up", self.behind, "behind"))
        return tuple(found)


def _pick_episode(rng: Rng, size: Cell, kind: str, colour: str, crowd: int) -> Episode:
    """One object among several is taken; which one is what the goal frame no longer shows."""
    cells = _interior(size)
    target = _pick(rng, cells)
    stand = _stand_by(rng, target, set(cells))
    agent = _take(rng, cells, [target])
    others: dict[Cell, Thing] = {}
    while len(others) < crowd:
        thing = (_pick(rng, ["key", "ball", "box"]), _colour(rng), "")
        if thing[:2] != (kind, colour):
            others[_take(rng, cells, [*others, target, agent, stand[0]])] = thing
    start = State({**others, target: (kind, colour, "")}, agent, _direction(rng))
    return paint(size, [], start), paint(size, [], State(others, *stand))


def _palettes(rng: Rng, pairs: int, roles: Mapping[str, tuple[str, ...]], same: float) -> dict[str, tuple[str, ...]]:
    """Colours per role and episode; a role keeps its colour over the episodes with probability ``same``."""
    found = {}
    for role, palette in roles.items():
        first = _colour(rng, palette)
        keeps = rng.random() < same
        found[role] = tuple(first if keeps else _colour(rng, palette) for _ in range(pairs))
    return found


def _scene(
    family: str,
    pairs: int,
    subgoals: tuple[SubGoal, ...],
    colours: dict[str, tuple[str, ...]],
    episode: Callable[[Palette], Episode],
    crowded: bool = False,
) -> Scene:
    frames = [episode({role: by[index] for role, by in colours.items()}) for index in range(pairs)]
    return Scene(family, tuple(frame for pair in frames for frame in pair), subgoals, colours, crowded)


def _reach_goal(rng: Rng, pairs: int) -> Scene:
    corner, crowd = rng.random() < 0.5, 0 if rng.random() < 0.8 else int(rng.integers(1, 4))
    if corner and rng.random() < 0.7:
        size, crowd = (8, 8), 0
    else:
        size = (_extent(rng), _extent(rng))
    colours = _palettes(rng, pairs, {"goal": GOAL_COLOURS}, same=0.85)
    subgoals = (SubGoal("reach", "goal", "goal"),)
    return _scene(
        "goal" if size == (8, 8) and corner else "goal/any",
        pairs,
        subgoals,
        colours,
        lambda palette: _goal_episode(rng, size, palette, corner, crowd),
    )


def _any_rooms(rng: Rng) -> Callable[[], Rooms]:
    """Two rooms of random size; wall, door and orientation are drawn anew for each episode."""
    width, height = _extent(rng, low=6), _extent(rng)
    across = bool(rng.random() < 0.3)
    return lambda: Rooms(width, height, int(rng.integers(2, width - 2)), int(rng.integers(1, height - 1)), across)


def _doorkey_rooms(rng: Rng) -> Callable[[], Rooms]:
    """As in MiniGrid's DoorKey rooms."""
    size = int(rng.choice([5, 6, 8, 16], p=[0.25, 0.25, 0.25, 0.25]))
    return lambda: Rooms(size, size, int(rng.integers(2, size - 2)), int(rng.integers(1, size - 2)))


def _unlock_rooms(rng: Rng) -> Callable[[], Rooms]:
    """As in MiniGrid's Unlock rooms."""
    return lambda: Rooms(11, 6, 5, int(rng.integers(1, 5)))


def _behind_door(family: str, rng: Rng, pairs: int, plan: Plan, rooms: Callable[[], Rooms], same: float) -> Scene:
    roles: dict[str, tuple[str, ...]] = {"door": COLOURS}
    if plan.behind:
        roles["behind"] = GOAL_COLOURS if plan.behind == "goal" else COLOURS
    colours = _palettes(rng, pairs, roles, same)
    return _scene(family, pairs, plan.subgoals, colours, lambda palette: _door_episode(rng, rooms(), palette, plan))


def _door_key(rng: Rng, pairs: int) -> Scene:
    real = rng.random() < 0.7
    plan = Plan(key=bool(real or rng.random() < 0.7), behind="goal", corner=bool(real or rng.random() < 0.3))
    rooms = _doorkey_rooms(rng) if real else _any_rooms(rng)
    return _behind_door("doorkey" if real else "doorkey/any", rng, pairs, plan, rooms, same=0.8)


def _unlock(rng: Rng, pairs: int) -> Scene:
    real = rng.random() < 0.7
    rooms = _unlock_rooms(rng) if real else _any_rooms(rng)
    return _behind_door("unlock" if real else "unlock/any", rng, pairs, Plan(key=True, behind=None), rooms, same=0.35)


def _unlock_pickup(rng: Rng, pairs: int) -> Scene:
    real = rng.random() < 0.7
    plan = Plan(key=bool(real or rng.random() < 0.7), behind="box" if real or rng.random() < 0.5 else "ball")
    rooms = _unlock_rooms(rng) if real else _any_rooms(rng)
    return _behind_door("unlockpickup" if real else "unlockpickup/any", rng, pairs, plan, rooms, same=0.35)


def _pick_one(rng: Rng, pairs: int) -> Scene:
    size, kind = (_extent(rng), _extent(rng)), _pick(rng, ["key", "ball", "box"])
    crowd = int(rng.integers(1, 5))
    colours = _palettes(rng, pairs, {"target": COLOURS}, same=0.75)
    subgoals = (SubGoal("pick up", kind, "target"),)
    return _scene(
        "pick",
        pairs,
        subgoals,
        colours,
        lambda palette: _pick_episode(rng, size, kind, palette["target"], crowd),
        crowded=True,
    )


FAMILIES: dict[str, tuple[float, Callable[[Rng, int], Scene]]] = {
    "goal": (0.12, _reach_goal),
    "doorkey": (0.30, _door_key),
    "unlock": (0.18, _unlock),
    "unlockpickup": (0.22, _unlock_pickup),
    "pick": (0.18, _pick_one),
}
"""Share of each family in training, and what draws it."""


def draw(rng: Rng, pairs: int = 2, family: str | None = None) -> Scene:
    """A random scene of ``pairs`` episodes, of ``family`` if given."""
    if family is None:
        names = list(FAMILIES)
        family = names[int(rng.choice(len(names), p=[FAMILIES[name][0] for name in names]))]
    return FAMILIES[family][1](rng, pairs)
