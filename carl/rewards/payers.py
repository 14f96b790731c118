"""Which version of the reward pays which slot: every episode has one, and a newer one is adopted where one begins."""

import threading
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from carl.rewards.session import SourceSession


class Payers:
    """The sessions that pay ``slots`` environment slots, by version.

    A session of which no slot's episode is any more is closed, unless it is the newest one's. ``add`` may be called in
    another thread than the rest, but by one at a time.

    Attributes:
        newest: the version that slots adopt at their next episode start; 0: no version yet.
        versions: ``int64[N]``, the version that pays each slot.
    """

    def __init__(self, slots: int) -> None:
        self.newest = 0
        self.versions = np.zeros(slots, dtype=np.int64)
        self._sessions: dict[int, SourceSession] = {}
        self._closed_counts: Counter[str] = Counter()
        self._swapping = threading.Lock()
        self._over = False

    def add(self, version: int, session: SourceSession) -> None:
        """Pay by ``session`` from each slot's next episode start on. After ``close`` it is closed at once."""
        with self._swapping:
            unused = [session]
            if not self._over:
                self._sessions[version] = session
                self.newest = version
                unused = self._pop_unused()
        _close(unused)

    def adopt(self, began: NDArray[np.bool_]) -> list[tuple[int, SourceSession]]:
        """Give episodes that begin (``bool[N]``) the newest version; returns the sessions, of which no slot's is closed
        meanwhile."""
        unused: list[SourceSession] = []
        with self._swapping:
            if (self.versions[began] != self.newest).any():
                self.versions[began] = self.newest
                unused = self._pop_unused()
            sessions = list(self._sessions.items())
        _close(unused)
        return sessions

    def source_id(self, slot: int) -> str:
        """The id of the source that pays ``slot``."""
        return self._sessions[int(self.versions[slot])].id

    @property
    def counts(self) -> Counter[str]:
        """What all sessions counted so far, closed ones included."""
        with self._swapping:
            counts = Counter(self._closed_counts)
            for session in self._sessions.values():
                counts.update(session.counts)
        return counts

    def close(self) -> None:
        """Close all sessions; harmless when called twice."""
        with self._swapping:
            self._over = True
            sessions = list(self._sessions.values())
            self._sessions.clear()
            for session in sessions:
                self._closed_counts.update(session.counts)
        _close(sessions)

    def _pop_unused(self) -> list[SourceSession]:
        unused = [self._sessions.pop(old) for old in set(self._sessions) - {self.newest, *self.versions.tolist()}]
        for session in unused:
            self._closed_counts.update(session.counts)
        return unused


def _close(sessions: list[SourceSession]) -> None:
    for session in sessions:
        session.close()
