"""Task: an environment to solve, in words and pictures."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.errors import CarlError, TaskError, place_of

Frame = NDArray[np.uint8]
"""``uint8[H, W, 3]``, RGB."""

Environment = gym.Env[Any, Any]
Actor = Callable[[Any], Any]
"""Observation to action, for one episode."""

LONGEST = 10_000
"""Steps after which an episode is truncated if its environment ends it no sooner, wherever it is played."""


def overlong(steps: Any) -> Any:
    """Whether an episode of so many steps is truncated as too long: a bool for an int, and a mask for an array."""
    return steps >= LONGEST


class Expert(Protocol):
    """Where expert actions come from: a planner, a script or a trained policy."""

    def __call__(self, env: Environment) -> Actor:
        """Return the actor for the episode that ``env`` was just reset to.

        A planner or a script reads ``env.unwrapped``; a policy looks only at its observations.
        """


class Success(Protocol):
    """What solving the task means, read from one step."""

    def __call__(self, reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> bool:
        """Whether the step solved the task; ``info`` is the environment's own."""


def rewarded_end(
    reward: float,
    terminated: bool,
    truncated: bool,  # noqa: ARG001
    info: Mapping[str, Any],  # noqa: ARG001
) -> bool:
    """Success as in MiniGrid and many others: the episode terminates with a positive reward."""
    return terminated and reward > 0


Redraw = Callable[[], bool]
"""Brings one frame up to date where it lies; False if it left it alone, and it has to be taken anew."""


@dataclass(frozen=True)
class Rendered:
    """The default camera: what ``env.render()`` returns in mode ``rgb_array``."""

    def __call__(self, env: Environment) -> Frame:
        """The picture, ``uint8[H, W, 3]``."""
        return np.asarray(env.render())

    def onto(self, env: Environment, frame: Frame) -> Redraw | None:
        """The environment's ``render_onto(frame)``: its own, or that of the one within whose very ``render`` runs."""
        kind = type(env)
        if "render_onto" not in vars(kind):
            while (kind := next(kind for kind in type(env).__mro__ if "render" in vars(kind))) is gym.Wrapper:
                env = env.env  # type: ignore[attr-defined]  # a wrapper that hands the picture on
        return env.render_onto(frame) if "render_onto" in vars(kind) else None  # type: ignore[attr-defined]


FORMER = {
    "random_cut": "collect.random_cut",
    "env_reward_weight": "reward.env_reward_weight",
    "env_steps": "train.env_steps",
    "algorithm": "train.algorithm",
}
"""Fields that a Task once had, and the settings that ``defaults`` name instead; checkpoints hold pickled tasks."""


@dataclass(frozen=True)
class Task:
    """An environment to solve.

    Attributes:
        name: what users type.
        description: the task in words, shown to the VLM beside the frames.
        make: builds the environment, with ``render_mode="rgb_array"``. Its observations are what the policy sees.
        expert: acts well in it; None if ``demonstrations`` has recorded episodes instead.
        demonstrations: URI of a TrajectoryStore with expert episodes that a user brings.
        success: what solving means; measured, never rewarded.
        camera: takes the frame, ``uint8[H, W, 3]``. It may have a method ``onto(env, frame)`` besides, for speed, that
            returns a Redraw of ``frame`` in ``env``, or None if that has to be filmed frame by frame.
        defaults: settings of a run on this task that differ from the library's, by the names that ``--set`` takes:
            ``{"train.env_steps": 60_000, "train.algorithm": "sac", "collect.random_cut": 2.0}``. A file and ``--set``
            override them. A wrong name or value is a TaskError when a run is opened.
        env_reward_reason: why ``defaults`` mix in the environment's own reward (``reward.env_reward_weight``), for the
            report.
        idle: actions of a Discrete space that change nothing but the agent's own view, such as turning on the spot, and
            never solve the task. What a sub-task shows as done has to last through them. Empty: the task knows of none.
        camera_varies: whether the same state may look a little different, by light, noise or a camera that moves;
            programs are then judged under such changes too.
        oracle: names and states of sub-task events, for measuring programs and never for rewarding.
    """

    name: str
    description: str
    make: Callable[[], Environment]
    expert: Expert | None = None
    demonstrations: str | None = None
    success: Success = rewarded_end
    camera: Callable[[Environment], Frame] = Rendered()
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    env_reward_reason: str = ""
    idle: tuple[int, ...] = ()
    camera_varies: bool = False
    oracle: Callable[[Environment], dict[str, bool]] | None = field(default=None, repr=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled task; one of an older carl has the fields FORMER in place of ``defaults``."""
        former = {FORMER[name]: value for name, value in state.items() if name in FORMER}
        self.__dict__.update({"defaults": former, **{name: state[name] for name in state.keys() - FORMER.keys()}})

    def frame(self, env: Environment) -> Frame:
        """The camera's picture of ``env`` now, checked to be ``uint8[H, W, 3]``; raises TaskError."""
        frame = np.asarray(self.camera(env))
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = "None" if frame.dtype == object else f"{frame.dtype}{list(frame.shape)}"
            raise TaskError(
                f"task {self.name!r}: its environment gave {found} for a frame instead of "
                "uint8[H, W, 3]; make it with render_mode='rgb_array', or give the Task a camera"
            )
        return frame


@contextmanager
def blaming(task: Task, doing: str) -> Iterator[None]:
    """Turn what ``task``'s code raises into a TaskError: what, when (``doing``: "the episode of seed 3"), and where."""
    try:
        yield
    except CarlError:
        raise
    except Exception as error:  # a user's code may raise anything
        said = f": {message}" if (message := " ".join(str(error).split())) else ""
        raise TaskError(
            f"task {task.name!r}: its code raised {type(error).__name__} in {doing}{said} ({place_of(error)})"
        ) from error


@contextmanager
def closed(task: Task, env: Any) -> Iterator[None]:
    """Close ``env``, an environment of ``task`` or a vector of such, at the end; raises TaskError if it cannot be."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # a user's code may raise anything, and the first error is the one to show
            env.close()
        raise
    with blaming(task, "the closing of its environment"):
        env.close()
