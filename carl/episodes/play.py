"""Episodes of a task's expert and of random play, in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from carl.episodes.actions import cast
from carl.episodes.tape import Enough, FilmedEnv, film, never
from carl.episodes.trajectory import Trajectory
from carl.errors import TaskError
from carl.task import Actor, Environment, Expert, Frame, Task, blaming, closed

Role = Literal["expert", "random"]


@contextmanager
def made(task: Task, seed: int) -> Iterator[Environment]:
    """The task's environment, closed at the end; raises TaskError that names ``seed`` if it cannot be made."""
    with blaming(task, f"the making of its environment for seed {seed}"):
        env = task.make()
    with closed(task, env):
        yield env


def rollout(task: Task, seed: int, role: Role, max_steps: int | None = None, with_events: bool = False) -> Trajectory:
    """Play one episode in this process.

    Args:
        role: "expert" follows the task's expert and has to succeed; "random" draws actions uniformly.
        max_steps: cut the episode after so many steps. One that outlasts ``carl.task.LONGEST`` is truncated there.
        with_events: record the task's oracle events as well, for measuring only.

    Raises TaskError if the environment or the expert does not do what a Task promises.
    """
    with made(task, seed) as env:
        return play(task, env, seed, role, max_steps, with_events)


def play(
    task: Task, env: Environment, seed: int, role: Role, max_steps: int | None = None, with_events: bool = False
) -> Trajectory:
    """``rollout`` in an environment that is already made, from a reset on; its frames are one array."""
    trajectory = attempt(task, env, seed, role, max_steps, with_events)
    trajectory = replace(trajectory, frames=np.asarray(trajectory.frames))
    if role == "expert" and not trajectory.success:
        raise TaskError(
            f"task {task.name!r}: its expert failed in the episode of seed {seed} ({len(trajectory)} steps); "
            "expert episodes have to succeed, so mend the expert, or what the Task calls success"
        )
    return trajectory


def attempt(
    task: Task,
    env: Environment,
    seed: int,
    role: Role,
    max_steps: int | None = None,
    with_events: bool = False,
    enough: Enough = never,
) -> Trajectory:
    """``play`` whose expert may fail, and which ends at ``enough`` too; of a long episode all frames but a few MB are
    kept compressed.
    """
    trajectory = filmed(task, env, seed, _player(task, seed, role), role, max_steps, with_events, enough)
    if role == "expert" and trajectory.success:
        check_visible(task, trajectory)
    return trajectory


def filmed(
    task: Task,
    env: Environment,
    seed: int,
    player: Expert,
    role: str,
    max_steps: int | None = None,
    with_events: bool = False,
    enough: Enough = never,
) -> Trajectory:
    """The episode of ``seed`` that ``player`` plays in ``env``.

    It ends by itself, at ``max_steps``, at ``enough``, or where the player raises Astray after its first action. Raises
    TaskError.
    """
    with blaming(task, f"the episode of seed {seed}"):
        world = FilmedEnv(task, env, with_events)
        try:
            film(world, player, seed, lambda: world.tape.steps == max_steps or enough())
        except Astray:
            if not world.tape.steps:
                raise
        return world.tape.trajectory(role)


class Astray(TaskError):
    """The player knows no way on."""


def _player(task: Task, seed: int, role: Role) -> Expert:
    """The player of the episode of ``seed``; it raises TaskError for an action outside the action space."""

    def player(env: Environment) -> Actor:
        act = at_random(env, seed) if role == "random" else acting(task, env)
        who = "its expert" if role == "expert" else "random play"
        return lambda observation: cast(
            env.action_space, act(observation), f"task {task.name!r}: {who} in the episode of seed {seed}"
        )

    return player


def at_random(env: Environment, seed: int) -> Actor:
    """Actions drawn uniformly, the same for the same seed."""
    env.action_space.seed(seed)

    def act(_observation: Any) -> Any:
        return env.action_space.sample()

    return act


def acting(task: Task, env: Environment) -> Actor:
    """What the task's expert does in the episode that ``env`` was just reset to; raises TaskError if it has none."""
    if task.expert is None:
        raise TaskError(f"task {task.name!r} has no expert to play; give it one, or demonstrations")
    act = task.expert(env)
    if not callable(act):
        raise TaskError(
            f"task {task.name!r}: its expert gave {act!r:.80} for an environment; an expert is called with the "
            "environment at the start of an episode, and returns the function from an observation to an action"
        )
    return act


def check_visible(task: Task, trajectory: Trajectory) -> None:
    """Raise TaskError if all frames of a solved episode are alike: no program can see that it was solved."""
    frames = trajectory.frames
    first = np.array(frames[0])
    if all(np.array_equal(frames[step], first) for step in range(1, len(frames))):
        raise TaskError(
            f"task {task.name!r}: the {len(frames)} frames of the solved episode of seed {trajectory.seed} are all "
            "alike, so no program can see it being solved; point the Task's camera at what changes"
        )


def first_frame(task: Task) -> tuple[Frame, int | None]:
    """The initial frame of the episode of seed 0, and the environment's time limit in steps, None if it
    states none; raises TaskError."""
    with made(task, 0) as env, blaming(task, "the episode of seed 0"):
        env.reset(seed=0)
        limit = getattr(env.spec, "max_episode_steps", None) or getattr(env.unwrapped, "max_steps", None)
        return task.frame(env), int(limit) if limit else None
