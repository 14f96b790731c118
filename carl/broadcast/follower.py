"""Follower: keeps a paid environment at the channel's newest version of the reward source."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from carl.broadcast.channel import ChannelClient, Offer
from carl.cluster.logs import about
from carl.errors import ResourceError, RewardError
from carl.rewards.session import blaming_source
from carl.rewards.source import RewardSource

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long ``close`` waits for a thread that is opening a source just now."""


class Follower:
    """Hands ``adopt`` the channel's newest source under its version, and answers for it by ``name``.

    ``pull`` asks the channel now. ``listen`` starts a thread that receives a new version at once, also while its
    process samples. The thread waits in a call to the channel, since the channel cannot call a runner: sampling holds
    an RLlib actor's only thread, and the runner in the driver is not an actor. While it waits it does not hold the
    interpreter's lock.

    A version that cannot be fetched, or for which ``adopt`` raises RewardError, is refused: in the log, and in the
    channel by name and reason. What was adopted before stays, or the newest older one is taken if there was nothing
    before. A refused version is not tried again. A channel that is gone is logged once, and what was adopted stays.

    Attributes:
        version: the one that was adopted last; 0 for none.
    """

    def __init__(self, channel: ChannelClient, name: str, adopt: Callable[[int, RewardSource], None]) -> None:
        self._channel, self._name, self._adopt = channel, name, adopt
        self.version = 0
        self._seen = 0
        self._failure: RewardError | None = None
        self._lost = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, offers: Sequence[Offer] | None = None) -> None:
        """Adopt the newest of ``offers``, or of what the channel has.

        Raises ResourceError if the channel is gone, and the last refusal's error if all there is had to be refused.
        """
        self._take_and_acknowledge(self._channel.offers() if offers is None else offers)
        if self._failure is not None and not self.version:
            raise self._failure

    def pull(self) -> None:
        """Adopt the channel's newest version if it is another."""
        try:
            self._take_and_acknowledge(self._channel.offers(self._seen))
        except ResourceError as error:
            self._lose(error)

    def listen(self) -> None:
        """Follow the channel in a thread until ``close``."""
        self._thread = threading.Thread(target=self._follow, name=f"carl-{self._name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, if there is one; harmless when called twice."""
        self._closed.set()
        deadline = time.monotonic() + PATIENCE_S
        while self._thread is not None and self._thread.is_alive() and time.monotonic() < deadline:
            self._channel.leave(self._name)  # again, in case it began to wait after the last call
            self._thread.join(0.1)

    def _follow(self) -> None:
        try:
            while not self._closed.is_set():
                self._take(self._channel.watch(self._name, self._seen, self.version))
        except ResourceError as error:
            self._lose(error)

    def _take_and_acknowledge(self, offers: Sequence[Offer]) -> None:
        if self._take(offers):
            self._channel.acknowledge(self._name, self.version)

    def _take(self, offers: Sequence[Offer]) -> bool:
        """Adopt the newest of ``offers``, which come newest first, that is news and can be opened; whether one was."""
        with self._lock:
            news = [offer for offer in offers if offer.version > self._seen]
            self._seen = max([self._seen, *(offer.version for offer in news)])
            return any(self._adopts(offer) for offer in news)

    def _adopts(self, offer: Offer) -> bool:
        try:
            with blaming_source(offer.source_id or f"version {offer.version}", "fetching it"):
                source = offer.source()
            self._adopt(offer.version, source)
        except RewardError as error:
            self._failure = error
            reason = f"{type(error).__name__}: {error}"
            logger.error(
                "%s refuses reward version %d and keeps %d: %s", self._name, offer.version, self.version, reason
            )
            self._channel.refuse(self._name, offer.version, reason)
            return False
        self.version = offer.version
        about(program=offer.source_id)
        logger.info("%s pays by reward version %d", self._name, offer.version, extra={"reward_version": offer.version})
        return True

    def _lose(self, error: ResourceError) -> None:
        if not self._lost:
            self._lost = True
            logger.error("%s keeps reward version %d: %s", self._name, self.version, error)
