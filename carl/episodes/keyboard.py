"""Playing with the keys of a terminal, also over ssh: frames as coloured half blocks, a key for each action."""

import os
import shutil
import sys
import termios
import tty
from collections.abc import Callable
from enum import EnumType
from types import TracebackType
from typing import Any, Self

import gymnasium as gym
import numpy as np

from carl.episodes.record import Again
from carl.errors import ConfigError, TaskError
from carl.task import Actor, Environment, Frame, Task

KEYS = "0123456789abcdefghijklmnop"
"""What chooses the first, the second, ... action."""

STOP, AGAIN = "q", "x"

ARROWS = {"\x1b[A": ("up", "forward"), "\x1b[B": ("down",), "\x1b[C": ("right",), "\x1b[D": ("left",)}
"""Arrow keys as terminals send them, and the names of actions that they choose as well."""

HOME, CLEAR, RESET = "\x1b[H", "\x1b[2J", "\x1b[0m"
LARGEST = 4
"""How many times larger than it is a small frame is shown at most."""


class Keyboard:
    """Keys as they are pressed, without Enter; a context manager, which leaves the terminal as it was.

    Raises ConfigError if ``descriptor`` is not a terminal.
    """

    def __init__(self, descriptor: int | None = None, write: Callable[[str], Any] | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self.write = write or _to_stdout
        if not os.isatty(self._descriptor):
            raise ConfigError("keys are read from a terminal, and this is not one; over ssh, use ssh -t")

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def read(self) -> str:
        """The next key, an arrow as its escape sequence; raises KeyboardInterrupt at the end of the input."""
        found = os.read(self._descriptor, 8).decode(errors="replace")
        if not found:
            raise KeyboardInterrupt
        return found if found.startswith("\x1b") else found[0]


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class Player:
    """An Expert who asks a person for each action.

    Args:
        task: what is played; its camera's frames are shown.
        keyboard: theirs.
    """

    def __init__(self, task: Task, keyboard: Keyboard) -> None:
        self._task, self._keyboard = task, keyboard

    def __call__(self, env: Environment) -> Actor:
        """An actor that shows each frame and returns the action of the next key."""
        actions = key_actions(self._task.name, env)
        self._keyboard.write(CLEAR)
        steps = 0

        def act(_observation: Any) -> Any:
            nonlocal steps
            shown = picture(self._task.frame(env), *shutil.get_terminal_size())
            self._keyboard.write(f"{HOME}{shown}{legend(env, actions)}   step {steps}\x1b[K\n")
            steps += 1
            while (key := self._keyboard.read()) not in actions:
                if key == STOP:
                    raise KeyboardInterrupt
                if key == AGAIN:
                    raise Again
            return actions[key]

        return act


def key_actions(task: str, env: Environment) -> dict[str, int]:
    """The action that each key chooses; raises TaskError if keys cannot choose among the environment's actions."""
    space = env.action_space
    if not isinstance(space, gym.spaces.Discrete) or int(space.n) > len(KEYS):
        raise TaskError(
            f"task {task!r}: its actions are {space}, and keys choose among at most {len(KEYS)} discrete ones; "
            "record a script or a policy, or write demonstrations from a loop of your own with "
            "carl.episodes.record.Recorder"
        )
    first = int(space.start)
    actions = {key: first + index for index, key in enumerate(KEYS[: int(space.n)])}
    named = {name: first + index for index, name in enumerate(action_names(env))}
    arrows = {key: named[name] for key, names in ARROWS.items() for name in names if name in named}
    return actions | arrows


def action_names(env: Environment) -> list[str]:
    """What the environment calls its discrete actions, in lower case and in order; empty if it has no names."""
    inner: Any = env.unwrapped
    if hasattr(inner, "get_action_meanings"):  # Atari's
        return [str(name).lower() for name in inner.get_action_meanings()]
    listed: Any = getattr(inner, "actions", None)  # MiniGrid's
    return [str(name).lower() for name in listed.__members__] if isinstance(listed, EnumType) else []


def legend(env: Environment, actions: dict[str, int]) -> str:
    """One line of what the keys do."""
    names = action_names(env)
    keys = [key for key in actions if key in KEYS]
    shown = [f"{key} {names[index]}" if index < len(names) else key for index, key in enumerate(keys)]
    return f"{'  '.join(shown)}  {AGAIN} again  {STOP} stop"


def picture(frame: Frame, columns: int, lines: int) -> str:
    """``uint8[H, W, 3]`` as text of at most so many columns and, less three, lines: two pixels in a character."""
    import cv2

    height, width = frame.shape[:2]
    scale = min(columns / width, 2 * max(1, lines - 3) / height, LARGEST)
    size = (max(1, int(width * scale)), max(2, int(height * scale) // 2 * 2))
    drawn = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    rows = np.concatenate([drawn[::2], drawn[1::2]], axis=2)
    return "".join("".join(_block(*pixel) for pixel in row.tolist()) + RESET + "\n" for row in rows)


def _block(*colours: int) -> str:
    """The upper half block in the first colour on a ground of the second."""
    return "\x1b[38;2;{};{};{};48;2;{};{};{}m\u2580".format(*colours)
