"""Which reward versions paid for the steps that an algorithm learns from."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from carl.broadcast.versions import VERSION

PAID_BY = "paid_by"
"""Key in RLlib's metrics: steps by the version that paid them, as text."""


def paid_by(episodes: Iterable[SingleAgentEpisode]) -> Counter[int]:
    """Steps of ``episodes`` by the version that paid them; no episode mixes two."""
    steps: Counter[int] = Counter()
    for episode in episodes:
        steps[int(episode.custom_data[VERSION][-1])] += len(episode)
    return steps


def trained_on(result: Mapping[str, Any]) -> Counter[int]:
    """Steps of an iteration's training batches by the version that paid them, from RLlib's ``result``.

    They come from the replay buffer where there is one, and else from the env runners.
    """
    metrics = result.get("replay_buffer", result.get("env_runners", {})).get(PAID_BY, {})
    # RLlib goes on reporting a sum that nothing was added to, as NaN.
    return Counter({int(version): int(steps) for version, steps in metrics.items() if steps == steps})
