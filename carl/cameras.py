"""Cameras: functions from a task's environment to a frame."""

from collections.abc import Callable
from dataclasses import dataclass, field

from carl.task import Environment, Frame, Rendered


@dataclass(frozen=True)
class Shrunk:
    """Another camera's picture, averaged down by a whole factor until no side is longer than ``side`` pixels.

    ``Task(..., camera=Shrunk(128))`` makes 100 x 150 of the 400 x 600 pixels of gymnasium's classic control and Box2D.
    """

    side: int = 128
    camera: Callable[[Environment], Frame] = field(default_factory=Rendered)

    def __call__(self, env: Environment) -> Frame:
        """The picture, ``uint8[h, w, 3]``, h and w at most ``side``; each pixel is the mean of a square."""
        import cv2

        frame = self.camera(env)
        height, width = frame.shape[:2]
        factor = -(-max(height, width) // self.side)
        size = (max(1, width // factor), max(1, height // factor))
        return frame if factor == 1 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
