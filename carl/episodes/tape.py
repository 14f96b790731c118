"""Tape: the record of an episode while an expert, a policy, a person or chance plays it; ``film`` plays one."""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.episodes.actions import recorded
from carl.episodes.frames import Reel
from carl.episodes.trajectory import Trajectory
from carl.errors import TaskError
from carl.rewards.finite import finite
from carl.task import Environment, Expert, Task, blaming, overlong


class Tape:
    """Records episodes of one environment, one at a time.

    Of a long episode all frames but a few MB are kept compressed.

    Args:
        task: its camera takes the frames.
        env: what it takes them of, as ``task.make()`` returned it.
        with_events: record the task's oracle events as well, for measuring only.

    Attributes:
        env: what is filmed.
        running: whether an episode is under way.
        seed: what the environment was reset with for it.
        terminated, truncated: how it ended; neither while it runs.
        success: the task's verdict on the last step.
        seconds: wall-clock time of the episode's steps and of the pictures after them; None where they are not timed.
    """

    def __init__(self, task: Task, env: Environment, with_events: bool = False) -> None:
        self._task, self.env = task, env
        self._oracle = task.oracle if with_events else None
        self.running = False
        self.seconds: float | None = None

    def begin(self, seed: int) -> None:
        """Begin with the frame of the episode that the environment was just reset to; raises TaskError."""
        self.seed = seed
        self._reel = Reel()
        self._actions: list[NDArray[Any]] = []
        self._rewards: list[float] = []
        self._events: list[dict[str, bool]] = []
        self.terminated = self.truncated = self.success = False
        self._film()
        self.seconds = None
        self.running = True

    def add(self, action: NDArray[Any], reward: float, *, terminated: bool, truncated: bool, success: bool) -> None:
        """Add the step that was just taken, with its frame.

        Args:
            action: a copy, as ``carl.episodes.actions.recorded`` makes it.
            reward: the environment's own.

        Raises TaskError or ValueError for what the camera gives.
        """
        self._actions.append(action)
        self._rewards.append(reward)
        self.terminated, self.truncated, self.success = terminated, truncated, success
        self._film()
        self.running = not (terminated or truncated)

    def _film(self) -> None:
        self._reel.add(self._task.frame(self.env))
        self._events.append(self._oracle(self.env) if self._oracle else {})

    def stop(self) -> None:
        """Record no more of the episode that is under way."""
        self.running = False

    @property
    def steps(self) -> int:
        """Steps of the episode so far."""
        return len(self._actions)

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W, 3) of its frames."""
        return self._reel.size

    def trajectory(self, role: str) -> Trajectory:
        """The episode, which ends with this; ``role`` played it. It has to have a step."""
        self.running = False
        return Trajectory(
            frames=self._reel.frames(),
            actions=np.stack(self._actions),
            rewards=np.array(self._rewards),
            terminated=self.terminated,
            truncated=self.truncated,
            success=self.success,
            seed=self.seed,
            role=role,
            events={name: np.array([row[name] for row in self._events]) for name in self._events[0]},
            step_seconds=None if self.seconds is None else self.seconds / self.steps,
        )


class Filmed(Protocol):
    """What an episode is played in, and the tape that records it."""

    task: Task
    tape: Tape

    def reset(self, *, seed: int) -> tuple[Any, ...]:
        """Begin an episode; the first of what it returns is the observation."""

    def step(self, action: Any, /) -> tuple[Any, ...]:
        """Take a step; the first of what it returns is the observation."""


class FilmedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment of ``task`` whose episodes are recorded on ``tape``.

    An episode that outlasts ``carl.task.LONGEST`` is truncated there. After its end nothing is recorded until the next
    reset. ``reset`` and ``step`` raise TaskError for a NaN or an infinity in an observation or a reward, and for a
    malformed frame.
    """

    def __init__(self, task: Task, env: Environment, with_events: bool = False) -> None:
        super().__init__(env)
        self.task, self.tape = task, Tape(task, env, with_events)
        self._draws = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; without ``seed`` it gets one that is drawn, so that the record has it."""
        self.tape.stop()
        seed = int(self._draws.integers(1 << 31)) if seed is None else seed
        observation, info = self.env.reset(seed=seed, options=options)
        _check_numbers(self.task, seed, 0, observation)
        self.tape.begin(seed)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step with an action of the environment's space."""
        kept = recorded(action)  # the environment may change it
        start_s = time.perf_counter()
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.tape.running:
            step, reward, terminated = self.tape.steps + 1, float(reward), bool(terminated)
            _check_numbers(self.task, self.tape.seed, step, observation, reward)
            truncated = bool(truncated) or (not terminated and overlong(step))
            success = bool(self.task.success(reward, terminated, truncated, info))
            self.tape.add(kept, reward, terminated=terminated, truncated=truncated, success=success)
            self.tape.seconds = (self.tape.seconds or 0.0) + time.perf_counter() - start_s
        return observation, reward, terminated, truncated, info


def _check_numbers(task: Task, seed: int, step: int, observation: Any, reward: float = 0.0) -> None:
    """Raise TaskError for what ``carl.rewards.vector.PaidVectorEnv`` refuses in training."""
    for what, fine in (("observation", finite(observation)), ("reward", math.isfinite(reward))):
        if not fine:
            raise TaskError(
                f"task {task.name!r}: the {what} in step {step} of the episode of seed {seed} holds NaN or an "
                "infinity; mend the environment, or replace such numbers in the task's make()"
            )


Enough = Callable[[], bool]
"""Whether to end play before the episode's end; asked after each step."""


def never() -> bool:
    """No: play to the end."""
    return False


def film(world: Filmed, player: Expert, seed: int, enough: Enough = never) -> None:
    """Play the episode of ``seed`` in ``world``, to its end or until ``enough``; its tape then holds at least one step.

    Args:
        player: gets the environment that is filmed, and acts by the observations of ``world``.

    Raises TaskError for what the task's code raises in ``world``; what ``player`` raises is left as it is.
    """
    doing = f"the episode of seed {seed}"
    with blaming(world.task, doing):
        observation, *_ = world.reset(seed=seed)
    act = player(world.tape.env)
    while True:
        action = act(observation)
        with blaming(world.task, doing):
            observation, *_ = world.step(action)
        if enough() or not world.tape.running:
            return
