"""Expert and random rollouts, in parallel on Ray where it runs."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace as changed
from typing import Any, Literal

import numpy as np

from carl.actions import cast
from carl.core import clearly, lost
from carl.errors import CarlError, TaskError
from carl.progress import Progress, silent
from carl.rewards.finite import finite
from carl.task import Actor, Environment, Task, overlong
from carl.trajectory import Part, Reel, Trajectory, TrajectoryStore

Role = Literal["expert", "random"]

PARTS_PER_CPU = 4
"""Pieces of work for each CPU: several, so that long episodes even out and progress shows."""


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
    """``rollout`` in an environment that is already made, from a reset on."""
    with environment_errors(task, seed):
        trajectory = _record(task, env, seed, role, max_steps, with_events)
    if role == "expert" and not trajectory.success:
        raise TaskError(
            f"task {task.name!r}: its expert failed in the episode of seed {seed} ({len(trajectory)} steps); "
            "expert episodes have to succeed, so mend the expert, or what the Task calls success"
        )
    if role == "expert":
        check_visible(task, trajectory)
    return trajectory


def check_visible(task: Task, trajectory: Trajectory) -> None:
    """Raise TaskError if all frames of a solved episode are alike, however short it is: no program can tell that it
    was solved. Random play may well change nothing.
    """
    frames = trajectory.frames
    if all(np.array_equal(frame, frames[0]) for frame in frames[1:]):
        raise TaskError(
            f"task {task.name!r}: the {len(frames)} frames of the solved episode of seed {trajectory.seed} are all "
            "alike, so no program can see it being solved; point the Task's camera at what changes"
        )


def _record(
    task: Task, env: Environment, seed: int, role: Role, max_steps: int | None, with_events: bool
) -> Trajectory:
    observation, _ = env.reset(seed=seed)
    act = _actor(task, env, seed, role)
    reel, events = Reel(), [_events(task, env, with_events)]
    reel.add(task.frame(env))
    _check_numbers(task, seed, 0, observation)
    who = f"task {task.name!r}: {'its expert' if role == 'expert' else 'random play'} in the episode of seed {seed}"
    actions: list[Any] = []
    rewards: list[float] = []
    terminated = truncated = success = False
    while not (terminated or truncated or len(actions) == max_steps):
        action = cast(env.action_space, act(observation), who)
        actions.append(np.array(action))
        observation, reward, terminated, truncated, info = env.step(action)
        _check_numbers(task, seed, len(actions), observation, float(reward))
        truncated = bool(truncated) or (not terminated and overlong(len(actions)))
        success = bool(task.success(float(reward), bool(terminated), truncated, info))
        reel.add(task.frame(env))
        rewards.append(float(reward))
        events.append(_events(task, env, with_events))
    return Trajectory(
        frames=reel.frames(),
        actions=np.stack(actions),
        rewards=np.array(rewards),
        terminated=bool(terminated),
        truncated=truncated,
        success=success,
        seed=seed,
        source=role,
        events={name: np.array([row[name] for row in events]) for name in events[0]},
    )


def _check_numbers(task: Task, seed: int, step: int, observation: Any, reward: float = 0.0) -> None:
    """Raise TaskError for what ``carl.rewards.vector.CodeReward`` refuses in training."""
    for what, fine in (("observation", finite(observation)), ("reward", math.isfinite(reward))):
        if not fine:
            raise TaskError(
                f"task {task.name!r}: the {what} in step {step} of the episode of seed {seed} holds NaN or an "
                "infinity; mend the environment, or replace such numbers in the task's make()"
            )


def _actor(task: Task, env: Environment, seed: int, role: Role) -> Actor:
    if role == "random":
        env.action_space.seed(seed)
        return lambda _observation: env.action_space.sample()
    if task.expert is None:
        raise TaskError(f"task {task.name!r} has no expert to play; give it one, or demonstrations")
    return task.expert(env)


def _events(task: Task, env: Environment, wanted: bool) -> dict[str, bool]:
    return task.oracle(env) if wanted and task.oracle is not None else {}


@contextmanager
def environment_errors(task: Task, seed: int) -> Iterator[None]:
    """Turn whatever a task's environment, expert or camera raises into a TaskError that says whose it is."""
    try:
        yield
    except CarlError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise TaskError(
            f"task {task.name!r}: its environment, expert or camera raised {type(error).__name__} in the episode of "
            f"seed {seed}: {error}. The environment needs render_mode='rgb_array' and frames of one size."
        ) from error


def collect(
    task: Task,
    seeds: Sequence[int],
    role: Role,
    store_uri: str,
    max_steps: int | None = None,
    with_events: bool = False,
    progress: Progress = silent,
    replace: bool = False,
    skip: int = 0,
) -> TrajectoryStore:
    """Record one episode for each of ``seeds``, in their order, and return the finished store.

    Ray tasks play and write in parallel; where Ray is not initialised, this process does. If the task has
    demonstrations, expert episodes are ``len(seeds)`` of them instead, after the first ``skip``, checked and copied.
    Raises TaskError or StoreError, and then leaves no finished store.
    """
    if not seeds:
        raise TaskError(f"task {task.name!r}: there are no seeds to collect {role} episodes for; ask for at least one")
    store = TrajectoryStore(store_uri)
    store.check_vacant(replace)
    if role == "expert" and task.demonstrations is not None:
        store.write(demonstrations(task, len(seeds), skip), progress, replace)
        return store
    pieces = _split(seeds)
    work = [(task, piece, role, store, max_steps, with_events) for piece in pieces]
    parts = _in_parallel(collect_part, work, [len(piece) for piece in pieces], f"{role} episodes", progress)
    store.finish(parts, replace)
    return store


def collect_part(
    task: Task, seeds: Sequence[int], role: Role, store: TrajectoryStore, max_steps: int | None, with_events: bool
) -> Part:
    """Record the episodes of ``seeds`` in one environment and write them as one part of the store."""
    import cv2

    cv2.setNumThreads(1)  # it would start a thread for each core, in every process
    with made(task, seeds[0]) as env:
        return store.write_part(play(task, env, seed, role, max_steps, with_events) for seed in seeds)


@contextmanager
def made(task: Task, seed: int) -> Iterator[Environment]:
    """The task's environment, closed at the end."""
    with environment_errors(task, seed):
        env = task.make()
    try:
        yield env
    finally:
        env.close()  # type: ignore[no-untyped-call]  # gymnasium leaves it unannotated


def demonstrations(task: Task, count: int, skip: int = 0) -> list[Trajectory]:
    """``count`` episodes that a user recorded for ``task``, after the first ``skip``, checked.

    Raises TaskError or StoreError.
    """
    store = TrajectoryStore(task.demonstrations or "")
    if len(store) < skip + count:
        raise TaskError(
            f"task {task.name!r}: {store.uri} holds {len(store)} demonstrations and {skip + count} are asked for; "
            "record more, or ask for fewer (collect.experts)"
        )
    with made(task, 0) as env, environment_errors(task, 0):
        env.reset(seed=0)
        shape = task.frame(env).shape
    recorded = store.read(range(skip, skip + count))
    for index, trajectory in enumerate(recorded, skip):
        if not trajectory.success:
            raise TaskError(f"task {task.name!r}: demonstration {index} in {store.uri} is no success; leave it out")
        check_visible(task, trajectory)
        if trajectory.frames.shape[1:] != shape:
            raise TaskError(
                f"task {task.name!r}: demonstration {index} in {store.uri} has frames {trajectory.frames.shape[1:]} "
                f"and the environment's are {shape}; record them with the Task's own camera"
            )
    return [changed(trajectory, source="expert") for trajectory in recorded]


def read_part(store: TrajectoryStore, indices: Sequence[int]) -> list[Trajectory]:
    return store.read(indices)


def read_in_parallel(store: TrajectoryStore, progress: Progress = silent) -> list[Trajectory]:
    """All episodes in order, each part read by a Ray task (by this process where Ray is not initialised)."""
    ends = np.cumsum([len(part.lengths) for part in store.manifest.parts]).tolist()
    pieces = [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    work = [(store, piece) for piece in pieces]
    read = _in_parallel(read_part, work, [len(piece) for piece in pieces], "read trajectories", progress)
    return [trajectory for part in read for trajectory in part]


def _split(seeds: Sequence[int]) -> list[list[int]]:
    """Consecutive pieces of nearly equal size, several for each CPU."""
    count = min(len(seeds), max(1, int(_cpus_here())) * PARTS_PER_CPU)
    return [piece.tolist() for piece in np.array_split(np.asarray(seeds, dtype=np.int64), count)]


def _cpus_here() -> float:
    """CPUs of the Ray node that this process is on; none where Ray is not initialised."""
    import ray

    if not ray.is_initialized():
        return 0.0
    own = ray.get_runtime_context().get_node_id()
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    return float(next(node["Resources"].get("CPU", 0.0) for node in nodes if node["NodeID"] == own))


def _in_parallel(
    function: Any, work: Sequence[tuple[Any, ...]], sizes: Sequence[int], label: str, progress: Progress
) -> list[Any]:
    """``[function(*arguments) for arguments in work]`` by Ray tasks; the first error of ours is raised as it was."""
    import ray

    from carl.cluster import here

    total, done = sum(sizes), 0
    if not ray.is_initialized():
        results = []
        for arguments, size in zip(work, sizes, strict=True):
            results.append(function(*arguments))
            progress(label, done := done + size, total)
        return results
    # Where the files are: other nodes of a cluster need not see them.
    remote = ray.remote(function).options(num_cpus=min(1, _cpus_here()), max_retries=1, scheduling_strategy=here())
    waiting = {remote.remote(*arguments): index for index, arguments in enumerate(work)}
    found: dict[int, Any] = {}
    try:
        with clearly():
            while waiting:
                (ready,), _ = ray.wait(list(waiting))
                index = waiting.pop(ready)
                found[index] = ray.get(ready)
                progress(label, done := done + sizes[index], total)
    finally:
        for reference in () if lost() else waiting:
            ray.cancel(reference)
    return [found[index] for index in range(len(work))]
