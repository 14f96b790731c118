"""Frames of an episode that do not all lie in memory: chunks of them, of which one is unpacked at a time."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from carl.task import Frame

CHUNK_BYTES = 4 << 20
"""Size of a chunk. Verification holds one for each of 64 episodes; an episode of a small gridworld is one."""

CODEC = "zstd"


def rows_of(size: tuple[int, ...]) -> int:
    """How many frames ``uint8[*size]`` are a chunk."""
    return max(1, CHUNK_BYTES // max(1, prod(size)))


class LazyFrames:
    """``uint8[N, H, W, 3]`` of which the chunk that was last looked at is in memory.

    ``frames[step]`` and slices of steps are arrays. Any other index, and ``np.asarray``, loads all of them.

    Args:
        count: N.
        size: (H, W, 3).
        rows: frames of a chunk; the last one may have fewer.
        load: chunk number to its frames, ``uint8[rows, H, W, 3]``.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, count: int, size: tuple[int, ...], rows: int, load: Callable[[int], Frame]) -> None:
        self.shape = (count, *size)
        self._rows, self._load = rows, load
        self._number, self._chunk = -1, np.empty((0, *size), np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all frames, unpacked."""
        return prod(self.shape)

    def __getitem__(self, key: Any) -> Frame:
        if not isinstance(key, int | np.integer):
            return self._several(key)
        number, row = divmod(range(self.shape[0])[key], self._rows)
        if number != self._number:
            self._chunk, self._number = self._load(number), number
        frame: Frame = self._chunk[row]
        return frame

    def _several(self, key: Any) -> Frame:
        if isinstance(key, slice):
            steps = range(len(self))[key]
            return np.stack([self[step] for step in steps]) if steps else np.empty((0, *self.shape[1:]), np.uint8)
        return np.array(np.asarray(self)[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if len(self) <= self._rows:
            self[0]
            return np.array(self._chunk, dtype=dtype, copy=copy)
        frames = np.empty(self.shape, np.uint8)
        for start in range(0, len(self), self._rows):
            frames[start : start + self._rows] = self._load(start // self._rows)
        return frames.astype(dtype or np.uint8, copy=False)


Frames = Frame | LazyFrames
"""Frames of an episode, ``uint8[N, H, W, 3]``, in memory or not."""


class Reel:
    """Takes the frames of an episode that is being played; all but the last chunk are kept compressed."""

    def __init__(self) -> None:
        self._pending: list[Frame] = []
        self._packed: list[bytes] = []
        self._rows = 0

    def add(self, frame: Frame) -> None:
        """Keep a copy of ``frame``, ``uint8[H, W, 3]``; raises ValueError if it has another size than those before."""
        if self._pending and frame.shape != self._pending[0].shape:
            raise ValueError(
                f"a frame is {list(frame.shape)} where the first one was {list(self._pending[0].shape)}; a task's "
                "camera has to give frames of one size"
            )
        self._rows = self._rows or rows_of(frame.shape)
        if len(self._pending) == self._rows:
            self._pack()
        self._pending.append(np.array(frame, order="C"))  # pygame's lie transposed in memory

    def _pack(self) -> None:
        # A pyarrow 26.0.1 buffer would keep the memory of the codec's worst case: more than the frames have.
        self._packed.append(pa.compress(np.stack(self._pending), codec=CODEC, asbytes=True))
        self._pending = []

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W, 3) of the frames, of which there has to be one."""
        return self._pending[0].shape

    def frames(self) -> Frames:
        """All of them, ``uint8[N, H, W, 3]``; ends the reel."""
        if not self._packed:
            return np.stack(self._pending)
        size = self.size
        count = len(self._packed) * self._rows + len(self._pending)
        self._pack()

        def unpacked(number: int) -> Frame:
            shape = (min(self._rows, count - number * self._rows), *size)
            data = pa.decompress(self._packed[number], decompressed_size=prod(shape), codec=CODEC)
            return np.frombuffer(data, np.uint8).reshape(shape)

        return LazyFrames(count, size, self._rows, unpacked)
