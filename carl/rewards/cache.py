"""What a program said about frames it has seen: programs are pure, and frames recur."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from carl.task import Frame

Key = tuple[int, int, int]

ENTRIES = 200_000
"""Most judgements kept, about 40 MB; the one that was not asked for the longest goes first."""


class JudgementCache:
    """Progress by (initial frame, frame, sub-task) for one program.

    Frames are told apart by Python's 64-bit hash of their bytes (SipHash): among a million frames two collide with a
    chance of about one in forty million.

    Attributes:
        hits, misses: how often an answer was known, and how often it was not.
    """

    def __init__(self, slots: int, entries: int = ENTRIES) -> None:
        self._known: OrderedDict[Key, float] = OrderedDict()
        self._entries = entries
        self._initials = [0] * slots
        self.hits = self.misses = 0

    def begin(self, slots: NDArray[np.intp], frames: Frame) -> None:
        """Episodes in ``slots`` begin at ``frames``."""
        for slot, frame in zip(slots.tolist(), frames, strict=True):
            self._initials[slot] = hash(frame.tobytes())

    def judge(
        self,
        frames: Frame,
        slots: NDArray[np.intp],
        rows: NDArray[np.intp],
        tasks: NDArray[np.intp],
        ask: Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Progress for each of (``rows``, ``tasks``); only what is not known is asked for. Abstains are not kept."""
        hashes: dict[int, int] = {}
        keys: list[Key] = []
        values = np.full(len(rows), np.nan)
        unknown: list[int] = []
        for place, (row, task) in enumerate(zip(rows.tolist(), tasks.tolist(), strict=True)):
            if row not in hashes:
                hashes[row] = hash(frames[row].tobytes())
            key = self._initials[int(slots[row])], hashes[row], task
            keys.append(key)
            known = self._known.get(key)
            if known is None:
                unknown.append(place)
            else:
                values[place] = known
                self._known.move_to_end(key)
        self.hits += len(keys) - len(unknown)
        self.misses += len(unknown)
        if unknown:
            values[unknown] = ask(rows[unknown], tasks[unknown])
            for place in unknown:
                if not np.isnan(values[place]):
                    self._known[keys[place]] = float(values[place])
            while len(self._known) > self._entries:
                self._known.popitem(last=False)
        return values
