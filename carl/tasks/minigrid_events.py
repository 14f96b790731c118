"""What happened in a MiniGrid room, read from the true grid; for measuring only."""

from collections.abc import Callable
from functools import partial
from typing import Any

from carl.task import Environment
from carl.tasks.minigrid_cells import Cell, cells_where, find


def _carried(kind: str, world: Any) -> bool:
    return world.carrying is not None and world.carrying.type == kind


def target_carried(world: Any) -> bool:
    """The agent carries the very thing that the room asks for."""
    return world.carrying is not None and world.carrying is world.obj


def key_put_down(world: Any) -> bool:
    """The key lies somewhere after it was carried, its first place included."""
    cell = find(world, "key")
    if cell is None:
        return False
    key = world.grid.get(*cell)
    return key.cur_pos is not key.init_pos  # one and the same tuple until MiniGrid moves the object


def key_shown(world: Any) -> bool:
    """The key is out of the box that hid it."""
    return find(world, "key") is not None or _carried("key", world)


def door_open(world: Any) -> bool:
    """The door is there, and open now."""
    cell = find(world, "door")
    return cell is not None and bool(world.grid.get(*cell).is_open)


def _coloured_door_open(colour: str, world: Any) -> bool:
    return bool(cells_where(world, lambda thing: _is_door(thing) and thing.color == colour and thing.is_open))


def both_doors_open(world: Any) -> bool:
    """The red door and the blue one are open now."""
    return _coloured_door_open("red", world) and _coloured_door_open("blue", world)


def _is_door(thing: Any) -> bool:
    return thing is not None and bool(thing.type == "door")


def targets_door_open(world: Any) -> bool:
    """The one door of the room in which the thing lay that is asked for is open now; it was locked."""
    doors = world.room_from_pos(*world.obj.init_pos).doors
    return any(_is_door(door) and door.is_open for door in filter(None, doors))


def way_clear(world: Any) -> bool:
    """No ball lies in front of the door, to its left."""
    cell = find(world, "door")
    thing = None if cell is None else world.grid.get(cell[0] - 1, cell[1])
    return thing is None or bool(thing.type != "ball")


def goal_reached(world: Any) -> bool:
    """The agent stands on the goal."""
    thing = world.grid.get(*world.agent_pos)
    return thing is not None and bool(thing.type == "goal")


def gap_reached(world: Any) -> bool:
    """The agent stands in the gap: its row or column is lava or wall from end to end, itself left out."""
    x, y = map(int, world.agent_pos)
    width, height = world.grid.width, world.grid.height
    return _closed(world, [(x, row) for row in range(height) if row != y]) or _closed(
        world, [(column, y) for column in range(width) if column != x]
    )


def _closed(world: Any, cells: list[Cell]) -> bool:
    things = (world.grid.get(*cell) for cell in cells)
    return all(thing is not None and thing.type in ("wall", "lava") for thing in things)


def red_ball_faced(world: Any) -> bool:
    """A red ball lies in the cell before the agent."""
    thing = world.grid.get(*world.front_pos)
    return thing is not None and bool(thing.type == "ball" and thing.color == "red")


EVENTS: dict[str, Callable[[Any], bool]] = {
    "key carried": partial(_carried, "key"),
    "door open": door_open,
    "key put down": key_put_down,
    "box carried": partial(_carried, "box"),
    "goal reached": goal_reached,
    "gap reached": gap_reached,
    "red door open": partial(_coloured_door_open, "red"),
    "blue door open": partial(_coloured_door_open, "blue"),
    "both doors open": both_doors_open,
    "ball moved": way_clear,
    "box opened": key_shown,
    "locked door open": targets_door_open,
    "ball carried": target_carried,
    "red ball faced": red_ball_faced,
}


def oracle(names: tuple[str, ...], env: Environment) -> dict[str, bool]:
    """Which of the named events hold now, read from the true grid."""
    return {name: EVENTS[name](env.unwrapped) for name in names}
