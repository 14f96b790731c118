"""What a program said about frames it has seen: programs are pure, and frames recur."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import xxhash
from numpy.typing import NDArray

from carl.task import Frame

Key = tuple[int, int, int]

ENTRIES = 200_000
"""Most judgements kept, about 40 MB; the one that was not asked for the longest goes first."""


class JudgementCache:
    """Progress by (initial frame, frame, sub-task) for one program.

    Frames are told apart by a 64-bit hash of their pixels (XXH3): among a million frames two collide with a chance of
    about one in forty million.

    Attributes:
        hits, misses: how often an answer was known, and how often it was not.
    """

    def __init__(self, slots: int, entries: int = ENTRIES) -> None:
        self._known: OrderedDict[Key, float] = OrderedDict()
        self._entries = entries
        self._initials, self._frames = [0] * slots, [0] * slots
        self.hits = self.misses = 0

    def see(self, slots: NDArray[np.intp], began: NDArray[np.bool_], frames: Frame) -> NDArray[np.bool_]:
        """``slots`` have come to ``frames``, ``uint8[M, H, W, 3]``, the initial ones of an episode where ``began``.

        Returns ``bool[M]``: which rows show something else than their slot did before, or began.
        """
        before = [self._frames[slot] for slot in slots.tolist()]
        digests = [xxhash.xxh3_64_intdigest(np.ascontiguousarray(frame).data) for frame in frames]
        for slot, digest in zip(slots.tolist(), digests, strict=True):
            self._frames[slot] = digest
        for slot in slots[began].tolist():
            self._initials[slot] = self._frames[slot]
        return began | np.not_equal(before, digests)

    def judge(
        self,
        slots: NDArray[np.intp],
        tasks: NDArray[np.intp],
        ask: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Progress ``float64[M]`` of ``tasks`` at what ``slots`` show, both ``intp[M]``.

        ``ask`` gets the places of those that are not known, and says their progress. Abstains (NaN) are not kept.
        """
        keys = [
            (self._initials[slot], self._frames[slot], task)
            for slot, task in zip(slots.tolist(), tasks.tolist(), strict=True)
        ]
        values = np.array([self._known.get(key, np.nan) for key in keys])
        unknown = np.flatnonzero(np.isnan(values))
        self.hits += len(keys) - len(unknown)
        self.misses += len(unknown)
        if unknown.size:
            values[unknown] = ask(unknown)
        for key, value in zip(keys, values.tolist(), strict=True):
            if value == value:
                self._known[key] = value
                self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)
        return values
