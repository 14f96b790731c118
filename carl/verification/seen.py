"""What is kept of an episode to compare it with others: what it showed for how long, and an expert's colours."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carl.episodes.trajectory import Trajectory
from carl.verification.report import FrameRef
from carl.verification.rule import Evidence

PIXELS = 4096
"""Of a frame at most about so many pixels, evenly spread, are looked at for colours."""

COLOURS = 512
"""Colours that are told apart: 8 values of each channel."""

_MIXING = 0x9E3779B97F4A7C15
"""An odd number near 2^64 divided by the golden ratio, so that (initial, frame) and (frame, initial) differ."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One episode as runs of equal frames.

    Attributes:
        kind, role, seed, solved: of the episode.
        size: (H, W, 3) of its frames.
        initial: digest of the initial frame.
        keys: ``uint64[R]``, each of the initial frame and the frame of a run.
        lengths, starts: ``intp[R]``: frames of a run, and the step of its first.
        step_seconds: of the trajectory.
        colours: ``uint16[P]`` of the initial and of the last frame, below ``COLOURS``; of experts alone.
        begins: ``intp[COLOURS]``, how many pixels of the initial frame have each colour; of experts and random play.
    """

    kind: Evidence
    role: str
    seed: int
    solved: bool
    size: tuple[int, ...]
    initial: int
    keys: NDArray[np.uint64]
    lengths: NDArray[np.intp]
    starts: NDArray[np.intp]
    step_seconds: float | None
    colours: tuple[NDArray[np.uint16], NDArray[np.uint16]] | None
    begins: NDArray[np.intp] | None

    @classmethod
    def of(cls, kind: Evidence, trajectory: Trajectory) -> Self:
        """Look at an episode; raises StoreError for frames that cannot be read."""
        digests, frames = trajectory.digests, trajectory.frames
        starts = np.append(0, np.flatnonzero(digests[1:] != digests[:-1]) + 1)
        initial, last = int(digests[0]), frames[len(digests) - 1]
        first = _colours(frames[0]) if kind.required else None
        return cls(
            kind=kind,
            role=trajectory.role,
            seed=trajectory.seed,
            solved=trajectory.success,
            size=tuple(frames.shape[1:]),
            initial=initial,
            keys=digests[starts] ^ np.uint64(initial * _MIXING % (1 << 64)),
            lengths=np.diff(np.append(starts, len(digests))),
            starts=starts,
            step_seconds=trajectory.step_seconds,
            colours=None if first is None or kind is not Evidence.EXPERTS else (first, _colours(last)),
            begins=None if first is None else np.bincount(first, minlength=COLOURS),
        )

    @property
    def film(self) -> tuple[bytes, bytes]:
        """What episodes that show the same frames in the same order have in common."""
        return self.keys.tobytes(), self.lengths.tobytes()

    def frame(self, run: int, expected: str, got: str) -> FrameRef:
        """A reference to the first frame of a run."""
        step = int(self.starts[run])
        return FrameRef(source=self.role, seed=self.seed, step=step, subtask=None, expected=expected, got=got)

    def last(self, expected: str, got: str) -> FrameRef:
        """A reference to the last frame."""
        step = int(self.starts[-1] + self.lengths[-1]) - 1
        return FrameRef(source=self.role, seed=self.seed, step=step, subtask=None, expected=expected, got=got)


def _colours(frame: NDArray[np.uint8]) -> NDArray[np.uint16]:
    pixels = np.asarray(frame).reshape(-1, 3)
    red, green, blue = (pixels[:: max(1, len(pixels) // PIXELS)] >> 5).T.astype(np.uint16)
    return np.asarray(red << 6 | green << 3 | blue)


def named(colour: int) -> str:
    """One of the ``COLOURS``, by the middle of its pixels' values."""
    return f"({', '.join(str((colour >> shift) % 8 * 32 + 16) for shift in (6, 3, 0))})"
