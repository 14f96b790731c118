"""Teacher: what replaces the reward source while a policy trains on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from carl.broadcast.channel import Refusal
from carl.episodes.trajectory import Trajectory
from carl.rewards.source import RewardSource

if TYPE_CHECKING:
    from carl.training.evaluation import Outcome

Film = Callable[[int, int | None], Sequence[Trajectory]]
"""Plays that many episodes of the policy, cut after so many steps (None: to their ends), and returns them."""


def _no_film(_episodes: int, _cut: int | None) -> Sequence[Trajectory]:
    return ()


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
        source: that source itself, also after a stop.
        acknowledged: the version that each env runner and evaluating process adopted last, by name.
        refused: the last version that each of them refused, if any, with the reason.
        point, outcomes: the number of points of the learning curve so far, and the episodes of the newest one.
        film: plays episodes of the sampled policy of now, on seeds that nothing else uses, and keeps their frames;
            only until ``after`` returns. It takes the driver's time.
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
    source: RewardSource | None = None
    point: int = 0
    outcomes: "Sequence[Outcome]" = ()
    film: Film = _no_film

    @property
    def success_rate(self) -> float | None:
        """Share of the training episodes of this iteration that succeeded; None if none ended."""
        return self.succeeded / self.ended if self.ended else None


@dataclass(frozen=True)
class Anew:
    """A source under which the policy begins anew, with the weights that it had at the start of this process.

    A policy that was trained on a reward that misled may explore no more (E. Nikishin et al., The primacy bias in deep
    reinforcement learning, ICML 2022). Its optimizer and a replay buffer stay as they are.
    """

    source: RewardSource


class Teacher(Protocol):
    """Watches a training, and may replace its reward. It runs in the driver, between two iterations.

    A teacher with a method ``close`` has that called when its training ends, however it ends.
    """

    def after(self, iteration: Iteration) -> RewardSource | Anew | None:
        """The source that the next version pays by, perhaps ``Anew``, or None to go on as before.

        What it returns is published through the reward channel: each env runner adopts it at its next sampling, or
        refuses it and keeps what it has, which ``refused`` shows in a later iteration. What it raises ends the
        training, which continues from its last checkpoint.
        """
        ...
