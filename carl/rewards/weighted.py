"""Weighted: a source whose pay gives way to the environment's own reward, while it shows the policy what it showed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym

from carl.rewards.source import Judged, Need, RewardSession, RewardSource, Seen, provenance_of


@dataclass(frozen=True)
class Weighted:
    """Pays ``weight`` times what ``source`` pays, and ``1 - weight`` times the environment's own reward.

    At the weight 0 the source is dropped: the policy is paid by the environment alone.
    """

    source: RewardSource
    weight: float

    @property
    def id(self) -> str:
        """The source's, and the weight."""
        return f"{self.source.id}*{self.weight:g}"

    @property
    def needs(self) -> frozenset[Need]:
        """What the source needs, and the environment's reward."""
        return self.source.needs | {Need.ENV_REWARD}

    @property
    def shows(self) -> gym.spaces.Box | None:
        """What the source shows."""
        return self.source.shows

    @property
    def provenance(self) -> Mapping[str, Any] | None:
        """The source's."""
        return provenance_of(self.source)

    def open(self, slots: int) -> "WeightedSession":
        """Open the source for ``slots`` environments; raises what that raises."""
        return WeightedSession(self.source.open(slots), self.weight)


class WeightedSession:
    """The source's session, whose reward is mixed with the environment's."""

    def __init__(self, session: RewardSession, weight: float) -> None:
        self._session, self._weight = session, weight

    @property
    def counts(self) -> Mapping[str, int]:
        """Those of the source's session."""
        return self._session.counts

    def look(self, seen: Seen) -> Judged:
        """Have the source judge, and mix."""
        assert seen.env_reward is not None  # it needs it
        judged = self._session.look(seen)
        return replace(judged, reward=self._weight * judged.reward + (1 - self._weight) * seen.env_reward)

    def close(self) -> None:
        """Close the source's session; harmless when called twice."""
        self._session.close()
