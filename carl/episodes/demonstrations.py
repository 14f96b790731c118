"""Demonstrations: expert episodes that a user recorded, checked."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from carl.episodes.play import check_visible, first_frame
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import TaskError
from carl.task import Task


@dataclass(frozen=True)
class Demonstrations:
    """Episodes that a user recorded for a task, checked; those without success are passed over.

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
                f"task {task.name!r}: {failed} of {len(store)} demonstrations in {store.uri} failed, the first "
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
            yield replace(trajectory, role="expert")

    def failed(self, count: int, skip: int = 0) -> int:
        """How many were passed over to get at those ``episodes``."""
        before = self.usable[skip - 1] + 1 if skip else 0
        return self.usable[skip + count - 1] + 1 - before - count


def demonstrations(task: Task, count: int, skip: int = 0) -> list[Trajectory]:
    """``count`` episodes that a user recorded for ``task`` and that succeeded, after the first ``skip``, checked.

    However many failed. Frames are read as they are looked at. Raises TaskError or StoreError.
    """
    return list(Demonstrations.of(task, max_failed=1.0).episodes(count, skip))
