"""What a pure source answered, kept by what it saw: frames recur, and what was judged need not be judged again."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

Key = tuple[int, int, int]

ENTRIES = 200_000
"""Most answers kept, about 40 MB of single numbers; the one that was not asked for the longest goes first."""


class JudgementCache:
    """Answers by (start of the episode, what is seen now, part of the source), for the session of a pure source.

    What is seen is identified by a 64-bit hash of its bytes (XXH3): among a million frames two collide with a chance of
    about one in forty million.

    Args:
        slots: environment slots of the session.
        entries: most answers kept.
        width: numbers in an answer; None for answers that are a number, ``[M]`` instead of ``[M, width]``.
        from_start: whether an answer depends on the start of the episode; an embedding's does not.

    Attributes:
        hits, misses: how often an answer was known, and how often it was not. A session that does not even ask, since a
            slot shows what it showed before, adds to ``hits`` itself.
    """

    def __init__(
        self, slots: int, entries: int = ENTRIES, *, width: int | None = None, from_start: bool = True
    ) -> None:
        self._known: OrderedDict[Key, Any] = OrderedDict()
        self._entries = entries
        self._missing: Any = np.nan if width is None else np.full(width, np.nan)
        self._from_start = from_start
        self._starts, self._now = [0] * slots, [0] * slots
        self.hits = self.misses = 0

    @property
    def counts(self) -> dict[str, int]:
        """``cache_hits`` and ``cache_misses``, as sessions report them."""
        return {"cache_hits": self.hits, "cache_misses": self.misses}

    def see(self, slots: NDArray[np.intp], began: NDArray[np.bool_], seen: NDArray[Any]) -> NDArray[np.bool_]:
        """``slots`` (``intp[M]``) have come to ``seen``, such as frames ``uint8[M, H, W, 3]`` or observations; an
        episode starts there where ``began``.

        Returns ``bool[M]``: which rows show something else than their slot did before, or began.
        """
        before = [self._now[slot] for slot in slots.tolist()]
        digests = [xxhash.xxh3_64_intdigest(np.ascontiguousarray(row).data) for row in seen]
        for slot, digest in zip(slots.tolist(), digests, strict=True):
            self._now[slot] = digest
        if self._from_start:
            for slot in slots[began].tolist():
                self._starts[slot] = self._now[slot]
        return began | np.not_equal(before, digests)

    def judge(
        self,
        slots: NDArray[np.intp],
        parts: NDArray[np.intp],
        ask: Callable[[NDArray[np.intp]], NDArray[np.floating[Any]]],
    ) -> NDArray[np.float64]:
        """Answers ``float64[M]``, or ``[M, width]``, of ``parts`` to what ``slots`` show, both ``intp[M]``.

        ``ask`` gets the places of those that are not known, and answers for them. Abstains (NaN) are not kept.
        """
        keys = [
            (self._starts[slot], self._now[slot], part)
            for slot, part in zip(slots.tolist(), parts.tolist(), strict=True)
        ]
        values = np.array([self._known.get(key, self._missing) for key in keys], dtype=np.float64)
        values = values.reshape(len(keys), *np.shape(self._missing))
        unanswered = _unanswered(values)
        unknown = np.flatnonzero(unanswered)
        self.hits += len(keys) - len(unknown)
        self.misses += len(unknown)
        if unknown.size:
            values[unknown] = ask(unknown)
            unanswered = _unanswered(values)
        self._keep(keys, values, unanswered)
        return values

    def _keep(self, keys: list[Key], values: NDArray[np.float64], unanswered: NDArray[np.bool_]) -> None:
        rows = values.tolist() if values.ndim == 1 else [row.copy() for row in values]
        for key, row, missing in zip(keys, rows, unanswered.tolist(), strict=True):
            if not missing:
                self._known[key] = row
                self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)


def _unanswered(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """``bool[M]``: where a number of an answer is NaN."""
    missing = np.isnan(values)
    return missing if missing.ndim == 1 else np.asarray(missing.any(axis=1))
