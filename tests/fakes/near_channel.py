"""A reward channel in this process, without Ray, that can die."""

import threading
from dataclasses import dataclass

from carl.broadcast.channel import Offer, RewardChannel
from carl.errors import ResourceError


@dataclass(frozen=True)
class NearOffer(Offer):
    """Its payload is the source itself, or what fetching it raises."""

    def source(self):
        if isinstance(self.payload, Exception):
            raise self.payload
        return self.payload


class NearChannel:
    """Speaks as a ChannelClient. An exception that is published is a source that cannot be fetched."""

    def __init__(self) -> None:
        self.channel, self.dead = RewardChannel(), False
        self.listening: set[str] = set()
        self._changed = threading.Condition()

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.channel, name)

    def __deepcopy__(self, memo):
        return self

    def publish(self, source) -> int:
        with self._changed:
            version = self.channel.publish(source, getattr(source, "id", None))
            self._changed.notify_all()
        return version

    def offers(self, after=0):
        if self.dead:
            raise ResourceError("the reward channel is gone")
        return [NearOffer(offer.version, offer.source_id, offer.payload) for offer in self.channel.offers(after)]

    def watch(self, name, after, adopted):
        with self._changed:
            self.listening.add(name)
            if adopted > self.acknowledgements().get(name, 0):
                self.acknowledge(name, adopted)
            self._changed.wait_for(lambda: self.dead or name not in self.listening or self.offers(after), timeout=60)
        return self.offers(after)

    def leave(self, name) -> None:
        with self._changed:
            self.listening.discard(name)
            self._changed.notify_all()

    def die(self) -> None:
        with self._changed:
            self.dead = True
            self._changed.notify_all()
