"""Teacher: what replaces the reward source while a policy trains on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from carl.broadcast.channel import Refusal
from carl.rewards.source import RewardSource


@dataclass(frozen=True)
class Iteration:
    """What one training iteration came to.

    Attributes:
        number: counted from 1 since the training's very start.
        env_steps: environment steps since then.
        sampled: environment steps of this iteration; 0 while all env runners are restarting.
        ended, succeeded: episodes that ended in this iteration, and those of them that succeeded.
        means: ``mean_return`` and ``mean_length`` over the latest training episodes, once some have ended.
        counts: what the paid environments counted in this iteration, by name: judged, abstains, and what the source's
            sessions count.
        version, source_id: the newest reward version that an env runner held, and its source; 0 and None for none.
        acknowledged: the version that each env runner and evaluating process adopted last, by name.
        refused: the last version that each of them refused, if any, with the reason.
    """

    number: int
    env_steps: int
    sampled: int
    ended: int
    succeeded: int
    means: Mapping[str, float]
    counts: Mapping[str, int]
    version: int
    source_id: str | None
    acknowledged: Mapping[str, int]
    refused: Mapping[str, Refusal]

    @property
    def success_rate(self) -> float | None:
        """Share of the training episodes of this iteration that succeeded; None if none ended."""
        return self.succeeded / self.ended if self.ended else None


class Teacher(Protocol):
    """Watches a training, and may replace its reward. It runs in the driver, between two iterations."""

    def after(self, iteration: Iteration) -> RewardSource | None:
        """The source that the next version pays by, or None to go on as before.

        What it returns is published through the reward channel: each env runner adopts it at its next sampling, or
        refuses it and keeps what it has, which ``refused`` shows in a later iteration. What it raises ends the
        training, which continues from its last checkpoint.
        """
        ...
