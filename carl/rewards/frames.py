"""The frames of a vector environment, in one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carl.errors import TaskError
from carl.task import Environment, Frame, Redraw, Task


class Frames:
    """Takes the frames of ``envs`` into one ``uint8[N, H, W, 3]`` that lives as long as this does.

    A camera that can redraw (see ``Task.camera``) changes in it what has changed in its environment since the last
    look; the frames of any other are copied there.
    """

    def __init__(self, task: Task, envs: Sequence[Environment]) -> None:
        self._task = task
        self._envs = envs
        self._rows: list[Frame] = []
        self._redraws: list[Redraw] = [_cannot] * len(envs)
        self._all: Frame = np.zeros((len(envs), 0, 0, 3), np.uint8)

    def take(self, slots: NDArray[np.intp]) -> Frame:
        """The frames of ``slots`` now (``intp[M]``, ascending), ``uint8[M, H, W, 3]``, not to be drawn in.

        They are good until the next call: copy what has to last. Raises TaskError if the camera gives no frames, or
        frames of several sizes.
        """
        for slot in slots.tolist():
            if not self._redraws[slot]():
                self._film(slot)
        return self._all if len(slots) == len(self._envs) else self._all[slots]

    def _film(self, slot: int) -> None:
        frame = self._task.frame(self._envs[slot])
        if not self._rows:
            self._prepare(frame.shape)
        row = self._rows[slot]
        if frame.shape != row.shape:
            raise TaskError(
                f"task {self._task.name!r}: a frame is {list(frame.shape)} where the first one was {list(row.shape)}; "
                "a task's camera has to keep one size over all slots and episodes"
            )
        row[:] = frame

    def _prepare(self, shape: tuple[int, ...]) -> None:
        frames: Frame = np.zeros((len(self._envs), *shape), np.uint8)
        self._rows = list(frames)
        onto: Any = getattr(self._task.camera, "onto", _never)
        self._redraws = [onto(env, row) or _cannot for env, row in zip(self._envs, self._rows, strict=True)]
        self._all = frames.view()
        self._all.flags.writeable = False  # or what another camera draws in it would stay there


def _never(env: Environment, frame: Frame) -> None:  # noqa: ARG001  in place of a draw function, for cameras that only film
    return None


def _cannot() -> bool:
    return False
