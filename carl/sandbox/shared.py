"""The memory that a box shares with its child: frames go in, values and reasons come out."""

import fcntl
import mmap
import os
import struct
from typing import Self

import numpy as np

MAX_ROWS = 256
"""Frames in one request."""

REASON_BYTES = 240

REQUEST = struct.Struct("<8q")
"""One of the two below and seven numbers: the length of a program's JSON; or rows, height and width, and where frames
and initial frames begin, each with how many they are. What is left over is 0."""

LOAD, JUDGE = 0, 1
READY, FINISHED = b"r", b"f"
"""What the child answers: it is locked down, or has taken the program; every row is judged."""

CURSOR, TASKS, VALUES, PLACES, REASONS = (0, *(64 + 8 * MAX_ROWS * column for column in (0, 1, 2, 4)))
CONTROL_BYTES = REASONS + REASON_BYTES * MAX_ROWS
FRAMES_BYTES = 256 << 20
"""Room for frames. It takes memory only where it is written to."""

PASSING = FRAMES_BYTES // 2
"""From here on lies what is sent for one request only: a program, or copies of frames."""

F_SEAL_FUTURE_WRITE = 0x0010
"""From linux/fcntl.h: whoever maps it from now on can only read."""


class Shared:
    """Two blocks of memory; both ends see the same.

    Attributes:
        cursor: ``int64[1]``, the row that is being judged.
        tasks: ``int64[MAX_ROWS]``, the sub-task of each row.
        values: ``float64[MAX_ROWS]``, each row's progress; NaN is an abstain.
        places: ``int64[2, MAX_ROWS]``, which of the frames each row is about, and which of the initial frames.
        reasons: ``bytes[MAX_ROWS]``, why, if it is.
        frames: bytes, each frame ``uint8[H, W, 3]``. The child only reads them.
    """

    def __init__(self, control: mmap.mmap, frames: mmap.mmap) -> None:
        self.cursor = np.ndarray((1,), np.int64, control, CURSOR)
        self.tasks = np.ndarray((MAX_ROWS,), np.int64, control, TASKS)
        self.values = np.ndarray((MAX_ROWS,), np.float64, control, VALUES)
        self.places = np.ndarray((2, MAX_ROWS), np.int64, control, PLACES)
        self.reasons = np.ndarray((MAX_ROWS,), f"S{REASON_BYTES}", control, REASONS)
        self.frames = frames

    @classmethod
    def create(cls) -> tuple[Self, tuple[int, int]]:
        """New memory, and its two descriptors, which nobody needs once the child has them."""
        control, frames = (os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) for name in ("c", "f"))
        try:
            for descriptor, size in ((control, CONTROL_BYTES), (frames, FRAMES_BYTES)):
                os.ftruncate(descriptor, size)
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # so no child can cut it under our feet
            shared = cls(mmap.mmap(control, CONTROL_BYTES), mmap.mmap(frames, FRAMES_BYTES))
            fcntl.fcntl(frames, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
        except BaseException:  # descriptors must not leak, whatever went wrong
            os.close(control)
            os.close(frames)
            raise
        return shared, (control, frames)

    @classmethod
    def attach(cls, control: int, frames: int) -> Self:
        """The same memory in the child."""
        return cls(mmap.mmap(control, CONTROL_BYTES), mmap.mmap(frames, FRAMES_BYTES, prot=mmap.PROT_READ))
