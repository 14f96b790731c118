"""Strips: the telling frames of an episode with each sub-task's progress under them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carl.episodes.trajectory import Trajectory
from carl.program import DONE, RewardProgram
from carl.runs.report.pictures import still, thinned

MAX_CELLS = 12
"""Frames in a strip."""

Progress = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One frame of a strip: its step, its picture, each sub-task's progress in percent, and what it decided."""

    step: int
    picture: str
    progress: tuple[int, ...]
    mark: str = ""


@dataclass(frozen=True)
class Strip:
    """A strip with the words beside it."""

    title: str
    caption: str
    subtasks: tuple[str, ...]
    cells: tuple[Cell, ...]


def strip(
    title: str,
    program: RewardProgram,
    trajectory: Trajectory,
    progress: Progress | None,
    marks: dict[int, str] | None = None,
) -> Strip:
    """The strip of an episode.

    Args:
        title: what the episode is.
        program: names the sub-tasks.
        trajectory: of T steps.
        progress: latched, ``float[T + 1, K]``; None draws the frames alone.
        marks: by step, what was decided at that frame. Those frames are always shown.
    """
    marks = {step: words for step, words in (marks or {}).items() if 0 <= step <= len(trajectory)}
    cells = [
        Cell(
            step,
            still(trajectory.frames[step]),
            () if progress is None else tuple(round(100 * float(value)) for value in progress[step]),
            marks.get(step, ""),
        )
        for step in telling(len(trajectory) + 1, progress, marks)
    ]
    names = () if progress is None else tuple(subtask.name for subtask in program.subtasks)
    return Strip(title, _caption(trajectory, progress), names, tuple(cells))


def telling(count: int, progress: Progress | None, marked: Iterable[int] = ()) -> list[int]:
    """At most about MAX_CELLS steps: the ends, those marked, where progress rose, and others evenly between."""
    chosen = {0, count - 1, *sorted(marked)[:MAX_CELLS]}
    if progress is not None:
        rises = np.flatnonzero((np.diff(progress, axis=0) > 0).any(axis=1)) + 1
        done = {int(np.argmax(column >= DONE)) for column in progress.T if (column >= DONE).any()}
        chosen |= done | {int(rises[index]) for index in thinned(len(rises), MAX_CELLS // 2) if len(rises)}
    for step in _halves(count):
        if len(chosen) >= min(MAX_CELLS, count):
            break
        chosen.add(step)
    return sorted(chosen)


def _halves(count: int) -> Iterable[int]:
    """All steps below ``count``, those that split the episode most evenly first."""
    pieces = 2
    while pieces < 2 * count:
        yield from (round(index * (count - 1) / pieces) for index in range(1, pieces))
        pieces *= 2


def _caption(trajectory: Trajectory, progress: Progress | None) -> str:
    ended = "solved" if trajectory.success else "not solved"
    words = f"{len(trajectory)} steps, {ended}"
    if progress is None:
        return words
    done = int((progress[-1] >= DONE).sum())
    return f"{words}; {done} of {progress.shape[1]} sub-tasks done"
