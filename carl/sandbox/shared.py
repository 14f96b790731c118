"""The memory that a box shares with its child: the box writes frames, the child writes values and reasons."""

import fcntl
import mmap
import os
import struct
from typing import Self

import numpy as np

MAX_ROWS = 256
"""Most rows (frames to judge) of one request."""

REASON_BYTES = 240
"""Longest reason of an abstain."""

REQUEST = struct.Struct("<8q")
"""LOAD or JUDGE and seven numbers. LOAD: the length of a program's JSON. JUDGE: rows, height and width, then start and
count of the frames, start and count of the initial frames. Unused numbers are 0."""

LOAD, JUDGE = 0, 1
READY, FINISHED = b"r", b"f"
"""The child's answers. READY: it is locked down, or has loaded the program. FINISHED: every row is judged."""

CURSOR, TASKS, VALUES, PLACES, REASONS = (0, *(64 + 8 * MAX_ROWS * column for column in (0, 1, 2, 4)))
CONTROL_BYTES = REASONS + REASON_BYTES * MAX_ROWS
FRAMES_BYTES = 256 << 20
"""Room for frames. It takes memory only for pages that were written."""

PASSING = FRAMES_BYTES // 2
"""Start of the part that is used for one request only: for a program, or for copies of frames."""

F_SEAL_FUTURE_WRITE = 0x0010
"""Of linux/fcntl.h: later mappings are read-only."""


class Shared:
    """Two blocks of memory that the box and its child share.

    Attributes:
        cursor: ``int64[1]``, the row under judgement.
        tasks: ``int64[MAX_ROWS]``, the sub-task of each row.
        values: ``float64[MAX_ROWS]``, each row's progress; NaN is an abstain.
        places: ``int64[2, MAX_ROWS]``, for each row the index of its frame, and of its initial frame.
        reasons: ``bytes[MAX_ROWS]``, the reason of each abstain.
        frames: bytes, each frame ``uint8[H, W, 3]``. Read-only in the child.
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
        """New memory and its two descriptors, to be closed once the child has them."""
        control, frames = (os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) for name in ("c", "f"))
        try:
            for descriptor, size in ((control, CONTROL_BYTES), (frames, FRAMES_BYTES)):
                os.ftruncate(descriptor, size)
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # no child can truncate it
            shared = cls(mmap.mmap(control, CONTROL_BYTES), mmap.mmap(frames, FRAMES_BYTES))
            fcntl.fcntl(frames, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
        except BaseException:  # descriptors must not leak, whatever is raised
            os.close(control)
            os.close(frames)
            raise
        return shared, (control, frames)

    @classmethod
    def attach(cls, control: int, frames: int) -> Self:
        """The same memory in the child."""
        return cls(mmap.mmap(control, CONTROL_BYTES), mmap.mmap(frames, FRAMES_BYTES, prot=mmap.PROT_READ))
