"""Expert and random rollouts, in parallel on Ray where it runs."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as changed
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import numpy as np

from carl.cluster.core import clearly, lost
from carl.console.progress import Progress, silent
from carl.episodes.actions import cast, recorded
from carl.episodes.frames import Reel
from carl.episodes.sizes import announce
from carl.episodes.trajectory import Part, Trajectory, TrajectoryStore
from carl.errors import CarlError, TaskError
from carl.rewards.finite import finite
from carl.task import LONGEST, Actor, Environment, Frame, Task, blaming, closed, overlong

Role = Literal["expert", "random"]

KEPT_BYTES = 256 << 20
"""Episodes that take at most as much are kept in memory, so that the next candidate need not read them again."""

PARTS_PER_CPU = 4
"""Pieces of work for each CPU: several, so that long episodes even out and progress shows."""

_log = logging.getLogger(__name__)


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
    trajectory = attempt(task, env, seed, role, max_steps, with_events)
    trajectory = changed(trajectory, frames=np.asarray(trajectory.frames))
    if role == "expert" and not trajectory.success:
        raise TaskError(
            f"task {task.name!r}: its expert failed in the episode of seed {seed} ({len(trajectory)} steps); "
            "expert episodes have to succeed, so mend the expert, or what the Task calls success"
        )
    return trajectory


def check_visible(task: Task, trajectory: Trajectory) -> None:
    """Raise TaskError if all frames of a solved episode are alike, however short it is: no program can tell that it
    was solved. Random play may well change nothing.
    """
    frames = trajectory.frames
    first = np.array(frames[0])
    if all(np.array_equal(frames[step], first) for step in range(1, len(frames))):
        raise unseen(task, trajectory.seed, len(frames))


def unseen(task: Task, seed: int, frames: int) -> TaskError:
    """What to raise where the ``frames`` of a solved episode are all alike."""
    return TaskError(
        f"task {task.name!r}: the {frames} frames of the solved episode of seed {seed} are all alike, so no program "
        "can see it being solved; point the Task's camera at what changes"
    )


def attempt(
    task: Task, env: Environment, seed: int, role: Role, max_steps: int | None = None, with_events: bool = False
) -> Trajectory:
    """``play`` whose expert may fail; of a long episode all frames but a few MB are kept compressed."""
    with blaming(task, f"the episode of seed {seed}"):
        trajectory = _record(task, env, seed, role, max_steps, with_events)
    if role == "expert" and trajectory.success:
        check_visible(task, trajectory)
    return trajectory


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
        actions.append(recorded(action))
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
    return acting(task, env)


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


def _events(task: Task, env: Environment, wanted: bool) -> dict[str, bool]:
    return task.oracle(env) if wanted and task.oracle is not None else {}


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
    spare: Iterable[int] = (),
    max_failed: float = 0.0,
) -> TrajectoryStore:
    """Record as many episodes as there are ``seeds``, in their order, and return the finished store.

    Expert episodes that fail are left out and counted; ``spare`` seeds, in their order, stand in for theirs, so that
    the same seeds give the same store. Ray tasks play and write in parallel; where Ray is not initialised, this process
    does. If the task has demonstrations, expert episodes are ``len(seeds)`` of them instead, after the first ``skip``
    that succeeded, checked and copied.

    Raises TaskError, also if more than the share ``max_failed`` of the expert's episodes fail, or StoreError; and then
    leaves no finished store.
    """
    if not seeds:
        raise TaskError(f"task {task.name!r}: there are no seeds to collect {role} episodes for; ask for at least one")
    store = TrajectoryStore(store_uri)
    store.check_vacant(replace)
    if role == "expert" and task.demonstrations is not None:
        copied = Demonstrations.of(task, max_failed)
        part = store.write_part(copied.episodes(len(seeds), skip), progress)
        store.finish([part], replace, failed=copied.failed(len(seeds), skip))
        return store
    frame, limit = first_frame(task)
    announce(task.name, role, frame, len(seeds), min(max_steps or LONGEST, limit or LONGEST), progress)
    parts: list[Part] = []
    failed, waiting, more = 0, list(seeds), iter(spare)
    while waiting:
        pieces = _split(waiting)
        with TemporaryDirectory(prefix="carl-") as folder:
            work = [
                (task, piece, role, store, max_steps, with_events, Path(folder, str(index)))
                for index, piece in enumerate(pieces)
            ]
            sizes = [len(piece) for piece in pieces]
            found = _in_parallel(collect_part, work, sizes, f"{role} episodes", progress, _died)
        parts += [part for part, _ in found if part]
        lost = [seed for _, seeds_lost in found for seed in seeds_lost]
        failed += len(lost)
        waiting = list(islice(more, len(lost)))
        if failed > allowed_failures(len(seeds), max_failed) or len(waiting) < len(lost):
            played = failed + sum(len(part.lengths) for part in parts)
            raise TaskError(_failing(task, failed, played, lost, max_failed))
    if failed:
        played = failed + len(seeds)
        _log.warning(
            "task %r: its expert failed in %d of %d episodes, which are passed over", task.name, failed, played
        )
    store.finish(parts, replace, failed)
    return store


def allowed_failures(wanted: int, share: float) -> int:
    """How many episodes may fail before ``wanted`` succeed, if at most ``share`` of all may."""
    return math.floor(wanted * share / (1 - share) + 1e-9)


def _failing(task: Task, failed: int, played: int, seeds: Sequence[int], share: float) -> str:
    return (
        f"task {task.name!r}: its expert failed in {failed} of {played} episodes, among them those of the seeds "
        f"{', '.join(map(str, seeds[:3]))}; at most the share {share:g} may fail (collect.max_failed), so mend the "
        "expert, or what the Task calls success, or allow more"
    )


def collect_part(
    task: Task,
    seeds: Sequence[int],
    role: Role,
    store: TrajectoryStore,
    max_steps: int | None,
    with_events: bool,
    note: Path | None = None,
) -> tuple[Part | None, list[int]]:
    """Record the episodes of ``seeds`` in one environment and write them as one part of the store.

    The file ``note`` tells which seed is played, for who finds this process dead.

    Returns the part, None if it would be empty, and the seeds of the expert's failures, which are left out.
    """
    import cv2

    cv2.setNumThreads(1)  # it would start a thread for each core, in every process
    failed: list[int] = []

    def kept(env: Environment) -> Iterator[Trajectory]:
        for seed in seeds:
            if note:
                note.write_text(str(seed))
            trajectory = attempt(task, env, seed, role, max_steps, with_events)
            if role == "expert" and not trajectory.success:
                failed.append(seed)
            else:
                yield trajectory

    if note:
        note.write_text(str(seeds[0]))
    with made(task, seeds[0]) as env:
        episodes = kept(env)
        first = next(episodes, None)
        return (store.write_part(chain([first], episodes)) if first else None), failed


def _died(task: Task, *others: Any) -> TaskError | None:
    """What to say of a process that ended while it recorded with these arguments; None if it had not begun to."""
    note: Path = others[-1]
    if not note.exists():
        return None
    return TaskError(
        f"task {task.name!r}: a process that recorded ended twice, the last time in the episode of seed "
        f"{note.read_text()}: its environment ends it, as a renderer without a display may, or memory runs out there"
    )


@contextmanager
def made(task: Task, seed: int) -> Iterator[Environment]:
    """The task's environment, closed at the end."""
    with blaming(task, f"the making of its environment for seed {seed}"):
        env = task.make()
    with closed(task, env):
        yield env


@dataclass(frozen=True)
class Demonstrations:
    """Episodes that a user recorded for a task, checked; those that are no success are passed over.

    Attributes:
        usable: indices into ``store`` of those that succeeded.
    """

    task: Task
    store: TrajectoryStore
    usable: tuple[int, ...]

    @classmethod
    def of(cls, task: Task, max_failed: float = 0.0) -> Self:
        """Raises TaskError if more than the share ``max_failed`` of them fail, or StoreError."""
        store = TrajectoryStore(task.demonstrations or "")
        ended = store.endings("success")
        usable = tuple(index for index, success in enumerate(ended) if success)
        failed = len(store) - len(usable)
        if failed > max_failed * len(store):
            raise TaskError(
                f"task {task.name!r}: {failed} of {len(store)} demonstrations in {store.uri} are no success, the first "
                f"of them number {ended.index(False)} (from 0); at most the share {max_failed:g} may be "
                "(collect.max_failed), so leave them out, or allow more"
            )
        return cls(task, store, usable)

    def episodes(self, count: int, skip: int = 0) -> Iterator[Trajectory]:
        """``count`` of those that succeeded, after the first ``skip``; raises TaskError or StoreError."""
        task, uri = self.task, self.store.uri
        if len(self.usable) < skip + count:
            raise TaskError(
                f"task {task.name!r}: {uri} holds {len(self.usable)} demonstrations that succeed and {skip + count} "
                "are asked for; record more, or ask for fewer (collect.experts)"
            )
        shape = first_frame(task)[0].shape
        for index in self.usable[skip : skip + count]:
            trajectory = self.store[index]
            if trajectory.frames.shape[1:] != shape:
                raise TaskError(
                    f"task {task.name!r}: demonstration {index} in {uri} has frames {trajectory.frames.shape[1:]} "
                    f"and the environment's are {shape}; record them with the Task's own camera"
                )
            check_visible(task, trajectory)
            yield changed(trajectory, source="expert")

    def failed(self, count: int, skip: int = 0) -> int:
        """How many were passed over to get at those ``episodes``."""
        before = self.usable[skip - 1] + 1 if skip else 0
        return self.usable[skip + count - 1] + 1 - before - count


def demonstrations(task: Task, count: int, skip: int = 0) -> list[Trajectory]:
    """``count`` episodes that a user recorded for ``task`` and that succeeded, after the first ``skip``, checked.

    However many failed. Frames are read as they are looked at. Raises TaskError or StoreError.
    """
    return list(Demonstrations.of(task, max_failed=1.0).episodes(count, skip))


def first_frame(task: Task) -> tuple[Frame, int | None]:
    """The initial frame of the episode of seed 0, and the steps after which the environment says it ends episodes."""
    with made(task, 0) as env, blaming(task, "the episode of seed 0"):
        env.reset(seed=0)
        limit = getattr(env.spec, "max_episode_steps", None) or getattr(env.unwrapped, "max_steps", None)
        return task.frame(env), int(limit) if limit else None


def read_part(store: TrajectoryStore, indices: Sequence[int]) -> list[Trajectory]:
    return store.read(indices)


def read_in_parallel(store: TrajectoryStore, progress: Progress = silent) -> Sequence[Trajectory] | TrajectoryStore:
    """All episodes in order: in memory if they take at most ``KEPT_BYTES`` there, else read as they are looked at.

    What is to be in memory is read by Ray tasks, a part each (by this process where Ray is not initialised).
    """
    frames = sum(length + 1 for part in store.manifest.parts for length in part.lengths)
    if frames * math.prod(store[0].frames.shape[1:]) > KEPT_BYTES:
        return store
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
    function: Any,
    work: Sequence[tuple[Any, ...]],
    sizes: Sequence[int],
    label: str,
    progress: Progress,
    died: Callable[..., CarlError | None] = lambda *_: None,
) -> list[Any]:
    """``[function(*arguments) for arguments in work]`` by Ray tasks; the first error of ours is raised as it was.

    ``died`` says of arguments what to raise where the process ended that had them.
    """
    import ray

    from carl.cluster.session import here

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
                try:
                    found[index] = ray.get(ready)
                except ray.exceptions.WorkerCrashedError as error:
                    raise died(*work[index]) or error from None
                progress(label, done := done + sizes[index], total)
    finally:
        for reference in () if lost() else waiting:
            ray.cancel(reference)
    return [found[index] for index in range(len(work))]
