"""Which reward versions are published and in use, and how many of the steps that are learned from are stale."""

import logging
from collections import Counter
from collections.abc import Mapping

from carl.broadcast.channel import ChannelClient, Offer, Refusal
from carl.errors import ResourceError

logger = logging.getLogger(__name__)

VERSION = "reward_version"
"""What ``custom_data`` of episodes calls the version that paid each step."""


class Overview:
    """The state of a channel as the driver last read it; it stays as it was once the channel is gone.

    Attributes:
        offers: the versions that may still pay, newest first.
        in_use: the same without those that are newer than all that were acknowledged, once the newest was refused.
        acknowledged: the last version that each name acknowledged.
        refused: the last refusal of each name that ever refused.
    """

    def __init__(self, channel: ChannelClient) -> None:
        self._channel = channel
        self.offers: tuple[Offer, ...] = ()
        self.in_use: tuple[Offer, ...] = ()
        self.acknowledged: Mapping[str, int] = {}
        self.refused: Mapping[str, Refusal] = {}
        self._lost = False

    def look(self) -> None:
        """Read the channel, and log refusals that are new."""
        try:
            offers, refusals = tuple(self._channel.offers()), self._channel.refusals()
            acknowledged = self._channel.acknowledgements()
        except ResourceError as error:
            if not self._lost:
                self._lost = True
                logger.error("training goes on with the last reward: %s", error)
            return
        for name, refusal in refusals.items():
            if refusal != self.refused.get(name):
                logger.error("%s refused reward version %d: %s", name, refusal.version, refusal.reason)
        self.refused, self.offers, self.acknowledged = refusals, offers, acknowledged
        adopted = max(acknowledged.values(), default=0)
        refused = any(refusal.version >= offers[0].version for refusal in refusals.values()) if offers else False
        self.in_use = tuple(offer for offer in offers if not refused or offer.version <= adopted)

    def stale(self, steps: Counter[int]) -> int:
        """How many of ``steps`` were paid by an older version than the newest."""
        newest = self.offers[0].version if self.offers else 0
        return sum(count for version, count in steps.items() if version < newest)

    def source_id(self, version: int) -> str | None:
        """Id of the source of ``version``; None if it is not known."""
        return next((offer.source_id for offer in self.offers if offer.version == version), None)
