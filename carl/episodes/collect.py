"""Expert and random episodes as a store, recorded in parallel on Ray where it runs."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from carl.console.progress import Progress, silent
from carl.episodes.demonstrations import Demonstrations
from carl.episodes.missing import Missing, Unobtainable
from carl.episodes.parallel import in_parallel, split
from carl.episodes.play import Role, attempt, first_frame, made
from carl.episodes.sizes import announce
from carl.episodes.trajectory import Part, Trajectory, TrajectoryStore
from carl.errors import TaskError
from carl.task import Environment, Task

KEPT_BYTES = 256 << 20
"""Episodes that take at most as much are kept in memory, so that the next candidate need not read them again."""

_log = logging.getLogger(__name__)

Play = Callable[[Task, Environment, int], Trajectory]
"""Plays the episode of a seed in an environment of the task, and records it. It is pickled."""


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

    Expert episodes that fail are left out and counted; ``spare`` seeds, in their order, replace theirs, so that
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
        parts = [store.write_part(copied.episodes(len(seeds), skip), progress)]
        failed = copied.failed(len(seeds), skip)
    else:
        frame, limit = first_frame(task)
        announce(task.name, role, frame, len(seeds), (max_steps, limit), progress)
        play = partial(attempt, role=role, max_steps=max_steps, with_events=with_events)
        parts, failed = _play(Plan(task, role, store, play), seeds, spare, max_failed, progress)
    store.finish(parts, replace, failed)
    return store


def collect_as(
    task: Task, seeds: Sequence[int], role: str, play: Play, store_uri: str, progress: Progress = silent
) -> TrajectoryStore:
    """Record the episodes of ``seeds``, in their order, as ``play`` plays them, and return the finished store.

    If ``play`` raises Unobtainable the store is finished without an episode, and says why. Raises TaskError or
    StoreError, and then leaves no finished store.
    """
    store = TrajectoryStore(store_uri)
    store.check_vacant()
    try:
        parts, _ = _play(Plan(task, role, store, play), seeds, (), 0.0, progress)
    except Unobtainable as error:
        store.finish((), missing=str(error))
    else:
        store.finish(parts)
    return store


@dataclass(frozen=True)
class Plan:
    """What is recorded, whatever the seeds: see ``collect`` and ``collect_as``."""

    task: Task
    role: str
    store: TrajectoryStore
    play: Play


def _play(
    plan: Plan, seeds: Sequence[int], spare: Iterable[int], max_failed: float, progress: Progress
) -> tuple[list[Part], int]:
    """Record ``len(seeds)`` episodes; returns the parts of the store, and how many of the expert's failed."""
    parts: list[Part] = []
    failed, waiting, more = 0, list(seeds), iter(spare)
    while waiting:
        found = _play_once(plan, waiting, progress)
        parts += [part for part, _ in found if part]
        lost = [seed for _, seeds_lost in found for seed in seeds_lost]
        failed += len(lost)
        waiting = list(islice(more, len(lost)))
        if failed > allowed_failures(len(seeds), max_failed) or len(waiting) < len(lost):
            played = failed + sum(len(part.lengths) for part in parts)
            raise TaskError(_failing(plan.task, failed, played, lost, max_failed))
    if failed:
        _log.warning(
            "task %r: its expert failed in %d of %d episodes, which are passed over",
            *(plan.task.name, failed, failed + len(seeds)),
        )
    return parts, failed


def _play_once(plan: Plan, seeds: Sequence[int], progress: Progress) -> list[tuple[Part | None, list[int]]]:
    """What ``collect_part`` returned for each piece of ``seeds``; raises Unobtainable if that is what it returned."""
    pieces = split(seeds)
    with TemporaryDirectory(prefix="carl-", ignore_cleanup_errors=True) as folder:
        work = [(plan, piece, Path(folder, str(index))) for index, piece in enumerate(pieces)]
        sizes = [len(piece) for piece in pieces]
        found = in_parallel(collect_part, work, sizes, f"{plan.role} episodes", progress, _died)
    for one in found:
        if isinstance(one, Unobtainable):
            raise one
    return found


def allowed_failures(wanted: int, share: float) -> int:
    """How many episodes may fail before ``wanted`` succeed, if at most ``share`` of all may."""
    return math.floor(wanted * share / (1 - share) + 1e-9)


def _failing(task: Task, failed: int, played: int, seeds: Sequence[int], share: float) -> str:
    return (
        f"task {task.name!r}: its expert failed in {failed} of {played} episodes, among them those of the seeds "
        f"{', '.join(map(str, seeds[:3]))}; at most the share {share:g} may fail (collect.max_failed), so mend the "
        "expert, or what the Task calls success, or allow more"
    )


def collect_part(plan: Plan, seeds: Sequence[int], note: Path) -> tuple[Part | None, list[int]] | Unobtainable:
    """Record the episodes of ``seeds`` in one environment and write them as one part of the store.

    The file ``note`` holds the seed that is played, for the error if this process dies.

    Returns the part, None if it would be empty, and the seeds of the failures, which are left out; or why there
    can be none: of several tasks that raise, Ray prints the traceback of each but the first.
    """
    import cv2

    cv2.setNumThreads(1)  # it would start a thread for each core, in every process
    failed: list[int] = []

    def kept(env: Environment) -> Iterator[Trajectory]:
        for seed in seeds:
            note.write_text(str(seed))
            trajectory = plan.play(plan.task, env, seed)
            if plan.role == "expert" and not trajectory.success:
                failed.append(seed)
            else:
                yield trajectory

    note.write_text(str(seeds[0]))
    with made(plan.task, seeds[0]) as env:
        episodes = kept(env)
        try:
            first = next(episodes, None)
            return (plan.store.write_part(chain([first], episodes)) if first else None), failed
        except Unobtainable as error:
            return error


def _died(plan: Plan, _: Sequence[int], note: Path) -> TaskError | None:
    """The error for a process that ended in ``collect_part`` with these arguments; None if it had not begun."""
    if not note.exists():
        return None
    return TaskError(
        f"task {plan.task.name!r}: a process that recorded ended twice, the last time in the episode of seed "
        f"{note.read_text()}: its environment ends it, as a renderer without a display may, or memory runs out there"
    )


def read_part(store: TrajectoryStore, indices: Sequence[int]) -> list[Trajectory]:
    """The episodes at ``indices`` with their frames in memory; what a Ray task runs."""
    return store.read(indices)


def read_in_parallel(store: TrajectoryStore, progress: Progress = silent) -> Sequence[Trajectory] | TrajectoryStore:
    """All episodes in order: in memory if they take at most ``KEPT_BYTES`` there, else read as they are looked at;
    Missing where the store was finished without any.

    What is to be in memory is read by Ray tasks, a part each (by this process where Ray is not initialised).
    """
    if store.manifest.missing:
        return Missing(store.manifest.missing)
    frames = sum(length + 1 for part in store.manifest.parts for length in part.lengths)
    if frames * math.prod(store[0].frames.shape[1:]) > KEPT_BYTES:
        return store
    ends = np.cumsum([len(part.lengths) for part in store.manifest.parts]).tolist()
    pieces = [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    work = [(store, piece) for piece in pieces]
    read = in_parallel(read_part, work, [len(piece) for piece in pieces], "read trajectories", progress)
    return [trajectory for part in read for trajectory in part]
