"""SAC over a replay buffer that knows the reward version of what it replays, and that checkpoints hold."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.algorithms import sac
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer

from carl.training.divergence import FiniteLearner
from carl.training.failures import RaisesReported
from carl.training.versions import PAID_BY, VERSION, paid_by

_SAC: Any = sac.SAC  # RLlib leaves these untyped
_SACTorchLearner: Any = SACTorchLearner
_EpisodeReplayBuffer: Any = EpisodeReplayBuffer
_PrioritizedEpisodeReplayBuffer: Any = PrioritizedEpisodeReplayBuffer

BUFFER = "replay_buffer"
"""What the buffer is called in the state of the algorithm."""

_log = logging.getLogger(__name__)


class _Versioned:
    """What a buffer samples keeps the version that paid it, and is counted by version in its metrics."""

    def sample(self, *args: Any, **kwargs: Any) -> list[Any]:
        rllib: Any = self
        episodes: list[Any] = super().sample(*args, **kwargs)  # type: ignore[misc]  # RLlib's
        for episode, index in zip(episodes, self._indices_of(episodes), strict=True):
            version = rllib.episodes[index - rllib._num_episodes_evicted].custom_data[VERSION][-1]
            episode.custom_data[VERSION] = np.full(len(episode), version)
        for version, steps in paid_by(episodes).items():
            rllib.metrics.log_value((PAID_BY, str(version)), steps, reduce="sum")
        return episodes

    def _indices_of(self, sampled: Sequence[Any]) -> Sequence[int]:
        """Which episodes these were sampled from, counted since the buffer was begun."""
        raise NotImplementedError


class VersionedReplayBuffer(_Versioned, _EpisodeReplayBuffer):  # type: ignore[misc]
    """RLlib's uniform one."""

    def _indices_of(self, sampled: Sequence[Any]) -> Sequence[int]:
        return [self.episode_id_to_index[episode.id_] for episode in sampled]


class VersionedPrioritizedReplayBuffer(_Versioned, _PrioritizedEpisodeReplayBuffer):  # type: ignore[misc]
    """RLlib's prioritized one (Schaul et al. 2016)."""

    def _indices_of(self, sampled: Sequence[Any]) -> Sequence[int]:  # noqa: ARG002  it notes what it sampled
        return [self._indices[self._tree_idx_to_sample_idx[node]][0] for node in self._last_sampled_indices]


class SAC(RaisesReported, _SAC):  # type: ignore[misc]
    """RLlib's SAC, whose configuration takes no other replay buffers than RLlib's own, and whose checkpoints hold none.

    ``store_buffer_in_checkpoints`` switches off that ours do.
    """

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> Any:
        asked = dict(config["replay_buffer_config"])
        prioritized = "Prioritized" in asked.pop("type")
        asked.pop("beta", None)  # the algorithm hands it over with each call
        asked["metrics_num_episodes_for_smoothing"] = config["metrics_num_episodes_for_smoothing"]
        return (VersionedPrioritizedReplayBuffer if prioritized else VersionedReplayBuffer)(**asked)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        if self.config.store_buffer_in_checkpoints:
            state[BUFFER] = self.local_replay_buffer.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if BUFFER in state:
            self.local_replay_buffer.set_state(state[BUFFER])
        else:
            _log.warning("the checkpoint holds no replay buffer: training goes on with an empty one")


class SACLearner(FiniteLearner, _SACTorchLearner):  # type: ignore[misc]
    """RLlib's."""
