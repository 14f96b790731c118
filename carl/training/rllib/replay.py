"""SAC over a replay buffer that keeps the reward version of its steps, and that checkpoints hold."""

import logging
from collections.abc import Sequence
from math import prod
from typing import Any

import gymnasium as gym
import numpy as np
from ray._private.utils import estimate_available_memory
from ray.rllib.algorithms import sac
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer

from carl.broadcast.versions import VERSION
from carl.episodes.sizes import amount
from carl.training.rllib.divergence import FiniteLearner
from carl.training.rllib.failures import RaisesReported
from carl.training.rllib.paid import PAID_BY, paid_by

_SAC: Any = sac.SAC  # RLlib leaves these untyped
_SACTorchLearner: Any = SACTorchLearner
_available_memory: Any = estimate_available_memory
_EpisodeReplayBuffer: Any = EpisodeReplayBuffer
_PrioritizedEpisodeReplayBuffer: Any = PrioritizedEpisodeReplayBuffer

BUFFER = "replay_buffer"
"""What the buffer is called in the state of the algorithm."""

MEMORY_SHARE = 0.5
"""Share of the free memory that a buffer may grow to without a warning: sampling and learning need the rest."""

_log = logging.getLogger(__name__)


def look_at_memory(capacity: int, observed: gym.spaces.Box) -> None:
    """Warn if ``capacity`` packed observations take more than MEMORY_SHARE of the memory that is free on this node."""
    size, free = capacity * prod(observed.shape) * np.dtype(observed.dtype).itemsize, _available_memory()
    if size > MEMORY_SHARE * free:
        _log.warning(
            "the replay buffer grows to %s, and so does each checkpoint, for %d observations of %s; %s of memory is "
            "free: set train.rllib={training: {replay_buffer_config: {capacity: %d}}}, or show smaller pictures",
            *(amount(size), capacity, amount(size / capacity), amount(free)),
            int(MEMORY_SHARE * free * capacity / size),
        )


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
        asked.pop("beta", None)  # an argument of each call to sample
        asked["metrics_num_episodes_for_smoothing"] = config["metrics_num_episodes_for_smoothing"]
        buffer = (VersionedPrioritizedReplayBuffer if prioritized else VersionedReplayBuffer)(**asked)
        buffer.rng = np.random.default_rng(config["seed"])  # in Ray 2.60 it has no seed
        return buffer

    def setup(self, config: Any) -> None:
        """Set RLlib's SAC up, and warn if its replay buffer will not fit into memory."""
        super().setup(config)
        look_at_memory(self.config.replay_buffer_config["capacity"], self.env_runner.module.observation_space)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state and, if the configuration stores it, the replay buffer's."""
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        if self.config.store_buffer_in_checkpoints:
            state[BUFFER] = self.local_replay_buffer.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore RLlib's state and the replay buffer; warns if the state has none."""
        super().set_state(state)
        if BUFFER in state:
            self.local_replay_buffer.set_state(state[BUFFER])
        else:
            _log.warning("the checkpoint holds no replay buffer: training goes on with an empty one")


class SACLearner(FiniteLearner, _SACTorchLearner):  # type: ignore[misc]
    """RLlib's."""
