"""The frames at which a program's judgement was hardest: the finest distinctions that it made, and its near misses."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from carl.episodes.trajectory import Trajectory
from carl.program import DONE, RewardProgram
from carl.runs.report.pictures import still, thinned
from carl.runs.report.strips import Progress
from carl.runs.report.words import percent
from carl.task import Frame

STEPS = 60
"""Frames of an episode that are compared, evenly spread."""

Traced = tuple[Trajectory, Progress]
"""An episode of T steps, and the latched progress ``float[T + 1, K]`` that a program showed in it."""


class Call(NamedTuple):
    """Frames that show where a program drew the line for one sub-task.

    Attributes:
        subtask: its number, from 1.
        pictures: of these frames, as data URIs, each with the words under it.
        caption: of which episode they are, and how close they are.
    """

    subtask: int
    pictures: Sequence[tuple[str, str]]
    caption: str


class _Seen(NamedTuple):
    trajectory: Trajectory
    step: int
    share: float


def calls(program: RewardProgram, traced: Sequence[Traced]) -> list[Call]:
    """For each sub-task the finest distinction between two frames in a row, and the nearest miss if there is one."""
    found: list[Call] = []
    for subtask in range(len(program.subtasks)):
        fired = [_Seen(one, step, _change(one, step)) for one, step in _fired(traced, subtask)]
        if fired:
            found.append(_finest(min(fired, key=lambda seen: seen.share), subtask))
        done = [one.trajectory.frames[one.step] for one in fired]
        misses = list(_missed(traced, subtask, program.ordered, done))
        if misses:
            found.append(_miss(min(misses, key=lambda seen: seen.share), subtask))
    return found


def _fired(traced: Sequence[Traced], subtask: int) -> Iterator[tuple[Trajectory, int]]:
    """The episodes in which a sub-task got done after their first frame, and when."""
    for trajectory, progress in traced:
        step = _done_at(progress, subtask)
        if step > 0:
            yield trajectory, step


def _done_at(progress: Progress, subtask: int) -> int:
    """The frame at which a sub-task was done; -1: never."""
    done = progress[:, subtask] >= DONE
    return int(np.argmax(done)) if done.any() else -1


def _missed(traced: Sequence[Traced], subtask: int, ordered: bool, done: Sequence[Frame]) -> Iterator[_Seen]:
    """Of each episode in which a sub-task had its turn and never got done, the frame most like one of ``done``."""
    for trajectory, progress in traced:
        begin = _done_at(progress, subtask - 1) if ordered and subtask else 0
        if not done or begin < 0 or _done_at(progress, subtask) >= 0:
            continue
        steps = [begin + step for step in thinned(len(progress) - begin, STEPS)]
        shares = [min(_apart(trajectory.frames[step], one) for one in done) for step in steps]
        nearest = int(np.argmin(shares))
        yield _Seen(trajectory, steps[nearest], shares[nearest])


def _change(trajectory: Trajectory, step: int) -> float:
    return _apart(trajectory.frames[step - 1], trajectory.frames[step])


def _apart(one: Frame, other: Frame) -> float:
    """The share of the pixels in which two frames ``uint8[H, W, 3]`` differ; 1 where their sizes do."""
    if one.shape != other.shape:
        return 1.0
    different = one ^ other
    return np.count_nonzero(different[..., 0] | different[..., 1] | different[..., 2]) / different[..., 0].size


def _finest(seen: _Seen, subtask: int) -> Call:
    before, after = (still(seen.trajectory.frames[step]) for step in (seen.step - 1, seen.step))
    words = f"{_episode(seen.trajectory)}: the two frames differ in {_share(seen.share)} of the pixels"
    pictures = [(before, f"step {seen.step - 1}: not done"), (after, f"step {seen.step}: done")]
    return Call(subtask + 1, pictures, words)


def _miss(seen: _Seen, subtask: int) -> Call:
    picture = still(seen.trajectory.frames[seen.step])
    words = (
        f"{_episode(seen.trajectory)}, in which it never got done: {_share(seen.share)} of the pixels differ from a "
        "frame that was"
    )
    return Call(subtask + 1, [(picture, f"step {seen.step}: not done")], words)


def _share(share: float) -> str:
    return percent(share) if share >= 0.001 else f"{100 * share:.2g}\u00a0%"


def _episode(trajectory: Trajectory) -> str:
    return f"{trajectory.role} episode, seed {trajectory.seed}"
