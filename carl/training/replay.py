"""SAC over a replay buffer that knows the reward version of what it replays."""

from typing import Any

import numpy as np
from ray.rllib.algorithms import sac
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer

from carl.training.versions import PAID_BY, VERSION, paid_by

_SAC: Any = sac.SAC  # RLlib leaves these untyped
_EpisodeReplayBuffer: Any = EpisodeReplayBuffer


class VersionedReplayBuffer(_EpisodeReplayBuffer):  # type: ignore[misc]
    """RLlib's; what it samples keeps the version that paid it, and is counted by version in its metrics."""

    def sample(self, *args: Any, **kwargs: Any) -> list[Any]:
        episodes: list[Any] = super().sample(*args, **kwargs)
        for episode in episodes:
            index = self.episode_id_to_index[episode.id_] - self._num_episodes_evicted
            version = self.episodes[index].custom_data[VERSION][-1]
            episode.custom_data[VERSION] = np.full(len(episode), version)
        for version, steps in paid_by(episodes).items():
            self.metrics.log_value((PAID_BY, str(version)), steps, reduce="sum")
        return episodes


class SAC(_SAC):  # type: ignore[misc]
    """RLlib's SAC, whose configuration takes no other replay buffer than RLlib's own."""

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> VersionedReplayBuffer:
        return VersionedReplayBuffer(
            capacity=config["replay_buffer_config"]["capacity"],
            metrics_num_episodes_for_smoothing=config["metrics_num_episodes_for_smoothing"],
        )
