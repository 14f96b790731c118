"""Limits on the requests under way at once, in all and of each caller."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from carl.serving.clients import RETRY_S
from carl.serving.protocol import ApiError


class Places:
    """Places for ``most`` requests, of which one caller may hold ``most_each``."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, caller: str) -> Iterator[None]:
        """Hold a place for ``caller``; raises ApiError(429) if there is none."""
        if self._held[caller] >= self._most_each:
            message = f"{self._most_each} requests of yours are under way already; wait for an answer"
            raise ApiError(429, message, "too_many_requests", retry_s=RETRY_S)
        if self._held.total() >= self._most:
            message = f"{self._most} requests are under way already; ask again in a moment"
            raise ApiError(429, message, "server_full", retry_s=RETRY_S)
        self._held[caller] += 1
        try:
            yield
        finally:
            self._held[caller] -= 1
            self._held += Counter()  # drop callers that hold none
