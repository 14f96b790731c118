"""What happened in a MiniGrid room, read from the true grid; for measuring only."""

from collections.abc import Callable
from typing import Any

from carl.task import Environment
from carl.tasks.minigrid_cells import find


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
