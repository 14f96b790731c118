"""BabyAI levels whose mission is the same in every episode, with the package's own bot as their expert.

The mission is a text that the policy does not see: the Task's description says it.
"""

from contextlib import redirect_stdout
from typing import Any

import gymnasium as gym

from carl.task import Environment
from carl.tasks.minigrid_planner import DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE

DONE = 6
"""MiniGrid's action that does nothing."""


class Silent(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps BabyAI from printing a line for every room that it draws and discards in a reset."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        with redirect_stdout(None):
            return self.env.reset(**kwargs)


class Bot:
    """``minigrid.utils.baby_ai_bot.BabyAIBot`` as an expert, also of an agent that does something else now and then.

    It sees what the agent sees, and explores. It has to be told what was done, which is read from the room.
    """

    def __init__(self, env: Environment) -> None:
        from minigrid.utils.baby_ai_bot import BabyAIBot

        self._world: Any = env.unwrapped
        self._bot: Any = BabyAIBot(env)  # type: ignore[no-untyped-call]
        self._before: tuple[Any, ...] | None = None

    def __call__(self, observation: Any) -> int:  # noqa: ARG002  it looks at the grid
        """The next action."""
        now = self._state()
        done = None if self._before is None else _what_was_done(self._before, now)
        action = int(self._bot.replan(done))
        self._before = now
        return action

    def _state(self) -> tuple[Any, ...]:
        """Direction, place, what is carried, and whether a door in front is open."""
        world = self._world
        thing = world.grid.get(*world.front_pos)
        return int(world.agent_dir), tuple(map(int, world.agent_pos)), world.carrying, getattr(thing, "is_open", None)


def _what_was_done(before: tuple[Any, ...], now: tuple[Any, ...]) -> int:
    """The action that leads from one state to the next; DONE where they are the same."""
    if now[0] != before[0]:
        return RIGHT if (now[0] - before[0]) % 4 == 1 else LEFT
    if now[1] != before[1]:
        return FORWARD
    if now[2] is not before[2]:
        return DROP if now[2] is None else PICKUP
    return DONE if now[3] == before[3] else TOGGLE
